"""Search for the assignment of blocks to parts, or to folds, that serves every class and loses least to the buffer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.splits.geometry import Layout

_TRAIN, _VALIDATION, _TEST, _BUFFER = range(4)
# Price of a class that is absent from train, validation, test: dearer than any imbalance, train before test before
# validation, as a class that is never learned is lost on the map and one that is never tested only on paper.
_MISSING = np.array([100.0, 3.0, 10.0])
# Random starts: as many as take about a second, since small label sets have more local optima than large ones.
_STARTS = (3, 16)
_WORK = 200_000
_MOVES = 500
_SWAP = 0.5


@dataclass(frozen=True, eq=False)
class Problem:
    """Polygons in blocks, who is within the buffer of whom, and the fractions wished.

    Attributes:
        layout: The polygons.
        block: int32 [polygon], 0..blocks-1.
        pairs: intp [pair, 2], positions of polygons within the buffer of each other.
        fractions: Of train, validation and test.
    """

    layout: Layout
    block: NDArray[np.int32]
    pairs: NDArray[np.intp]
    fractions: tuple[float, float, float]

    @cached_property
    def _class_of(self) -> NDArray[np.intp]:
        return np.unique(self.layout.code, return_inverse=True)[1]

    @cached_property
    def _totals(self) -> NDArray[np.float64]:
        """Polygons and pixels per class, float64 [2, class]."""
        return np.stack([np.bincount(self._class_of), np.bincount(self._class_of, self.layout.size_px)]).astype(float)

    @cached_property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.block.max()) + 1

    @property
    def starts(self) -> int:
        """Random starts that are affordable."""
        return _starts(len(self.pairs))

    def settle(self, part_of_block: NDArray[np.int16]) -> NDArray[np.int8]:
        """Part of every polygon, int8 [polygon], once the buffer took its own: train gives way first, test never."""
        part = part_of_block[self.block].astype(np.int8)
        one, other = self._both_ways
        near = other[(part[one] == _TEST) & (part[other] < _TEST)]
        part[near] = _BUFFER
        near = other[(part[one] == _VALIDATION) & (part[other] == _TRAIN)]
        part[near] = _BUFFER
        return part

    @cached_property
    def _both_ways(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.r_[self.pairs[:, 0], self.pairs[:, 1]], np.r_[self.pairs[:, 1], self.pairs[:, 0]]

    def cost(self, part_of_block: NDArray[np.int16]) -> float:
        """How bad an assignment is: classes missing from parts, then distance from the fractions wished."""
        part = self.settle(part_of_block)
        used = part < _BUFFER
        classes = self._totals.shape[1]
        slot = part[used].astype(np.intp) * classes + self._class_of[used]
        polygons = np.bincount(slot, minlength=3 * classes).reshape(3, classes)
        pixels = np.bincount(slot, self.layout.size_px[used], minlength=3 * classes).reshape(3, classes)
        wished = np.array(self.fractions)[:, None]
        off = np.abs(polygons / self._totals[0] - wished).sum() + 0.5 * np.abs(pixels / self._totals[1] - wished).sum()
        missing = (polygons == 0).sum(axis=1) * (wished[:, 0] > 0)
        empty = (polygons.sum(axis=1) == 0) & (wished[:, 0] > 0)
        return float(missing @ _MISSING + 1e6 * empty.sum() + off / classes)


def _starts(pairs: int) -> int:
    return int(np.clip(_WORK // (pairs * 10 + 10_000), *_STARTS))


def best_assignment(
    problem: Problem, rng: np.random.Generator, *, test_blocks: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Part of every polygon, int8 [polygon], in the best assignment found by random starts and single-block moves.

    With ``test_blocks`` (bool [block]) these are test, and only train and validation are chosen: an easier question,
    asked once for every fold, so it gets the fewest starts.
    """
    fixed = np.zeros(problem.blocks, dtype=np.bool_) if test_blocks is None else test_blocks
    free = np.flatnonzero(~fixed)
    choices = np.array([p for p, fraction in enumerate(problem.fractions) if fraction > 0], dtype=np.int16)
    chances = np.array([problem.fractions[p] for p in choices])

    def start() -> NDArray[np.int16]:
        assigned = np.full(problem.blocks, _TEST, dtype=np.int16)
        assigned[free] = rng.choice(choices, size=len(free), p=chances / chances.sum())
        return assigned

    if not len(free) or len(choices) == 1:
        return problem.settle(start())
    return problem.settle(
        _climb(start, problem.cost, free, choices, rng, starts=problem.starts if test_blocks is None else _STARTS[0])
    )


def fold_assignment(
    layout: Layout, block: NDArray[np.int32], pairs: NDArray[np.intp], *, folds: int, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Fold of every block, int16 [block], classes spread evenly, few polygons near another fold's."""
    blocks = int(block.max()) + 1
    if folds == blocks:
        return np.arange(blocks, dtype=np.int16)
    class_of = np.unique(layout.code, return_inverse=True)[1]
    totals = np.bincount(class_of)

    def start() -> NDArray[np.int16]:
        dealt = np.arange(blocks) % folds
        return rng.permutation(dealt).astype(np.int16)

    def cost(fold_of_block: NDArray[np.int16]) -> float:
        fold = fold_of_block[block].astype(np.intp)
        table = np.bincount(fold * len(totals) + class_of, minlength=folds * len(totals)).reshape(folds, -1)
        empty = (table.sum(axis=1) == 0).sum()
        even = np.abs(table / totals - 1 / folds).sum() / len(totals)
        crossing = fold[pairs[:, 0]] != fold[pairs[:, 1]]
        near = np.concatenate([pairs[crossing, 0] * folds + fold[pairs[crossing, 1]],
                               pairs[crossing, 1] * folds + fold[pairs[crossing, 0]]])  # fmt: skip
        lost = len(np.unique(near)) / (len(fold) * (folds - 1))
        return float(1e6 * empty + even + 2.0 * lost)

    choices = np.arange(folds, dtype=np.int16)
    return _climb(start, cost, np.arange(blocks), choices, rng, starts=_starts(len(pairs)))


def _climb(
    start: Callable[[], NDArray[np.int16]],
    cost: Callable[[NDArray[np.int16]], float],
    free: NDArray[np.intp],
    choices: NDArray[np.int16],
    rng: np.random.Generator,
    *,
    starts: int,
) -> NDArray[np.int16]:
    """Best of some random starts, each improved by moves of one block or swaps of two."""
    best, best_cost = start(), np.inf
    for _ in range(starts):
        state = start()
        steps, swaps, draws = rng.choice(free, (_MOVES, 2)), rng.random(_MOVES) < _SWAP, rng.choice(choices, _MOVES)
        price = cost(state)
        for (one, other), swap, draw in zip(steps, swaps, draws, strict=True):
            if state[one] == (state[other] if swap else draw):
                continue
            trial = state.copy()
            trial[one], trial[other] = (state[other], state[one]) if swap else (draw, state[other])
            changed = cost(trial)
            if changed < price:
                state, price = trial, changed
        if price < best_cost:
            best, best_cost = state, price
    return best
