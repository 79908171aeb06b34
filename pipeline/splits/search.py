"""Blocks to parts, or to folds: the assignment that serves every class and loses least to the buffer.

A polygon is never cut: the block that holds its centre decides. Polygons within the buffer of another part's polygons
go to BUFFER: test keeps its polygons, validation gives way to test, train to both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import SplitError, SplitWarning, counted
from pipeline.labels.rasterise import LabelledPixels
from pipeline.splits.split import ABSENT, Layout, Part, Split, block_keys, blocks_of

if TYPE_CHECKING:
    from pipeline.legend import ClassScheme

# Enough blocks for five folds of five: fewer, and one odd block decides a fold.
WISHED_BLOCKS = 25
# Fewer occupied blocks than this leave no choice when three parts with a buffer are to be filled.
NEEDED_BLOCKS = 9
_MANY_LOST = 0.25
_SHOWN = 10
_WITHOUT = {Part.TRAIN: "it is hardly learned", Part.TEST: "its accuracy is not judged"}
# As numbers: numpy looks an enumeration up again for every comparison.
_TRAIN, _VALIDATION, _TEST, _BUFFER = (int(part) for part in (Part.TRAIN, Part.VALIDATION, Part.TEST, Part.BUFFER))
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
    """Polygons in blocks, who is within the buffer of whom, and the fractions wished."""

    layout: Layout  # The polygons
    block: NDArray[np.int32]  # [polygon] 0..blocks-1
    pairs: NDArray[np.intp]  # [pair, 2] positions of polygons within the buffer of each other
    fractions: tuple[float, float, float]  # Of train, validation and test

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

    def settle(self, part_of_block: NDArray[np.int16]) -> NDArray[np.int8]:
        """Part of every polygon, int8 [polygon], once the buffer took its own: train gives way first, test never."""
        part = part_of_block.astype(np.int8)[self.block]
        one, other = self._both_ways
        if len(one):
            part[other[(part[one] == _TEST) & (part[other] < _TEST)]] = _BUFFER
            part[other[(part[one] == _VALIDATION) & (part[other] == _TRAIN)]] = _BUFFER
        return part

    @cached_property
    def _both_ways(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.r_[self.pairs[:, 0], self.pairs[:, 1]], np.r_[self.pairs[:, 1], self.pairs[:, 0]]

    @cached_property
    def _wished(self) -> NDArray[np.float64]:
        return np.array(self.fractions)[:, None]

    def cost(self, part_of_block: NDArray[np.int16]) -> float:
        """How bad an assignment is: classes missing from parts, then distance from the fractions wished."""
        classes, wished = self._totals.shape[1], self._wished
        slot = self.settle(part_of_block) * np.intp(classes) + self._class_of
        # The last row is the buffer's.
        polygons = np.bincount(slot, minlength=4 * classes).reshape(4, classes)[:_BUFFER]
        pixels = np.bincount(slot, self.layout.size_px, minlength=4 * classes).reshape(4, classes)[:_BUFFER]
        off = np.abs(polygons / self._totals[0] - wished).sum() + 0.5 * np.abs(pixels / self._totals[1] - wished).sum()
        asked = wished[:, 0] > 0
        missing = (polygons == 0).sum(axis=1) * asked
        empty = int(((polygons.sum(axis=1) == 0) & asked).sum())
        return float(missing @ _MISSING + 1e6 * empty + off / classes)


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
        assigned = np.full(problem.blocks, Part.TEST, dtype=np.int16)
        assigned[free] = rng.choice(choices, size=len(free), p=chances / chances.sum())
        return assigned

    if not len(free) or len(choices) == 1:
        return problem.settle(start())
    starts = _starts(len(problem.pairs)) if test_blocks is None else _STARTS[0]
    return problem.settle(_climb(start, problem.cost, free, choices, rng, starts=starts))


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
    start: Callable[[], NDArray[np.int16]], cost: Callable[[NDArray[np.int16]], float], free: NDArray[np.intp],
    choices: NDArray[np.int16], rng: np.random.Generator,
    *, starts: int,
) -> NDArray[np.int16]:  # fmt: skip
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


def default_block_m(pixels: LabelledPixels | Sequence[LabelledPixels], *, buffer_m: float = 0.0) -> float:
    """Side of a block in metres that suits the label layout, a whole number of the first grid's pixels.

    The largest side that leaves WISHED_BLOCKS blocks with polygons in them, but not below the buffer or twice the
    median polygon's extent (blocks smaller than what they hold separate nothing), unless fewer than NEEDED_BLOCKS
    blocks would be left: then as large as still leaves that many.

    Raises:
        SplitError: fewer than two polygons.
    """
    layout = layout_of([pixels] if isinstance(pixels, LabelledPixels) else pixels)
    pixel_m = max(layout.pixels[0].grid.pixel_size_m)
    position = layout.position_m
    span = float(np.ptp(position, axis=0).max())
    area_m2 = np.median(layout.size_px) * float(np.prod(layout.pixels[0].grid.pixel_size_m))
    floor = max(buffer_m, 2.0 * float(area_m2) ** 0.5, 4 * pixel_m)
    sides = np.maximum(np.ceil(np.geomspace(max(span, floor), 4 * pixel_m, 64) / pixel_m), 4) * pixel_m
    occupied = np.array([len(np.unique(block_keys(position, side))) for side in sides])
    for enough, least in ((WISHED_BLOCKS, floor), (NEEDED_BLOCKS, floor), (NEEDED_BLOCKS, 0.0), (2, 0.0)):
        fitting = np.flatnonzero((occupied >= enough) & (sides >= least))
        if len(fitting):
            return float(sides[fitting[0]])
    return float(sides[-1])


def split_blocks(
    pixels: Sequence[LabelledPixels],
    *, block_m: float, buffer_m: float, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int,
    scheme: ClassScheme | None = None, without_validation: str = "no validation figure has it",
    groups: NDArray[np.int64] | None = None,
) -> Split:  # fmt: skip
    """Train, validation and test polygons by spatial blocks, with a buffer between them.

    Of many assignments of blocks the one is taken that keeps most classes in train, then in test, then in validation,
    and comes nearest to ``fractions`` (train, validation, test) of each class's polygons after the buffer took its own.
    Same input and seed: same split. Warnings call the classes as ``scheme`` does, by code without one;
    ``without_validation`` is what follows for a class without validation polygons, and where nothing does ("") they
    leave it out.
    Blocks that share one of ``groups``, int64 [poly_id], are one block: no group is on two sides.

    Raises:
        SplitError: fewer occupied blocks than parts, or a buffer that leaves a part without polygons.
    """
    layout = layout_of(pixels)
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1.0) > 1e-6:  # noqa: PLR2004 - rounding
        expected = "three of 0 or more with sum 1, train > 0"
        raise SplitError("fractions for train, validation and test", got=fractions, expected=expected)
    block = blocks_of(layout, block_m)
    block = block if groups is None else _joined(block, groups[layout.ids])
    parts = sum(fraction > 0 for fraction in fractions)
    if block.max() + 1 < parts:
        least = f"at least {parts}, one for each part"
        refuse_few_blocks(int(block.max()) + 1, wanted=least, block_m=block_m, small=count_small(pixels))
    problem = Problem(layout, block, layout.neighbours(buffer_m), fractions)
    part = best_assignment(problem, np.random.default_rng(seed))
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        if fraction > 0 and not (part == wanted).any():
            got = f"buffer {buffer_m:g} m, blocks of {block_m:g} m, {counted(len(part), 'polygon')}"
            fix = "use smaller chips (a smaller buffer), or label further parts of the scene"
            raise SplitError(f"buffer leaves no polygon for {wanted.name.lower()}", got=got, fix=fix)
    split = split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m)
    names = {item.code: item.name for item in scheme.classes} if scheme else {}
    follows = {**_WITHOUT, Part.VALIDATION: without_validation}
    _warn_about(layout, part, fractions, buffer_m=buffer_m, names=names, follows=follows)
    return split


def _joined(block: NDArray[np.int32], group: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number of each polygon's block, int32 [polygon], where blocks with polygons of one group are one block."""
    blocks, place = int(block.max()) + 1, np.unique(group, return_inverse=True)[1]
    nodes = blocks + int(place.max()) + 1
    shared = coo_array((np.ones(len(block), dtype=np.int8), (block, blocks + place)), shape=(nodes, nodes))
    joined = connected_components(shared, directed=False)[1][block]
    return np.unique(joined, return_inverse=True)[1].astype(np.int32)


def layout_of(pixels: Sequence[LabelledPixels]) -> Layout:
    """Where the polygons lie.

    Raises:
        SplitError: fewer than two polygons.
    """
    if not pixels or not any(len(part) for part in pixels):
        raise SplitError("no labelled pixel in any scene", fix="check that labels and scenes overlap")
    layout = Layout.of(pixels)
    if len(layout.ids) < 2:  # noqa: PLR2004 - one polygon cannot be on two sides
        raise SplitError("one labelled polygon cannot be split", got="1 polygon", expected="several in each class")
    return layout


def count_small(pixels: Sequence[LabelledPixels]) -> int:
    """How many polygons hold the centre of no pixel of any scene."""
    used = {int(polygon) for part in pixels for polygon in part.polygon_ids()}
    return len({polygon for part in pixels for polygon in part.too_small} - used)


def refuse_few_blocks(occupied: int, *, wanted: str, block_m: float, small: int = 0) -> NoReturn:
    """Say that the blocks do not suffice; where ``small`` polygons hold no pixel centre, that these might.

    Raises:
        SplitError: always.
    """
    fix = "use smaller blocks or fewer folds, or label other parts of the scene"
    fix += f"; labels.all_touched: true uses the {small} polygons without a pixel centre too" if small else ""
    got = f"{occupied} blocks of {block_m:g} m"
    raise SplitError("too few blocks hold polygons", got=got, expected=wanted, fix=fix)


def split_of(
    layout: Layout, part: NDArray[np.int8], block: NDArray[np.int32], *, block_m: float, buffer_m: float
) -> Split:
    """The Split of polygons' parts, int8 [polygon of the layout]."""
    size = int(layout.ids.max()) + 1
    parts = np.full(size, ABSENT, dtype=np.int8)
    blocks = np.full(size, -1, dtype=np.int32)
    parts[layout.ids] = part
    blocks[layout.ids] = block
    return Split(parts, blocks, float(block_m), float(buffer_m))


def _warn_about(
    layout: Layout, part: NDArray[np.int8], fractions: tuple[float, float, float],
    *, buffer_m: float, names: Mapping[int, str], follows: Mapping[Part, str],
) -> None:  # fmt: skip
    lost = float((part == Part.BUFFER).mean())
    if lost > _MANY_LOST:
        text = f"the buffer of {buffer_m:,.0f} m between blocks takes {lost:.0%} of the labels"
        less = "a smaller split.buffer_m loses fewer, which of classes has to be half a chip (chips.size_px)"
        warnings.warn(f"{text}; {less}", SplitWarning, stacklevel=3)
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        missing = sorted(set(layout.code.tolist()) - set(layout.code[part == wanted].tolist()))
        if missing and fraction > 0 and follows[wanted]:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            classes = ", ".join(names.get(code, f"code {code}") for code in missing[:_SHOWN]) + more
            text = f"no {wanted.name.lower()} polygon of class {classes}; its polygons lie in too few blocks, so "
            fix = "draw some of it elsewhere in the scene, or set a smaller split.block_m"
            warnings.warn(f"{text}{follows[wanted]}; {fix}", SplitWarning, stacklevel=3)
