"""Chips that others cut: a raster file each, in a folder per class (EuroSAT and its like) or in any folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pyproj import Transformer

from pipeline.errors import LabelError
from pipeline.legend import IGNORE_INDEX, ClassScheme, scheme_for
from pipeline.scenes.opening import open_scene
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import AS_FOUND, SceneOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.model.preprocess import Preprocess
    from pipeline.scenes.scene import Scene

SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".img"}
# Equal-area metres over the globe: blocks of chips of several UTM zones.
_PLANE = "EPSG:6933"


@dataclass(frozen=True, eq=False)
class FolderChips:
    """Chips of one size and with the same bands."""

    values: NDArray[np.float32]  # [chip, band, row, col] physical values; 0 where not valid
    valid: NDArray[np.bool_]  # [chip, row, col]
    index: NDArray[np.uint8]  # Network index of the class, uint8 [chip]; IGNORE_INDEX where it is not known
    scheme: ClassScheme  # The classes, called after their folders; without them one class of no meaning
    bands: tuple[str, ...]  # Names
    units: tuple[str, ...]  # One per band
    gsd_m: float  # Pixel size in metres; the median over chips
    source: Path  # The folder
    sensor: str = ""  # As the chips say, or ""
    level: str = ""  # Of the product, as the chips say, or ""
    files: tuple[Path, ...] = ()  # A file per chip
    # (x, y) of the middle of each chip in equal-area metres, float64 [chip, 2]; empty where unknown
    position_m: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.values)

    @property
    def chip_px(self) -> int:
        """Side in pixels."""
        return int(self.values.shape[-1])

    def standardised(self, preprocess: Preprocess) -> torch.Tensor:
        """The network's input, float32 [chip, channel, row, col]."""
        return preprocess.apply(torch.from_numpy(self.values), torch.from_numpy(self.valid))

    def only(self, which: NDArray[np.bool_]) -> FolderChips:
        """Some of the chips."""
        at = np.flatnonzero(which)
        files = tuple(self.files[i] for i in at) if self.files else ()
        position = None if self.position_m is None else self.position_m[at]
        return replace(
            self, values=self.values[at], valid=self.valid[at], index=self.index[at], files=files, position_m=position
        )


def class_folders(path: Path) -> dict[str, list[Path]]:
    """Class -> raster files of its folder below ``path``; folders without a raster are none.

    Raises:
        LabelError: fewer than two classes.
    """
    found = {
        folder.name: raster_files(folder)
        for folder in (sorted(path.iterdir()) if path.is_dir() else ())
        if folder.is_dir()
    }
    found = {name: files for name, files in found.items() if files}
    if len(found) < 2:  # noqa: PLR2004 - one class needs no classifier
        raise LabelError(
            "no folders of chips", path=path, got=f"{len(found)} folders with raster files",
            expected="one per class, two or more",
        )  # fmt: skip
    return found


def raster_files(folder: Path) -> list[Path]:
    """The raster files of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES) if folder.is_dir() else []


def chips_from_folders(path: Path | str, *, options: SceneOptions = AS_FOUND, level: str = "") -> FolderChips:
    """All chips below ``path``, whose subfolders are the classes.

    Args:
        path: The folder.
        options: Band names, scaling, nodata where the files do not say; for all chips alike.
        level: Of the product where the files do not say: L1C, L2A, L2SP.

    Raises:
        LabelError: fewer than two classes, or chips that differ in size or bands.
        SceneError: a file that is no georeferenced raster.
    """
    found = class_folders(Path(path))
    scheme, _ = scheme_for(list(found))
    files = [file for name in scheme.names for file in found[name]]
    chips = chips_from_files(files, source=Path(path), options=options, level=level)
    index = np.repeat(np.arange(len(scheme)), [len(found[name]) for name in scheme.names]).astype(np.uint8)
    return replace(chips, index=index, scheme=scheme)


def chips_from_files(
    files: Sequence[Path], *, source: Path, options: SceneOptions = AS_FOUND, level: str = ""
) -> FolderChips:
    """Chips of files, without classes; see :func:`chips_from_folders`.

    Raises:
        LabelError: no file, or chips that differ in size or bands.
        SceneError: a file that is no georeferenced raster.
    """
    if not files:
        raise LabelError("no raster file of a chip", path=source, expected="files with " + ", ".join(sorted(SUFFIXES)))
    scenes = open_chips(files, options=options)
    first, rasters = scenes[0], []
    for scene in scenes:
        with open_reader(scene) as reader:
            rasters.append(reader.read(scene.grid.window))
    scheme, _ = scheme_for(["unknown"])
    return FolderChips(
        np.stack([raster.values for raster in rasters]),
        np.stack([raster.valid for raster in rasters]),
        np.full(len(files), IGNORE_INDEX, dtype=np.uint8),
        scheme,
        first.band_names,
        first.units,
        float(np.median([np.sqrt(np.prod(scene.grid.pixel_size_m)) for scene in scenes])),
        source,
        first.sensor,
        first.level or level,
        tuple(files),
        np.array([_middle(scene) for scene in scenes]),
    )


def open_chips(files: Sequence[Path], *, options: SceneOptions = AS_FOUND) -> list[Scene]:
    """The chips of files, metadata only.

    Raises:
        LabelError: chips that differ in size or bands.
        SceneError: a file that is no georeferenced raster.
    """
    scenes = [open_scene(file, options=options) for file in files]
    first = scenes[0]
    for file, scene in zip(files, scenes, strict=True):
        if _kind(scene) != _kind(first) or scene.grid.height != scene.grid.width:
            raise LabelError(
                "chip of another size or with other bands", path=file, got=_named(scene), expected=_named(first)
            )
    return scenes


def _kind(scene: Scene) -> tuple[object, ...]:
    return scene.band_names, scene.grid.shape


def _named(scene: Scene) -> str:
    return f"{scene.grid.height} x {scene.grid.width} pixels, {', '.join(scene.band_names)}"


def _middle(scene: Scene) -> tuple[float, float]:
    left, bottom, right, top = scene.grid.bounds
    to_plane = Transformer.from_crs(scene.grid.crs.to_wkt(), _PLANE, always_xy=True)
    x, y = to_plane.transform((left + right) / 2, (bottom + top) / 2)
    return float(x), float(y)
