"""Open files for a server of many threads: each handle is used by one thread at a time and kept open afterwards."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import rasterio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Closable(Protocol):
    """A handle that can be closed."""

    def close(self) -> object:
        """Close it."""


Handle = TypeVar("Handle", bound=Closable)


class Pool(Generic[Handle]):
    """As many handles of one file as there are threads that want it at once.

    GDAL's datasets must not be used by two threads at once, and opening one for every tile takes longer than the tile.
    """

    def __init__(self, open_one: Callable[[], Handle]) -> None:
        """Open nothing yet."""
        self._open_one = open_one
        # The last one given back is the first one taken: its blocks are in the cache.
        self._idle: queue.LifoQueue[Handle] = queue.LifoQueue()

    @contextmanager
    def borrow(self) -> Iterator[Handle]:
        """A handle for this thread alone, until the block ends."""
        # A dataset that is opened without an environment makes one of its thread's own, and then can be closed by no
        # other thread.
        with rasterio.Env():
            try:
                handle = self._idle.get_nowait()
            except queue.Empty:
                handle = self._open_one()
            try:
                yield handle
            finally:
                self._idle.put(handle)

    def close(self) -> None:
        """Close the handles that nobody uses."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return
