"""The account of what was read: per scene and band what was decided, where it was read, and how much is masked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.scenes.derived import plain_scenes
from pipeline.scenes.ledger import measure_layers, scene_ledger

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Source

LEDGER_FILE = "ledger.json"
MEASURED = (
    "pixels_sampled",
    "invalid_share",
    "masked_share",
    "no_data_share",
    "darkest_reflectance",
    "offset_check",
)


def source_ledger(source: Source) -> dict[str, object]:
    """The ledger of a source with what samples of its pixels say, JSON-ready; warns where an offset looks wrong.

    For a scene, or one with indices or layers, the figures are its own; for stacks and composites they are those of
    every date, by its id, under ``dates_measured``. Where layers are joined, ``layers_without_data`` has the share of
    the scene's usable pixels that each of them takes out, by its name.

    Raises:
        SceneError: a file cannot be read, or a layer has no value on the scene.
    """
    found = {scene.id: scene_ledger(scene) for scene in plain_scenes(source)}
    measured = {name: {key: ledger[key] for key in MEASURED} for name, ledger in found.items()}
    lost = measure_layers(source)
    layers: dict[str, object] = {"layers_without_data": lost} if lost else {}
    if len(measured) == 1:
        return source.ledger() | next(iter(measured.values())) | layers
    return source.ledger() | {"dates_measured": measured} | layers


def kept_ledger(source: Source, *, folder: Path) -> dict[str, object]:
    """What ``ledger.json`` of a run folder says about a source, or a ledger measured now where it says nothing.

    Raises:
        SceneError: a file cannot be read.
    """
    try:
        scenes = json.loads((folder / LEDGER_FILE).read_text(encoding="utf-8"))["scenes"]
        kept: dict[str, object] = next(item for item in scenes if item["scene"] == source.id)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return source_ledger(source)
    return kept
