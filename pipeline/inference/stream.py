"""The threads of a map: some read and run the network, one writes behind them and keeps the journal."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.inference.rows import Journal, RowStore
    from pipeline.inference.tiles import Tile

    Progress = Callable[[int, int], None]

# Seconds between two synced journal lines: what a crash can cost. Syncing is hidden behind the network.
SYNC_SECONDS = 5.0
_POLL_SECONDS = 0.2
_WRITES_WAITING = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """Tiles that are read and run together."""

    step: int  # Their entry in the journal
    tiles: tuple[Tile, ...]  # The tiles

    @property
    def pixels(self) -> int:
        """Pixels that are written."""
        return sum(tile.write.height * tile.write.width for tile in self.tiles)


class Workers(Generic[T]):
    """Does works in threads side by side; iterate over it inside ``with`` for what they made, in order.

    ``do`` makes something of a work, in ``count`` threads, each with ``threads`` of torch.
    """

    def __init__(self, do: Callable[[Work], T], works: Iterable[Work], *, count: int, threads: int) -> None:
        self._do, self._works, self._count = do, iter(works), count
        # torch counts threads per thread that calls it: the team of one worker does not spin against that of another.
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix="landcover-map", initializer=torch.set_num_threads, initargs=(threads,)
        )
        self._made: deque[Future[T]] = deque()

    def __enter__(self) -> Self:
        """Start with the first works: one more than there are threads, so that none waits for what is made in order."""
        self._submit(self._count + 1)
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what was begun and leave the rest."""
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        """What was made, as it becomes ready; an error of a work is raised here, after all that came before it."""
        while self._made:
            made = self._made.popleft().result()
            self._submit(1)
            yield made
            del made

    def _submit(self, count: int) -> None:
        self._made.extend(self._pool.submit(self._do, work) for work in itertools.islice(self._works, count))


class Writing:
    """Writes windows to the stores and steps to the journal, in a thread of its own; used inside ``with``.

    Leaving the block, also by an error in it, writes what waits and syncs. An error of the writer itself (a full disk,
    a progress that raises) ends the writing: steps that were complete before are synced, what waits is done again.
    """

    def __init__(
        self, stores: Mapping[str, RowStore], journal: Journal,
        *, done_px: int, total_px: int, progress: Progress | None,
    ) -> None:  # fmt: skip
        self._stores, self._journal, self._progress = stores, journal, progress
        self._done_px, self._total_px = done_px, total_px
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=_WRITES_WAITING)
        self._steps: list[int] = []
        self._synced = time.perf_counter()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="landcover-write", daemon=True)

    def __enter__(self) -> Self:
        """Start writing."""
        self._thread.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Write what waits; raise an error of the writer unless another one is under way."""
        if self._error is None:
            self._waiting.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write layers uint8 [..., row, col] of a window, soon."""
        self._offer(partial(self._write, window, layers))

    def done(self, step: int, *, pixels: int) -> None:
        """Note, after all that was put before, that a step of so many pixels is complete."""
        self._offer(partial(self._note, step, pixels))

    def _offer(self, work: Callable[[], None]) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._waiting.put(work, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            while (work := self._waiting.get()) is not None:
                work()
            self._sync()
        except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
            self._error = err
            # Whoever waits for room must get past its put to see the error.
            while not self._waiting.empty():
                self._waiting.get_nowait()
            # Steps that were noted lie in the stores as a whole; the first error is the one to tell.
            with contextlib.suppress(PipelineError):
                self._sync()

    def _write(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        for name, pixels in layers.items():
            for number, layer in enumerate(pixels if pixels.ndim == 3 else pixels[np.newaxis]):  # noqa: PLR2004
                self._stores[name].write(window, layer, layer=number)

    def _note(self, step: int, pixels: int) -> None:
        self._steps.append(step)
        self._done_px += pixels
        if self._progress is not None:
            self._progress(self._done_px, self._total_px)
        if time.perf_counter() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        # Taken out first: after a sync that failed the kernel lets the next one pass, whatever was lost.
        steps, self._steps = self._steps, []
        if not steps:
            return
        for store in self._stores.values():
            store.sync()
        now = time.perf_counter()
        self._journal.add(steps, seconds=now - self._synced)
        self._synced = now
