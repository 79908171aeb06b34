"""Warnings silenced for a moment, also by several threads at once.

``warnings.catch_warnings`` changes the filters of the whole process: of two threads inside it the first to leave takes
the other's silence away, and the last puts back filters that the first had already changed (Python's documentation
calls it not thread-safe). rasterio does so itself whenever it burns shapes. So whoever does either in a thread takes
turns here.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
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
