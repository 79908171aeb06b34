"""Folds: every labelled pixel is tested once, by a model that never saw its polygon; by blocks, polygons, scenes.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929 (blocks).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SplitError, SplitWarning, counted
from pipeline.splits.geometry import Layout, blocks_of
from pipeline.splits.search import Problem, best_assignment, fold_assignment
from pipeline.splits.split import ABSENT, Part, Split, layout_of, refuse_few_blocks, split_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels


def block_folds(
    pixels: Sequence[LabelledPixels],
    *,
    folds: int | None,
    block_m: float,
    buffer_m: float,
    seed: int,
    validation_fraction: float = 0.2,
    leave_out_single: bool = False,
) -> list[Split]:
    """One Split per fold of blocks: every polygon is TEST in exactly one.

    Train and validation polygons within the buffer of a fold's test polygons are BUFFER in that fold; validation is
    carved from the rest by blocks. ``folds`` None leaves one block out at a time.

    Raises:
        SplitError: fewer occupied blocks than folds; a class with one polygon (with ``leave_out_single`` such polygons
            are BUFFER in every fold, with a SplitWarning); a fold whose buffer leaves nothing to train on.
    """
    layout = layout_of(pixels)
    layout, left_out = _without_single(layout, allowed=leave_out_single)
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
        splits.append(split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m, left_out=left_out))
    return splits


def polygon_folds(
    pixels: Sequence[LabelledPixels],
    *,
    folds: int,
    seed: int,
    validation_fraction: float = 0.2,
    leave_out_single: bool = False,
) -> list[Split]:
    """One Split per fold of whole polygons, drawn at random within each class; no blocks, no buffer.

    Neighbouring polygons may be on both sides, so the figures are more friendly than those of block folds.

    Raises:
        SplitError: fewer polygons than folds, or a class with one polygon; see :func:`block_folds`.
    """
    layout, left_out = _without_single(layout_of(pixels), allowed=leave_out_single)
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
            common = np.isin(layout.code, _codes_with(layout.code[part == Part.TRAIN], at_least=2))
            part[(part == Part.TRAIN) & (dealt == every - 1) & common] = Part.VALIDATION
        splits.append(split_of(layout, part, block, block_m=0.0, buffer_m=0.0, left_out=left_out))
    return splits


def group_folds(pixels: Sequence[LabelledPixels], groups: NDArray[np.int64], *, folds: int, seed: int) -> list[Split]:
    """One Split per fold of whole groups (stations, tiles), dealt at random so that folds have alike many samples.

    Each group is a block of its own for whatever holds out within the training samples; no buffer, no validation.

    Args:
        pixels: Labelled pixels of the scenes.
        groups: Group of each sample, int64 [poly_id]; -1 for none.
        folds: How many.
        seed: Of the deal.

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
    hands = 20
    dealt = dealt_groups(groups, ids, folds=min(hands, len(np.unique(groups[ids]))), seed=seed)
    most = int(dealt.max()) + 1
    limits = np.round(np.cumsum(fractions) * most).astype(int)
    limits[0] = max(limits[0], 1)
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


def scene_folds(
    pixels: Sequence[LabelledPixels], *, block_m: float, buffer_m: float, seed: int, validation_fraction: float = 0.2
) -> list[Split]:
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
        problem = Problem(layout, own.astype(np.int32), pairs, (1.0 - validation_fraction, validation_fraction, 0.0))
        part = best_assignment(problem, rng, test_blocks=np.arange(problem.blocks) == 0)
        _need_training(part, f"scene {number + 1} of {len(pixels)} left out", block_m=block_m, buffer_m=buffer_m)
        split = split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m)
        splits.append(replace(split, tested_scene=number))
    return splits


def _need_training(part: NDArray[np.int8], fold: str, *, block_m: float, buffer_m: float) -> None:
    if not (part == Part.TRAIN).any():
        raise SplitError(
            f"{fold}: the buffer leaves no polygon to train on",
            got=f"buffer {buffer_m:g} m, blocks of {block_m:g} m",
            fix="use smaller chips (a smaller buffer)",
        )


def _codes_with(codes: NDArray[np.uint8], *, at_least: int) -> NDArray[np.uint8]:
    unique, counts = np.unique(codes, return_counts=True)
    return np.asarray(unique[counts >= at_least], dtype=np.uint8)


def _without_single(layout: Layout, *, allowed: bool) -> tuple[Layout, NDArray[np.int32]]:
    """The layout without classes of one polygon, and the ids taken out."""
    keep = np.isin(layout.code, _codes_with(layout.code, at_least=2))
    if keep.all():
        return layout, np.empty(0, dtype=np.int32)
    named = ", ".join(f"{code} (polygon {i})" for code, i in zip(layout.code[~keep], layout.ids[~keep], strict=True))
    if not allowed or keep.sum() < 2:  # noqa: PLR2004 - one polygon makes no folds
        raise SplitError(
            f"class with one polygon cannot be cross-validated: code {named}",
            expected="two polygons or more",
            fix="draw more polygons of it, or leave the class out",
        )
    warnings.warn(f"left out of cross-validation, one polygon only: class code {named}", SplitWarning, stacklevel=3)
    kept = Layout(
        tuple(part.select(layout.ids[keep]) for part in layout.pixels),
        layout.ids[keep],
        layout.code[keep],
        layout.size_px[keep],
    )
    return kept, layout.ids[~keep]


def _deal(code: NDArray[np.uint8], which: NDArray[np.bool_], hands: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal polygons of each class in turn to ``hands``, starting where the class before stopped; -1 for the others."""
    dealt = np.full(len(code), -1, dtype=np.int64)
    order = rng.permutation(np.flatnonzero(which))
    order = order[np.argsort(code[order], kind="stable")]
    dealt[order] = (np.arange(len(order)) + rng.integers(hands)) % hands
    return dealt
