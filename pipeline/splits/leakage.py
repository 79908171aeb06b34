"""The check that fails a run: nothing that is tested may have been seen in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from pipeline.errors import SplitError
from pipeline.splits.geometry import metres, rim_mask
from pipeline.splits.split import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.splits.split import Split

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
