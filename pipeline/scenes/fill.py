"""Fill that no tag declares: large connected areas of one value in all bands, outside an orbit or a mosaic's edge.

Where nothing says which value means "no observation", such areas would be learned from and mapped. True zeros of single
bands (dark water in the infrared) are no fill: all bands must have the value, over many pixels that touch. A tag may
name another value than the one that is there (-9999 where zeros are): zero and the values that writers use are looked
for beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.raster import sample_windows
from pipeline.scenes.reader import SceneReader

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.scenes.scene import Scene

# Windows looked at: so many a side, spread evenly; a scene no larger than them is looked at whole. Fewer where a tag
# names a value, which is seldom wrong: a hundred windows are most of the blocks of a scene, as long as reading it all.
WINDOWS_PER_SIDE = 10
WINDOWS_PER_SIDE_TAGGED = 5
WINDOW_PX = 64
# Connected pixels that are an area. Chance gives some neighbours one value in all bands, never eight by eight of them.
AREA_PX = 64
# Of a single band only values that writers use: any other value may cover a lake or a plain.
TYPICAL = (-9999.0, -32768.0, 65535.0, -3.4028234663852886e38, 3.4028234663852886e38)
SAID_SHARE, REFUSED_SHARE = 0.001, 0.01


@dataclass(frozen=True)
class Fill:
    """A value that all bands have over large connected areas, and the share of the pixels looked at that these take."""

    value: float
    share: float
    tagged: float | None = None  # What a tag names as no data instead

    @property
    def text(self) -> str:
        """The value and its share, to be read."""
        beside = "" if self.tagged is None else f", where the nodata of the file is {self.tagged:g}"
        return f"{self.value:g} in all bands over {self.share:.1%} of the pixels looked at{beside}"


def find_fill(scene: Scene) -> Fill | None:
    """The value that looks like fill, None where a mask, a product or the user says what is no observation.

    Raises:
        SceneError: a file cannot be read.
    """
    tagged = next((band.nodata for band in scene.bands if band.nodata is not None), None)
    product = tagged is not None and (scene.level or scene.quality)
    if product or any(band.nodata_stated or band.use_dataset_mask for band in scene.bands):
        return None
    counts: dict[float, int] = {}
    total = 0
    # The first and the last windows lie in the corners, where fill is.
    per_side = WINDOWS_PER_SIDE if tagged is None else WINDOWS_PER_SIDE_TAGGED
    windows = sample_windows(scene.grid, per_side=per_side, side_px=WINDOW_PX, corners=True)
    for values, valid in _raw(scene, windows):
        total += valid.size
        known = TYPICAL if len(values) == 1 else None if tagged is None else (0.0, *TYPICAL)
        for value, count in _areas(values, valid, known=known).items():
            counts[value] = counts.get(value, 0) + count
    if not counts:
        return None
    value = max(counts, key=counts.__getitem__)
    fill = Fill(value, counts[value] / total, tagged)
    return fill if fill.share >= SAID_SHARE else None


def has_fill(scene: Scene, fill: Fill, windows: Sequence[Window]) -> bool:
    """Whether any pixel of some windows has the value of ``fill`` in all bands."""
    return any(bool((values == np.float32(fill.value)).all(axis=0).any()) for values, _ in _raw(scene, windows))


def _raw(scene: Scene, windows: Sequence[Window]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """DN as stored, float32 [band,row,col], and which are numbers, of windows."""
    bands = tuple(replace(band, scale=1.0, offset=0.0, squared=False, scales="") for band in scene.bands)
    with SceneReader(scene.grid, bands) as reader:
        for window in windows:
            raster = reader.read(window)
            yield raster.values, raster.valid


def _areas(
    values: NDArray[np.float32], valid: NDArray[np.bool_], *, known: tuple[float, ...] | None
) -> dict[float, int]:
    """Value -> pixels of the connected areas of AREA_PX and more in which all bands have it; ``known`` alone."""
    from scipy.ndimage import label

    alike = valid & (values == values[:1]).all(axis=0)
    found: dict[float, int] = {}
    candidates, sizes = np.unique(values[0][alike], return_counts=True)
    if known is not None:
        among = np.isin(candidates, np.array(known, dtype=np.float32))
        candidates, sizes = candidates[among], sizes[among]
    for value in candidates[sizes >= AREA_PX]:
        numbered, _ = label(alike & (values[0] == value))
        areas = np.bincount(numbered.ravel())[1:]
        count = int(areas[areas >= AREA_PX].sum())
        if count:
            found[float(value)] = count
    return found
