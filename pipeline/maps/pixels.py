"""What a writer needs of the pixels it writes: a shape, a type, and windows on demand.

Whoever predicts keeps codes and confidence as rows on disk; writers take them through this seam in bands of rows, so a
map of any size is written in bounded memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import GridError, InputError
from pipeline.grid import Grid, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

# One row of 512-pixel blocks: a band of rows fills whole blocks of the file, so that each is compressed once.
BAND_ROWS = 512


class PixelRows(Protocol):
    """Pixels that can be read by windows: [row, col], or [band, row, col] where there are several bands."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col) or (band, row, col)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def read(self, window: Window) -> NDArray[Any]:
        """The pixels of a window inside the grid: [row, col] or [band, row, col]."""


class ArrayPixels:
    """An array (or memory-mapped file) of [row, col] or [band, row, col] as PixelRows."""

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim not in {2, 3}:
            raise GridError("array of pixels", got=f"shape {array.shape}", expected="[row, col] or [band, row, col]")
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col) or (band, row, col)."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    def read(self, window: Window) -> NDArray[Any]:
        """A view of the pixels of ``window``."""
        return self._array[(..., *window.slices)]


class FilePixels:
    """One band of a raster file as PixelRows; a context manager that keeps the file open meanwhile."""

    def __init__(self, path: Path | str, *, band: int = 1) -> None:
        try:
            self._dataset = rasterio.open(path)
        except (RasterioError, OSError) as err:
            raise InputError("cannot open the raster", path=path, got=err) from err
        self._band = band
        self.path = Path(path)
        self.grid = Grid(self._dataset.crs, self._dataset.transform, self._dataset.height, self._dataset.width)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._dataset.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col)."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        dtype: np.dtype[Any] = np.dtype(self._dataset.dtypes[self._band - 1])
        return dtype

    def read(self, window: Window) -> NDArray[Any]:
        """The pixels of ``window``, [row, col]."""
        pixels: NDArray[Any] = self._dataset.read(self._band, window=window.to_rasterio())
        return pixels


def row_bands(grid: Grid, rows: int = BAND_ROWS) -> Iterator[Window]:
    """Windows of full width and at most ``rows`` rows, from the top, that partition the grid."""
    for row in range(0, grid.height, rows):
        yield Window(row, 0, min(rows, grid.height - row), grid.width)


def check_shape(pixels: PixelRows, grid: Grid) -> None:
    """GridError where the pixels do not fill the grid."""
    if tuple(pixels.shape[-2:]) != grid.shape:
        raise GridError("pixels do not fill the grid", got=f"{pixels.shape} pixels", expected=f"{grid.shape} pixels")
