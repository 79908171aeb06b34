"""The threads beside the network: one reads ahead, one writes behind and keeps the journal."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import rasterio
import torch

from pipeline.inference.memory import GDAL_CACHE_BYTES, PREFETCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.inference.areas import Area
    from pipeline.inference.journal import Journal
    from pipeline.inference.rows import RowStore
    from pipeline.inference.tiles import Tile
    from pipeline.model.preprocess import Preprocess
    from pipeline.scenes.scene import Source

# Seconds between two synced journal lines: what a crash can cost. Syncing is hidden behind the network.
SYNC_SECONDS = 5.0
_POLL_SECONDS = 0.2
_WRITES_WAITING = 2


@dataclass(frozen=True)
class Work:
    """Tiles that are read and run together.

    Attributes:
        step: Entry of the journal that they belong to.
        tiles: The tiles; none where an area leaves out a whole row.
        ends_step: Whether the step is complete with them.
    """

    step: int
    tiles: tuple[Tile, ...]
    ends_step: bool

    @property
    def pixels(self) -> int:
        """Pixels that are written."""
        return sum(tile.write.height * tile.write.width for tile in self.tiles)


@dataclass(frozen=True)
class _Step:
    """A step that is complete, and how many pixels it has."""

    number: int
    pixels: int


@dataclass(frozen=True)
class Loaded:
    """Work with its pixels: per tile what is to be mapped, bool [row, col] of the read window, and the network's input.

    Tiles without a pixel to map have no chip.
    """

    work: Work
    keeps: tuple[NDArray[np.bool_], ...]
    chips: tuple[torch.Tensor | None, ...]

    def groups(self) -> Iterator[tuple[list[Tile], list[NDArray[np.bool_]], torch.Tensor]]:
        """Tiles of one shape with their input float32 [chip, band, row, col]."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, chip in enumerate(self.chips):
            if chip is not None:
                by_shape.setdefault(tuple(chip.shape), []).append(number)
        for numbers in by_shape.values():
            chips = [chip for i in numbers if (chip := self.chips[i]) is not None]
            batch = chips[0].unsqueeze(0) if len(chips) == 1 else torch.stack(chips)
            yield [self.work.tiles[i] for i in numbers], [self.keeps[i] for i in numbers], batch


class Reading:
    """Reads and standardises windows in a thread of its own; iterate over it inside ``with``.

    Args:
        source: What to read, with the model's bands.
        preprocess: The model's scaling.
        works: What to read, in order.
        area: Pixels outside it are seen by the network but not mapped.
        whole: Whether pixels of the halo are mapped too (blended), so that a tile with nothing else is not left out.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        works: Sequence[Work],
        *,
        area: Area | None = None,
        whole: bool = False,
    ) -> None:
        self._source, self._preprocess, self._works = source, preprocess, works
        self._area, self._whole = area, whole
        self._ready: queue.Queue[Loaded | BaseException | None] = queue.Queue(maxsize=PREFETCH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="landcover-read", daemon=True)

    def __enter__(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading and close the files."""
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Loaded]:
        """Works as they become ready; an error of the reader is raised here."""
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
            del item

    def _run(self) -> None:
        try:
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), self._source.open() as reader:
                for work in self._works:
                    if not self._offer(self._load(reader, work)):
                        return
            self._offer(None)
        except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
            self._offer(err)

    def _load(self, reader: Any, work: Work) -> Loaded:
        keeps: list[NDArray[np.bool_]] = []
        chips: list[torch.Tensor | None] = []
        for tile in work.tiles:
            raster = reader.read(tile.read)
            keep = raster.valid
            if self._area is not None:
                keep = keep & self._area.mask(tile.read)
            keeps.append(keep)
            wanted = keep.any() if self._whole else keep[tile.inner].any()
            chips.append(self._preprocess(raster.values, raster.valid) if wanted else None)
        return Loaded(work, tuple(keeps), tuple(chips))

    def _offer(self, item: Loaded | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


class Writing:
    """Writes windows to the stores and steps to the journal, in a thread of its own; used inside ``with``.

    Leaving the block, also by an error, writes what waits and syncs: nothing that was computed is lost.
    """

    def __init__(
        self,
        stores: Mapping[str, RowStore],
        journal: Journal,
        *,
        done_px: int,
        total_px: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._stores, self._journal, self._progress = stores, journal, progress
        self._done_px, self._total_px = done_px, total_px
        self._waiting: queue.Queue[tuple[Window, Mapping[str, NDArray[np.uint8]]] | _Step | None] = queue.Queue(
            maxsize=_WRITES_WAITING
        )
        self._steps: list[int] = []
        self._synced = time.perf_counter()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="landcover-write", daemon=True)

    def __enter__(self) -> Self:
        """Start writing."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits; raise an error of the writer unless another one is under way."""
        if self._error is None:
            self._waiting.put(None)
        self._thread.join()
        if self._error is not None and value is None:
            raise self._error

    def put(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write layers uint8 [..., row, col] of a window, soon."""
        self._offer((window, layers))

    def done(self, step: int, *, pixels: int) -> None:
        """Note, after all that was put before, that a step of so many pixels is complete."""
        self._offer(_Step(step, pixels))

    def _offer(self, item: tuple[Window, Mapping[str, NDArray[np.uint8]]] | _Step) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._waiting.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            while (item := self._waiting.get()) is not None:
                if isinstance(item, _Step):
                    self._note(item)
                else:
                    self._write(*item)
            self._sync()
        except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
            self._error = err
            # Whoever waits for room must get past its put to see the error.
            while not self._waiting.empty():
                self._waiting.get_nowait()

    def _write(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        for name, pixels in layers.items():
            for number, layer in enumerate(pixels if pixels.ndim == 3 else pixels[np.newaxis]):  # noqa: PLR2004
                self._stores[name].write(window, layer, layer=number)

    def _note(self, step: _Step) -> None:
        self._steps.append(step.number)
        self._done_px += step.pixels
        if self._progress is not None:
            self._progress(self._done_px, self._total_px)
        if time.perf_counter() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        if not self._steps:
            return
        for store in self._stores.values():
            store.sync()
        now = time.perf_counter()
        self._journal.add(self._steps, seconds=now - self._synced)
        self._steps.clear()
        self._synced = now
