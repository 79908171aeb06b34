"""RowStore: layers of uint8 (or float32) as large as a scene, kept in a plain file and read and written by window.

Uncompressed bytes in row order, layer after layer. Plain reads and writes instead of a memory map: what was written is
the kernel's to keep or drop, and never counts as memory of this process. Any number of threads may use one store.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.errors import OutputError
from pipeline.files import Closing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import Window

_FILL_CHUNK = 1 << 22
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RowStore(Closing):
    """Layers of uint8, or float32, on a grid, in one file.

    Args:
        path: The file; it must exist and have ``layers x height x width`` bytes (see :meth:`create`).
        shape: (height, width) in pixels.
        layers: Number of layers.
        dtype: Type of the values.
    """

    def __init__(self, path: Path | str, *, shape: tuple[int, int], layers: int = 1, dtype: str = "uint8") -> None:
        self.path = Path(path)
        self.layers = layers
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.height, self.width = shape
        self._lock = threading.Lock()
        try:
            self._file = self.path.open("r+b", buffering=0)
        except OSError as err:
            raise OutputError("cannot open the store of mapped rows", path=self.path, got=err.strerror) from err
        size = os.fstat(self._file.fileno()).st_size
        expected = layers * self.height * self.width * self.dtype.itemsize
        if size != expected:
            self.close()
            what = "store of mapped rows has another size than the scene"
            raise OutputError(what, path=self.path, got=f"{size} bytes", expected=expected)

    @classmethod
    def create(
        cls, path: Path | str, *, shape: tuple[int, int], layers: int = 1, fill: float = 0, dtype: str = "uint8"
    ) -> Self:
        """A new store with ``fill`` in every pixel; an existing file is replaced.

        The space is reserved at once: a disk that is too small says so before the first tile, not at the last.

        Raises:
            OutputError: the folder cannot be written or the disk is too small.
        """
        path = Path(path)
        value = np.full(1, fill, dtype=dtype).tobytes()
        size = layers * shape[0] * shape[1] * len(value)
        try:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                for start in range(0, size, _FILL_CHUNK):
                    file.write(value * (min(_FILL_CHUNK, size - start) // len(value)))
        except OSError as err:
            path.unlink(missing_ok=True)
            raise _failed(err, path, need=size) from err
        return cls(path, shape=shape, layers=layers, dtype=dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col), or (layer, row, col) where there are several layers."""
        plain = (self.height, self.width)
        return plain if self.layers == 1 else (self.layers, *plain)

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()

    def sync(self) -> None:
        """Return when everything written is on the disk.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as err:
            raise _failed(err, self.path) from err

    def write(self, window: Window, pixels: NDArray[Any], *, layer: int = 0) -> None:
        """Write pixels [row, col] of one layer, of the store's type.

        Raises:
            OutputError: the window does not fit, or the disk is full.
        """
        self._check(window)
        if pixels.shape != window.shape or pixels.dtype != self.dtype:
            got, expected = f"{pixels.dtype} {pixels.shape}", f"{self.dtype} {window.shape}"
            raise OutputError("pixels do not fit their window", path=self.path, got=got, expected=expected)
        data = np.ascontiguousarray(pixels)
        try:
            if window.width == self.width:
                self._put(data.data.cast("B"), self._offset(window.row, 0, layer))
                return
            for row in range(window.height):
                self._put(data[row].data.cast("B"), self._offset(window.row + row, window.col, layer))
        except OSError as err:
            raise _failed(err, self.path) from err

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels of a window inside the grid: [row, col], or [layer, row, col] where there are several layers."""
        self._check(window)
        out = np.empty((self.layers, *window.shape), dtype=self.dtype)
        for layer in range(self.layers):
            if window.width == self.width:
                self._get(memoryview(out[layer]).cast("B"), self._offset(window.row, 0, layer))
                continue
            for row in range(window.height):
                self._get(memoryview(out[layer, row]).cast("B"), self._offset(window.row + row, window.col, layer))
        return out[0] if self.layers == 1 else out

    def _check(self, window: Window) -> None:
        if window.row < 0 or window.col < 0 or window.row_stop > self.height or window.col_stop > self.width:
            what = f"window {window} reaches beyond the map"
            raise OutputError(what, path=self.path, expected=f"within {self.height} x {self.width} pixels")

    def _offset(self, row: int, col: int, layer: int) -> int:
        return ((layer * self.height + row) * self.width + col) * self.dtype.itemsize

    def _put(self, data: memoryview, offset: int) -> None:
        with self._lock:
            self._file.seek(offset)
            while data:
                data = data[self._file.write(data) :]

    def _get(self, data: memoryview, offset: int) -> None:
        with self._lock:
            self._file.seek(offset)
            while data:
                done = self._file.readinto(data)
                if not done:
                    raise OutputError("store of mapped rows is cut off", path=self.path, got=f"no byte at {offset}")
                data = data[done:]


def _failed(err: OSError, path: Path, *, need: int | None = None) -> OutputError:
    if err.errno in _NO_SPACE:
        room = f"{need / 1e6:.0f} MB for the map" if need else "room for the map"
        fix = "free some space and run the same command again"
        return OutputError("disk is full", path=path.parent, expected=room, fix=fix)
    return OutputError("cannot write mapped rows", path=path, got=err.strerror)
