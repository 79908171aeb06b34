"""What a user points at -> Scene: the one door for files, folders, products and STAC items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.scenes.geotiff import Interpretation, open_geotiff

if TYPE_CHECKING:
    from pipeline.scenes.scene import Scene


def open_scene(path: Path | str, *, told: Interpretation | None = None) -> Scene:
    """The scene that a path stands for.

    Raises:
        SceneError: nothing there, or nothing that can be read as a scene.
    """
    return open_geotiff(Path(path), told=told)
