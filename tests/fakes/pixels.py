"""Pixels in memory for writers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.grid import Window


class ArrayPixels:
    """An array (or memory-mapped file) of [row, col] or [band, row, col] as PixelRows."""

    def __init__(self, array: NDArray[Any]) -> None:
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
