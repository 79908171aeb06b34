"""Files whose pixels are whole multiples or fractions of the grid's, without a warper, which costs several times more.

Larger pixels (20 and 60 m bands on a 10 m grid) are interpolated here, bilinear between pixel centres in float32, with
two rules: what is no observation takes no part, and a pixel is valid where the coarse pixel around it is, so nothing
grows beyond an orbit.

Smaller pixels are for a picture of the scene: single ones, as GDAL decimates. A file with overviews (a COG, JPEG 2000)
gives those and is hardly read. One without is decoded whole, but each of its blocks once: a warper, or a plain read of
some bands of a file that keeps all bands in one block, decodes it again for every band (measured: 10980 x 10980 pixels
of ten bands, three of them wanted, 19 s and 18 s instead of 6 s).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from pipeline.grid import Grid, Window
from pipeline.raster import read_bands

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.io import DatasetReader


TOLERANCE_PX = 1e-3
# Blocks side by side that are read at once: with all their bands they stay in GDAL's cache until each has had them.
_BLOCKS_WIDE = 4


@dataclass(frozen=True, eq=False)
class CoarseFile:
    """An open file whose pixels are ``factor`` x ``factor`` pixels of a grid that it covers wholly."""

    dataset: DatasetReader  # The file
    factor: int  # Pixels of the grid along the side of one of the file's
    row: int  # Row of the file's upper edge on the grid, not positive
    col: int  # Column of its left edge

    def read(self, numbers: list[int], window: Window) -> NDArray[Any]:
        """Native pixels [band, row, col] under ``window`` and one more on each side, the file's rim repeated."""
        top, bottom = self._span(window.row - self.row, window.height)
        left, right = self._span(window.col - self.col, window.width)
        height, width = self.dataset.height, self.dataset.width
        inner = RasterioWindow.from_slices(
            (max(top - 1, 0), min(bottom + 1, height)), (max(left - 1, 0), min(right + 1, width))
        )
        array = read_bands(self.dataset, numbers, window=inner)
        beyond = ((0, 0), (int(top == 0), int(bottom == height)), (int(left == 0), int(right == width)))
        return np.pad(array, beyond, mode="edge") if any(sum(pair) for pair in beyond) else array

    def _span(self, start: int, length: int) -> tuple[int, int]:
        return start // self.factor, -(-(start + length) // self.factor)

    def _cut(self, fine: NDArray[Any], window: Window) -> NDArray[Any]:
        row, col = (window.row - self.row) % self.factor, (window.col - self.col) % self.factor
        return fine[row : row + window.height, col : col + window.width]

    def nearest(self, padded: NDArray[Any], window: Window) -> NDArray[Any]:
        """The pixels of ``window`` from one layer that :meth:`read` gave, each that of the coarse pixel around it."""
        inner = padded[1:-1, 1:-1]
        return self._cut(inner.repeat(self.factor, axis=0).repeat(self.factor, axis=1), window)

    def bilinear(self, padded: NDArray[Any], usable: NDArray[np.bool_], window: Window) -> NDArray[np.float32]:
        """The pixels of ``window`` from one layer that :meth:`read` gave; ``usable`` is bool of the layer's shape."""
        if usable.all():
            return self._cut(_interpolate(padded.astype(np.float32), self.factor), window)
        weight = usable.astype(np.float32)
        values = np.where(usable, padded, 0).astype(np.float32)
        total, share = _interpolate(values, self.factor), _interpolate(weight, self.factor)
        return self._cut(np.divide(total, share, out=np.zeros_like(total), where=share > 0), window)


def coarse_file(dataset: DatasetReader, grid: Grid) -> CoarseFile | None:
    """``dataset`` as a CoarseFile of ``grid``; None where its pixels are no whole multiples or it has a mask."""
    found = whole_multiple(grid.transform, dataset.transform, length=max(dataset.shape))
    if dataset.crs != grid.crs or found is None or has_mask(dataset):
        return None
    file = CoarseFile(dataset, *found)
    bottom, right = file.row + dataset.height * file.factor, file.col + dataset.width * file.factor
    covers = file.row <= 0 and file.col <= 0 and bottom >= grid.height and right >= grid.width
    return file if covers else None


def whole_multiple(fine: Affine, coarse: Affine, *, length: int) -> tuple[int, int, int] | None:
    """How pixels of one raster are made up of another's: (factor, row, col), or None where they are not.

    ``length`` is the longer side of the coarse raster in pixels, over which a difference adds up.

    Returns:
        Small pixels along the side of a large one, two at least; and the small pixel at the upper left corner of the
        large ones.

    >>> from affine import Affine
    >>> whole_multiple(Affine(10, 0, 500, 0, -10, 900), Affine(20, 0, 520, 0, -20, 900), length=100)
    (2, 0, 2)
    """
    if fine.b or fine.d or coarse.b or coarse.d:
        return None
    factor, other = coarse.a / fine.a, coarse.e / fine.e
    row, col = (coarse.f - fine.f) / fine.e, (coarse.c - fine.c) / fine.a
    whole = round(factor)
    off = [(factor - whole) * length, (other - whole) * length, row - round(row), col - round(col)]
    if whole < 2 or max(map(abs, off)) > TOLERANCE_PX:  # noqa: PLR2004 - one is the grid itself
        return None
    return whole, round(row), round(col)


def has_mask(dataset: DatasetReader) -> bool:
    """Whether a file says which pixels it has by a mask or an alpha band, other than by a value."""
    masked = any(MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags for flags in dataset.mask_flag_enums)
    return masked or ColorInterp.alpha in dataset.colorinterp


def _interpolate(padded: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Bilinear between pixel centres: [row + 2, col + 2] -> [row x factor, col x factor]."""
    rows = np.empty(((padded.shape[0] - 2) * factor, padded.shape[1]), dtype=np.float32)
    for step, (shift, weight) in enumerate(_weights(factor)):
        _blend(padded[1:-1], padded[1 + shift : padded.shape[0] - 1 + shift], weight, out=rows[step::factor])
    fine = np.empty((rows.shape[0], (padded.shape[1] - 2) * factor), dtype=np.float32)
    for step, (shift, weight) in enumerate(_weights(factor)):
        _blend(rows[:, 1:-1], rows[:, 1 + shift : rows.shape[1] - 1 + shift], weight, out=fine[:, step::factor])
    return fine


def _weights(factor: int) -> list[tuple[int, np.float32]]:
    """For every fine pixel in a coarse one: which neighbour (-1 or 1) takes part, and how much."""
    distances = [(step + 0.5) / factor - 0.5 for step in range(factor)]
    return [(-1 if distance < 0 else 1, np.float32(abs(distance))) for distance in distances]


def _blend(
    centre: NDArray[np.float32], neighbour: NDArray[np.float32], weight: np.float32, *, out: NDArray[np.float32]
) -> None:
    np.subtract(neighbour, centre, out=out)
    out *= weight
    out += centre


@dataclass(frozen=True, eq=False)
class FineFile:
    """An open file of which ``factor`` x ``factor`` pixels make one of a grid that lies inside it."""

    dataset: DatasetReader  # The file
    factor: int  # The file's pixels along the side of one of the grid's
    row: int  # Row of the grid's upper edge in the file
    col: int  # Column of its left edge

    def read(self, numbers: list[int], window: Window) -> NDArray[Any]:
        """One pixel from the middle of each of ``window``'s, [band, row, col]."""
        factor, out = self.factor, np.empty((len(numbers), *window.shape), dtype=self.dataset.dtypes[numbers[0] - 1])
        for part in self._parts(window):
            corner = self.col + part.col * factor, self.row + part.row * factor
            source = RasterioWindow(*corner, part.width * factor, part.height * factor)
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
