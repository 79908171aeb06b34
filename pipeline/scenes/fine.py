"""Files whose pixels are a fraction of the grid's, for a picture of the scene: single pixels, as GDAL decimates.

A file with overviews (a COG, JPEG 2000) gives those and is hardly read. One without is decoded whole, but each of its
blocks once: a warper, or a plain read of some bands of a file that keeps all bands in one block, decodes it again for
every band (measured: 10980 x 10980 pixels of ten bands, three of them wanted, 19 s and 18 s instead of 6 s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window as RasterioWindow

from pipeline.grid import Window
from pipeline.scenes.coarse import has_mask, whole_multiple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.grid import Grid

# Blocks side by side that are read at once: with all their bands they stay in GDAL's cache until each has had them.
_BLOCKS_WIDE = 4


@dataclass(frozen=True, eq=False)
class FineFile:
    """An open file of which ``factor`` x ``factor`` pixels make one of a grid that lies inside it.

    Attributes:
        dataset: The file.
        factor: The file's pixels along the side of one of the grid's.
        row: Row of the grid's upper edge in the file.
        col: Column of its left edge.
    """

    dataset: DatasetReader
    factor: int
    row: int
    col: int

    def read(self, numbers: list[int], window: Window) -> NDArray[Any]:
        """One pixel from the middle of each of ``window``'s, [band, row, col]."""
        out = np.empty((len(numbers), *window.shape), dtype=self.dataset.dtypes[numbers[0] - 1])
        for part in self._parts(window):
            source = RasterioWindow(
                self.col + part.col * self.factor,
                self.row + part.row * self.factor,
                part.width * self.factor,
                part.height * self.factor,
            )
            rows, cols = part.relative_to(window).slices
            out[:, rows, cols] = self.dataset.read(numbers, window=source, out_shape=(len(numbers), *part.shape))
        return out

    def _parts(self, window: Window) -> Iterator[Window]:
        """Pieces of a window whose middles lie in one row of blocks."""
        high, wide = self.dataset.block_shapes[0]
        middles = self.row + (np.arange(window.row, window.row_stop) + 0.5) * self.factor
        _, starts = np.unique(middles // high, return_index=True)
        step = max(wide * _BLOCKS_WIDE // self.factor, 1)
        for start, stop in zip(starts, [*starts[1:], window.height], strict=True):
            for col in range(window.col, window.col_stop, step):
                yield Window(window.row + int(start), col, int(stop - start), min(step, window.col_stop - col))


def fine_file(dataset: DatasetReader, grid: Grid) -> FineFile | None:
    """``dataset`` as a FineFile of ``grid``; None where the grid's pixels are no whole multiples or it has a mask."""
    found = whole_multiple(dataset.transform, grid.transform, length=max(grid.shape))
    if dataset.crs != grid.crs or found is None or has_mask(dataset):
        return None
    file = FineFile(dataset, *found)
    bottom, right = file.row + grid.height * file.factor, file.col + grid.width * file.factor
    inside = file.row >= 0 and file.col >= 0 and bottom <= dataset.height and right <= dataset.width
    return file if inside else None
