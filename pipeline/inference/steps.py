"""The steps of a map, and mapping any of them: all in one process, or a block of them on some other machine.

A step is what the journal counts: with cropped tiles the tiles that go through the network together, with blended
ones a whole row of tiles. Whatever steps are mapped together, each gives the same bytes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import rasterio
import torch

from pipeline.heap import share_one_heap
from pipeline.inference.blend import HannBlender, classify
from pipeline.inference.chips import Buffers, read_chip
from pipeline.inference.engine import readers_of, runs_side_by_side, workers_of
from pipeline.inference.memory import WORKERS
from pipeline.inference.order import in_stripes
from pipeline.inference.stream import Work, Workers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.inference.areas import Area
    from pipeline.inference.engine import Engine
    from pipeline.inference.plan import Plan, PredictSettings
    from pipeline.inference.tiles import Tile
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


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

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """A reader that no other thread uses meanwhile."""
        reader = self.readers.get()
        try:
            yield reader
        finally:
            self.readers.put(reader)


@dataclass(frozen=True, eq=False)
class _Made:
    """What was made of a work: layers of tiles that are final, or probabilities of tiles that will be blended."""

    work: Work
    layers: list[tuple[Tile, Mapping[str, NDArray[np.uint8]]]] = field(default_factory=list)
    shares: list[tuple[Tile, NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class SceneSteps:
    """One scene's steps by one plan.

    Attributes:
        bundle: The model.
        source: The scene, with the model's bands.
        settings: What was asked for.
        plan: What was decided.
        area: What is mapped; None for everything.
    """

    bundle: ModelBundle
    source: Source
    settings: PredictSettings
    plan: Plan
    area: Area | None = None

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles of the grid, also those that the area leaves out."""
        return self.plan.tiles(self.source.grid, shift_px=self.settings.shift_px)

    @cached_property
    def works(self) -> tuple[Work, ...]:
        """Portions for the network in the order of the map; the same whatever was done before."""
        mapped = [tile for tile in self.tiles if self.area is None or self.area.touches(tile.write)]
        size = self.plan.batch
        if self.settings.blend == "crop":
            mapped = in_stripes(mapped, self.plan.columns)
            groups = [tuple(mapped[i : i + size]) for i in range(0, len(mapped), size)]
            return tuple(Work(number, group, ends_step=True) for number, group in enumerate(groups))
        works, wanted = [], set(mapped)
        for step, row in enumerate(_rows_of_tiles(self.tiles)):
            chosen = [tile for tile in row if tile in wanted]
            parts = [tuple(chosen[i : i + size]) for i in range(0, len(chosen), size)] or [()]
            works += [Work(step, part, ends_step=part is parts[-1]) for part in parts]
        return tuple(works)

    @cached_property
    def pixels(self) -> dict[int, int]:
        """Step -> pixels that it writes, in order."""
        found: dict[int, int] = {}
        for work in self.works:
            found[work.step] = found.get(work.step, 0) + work.pixels
        return found

    def map(self, engine: Engine, steps: Collection[int], sink: Sink) -> None:
        """Map the steps, some tiles side by side; the order of what the sink gets is that of the steps."""
        share_one_heap()
        threads = torch.get_num_threads()
        try:
            for run in runs_of(steps) if self.settings.blend == "hann" else [sorted(steps)]:
                self._map_run(engine, run, sink)
        finally:
            torch.set_num_threads(threads)

    def _map_run(self, engine: Engine, run: Sequence[int], sink: Sink) -> None:
        wanted = set(run)
        blender: HannBlender | None = None
        if self.settings.blend == "hann":
            blender = HannBlender(_rows_of_tiles(self.tiles), shape=self.source.grid.shape, classes=self._classes)
            # Rows of tiles before reach into the pixels that are not final: their sums are made (again).
            wanted.update(range(blender.start(run[0]), run[0]))
        works = [work for work in self.works if work.step in wanted]
        # What does not run side by side takes all threads for each call.
        side_by_side = runs_side_by_side(self.plan.choice) and self.plan.threads >= WORKERS
        threads = self.plan.threads // WORKERS if side_by_side else self.plan.threads
        with contextlib.ExitStack() as opened:
            turns = _Turns(queue.SimpleQueue(), contextlib.nullcontext() if side_by_side else threading.Lock())
            for _ in range(readers_of(self.plan.choice)):
                turns.readers.put(opened.enter_context(self.source.open()))
            count = workers_of(self.plan.choice)
            largest = max((tile.read.height * tile.read.width for work in works for tile in work.tiles), default=0)
            buffers = Buffers(engine.layout, largest=largest * self.bundle.preprocess.channels)
            with Workers(
                lambda work: self._make(engine, turns, buffers, work), works, count=count, threads=threads
            ) as made:
                for part in made:
                    self._take(part, blender, sink, sums_only=part.work.step < run[0])

    @property
    def _classes(self) -> int:
        return len(self.bundle.scheme)

    def _make(self, engine: Engine, turns: _Turns, buffers: Buffers, work: Work) -> _Made:
        """Read tiles, run the network, and decide or, where tiles are blended, leave that for later."""
        made = _Made(work)
        for tiles, keeps, chips in self._groups(turns, buffers, work):
            with turns.network:
                scores, are_logits = self._scores(engine, chips)
            for tile, keep, score in zip(tiles, keeps, scores, strict=True):
                if self.settings.blend == "hann":
                    shares = score.float().softmax(0) if are_logits else score
                    made.shares.append((tile, shares.cpu().numpy(), keep))
                else:
                    inner = (slice(None), *tile.inner)
                    made.layers.append((tile, self._decide(score[inner], keep[tile.inner], are_logits=are_logits)))
        return made

    def _groups(
        self, turns: _Turns, buffers: Buffers, work: Work
    ) -> Iterator[tuple[list[Tile], list[NDArray[np.bool_]], torch.Tensor]]:
        """Tiles of one shape, what is to be mapped of them, bool [row, col], and input [chip, band, row, col].

        Tiles without a pixel to map are left out. The input holds until the next is asked for.
        """
        groups: dict[tuple[int, ...], list[tuple[Tile, NDArray[np.bool_], torch.Tensor]]] = {}
        taken = []
        for tile in work.tiles:
            taken.append(buffers.take())
            out = buffers.layout.shape(taken[-1], self.bundle.preprocess.channels, *tile.read.shape)
            with turns.reader() as reader, rasterio.Env(GDAL_CACHEMAX=self.plan.cache_bytes):
                chip, keep = read_chip(reader, tile.read, self.bundle.preprocess, out=out)
            if self.area is not None:
                keep &= self.area.mask(tile.read)
            # Blended tiles are mapped in their halo too.
            if keep.any() if self.settings.blend == "hann" else keep[tile.inner].any():
                groups.setdefault(tuple(chip.shape), []).append((tile, keep, chip))
        for group in groups.values():
            tiles, keeps, chips = zip(*group, strict=True)
            yield list(tiles), list(keeps), chips[0].unsqueeze(0) if len(chips) == 1 else torch.stack(chips)
        for memory in taken:
            buffers.give(memory)

    def _take(self, made: _Made, blender: HannBlender | None, sink: Sink, *, sums_only: bool) -> None:
        """Pass on what is final."""
        work = made.work
        for tile, layers in made.layers:
            sink.put(tile.write, layers)
        if blender is not None:
            for tile, shares, keep in made.shares:
                blender.add(tile, shares, keep)
        if not work.ends_step or sums_only:
            return
        if blender is not None:
            band = blender.finish(work.step)
            if band is not None and band.valid.any():
                final = self._decide(torch.from_numpy(band.probabilities), band.valid, are_logits=False)
                sink.put(band.window, final)
        sink.done(work.step, pixels=self.pixels[work.step])

    def _scores(self, engine: Engine, chips: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Logits, or with flips probabilities, [chip, class, row, col]; and whether they are logits."""
        if not self.settings.tta:
            return engine(chips), True
        mean = torch.zeros(())
        for axes in _FLIPS:
            flipped = engine(chips.flip(axes) if axes else chips).float().softmax(1)
            mean = mean.to(flipped.device) + (flipped.flip(axes) if axes else flipped) / len(_FLIPS)
        return mean, False

    def _decide(
        self, scores: torch.Tensor, keep: NDArray[np.bool_], *, are_logits: bool
    ) -> dict[str, NDArray[np.uint8]]:
        with torch.inference_mode():
            return classify(
                scores,
                keep,
                index_to_code=self.bundle.scheme.index_to_code,
                products=self.settings.products,
                are_logits=are_logits,
            )


def runs_of(steps: Collection[int]) -> Iterator[list[int]]:
    """Steps that follow each other, together.

    >>> list(runs_of([7, 1, 2, 6]))
    [[1, 2], [6, 7]]
    """
    run: list[int] = []
    for step in sorted(steps):
        if run and step != run[-1] + 1:
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def blocks_of(steps: SceneSteps, left: Collection[int], *, block_px: int) -> list[tuple[int, ...]]:
    """The steps that are left in portions of steps that follow each other.

    A portion has at most ``block_px`` pixels, or a single step that has more; with blended tiles at least four steps,
    where so many follow.
    """
    # A block of blended rows does the row above it again (two where tiles are low): four or more bound what that costs.
    least = 4 if steps.settings.blend == "hann" else 1
    blocks: list[tuple[int, ...]] = []
    for run in runs_of(left):
        block: list[int] = []
        for step in run:
            full = sum(steps.pixels[number] for number in (*block, step)) > block_px
            if full and len(block) >= least:
                blocks.append(tuple(block))
                block = []
            block.append(step)
        blocks.append(tuple(block))
    return blocks


def _rows_of_tiles(tiles: Sequence[Tile]) -> list[list[Tile]]:
    rows: dict[int, list[Tile]] = {}
    for tile in tiles:
        rows.setdefault(tile.write.row, []).append(tile)
    return list(rows.values())
