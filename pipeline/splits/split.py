"""Who may learn from which polygon, and the check that fails a run where what is tested was seen in training.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929 (blocks); Kattenborn et al. (2022), Spatially autocorrelated training and
validation samples inflate performance assessment of convolutional neural networks, ISPRS Open J. 5, 100018 (why).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from pipeline.errors import LabelError, SplitError
from pipeline.splits.geometry import Layout, metres, rim_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """A scene to learn from and its labelled pixels, on the scene's own grid."""

    source: Source
    pixels: LabelledPixels

    def __post_init__(self) -> None:
        """Refuse labels of another grid."""
        if not self.source.grid.same_pixels_as(self.pixels.grid):
            raise LabelError("labels were burned on another grid than the scene's", path=self.source.path)


class Part(IntEnum):
    """What a polygon is for."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    BUFFER = 3


ABSENT = -1


@dataclass(frozen=True, eq=False)
class Split:
    """Which polygon is for what."""

    part: NDArray[np.int8]  # [poly_id] a Part, or ABSENT (-1) for ids without pixels; index 0 is unused
    block_of: NDArray[np.int32]  # [poly_id] number of the polygon's block, -1 where there is none
    block_m: float  # Side of a block in metres, 0 where the split is not spatial
    buffer_m: float  # Least distance in metres between pixels of two parts
    # Number of the only scene whose pixels are tested, the one that is left out; None: all are
    tested_scene: int | None = None

    def polygons(self, part: Part) -> NDArray[np.int32]:
        """Ids of the polygons of ``part``, ascending."""
        return np.flatnonzero(self.part == part).astype(np.int32)

    def pixels(self, pixels: LabelledPixels, part: Part) -> LabelledPixels:
        """The labelled pixels of one scene that belong to ``part``."""
        return pixels.select(self.part[pixels.polygon] == part)

    def tested(self, pixels: Sequence[LabelledPixels]) -> list[LabelledPixels]:
        """The pixels of each scene that are tested: those of TEST, where one scene is left out of that one alone."""
        return [
            self.pixels(scene, Part.TEST) if self.tested_scene in {None, number} else scene.select(())
            for number, scene in enumerate(pixels)
        ]

    def counts(self, pixels: Sequence[LabelledPixels], scheme: ClassScheme) -> dict[str, dict[str, dict[str, int]]]:
        """``{class: {part: {"polygons": n, "pixels": n}}}`` for every class of the scheme and every part."""
        layout = Layout.of(pixels)
        part = self.part[layout.ids]
        return {
            item.name: {
                p.name.lower(): {
                    "polygons": int(((part == p) & (layout.code == item.code)).sum()),
                    "pixels": int(layout.size_px[(part == p) & (layout.code == item.code)].sum()),
                }
                for p in Part
            }
            for item in scheme.classes
        }


_PARTS = ((Part.TRAIN, Part.TEST), (Part.VALIDATION, Part.TEST), (Part.TRAIN, Part.VALIDATION))


def check_leakage(
    pixels: Sequence[LabelledPixels], split: Split, *, reach_px: int = 0, buffer_m: float | None = None,
    shared: bool = False,
) -> None:  # fmt: skip
    """Prove that no pixel and no polygon is shared, and that no chip of one part reaches a labelled pixel of another.

    Every labelled pixel of train, validation and test must be further than ``buffer_m`` (default: the split's) and
    than ``reach_px`` pixels, in chessboard distance, from every labelled pixel of the other two.

    Args:
        pixels: Labelled pixels, one per scene.
        split: What to check.
        reach_px: Half a chip: how far a window centred on a labelled pixel reaches.
        buffer_m: Distance to keep, in metres.
        shared: Samples of one part may share a pixel, as stations in a cell of a coarse raster do.

    Raises:
        SplitError: names the two polygons that are too near, and how near.
    """
    keep_m = split.buffer_m if buffer_m is None else buffer_m
    for number, scene in enumerate(pixels):
        if not shared:
            _check_pixels_once(scene, number)
        within_m = max(keep_m, reach_px * max(scene.grid.pixel_size_m) if reach_px else 0.0)
        rims = {part: (own := split.pixels(scene, part)).select(rim_mask(own)) for part in Part}
        for one, other in _PARTS:
            _check_distance(rims[one], rims[other], (one, other), within_m=within_m)


def _check_pixels_once(scene: LabelledPixels, number: int) -> None:
    key = scene.row.astype(np.int64) * scene.grid.width + scene.col
    if len(key) > 1 and (np.diff(key) <= 0).any():
        at = int(np.flatnonzero(np.diff(key) <= 0)[0])
        raise SplitError(
            f"pixel (row {scene.row[at]}, column {scene.col[at]}) of scene {number + 1} belongs to two polygons",
            got=f"polygons {scene.polygon[at]} and {scene.polygon[at + 1]}",
            expected="every pixel once, sorted",
        )


def _check_distance(one: LabelledPixels, other: LabelledPixels, parts: tuple[Part, Part], *, within_m: float) -> None:
    if not len(one) or not len(other) or within_m <= 0:
        return
    tree = cKDTree(metres(other))
    limit = within_m * (1 + 1e-9)
    distance, nearest = tree.query(metres(one), p=np.inf, distance_upper_bound=limit)
    at = int(np.argmin(distance))
    if np.isfinite(distance[at]):
        names = " and ".join(part.name.lower() for part in parts)
        raise SplitError(
            f"{names} leak: polygons {one.polygon[at]} and {other.polygon[nearest[at]]} are too near",
            got=f"{distance[at]:.0f} m",
            expected=f"more than {within_m:.0f} m",
            fix="use a wider buffer, at least half a chip",
        )
