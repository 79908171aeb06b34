"""What belongs to the whole process: folders it holds, warnings, what libraries print, the heap, the peak of memory.

``warnings.catch_warnings`` changes the filters of the whole process: of two threads inside it the first to leave takes
the other's silence away, and the last puts back filters that the first had already changed (Python's documentation
calls it not thread-safe). rasterio does so itself whenever it burns shapes. So whoever does either in a thread takes
turns here. Of the heap, glibc alone has the calls; the peak is Linux's.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pipeline.documents import read_json
from pipeline.errors import ConfigError, InputError, OutputError

_TURN = threading.RLock()


@contextlib.contextmanager
def silenced(category: type[Warning]) -> Iterator[None]:
    """Ignore warnings of ``category``; other threads that come here wait."""
    with _TURN, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def hold_folder(folder: Path, *, name: str) -> BaseFileLock:
    """A lock ``name`` on a folder, which the system gives back when this process ends, however it ends.

    ``<name>.json`` beside it says who holds the folder: Windows lets nobody read what is locked.

    Raises:
        OutputError: another run holds it, or it cannot be made.
    """
    lock, holder = FileLock(folder / name, timeout=0, thread_local=False), folder / f"{name}.json"
    try:
        lock.acquire()
    except Timeout as err:
        fix = "wait for it or stop it, then run the same command again"
        raise OutputError("another run works in this folder", path=folder, got=_holder(holder), fix=fix) from err
    except (OSError, NotImplementedError) as err:  # the latter where a file system has no locks (filelock)
        raise OutputError("cannot lock the folder", path=folder, got=err) from err
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with contextlib.suppress(OSError):
        text = json.dumps({"process": os.getpid(), "host": platform.node(), "since": now})
        holder.write_text(text, encoding="utf-8")
    return lock


def _holder(path: Path) -> str:
    try:
        found = read_json(path)
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (InputError, KeyError, TypeError):
        return "another process"


def release_folder(lock: BaseFileLock) -> None:
    """Give a folder back; doing so twice does nothing."""
    if not lock.is_locked:
        return
    # The files go before the lock: whoever opens one meanwhile finds another file there, and tries again.
    for path in (f"{lock.lock_file}.json", lock.lock_file):
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
    lock.release()


def need_package(name: str, *, what: str, extra: str) -> None:
    """Refuse to begin without an optional package.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec(name) is None:
        raise ConfigError(what, fix=f"install it with: pip install 'landcover-pipeline[{extra}]'")


def silence_libtiff() -> None:
    """Keep libtiff from printing: on a full disk it says so for every block, before the error that is raised is shown.

    The library that comes with rasterio prints by itself what it also reports. Source: libtiff, TIFFError(3tiff).
    """
    spec = find_spec("rasterio")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for library in Path(folder).parent.glob("rasterio.libs/libtiff*"):
            with contextlib.suppress(OSError, AttributeError):
                set_handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)


_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Let all threads of this process allocate from one heap: each thread's own keeps what others could use.

    Measured on ``landcover predict`` of 10980 x 10980 pixels with a ResNet-18 U-Net: 135 MB (bfloat16) and 200 MB
    (float32) less at the peak, in the same time. A user's MALLOC_ARENA_MAX is left as it is. Source: mallopt(3).
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what this process no longer uses to the system: what an earlier stage held counts against the next.

    The C library keeps freed memory for itself until it is asked. Source: malloc_trim(3).
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> None:
    """Start a new peak of this process's memory, where the system can (Linux 4.0 and later)."""
    # Source: proc(5), /proc/pid/clear_refs: writing 5 resets the peak resident set size (VmHWM).
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_rss_mb() -> float | None:
    """Peak memory of this process in MB since :func:`reset_peak`; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return round(int(line.split()[1]) * 1024 / 1e6, 1) if line else None
