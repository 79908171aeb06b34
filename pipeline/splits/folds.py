"""Folds: every labelled pixel is tested once, by a model that never saw its polygon; by blocks, polygons, scenes.

For comparison: fewer polygons to learn from, and pixels at random. A pixel beside one that was learned from is nearly
the same pixel; how far figures of random pixels lie above those of blocks is the optimism of papers with random splits.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929 (blocks).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SplitError, SplitWarning, counted
from pipeline.scenes.survey import usable_px
from pipeline.splits.search import Problem, best_assignment, fold_assignment, layout_of, refuse_few_blocks, split_of
from pipeline.splits.settings import FOLD_KINDS
from pipeline.splits.split import ABSENT, Part, Split, TrainingScene, blocks_of, check_leakage

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source


def block_folds(
    pixels: Sequence[LabelledPixels],
    *, folds: int | None, block_m: float, buffer_m: float, seed: int, validation_fraction: float = 0.2,
) -> list[Split]:  # fmt: skip
    """One Split per fold of blocks: every polygon is TEST in exactly one.

    Train and validation polygons within the buffer of a fold's test polygons are BUFFER in that fold; validation is
    carved from the rest by blocks. ``folds`` None leaves one block out at a time.

    Raises:
        SplitError: fewer occupied blocks than folds, or a fold whose buffer leaves nothing to train on.
    """
    layout = layout_of(pixels)
    block = blocks_of(layout, block_m)
    occupied = int(block.max()) + 1
    folds = occupied if folds is None else folds
    if not 2 <= folds <= occupied:  # noqa: PLR2004 - one fold has nothing to train on
        refuse_few_blocks(occupied, wanted=f"2..{occupied} folds, not {folds}", block_m=block_m)
    rng = np.random.default_rng(seed)
    pairs = layout.neighbours(buffer_m)
    fold_of_block = fold_assignment(layout, block, pairs, folds=folds, rng=rng)
    problem = Problem(layout, block, pairs, (1.0 - validation_fraction, validation_fraction, 0.0))
    splits = []
    for fold in range(folds):
        part = best_assignment(problem, rng, test_blocks=fold_of_block == fold)
        _need_training(part, f"fold {fold + 1} of {folds}", block_m=block_m, buffer_m=buffer_m)
        splits.append(split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m))
    return splits


def polygon_folds(
    pixels: Sequence[LabelledPixels], *, folds: int, seed: int, validation_fraction: float = 0.2
) -> list[Split]:
    """One Split per fold of whole polygons, drawn at random within each class; no blocks, no buffer.

    Neighbouring polygons may be on both sides, so the figures are more friendly than those of block folds.

    Raises:
        SplitError: fewer polygons than folds.
    """
    layout = layout_of(pixels)
    if not 2 <= folds <= len(layout.ids):  # noqa: PLR2004 - as above
        raise SplitError(
            f"{folds} folds", got=counted(len(layout.ids), "polygon"), expected=f"2..{len(layout.ids)} folds"
        )
    rng = np.random.default_rng(seed)
    fold_of = _deal(layout.code, np.ones(len(layout.ids), dtype=np.bool_), folds, rng)
    block = np.full(len(layout.ids), -1, dtype=np.int32)
    every = max(round(1 / validation_fraction), 2) if validation_fraction > 0 else 0
    splits = []
    for fold in range(folds):
        part = np.where(fold_of == fold, Part.TEST, Part.TRAIN).astype(np.int8)
        if every:
            dealt = _deal(layout.code, part == Part.TRAIN, every, rng)
            codes, polygons = np.unique(layout.code[part == Part.TRAIN], return_counts=True)
            common = np.isin(layout.code, codes[polygons > 1])
            part[(part == Part.TRAIN) & (dealt == every - 1) & common] = Part.VALIDATION
        splits.append(split_of(layout, part, block, block_m=0.0, buffer_m=0.0))
    return splits


def group_folds(pixels: Sequence[LabelledPixels], groups: NDArray[np.int64], *, folds: int, seed: int) -> list[Split]:
    """One Split per fold of whole groups (stations, tiles), dealt at random so that folds have alike many samples.

    Each group is a block of its own for whatever holds out within the training samples; no buffer, no validation.

    ``groups`` is the group of each sample, int64 [poly_id]; -1 for none.

    Raises:
        SplitError: fewer groups than folds.
    """
    ids = np.unique(np.concatenate([part.polygon for part in pixels]))
    fold_of = dealt_groups(groups, ids, folds=folds, seed=seed)
    splits = []
    for fold in range(folds):
        part = np.full(len(groups), ABSENT, dtype=np.int8)
        part[ids] = np.where(fold_of[groups[ids]] == fold, Part.TEST, Part.TRAIN)
        splits.append(Split(part, groups.astype(np.int32), 0.0, 0.0))
    return splits


def group_split(
    pixels: Sequence[LabelledPixels], groups: NDArray[np.int64], *, fractions: tuple[float, float, float], seed: int
) -> Split:
    """Whole groups to train, validation and test, by samples as near to ``fractions`` as groups allow.

    Raises:
        SplitError: fewer groups than parts.
    """
    ids = np.unique(np.concatenate([part.polygon for part in pixels]))
    hands, have = 20, len(np.unique(groups[ids]))
    if have < 2:  # noqa: PLR2004 - one has nothing to be tested on
        raise SplitError("too few groups to hold some out", got=counted(have, "group"), expected="one for each part")
    dealt = dealt_groups(groups, ids, folds=min(hands, have), seed=seed)
    most = int(dealt.max()) + 1
    limits = np.round(np.cumsum(fractions) * most).astype(int)
    # A group at least for each part that has a share.
    limits[1] = min(limits[1], most - (fractions[2] > 0))
    limits[0] = max(min(limits[0], limits[1] - (fractions[1] > 0)), 1)
    limits[1] = max(limits[1], limits[0] + (fractions[1] > 0))
    part = np.full(len(groups), ABSENT, dtype=np.int8)
    part[ids] = np.searchsorted(limits[:2], dealt[groups[ids]], side="right")
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        if fraction > 0 and not (part == wanted).any():
            got = counted(most, "group")
            raise SplitError(f"too few groups for {wanted.name.lower()}", got=got, expected="one for each part")
    return Split(part, groups.astype(np.int32), 0.0, 0.0)


def dealt_groups(groups: NDArray[np.int64], ids: NDArray[np.int32], *, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each group, int64 [group]: largest groups first, each to the fold with the fewest samples.

    Raises:
        SplitError: fewer groups than folds.
    """
    size = np.bincount(groups[ids])
    present = np.flatnonzero(size)
    if not 2 <= folds <= len(present):  # noqa: PLR2004 - one fold has nothing to train on
        raise SplitError(f"{folds} folds", got=counted(len(present), "group"), expected=f"2..{len(present)} folds")
    rng = np.random.default_rng(seed)
    order = rng.permutation(present)
    order = order[np.argsort(-size[order], kind="stable")]
    fold_of, load = np.full(len(size), -1, dtype=np.int64), np.zeros(folds)
    for group in order:
        least = rng.permutation(np.flatnonzero(load == load.min()))[0]
        fold_of[group] = least
        load[least] += size[group]
    return fold_of


def scene_folds(pixels: Sequence[LabelledPixels], *, block_m: float, buffer_m: float, seed: int) -> list[Split]:
    """Leave one scene out: one Split per scene, TEST all polygons with pixels in it; validation by blocks of the rest.

    A polygon in the overlap of two scenes is TEST in the folds of both, and tested in each with its pixels in the scene
    left out alone: what the other scene shows there was taken with what is learned from (see ``Split.tested_scene``).
    Polygons of other scenes within the buffer of a test polygon are BUFFER, as in :func:`block_folds`.

    Raises:
        SplitError: fewer than two scenes; a scene whose polygons are all there are, or that has none; a scene whose
            buffer leaves nothing to train on.
    """
    if len(pixels) < 2:  # noqa: PLR2004 - one is left out, others must remain
        raise SplitError("leaving one scene out needs several", got=f"{len(pixels)} scene", fix="use block folds")
    layout = layout_of(pixels)
    block = blocks_of(layout, block_m)
    pairs = layout.neighbours(buffer_m)
    rng = np.random.default_rng(seed)
    splits = []
    for number, scene in enumerate(pixels):
        test = np.isin(layout.ids, scene.polygon)
        if test.all() or not test.any():
            what = f"scene {number + 1} of {len(pixels)} holds {'all' if test.all() else 'no'} polygons"
            raise SplitError(what, fix="leave one block out instead")
        # What is tested is a block of its own, the first, wherever it lies.
        _, own = np.unique(np.where(test, -1, block), return_inverse=True)
        problem = Problem(layout, own.astype(np.int32), pairs, (0.8, 0.2, 0.0))
        part = best_assignment(problem, rng, test_blocks=np.arange(problem.blocks) == 0)
        _need_training(part, f"scene {number + 1} of {len(pixels)} left out", block_m=block_m, buffer_m=buffer_m)
        split = split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m)
        splits.append(replace(split, tested_scene=number))
    return splits


_VALIDATION_EVERY = 5
# Share of the scenes' area below which the polygons' extent is called a corner. A judgement, not a measured limit.
_CORNER = 0.1


@dataclass(frozen=True)
class FoldPlan:
    """How folds are drawn."""

    kind: str  # "blocks", "polygons", "block" (one out at a time) or "scene" (one out at a time)
    folds: int  # Number of folds of the first two
    block_m: float  # Side of the blocks in metres
    buffer_m: float  # Distance kept free between what is tested and what is learned from, in metres

    def name(self, *, seed: int) -> str:
        """Name of the folder that keeps the folds' results."""
        return f"{self.kind}{self.folds if self.kind in FOLD_KINDS else ''}_seed{seed}"

    def draw(self, pixels: Sequence[LabelledPixels], *, reach_px: int, seed: int) -> list[Split]:
        """One split per fold; of blocks and scenes with the proof that no chip sees what is tested.

        Raises:
            SplitError: fewer blocks, polygons or scenes than folds, a buffer that leaves nothing to learn from or is
                narrower than a chip reaches.
        """
        if self.kind == "polygons":
            return polygon_folds(pixels, folds=self.folds, seed=seed)
        if self.kind == "scene":
            splits = scene_folds(pixels, block_m=self.block_m, buffer_m=self.buffer_m, seed=seed)
        else:
            folds = None if self.kind == "block" else self.folds
            splits = block_folds(pixels, folds=folds, block_m=self.block_m, buffer_m=self.buffer_m, seed=seed)
        for split in splits:
            check_leakage(pixels, split, reach_px=reach_px, buffer_m=self.buffer_m)
        return splits


def scenes_for_folds(
    scenes: Sequence[TrainingScene], scheme: ClassScheme, *, leave_out_single: bool
) -> list[TrainingScene]:
    """Labelled scenes without the classes of one polygon, which cannot be both learned and tested.

    A SplitWarning names these classes, and says where all polygons lie in a corner of the scenes.

    Raises:
        SplitError: no labelled pixel, or a class with one polygon and ``leave_out_single`` is not given.
    """
    if not scenes:
        raise SplitError("no labelled pixel in any scene", fix="check that labels and scenes overlap")
    polygon, code = _joined([scene.pixels for scene in scenes])
    single = [item for item in scheme.classes if len(np.unique(polygon[code == item.code])) == 1]
    if single and not leave_out_single:
        named = ", ".join(f"{item.name} (polygon {polygon[code == item.code][0]})" for item in single)
        what = f"class with one polygon cannot be cross-validated: {named}"
        fix = "draw more polygons of it, or go on without it with --leave-out-single"
        raise SplitError(what, expected="two polygons or more", fix=fix)
    if single:
        text = f"left out of cross-validation, one polygon only: {', '.join(item.name for item in single)}"
        warnings.warn(text, SplitWarning, stacklevel=2)
    codes = [item.code for item in single]
    parts = ((scene.source, scene.pixels.select(~np.isin(scene.pixels.code, codes))) for scene in scenes)
    kept = [TrainingScene(source, pixels) for source, pixels in parts if len(pixels)]
    warn_of_corner(kept)
    return kept


def warn_of_corner(scenes: Sequence[TrainingScene], *, mapped: Callable[[Source], float] | None = None) -> None:
    """SplitWarning where all polygons lie in a small part of what is mapped.

    ``mapped`` gives the pixels of a scene that are; without it those that have data.
    """
    spanned = sum(int(np.ptp(item.pixels.row) + 1) * int(np.ptp(item.pixels.col) + 1) for item in scenes)
    if spanned >= _CORNER * sum(item.source.grid.height * item.source.grid.width for item in scenes):
        return
    whole = sum((mapped or usable_px)(item.source) for item in scenes)
    if spanned < _CORNER * whole:
        text = f"all polygons lie within {spanned / whole:.1%} of the scene: figures and map hold for that corner, and"
        warnings.warn(
            f"{text} elsewhere nothing tells how good the map is; draw some there", SplitWarning, stacklevel=2
        )


def _joined(parts: Sequence[LabelledPixels]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Polygon int32 and code uint8 [pixel] of all labelled pixels."""
    return np.concatenate([part.polygon for part in parts]), np.concatenate([part.code for part in parts])


def warn_of_untaught(
    splits: Sequence[Split], scenes: Sequence[TrainingScene], scheme: ClassScheme, *, kind: str,
    learned: Sequence[Part] = (Part.TRAIN, Part.VALIDATION),
) -> None:  # fmt: skip
    """SplitWarning where a fold tests a class that none of its training polygons has: nothing there can be right."""
    polygon, code = _joined([scene.pixels for scene in scenes])
    ids, first = np.unique(polygon, return_index=True)
    said = []
    for number, split in enumerate(splits, 1):
        part = split.part[ids]
        tested = set(code[first][part == Part.TEST].tolist())
        untaught = tested - set(code[first][np.isin(part, learned)].tolist())
        if untaught:
            said.append(f"fold {number}: {', '.join(item.name for item in scheme.classes if item.code in untaught)}")
    if said:
        text = f"folds by {kind} test classes that they have no polygon to learn from ({'; '.join(said)})"
        warnings.warn(text, SplitWarning, stacklevel=2)


def _need_training(part: NDArray[np.int8], fold: str, *, block_m: float, buffer_m: float) -> None:
    if not (part == Part.TRAIN).any():
        got = f"buffer {buffer_m:g} m, blocks of {block_m:g} m"
        fix = "use smaller chips (a smaller buffer)"
        raise SplitError(f"{fold}: the buffer leaves no polygon to train on", got=got, fix=fix)


def _deal(
    code: NDArray[np.integer], which: NDArray[np.bool_], hands: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal members of each code in turn to ``hands``, starting where the code before stopped; -1 for the others."""
    dealt = np.full(len(code), -1, dtype=np.int64)
    order = rng.permutation(np.flatnonzero(which))
    order = order[np.argsort(code[order], kind="stable")]
    dealt[order] = (np.arange(len(order)) + rng.integers(hands)) % hands
    return dealt


def fewer_polygons(split: Split, pixels: Sequence[LabelledPixels], *, share: float, seed: int) -> Split:
    """The split with a random share of its train and validation polygons, of every class; the others are BUFFER.

    Shares are nested: what a smaller one holds, a larger one of the same seed holds too. At least one polygon of each
    class and part stays. The test polygons stay what they are.

    Raises:
        SplitError: a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise SplitError("share of the polygons", got=share, expected="above 0, at most 1")
    polygon, code = _joined(pixels)
    ids, first = np.unique(polygon, return_index=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids))
    part = split.part.copy()
    for which in (Part.TRAIN, Part.VALIDATION):
        for value in np.unique(code):
            own = [int(ids[i]) for i in order if code[first[i]] == value and split.part[ids[i]] == which]
            part[own[int(np.ceil(share * len(own))) :]] = Part.BUFFER
    return replace(split, part=part)


def random_pixel_fold(
    scenes: Sequence[TrainingScene], *, folds: int, fold: int, seed: int
) -> tuple[list[TrainingScene], Split]:
    """Scenes and split of one fold in which every ``folds``-th labelled pixel is tested, whatever its polygon.

    The tested pixels of polygon p get the id p + n, n being the highest id, so that forest and network take them for
    polygons of their own; the rest of p keeps its id. Every fifth polygon validates. Over all folds, every pixel is
    tested once.
    """
    rng = np.random.default_rng(seed)
    highest = max(int(scene.pixels.polygon.max()) for scene in scenes)
    dealt = []
    for scene in scenes:
        own = scene.pixels.polygon
        hand = _deal(own, np.ones(len(own), dtype=np.bool_), folds, rng)
        polygon = np.where(hand == fold, own + highest, own).astype(np.int32)
        dealt.append(TrainingScene(scene.source, replace(scene.pixels, polygon=polygon)))
    ids = np.unique(np.concatenate([scene.pixels.polygon for scene in dealt]))
    part = np.full(2 * highest + 1, ABSENT, dtype=np.int8)
    part[ids] = np.where(ids > highest, Part.TEST, Part.TRAIN)
    learned = ids[ids <= highest]
    part[rng.permutation(learned)[: len(learned) // _VALIDATION_EVERY]] = Part.VALIDATION
    return dealt, Split(part, np.full(len(part), -1, dtype=np.int32), 0.0, 0.0)
