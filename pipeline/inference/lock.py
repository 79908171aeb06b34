"""One run per work folder: a lock that the system gives back when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import platform
import sys
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "lock"
# Windows locks bytes, not files, and locked bytes cannot be read: one far behind the text that others are to read.
_FAR = 1 << 30
_BUSY = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


class FolderLock:
    """Holds a work folder from its making until :meth:`release`; a dead process holds nothing.

    Raises:
        OutputError: another run holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: BinaryIO | None = None
        while self._file is None:
            try:
                file = self._path.open("a+b")
            except OSError as err:
                raise OutputError("cannot lock the work folder", path=folder, got=err.strerror) from err
            try:
                _take(file)
            except OSError as err:
                holder = _holder(file)
                file.close()
                if err.errno not in _BUSY:
                    raise OutputError("cannot lock the work folder", path=folder, got=err.strerror) from err
                raise OutputError(
                    "another run works in this folder", path=folder, got=holder,
                    fix="wait for it or stop it, then run the same command again",
                ) from err  # fmt: skip
            # Whoever held it may have removed the file between opening and locking: then this lock guards nothing.
            if _is_at(file, self._path):
                self._file = file
            else:
                file.close()
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}".encode())
        self._file.flush()

    def release(self) -> None:
        """Give the folder back; doing so twice does nothing."""
        if self._file is None:
            return
        if sys.platform == "win32":  # an open file cannot be removed there
            self._file.close()
            self._path.unlink(missing_ok=True)
        else:
            self._path.unlink(missing_ok=True)
            self._file.close()
        self._file = None


def _take(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(200).decode(errors="replace") or "a process that has just started"


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
