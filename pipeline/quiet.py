"""Warnings silenced for a moment, also by several threads at once; and what libraries print past everybody.

``warnings.catch_warnings`` changes the filters of the whole process: of two threads inside it the first to leave takes
the other's silence away, and the last puts back filters that the first had already changed (Python's documentation
calls it not thread-safe). rasterio does so itself whenever it burns shapes. So whoever does either in a thread takes
turns here.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TURN = threading.RLock()


@contextlib.contextmanager
def silenced(category: type[Warning]) -> Iterator[None]:
    """Ignore warnings of ``category``; other threads that come here wait."""
    with _TURN, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


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
