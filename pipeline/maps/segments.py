"""Majority within segments of the scene: groups of pixels alike in all bands, some tens of pixels each, get one class.

Segments are those of SLIC on bands stretched between their 2nd and 98th percentile of the whole scene. Tiles of a fixed
lattice are segmented with a margin that holds every segment of the tile whole, so memory is that of a tile, and what is
on one side of a border has been segmented together with what is on the other.

Source: Achanta et al. (2012), SLIC superpixels compared to state-of-the-art superpixel methods, IEEE Trans. Pattern
Anal. Mach. Intell. 34, 2274-2282; its implementation is scikit-image's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.maps.look import look_at, stretch_limits
from pipeline.maps.pixels import BAND_ROWS, FilteredPixels
from pipeline.process import need_package

if TYPE_CHECKING:
    from pipeline.scenes.scene import Source

_LOOK_PX = 600
# Distances in a band, 0..1, that count as much as the side of a segment; of 0.02 to 1.2 the best on three small sets.
_COMPACTNESS = 0.3
_CODES = 256


def need_segments() -> None:
    """Refuse to begin without scikit-image."""
    need_package("skimage", what="map.segments_px needs the package scikit-image", extra="segments")


@dataclass(frozen=True, eq=False)
class SegmentPixels(FilteredPixels):
    """Codes whose pixels take the class that most pixels of their segment have; PixelRows."""

    source: Source
    segment_px: int  # pixels of a segment, about
    limits: tuple[tuple[float, float], ...]  # (low, high) of each band

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The filtered pixels of ``window``, uint8 [row, col]."""
        out = np.empty(window.shape, dtype=np.uint8)
        for row in range(window.row // BAND_ROWS * BAND_ROWS, window.row_stop, BAND_ROWS):
            for col in range(window.col // BAND_ROWS * BAND_ROWS, window.col_stop, BAND_ROWS):
                tile = Window(row, col, BAND_ROWS, BAND_ROWS).intersect(self.grid.window)
                part = None if tile is None else tile.intersect(window)
                if tile is not None and part is not None:
                    out[part.relative_to(window).slices] = self._tile(tile)[part.relative_to(tile).slices]
        return out

    def _tile(self, tile: Window) -> NDArray[np.uint8]:
        # SLIC looks for a segment's pixels within two of its sides.
        seen = tile.expand(4 * round(self.segment_px**0.5)).intersect(self.grid.window)
        assert seen is not None  # noqa: S101 - a tile of the grid
        with self.source.open() as reader:
            raster = reader.read(seen)
        codes = self.pixels.read(seen)
        labels = segment(raster.values, raster.valid, limits=self.limits, segment_px=self.segment_px)
        return majority_within(codes, labels)[tile.relative_to(seen).slices]


def scene_limits(source: Source) -> tuple[tuple[float, float], ...]:
    """(low, high) of each band between which it is stretched, from a coarse look at the whole scene."""
    return stretch_limits(look_at(source, source.band_names, max_px=_LOOK_PX))


def segment(
    values: NDArray[np.floating], valid: NDArray[np.bool_], *, limits: Sequence[tuple[float, float]], segment_px: int
) -> NDArray[np.int32]:
    """Numbers of segments int32 [row, col], 0 where not valid, of bands float [band, row, col]."""
    from skimage.segmentation import slic

    low, high = (np.array(ends, dtype=np.float32)[:, None, None] for ends in zip(*limits, strict=True))
    image = np.moveaxis(np.clip((values - low) / (high - low), 0, 1), 0, -1).astype(np.float32)
    image[~valid] = 0
    # With a mask scikit-image holds the distances between all pairs of segments: gigabytes for a tile.
    count = max(round(valid.size / segment_px), 1)
    labels = slic(
        image, n_segments=count, compactness=_COMPACTNESS, channel_axis=-1, start_label=1, convert2lab=False
    )  # fmt: skip
    return np.where(valid, labels, 0).astype(np.int32)


def majority_within(codes: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Codes uint8 [row, col] with the most frequent one of each segment; a pixel keeps one that is as frequent.

    Nodata stays nodata and has no vote, and pixels without a segment (0) stay as they are.
    """
    present = np.unique(codes[codes != NODATA])
    counts = np.zeros((int(labels.max()) + 1, _CODES), dtype=np.int32)
    for code in present:
        counts[:, code] = np.bincount(labels[codes == code], minlength=len(counts))
    best = counts.argmax(axis=1).astype(np.uint8)
    keep = (codes == NODATA) | (labels == 0) | (counts[labels, codes] == counts.max(axis=1)[labels])
    return np.where(keep, codes, best[labels])
