"""The steps of a map (tiles that go through the network together), and mapping any of them, here or elsewhere."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import rasterio
import torch
from numpy.typing import NDArray

from pipeline.inference.engine import WORKERS, Engine
from pipeline.inference.pixels import Buffers, classify, read_tile, value_layers
from pipeline.inference.stream import Work, Workers
from pipeline.inference.tiles import Tile, in_stripes
from pipeline.process import share_one_heap

if TYPE_CHECKING:
    import numpy as np

    from pipeline.grid import Window
    from pipeline.inference.areas import Area
    from pipeline.inference.plan import Plan
    from pipeline.inference.settings import MapSettings
    from pipeline.maps.look import Glimpse
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

_Made = tuple[Work, list[tuple["Tile", dict[str, "NDArray[np.uint8]"]]]]


class Sink(Protocol):
    """Takes what is mapped."""

    def put(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        """Layers uint8 [..., row, col] of a window of the grid."""

    def done(self, step: int, *, pixels: int) -> None:
        """A step of so many pixels is complete with what was put before."""


@dataclass(frozen=True, eq=False)
class _Turns:
    """What threads side by side take in turns: the readers and, where it is not made for more callers, the engine."""

    readers: queue.SimpleQueue[Reader]
    network: contextlib.AbstractContextManager[object]
    glimpse: Glimpse | None = None

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """A reader that no other thread uses meanwhile."""
        reader = self.readers.get()
        try:
            yield reader
        finally:
            self.readers.put(reader)


@dataclass(frozen=True, eq=False)
class SceneSteps:
    """One scene's steps by one plan."""

    bundle: ModelBundle  # The model
    source: Source  # The scene, with the model's bands
    settings: MapSettings  # What was asked for
    plan: Plan  # What was decided
    area: Area | None = None  # What is mapped; None for everything

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles of the grid, also those that the area leaves out."""
        return self.plan.tiles(self.source.grid)

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """Tiles that go through the network together, in the order of the map; the same whatever was done before."""
        mapped = [tile for tile in self.tiles if self.area is None or self.area.touches(tile.write)]
        mapped, size = in_stripes(mapped, self.plan.columns), self.plan.batch
        groups = [tuple(mapped[i : i + size]) for i in range(0, len(mapped), size)]
        return tuple(Work(number, group) for number, group in enumerate(groups))

    @cached_property
    def pixels(self) -> dict[int, int]:
        """Step -> pixels that it writes, in order."""
        return {work.step: work.pixels for work in self.works}

    def map(self, engine: Engine, steps: Collection[int], sink: Sink, *, glimpse: Glimpse | None = None) -> None:
        """Map the steps, some tiles side by side; the order of what the sink gets is that of the steps.

        ``glimpse`` gets all that is read.
        """
        share_one_heap()
        before, choice = torch.get_num_threads(), self.plan.choice
        wanted = set(steps)
        works = [work for work in self.works if work.step in wanted]
        # What does not run side by side takes all threads for each call.
        side_by_side = choice.side_by_side and self.plan.threads >= WORKERS
        threads = self.plan.threads // WORKERS if side_by_side else self.plan.threads
        with contextlib.ExitStack() as opened:
            opened.callback(torch.set_num_threads, before)
            turns = _Turns(queue.SimpleQueue(), contextlib.nullcontext() if side_by_side else threading.Lock(), glimpse)
            for _ in range(choice.readers):
                turns.readers.put(opened.enter_context(self.source.open()))
            largest = max((tile.read.height * tile.read.width for work in works for tile in work.tiles), default=0)
            buffers = Buffers(engine.layout, largest=largest * self.bundle.preprocess.channels)
            do = partial(self._make, engine, turns, buffers)
            with Workers(do, works, count=choice.workers, threads=threads) as made:
                for work, parts in made:
                    for tile, layers in parts:
                        sink.put(tile.write, layers)
                    sink.done(work.step, pixels=work.pixels)

    def _make(self, engine: Engine, turns: _Turns, buffers: Buffers, work: Work) -> _Made:
        """Read tiles, run the network, and decide."""
        parts = []
        for tiles, keeps, pixels in self._groups(turns, buffers, work):
            with turns.network:
                scores = engine(pixels)
            for tile, keep, score in zip(tiles, keeps, scores, strict=True):
                with torch.inference_mode():
                    layers = self._decide(score[(slice(None), *tile.inner)], keep[tile.inner])
                parts.append((tile, layers))
        return work, parts

    def _decide(self, scores: torch.Tensor, keep: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Layers [..., row, col] of scores [channel, row, col]."""
        if self.bundle.quantity is not None:
            return value_layers(scores, keep, quantity=self.bundle.quantity)
        return classify(scores, keep, index_to_code=self.bundle.scheme.index_to_code, products=self.settings.products)

    def _groups(
        self, turns: _Turns, buffers: Buffers, work: Work
    ) -> Iterator[tuple[list[Tile], list[NDArray[np.bool_]], torch.Tensor]]:
        """Tiles of one shape, what is to be mapped of them, bool [row, col], and input [tile, band, row, col].

        Tiles without a pixel to map are left out. The input holds until the next is asked for.
        """
        groups: dict[tuple[int, ...], list[tuple[Tile, NDArray[np.bool_], torch.Tensor]]] = {}
        taken = []
        for tile in work.tiles:
            taken.append(buffers.take())
            out = buffers.layout.shape(taken[-1], self.bundle.preprocess.channels, *tile.read.shape)
            with turns.reader() as reader, rasterio.Env(GDAL_CACHEMAX=self.plan.cache_bytes):
                pixels, keep = read_tile(reader, tile.read, self.bundle.preprocess, out=out, glimpse=turns.glimpse)
            if self.area is not None:
                keep &= self.area.mask(tile.read)
            if keep[tile.inner].any():
                groups.setdefault(tuple(pixels.shape), []).append((tile, keep, pixels))
        for group in groups.values():
            tiles, keeps, inputs = zip(*group, strict=True)
            yield list(tiles), list(keeps), inputs[0].unsqueeze(0) if len(inputs) == 1 else torch.stack(inputs)
        for memory in taken:
            buffers.give(memory)


def step_blocks(steps: SceneSteps, left: Collection[int], *, block_px: int) -> list[tuple[int, ...]]:
    """The steps that are left in portions of steps that follow each other.

    A portion has at most ``block_px`` pixels, or a single step that has more.
    """
    blocks: list[list[int]] = []
    taken = 0
    for step in sorted(left):
        if not blocks or step != blocks[-1][-1] + 1 or taken + steps.pixels[step] > block_px:
            blocks.append([])
            taken = 0
        blocks[-1].append(step)
        taken += steps.pixels[step]
    return [tuple(block) for block in blocks]
