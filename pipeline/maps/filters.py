"""Class rasters cleaned: a majority filter, and patches below a minimum size given to what lies around them.

Both are read window by window, with the surroundings that decide; nothing of the map's size is in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pipeline.grid import Grid, Window
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.maps.pixels import PixelRows

# Columns that are sieved together.
_COLUMNS = 2048


@dataclass(frozen=True, eq=False)
class MajorityPixels:
    """Codes whose pixels take the class that most pixels of the window around them have; PixelRows.

    A pixel keeps its class where no other has more pixels. Nodata stays nodata and has no vote.

    Attributes:
        pixels: Codes uint8 [row, col].
        grid: Where they lie.
        side_px: Side of the window, odd.
    """

    pixels: PixelRows
    grid: Grid
    side_px: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col)."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.pixels.dtype

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The filtered pixels of ``window``, uint8 [row, col]."""
        reach = self.side_px // 2
        seen = window.expand(reach)
        inside = seen.intersect(self.grid.window)
        codes = np.full(seen.shape, NODATA, dtype=np.uint8)
        if inside is not None:
            codes[inside.relative_to(seen).slices] = self.pixels.read(inside)
        inner = window.relative_to(seen).slices
        own = codes[inner]
        best, most = own.copy(), np.zeros(own.shape, dtype=np.int32)
        for code in np.unique(own[own != NODATA]):
            most = np.where(own == code, _votes(codes == code, self.side_px), most)
        for code in np.unique(codes[codes != NODATA]):
            votes = _votes(codes == code, self.side_px)
            better = (votes > most) & (own != NODATA)
            best[better], most[better] = code, votes[better]
        return best


def _votes(is_code: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """Number of True pixels in the window around each inner pixel, int32 [row, col], from running sums."""
    total = np.zeros((is_code.shape[0] + 1, is_code.shape[1] + 1), dtype=np.int32)
    np.cumsum(np.cumsum(is_code, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


@dataclass(frozen=True, eq=False)
class SievedPixels:
    """Codes without patches of fewer than ``least_px`` pixels; PixelRows.

    Pixels of one class that touch along a side belong together. The pixels of a patch that is too small take the class
    of the nearest pixel of one that is not, at most ``least_px`` pixels away; where there is none they stay. Nodata
    stays nodata. Whatever is read, a window with twice that distance around it decides: the map does not depend on the
    bands it is read in, but for pixels with two equally near ones.

    Attributes:
        pixels: Codes uint8 [row, col].
        grid: Where they lie.
        least_px: Fewest pixels of a patch that stays.
    """

    pixels: PixelRows
    grid: Grid
    least_px: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col)."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.pixels.dtype

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The filtered pixels of ``window``, uint8 [row, col]."""
        out = np.empty(window.shape, dtype=np.uint8)
        for col in range(0, window.width, _COLUMNS):
            part = Window(window.row, window.col + col, window.height, min(_COLUMNS, window.width - col))
            out[:, col : col + part.width] = self._part(part)
        return out

    def _part(self, window: Window) -> NDArray[np.uint8]:
        seen = window.expand(2 * self.least_px).intersect(self.grid.window)
        assert seen is not None  # noqa: S101 - a window of the grid
        codes: NDArray[np.uint8] = self.pixels.read(seen)
        small = _small_patches(codes, self.least_px)
        inner = window.relative_to(seen).slices
        if not small[inner].any() or (large := ~small & (codes != NODATA)).sum() == 0:
            return codes[inner]
        distance, (rows, cols) = ndimage.distance_transform_edt(~large, return_indices=True)
        fill = small & (distance <= self.least_px)
        return np.where(fill, codes[rows, cols], codes)[inner]


def _small_patches(codes: NDArray[np.uint8], least_px: int) -> NDArray[np.bool_]:
    """True for pixels of patches of fewer pixels, bool [row, col]; those at the rim may go on beyond it."""
    small = np.zeros(codes.shape, dtype=np.bool_)
    for code in np.unique(codes[codes != NODATA]):
        labels, _ = ndimage.label(codes == code)
        few = np.bincount(labels.ravel()) < least_px
        few[0] = False
        small |= few[labels]
    return small


def patch_px(size_ha: float, grid: Grid) -> int:
    """Fewest pixels of a patch of so many hectares, by the area on the ground of the pixel in the grid's middle."""
    middle = Window(grid.height // 2, grid.width // 2, 1, 1)
    return max(math.ceil(size_ha / float(grid.pixel_areas_ha(middle).max()) - 1e-9), 1)
