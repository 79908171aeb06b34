"""What of a scene has been mapped: layers as large as it in plain files, and the journal of steps that lie in them.

A RowStore holds uncompressed uint8 (or float32) in row order, layer after layer. Plain reads and writes instead of a
memory map: what was written is the kernel's to keep or drop, and never counts as memory of this process.

The journal is a text file of JSON lines beside the stores, so that the same command continues after any kind of end.
The first line says of which model, input and settings the rows are; each further line names steps whose pixels are on
the disk: the stores are synced first, the line is synced after. A line that was cut off by a crash is ignored, its
steps are done again, and as every step is deterministic the bytes come out the same.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.files import Closing, hash_of, write_text

if TYPE_CHECKING:
    from pipeline.grid import Window

_FILL_CHUNK = 1 << 22
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RowStore(Closing):
    """Layers of uint8, or float32, on a grid, in one file.

    The file ``path`` has ``layers x height x width`` values (see :meth:`create`); ``shape`` is (height, width).
    """

    def __init__(self, path: Path | str, *, shape: tuple[int, int], layers: int = 1, dtype: str = "uint8") -> None:
        self.path = Path(path)
        self.layers = layers
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.height, self.width = shape
        self.shape: tuple[int, ...] = shape if layers == 1 else (layers, *shape)
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


VERSION = 1


@dataclass(frozen=True)
class Key:
    """What rows depend on: name of a part -> hash of it ("model", "input", "settings", "software")."""

    parts: Mapping[str, str]

    @classmethod
    def of(cls, parts: Mapping[str, object]) -> Self:
        """The key of JSON-ready parts."""
        return cls({name: hash_of(part) for name, part in parts.items()})

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of all parts."""
        return hash_of(dict(self.parts))

    def differs_in(self, other: Mapping[str, str]) -> list[str]:
        """Names of the parts that are not the same."""
        names = dict.fromkeys([*self.parts, *other])
        return [name for name in names if self.parts.get(name) != other.get(name)]


@dataclass
class Journal:
    """The open journal of one scene."""

    path: Path  # The file
    # Settings that were decided when the run began (tile, engine): a resumed run takes them as they are
    resolved: dict[str, Any]
    done: set[int] = field(default_factory=set)  # Indices of finished steps
    why_fresh: str = ""  # Why nothing was continued, "" where there was nothing or everything fits
    finished: bool = False  # Whether all steps are done
    seconds: float = 0.0  # What the steps took, in all runs together

    def begin(self, key: Key, *, resolved: dict[str, Any]) -> None:
        """Start afresh: the file is replaced by one with only the first line."""
        self.resolved, self.done, self.finished, self.seconds = resolved, set(), False, 0.0
        line = {"version": VERSION, "key": dict(key.parts), "resolved": resolved}
        write_text(self.path, json.dumps(line) + "\n", what="the journal")

    def add(self, steps: Iterable[int], *, seconds: float = 0.0, finished: bool = False) -> None:
        """Note steps whose pixels are on the disk."""
        new = sorted(steps)
        line = {"done": new, "seconds": round(seconds, 3)} | ({"finished": True} if finished else {})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise OutputError("cannot write the journal", path=self.path, got=err.strerror) from err
        self.done.update(new)
        self.finished = self.finished or finished
        self.seconds += seconds


def open_journal(path: Path, key: Key) -> Journal:
    """The journal at ``path`` as far as it is of ``key``; an empty one that says why otherwise."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Journal(path, {})
    except (OSError, UnicodeDecodeError):
        return Journal(path, {}, why_fresh="the journal cannot be read")
    lines = list(_lines(text))
    if not lines or lines[0].get("version") != VERSION or not isinstance(lines[0].get("key"), dict):
        return Journal(path, {}, why_fresh="the journal is of another version or damaged")
    changed = key.differs_in(lines[0]["key"])
    if changed:
        verb = "has" if len(changed) == 1 and changed[0] != "settings" else "have"
        return Journal(path, {}, why_fresh=f"{' and '.join(changed)} {verb} changed since the last run")
    journal = Journal(path, lines[0].get("resolved", {}))
    for line in lines[1:]:
        journal.done.update(line.get("done", []))
        journal.seconds += line.get("seconds", 0.0)
        journal.finished = journal.finished or line.get("finished", False)
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    if whole != text:  # cut off a torn last line, so that the next one does not grow onto it
        write_text(path, whole, what="the journal")
    return journal


def _lines(text: str) -> Iterable[dict[str, Any]]:
    """The whole lines; what follows the last line end was cut off by a crash."""
    for line in text.split("\n")[:-1]:
        try:
            item = json.loads(line)
        except json.JSONDecodeError:
            return
        if not isinstance(item, dict):
            return
        yield item
