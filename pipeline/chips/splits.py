"""Who may learn from which polygon: spatial blocks, a buffer between them, and folds.

A polygon is never cut: the block that holds its centre decides. Polygons within the buffer of another part's polygons
go to BUFFER and are used by nobody: test keeps its polygons, validation gives way to test, train to both.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929 (blocks); Kattenborn et al. (2022), Spatially autocorrelated training and
validation samples inflate performance assessment of convolutional neural networks, ISPRS Open J. 5, 100018 (why).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pipeline.chips.geometry import Layout
from pipeline.chips.search import Problem, best_assignment, fold_assignment
from pipeline.errors import SplitError, SplitWarning
from pipeline.labels.rasterise import LabelledPixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme

# Enough blocks for five folds of five: fewer, and one odd block decides a fold.
WISHED_BLOCKS = 25
# Fewer occupied blocks than this leave no choice when three parts with a buffer are to be filled.
NEEDED_BLOCKS = 9
_MANY_LOST = 0.25
_SHOWN = 10


class Part(IntEnum):
    """What a polygon is for."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    BUFFER = 3


ABSENT = -1


@dataclass(frozen=True, eq=False)
class Split:
    """Which polygon is for what.

    Attributes:
        part: int8 [poly_id], a Part, or ABSENT (-1) for ids without pixels; index 0 is unused.
        block_of: int32 [poly_id], number of the polygon's block, -1 where there is none.
        block_m: Side of a block in metres, 0 where the split is not spatial.
        buffer_m: Least distance in metres between pixels of two parts.
    """

    part: NDArray[np.int8]
    block_of: NDArray[np.int32]
    block_m: float
    buffer_m: float

    def polygons(self, part: Part) -> NDArray[np.int32]:
        """Ids of the polygons of ``part``, ascending."""
        return np.flatnonzero(self.part == part).astype(np.int32)

    def pixels(self, pixels: LabelledPixels, part: Part) -> LabelledPixels:
        """The labelled pixels of one scene that belong to ``part``."""
        return pixels.select(self.part[pixels.polygon] == part)

    def counts(self, pixels: Sequence[LabelledPixels], scheme: ClassScheme) -> dict[str, dict[str, dict[str, int]]]:
        """``{class: {part: {"polygons": n, "pixels": n}}}`` for every class of the scheme and every part."""
        layout = Layout.of(pixels)
        part = self.part[layout.ids]
        return {
            item.name: {
                p.name.lower(): {
                    "polygons": int(((part == p) & (layout.code == item.code)).sum()),
                    "pixels": int(layout.size_px[(part == p) & (layout.code == item.code)].sum()),
                }
                for p in Part
            }
            for item in scheme.classes
        }


def default_block_m(pixels: LabelledPixels | Sequence[LabelledPixels], *, buffer_m: float = 0.0) -> float:
    """Side of a block in metres that suits the label layout, a whole number of the first grid's pixels.

    The largest side that leaves WISHED_BLOCKS blocks with polygons in them, but not below the buffer or twice the
    median polygon's extent (blocks smaller than what they hold separate nothing), unless fewer than NEEDED_BLOCKS
    blocks would be left: then as large as still leaves that many.

    Raises:
        SplitError: fewer than two polygons.
    """
    layout = _layout([pixels] if isinstance(pixels, LabelledPixels) else pixels)
    pixel_m = max(layout.pixels[0].grid.pixel_size_m)
    position = layout.position_m
    span = float(np.ptp(position, axis=0).max())
    area_m2 = np.median(layout.size_px) * float(np.prod(layout.pixels[0].grid.pixel_size_m))
    floor = max(buffer_m, 2.0 * float(area_m2) ** 0.5, 4 * pixel_m)
    sides = np.maximum(np.ceil(np.geomspace(max(span, floor), 4 * pixel_m, 64) / pixel_m), 4) * pixel_m
    occupied = np.array([len(np.unique(_block_of(position, side))) for side in sides])
    for enough, least in ((WISHED_BLOCKS, floor), (NEEDED_BLOCKS, floor), (NEEDED_BLOCKS, 0.0), (2, 0.0)):
        fitting = np.flatnonzero((occupied >= enough) & (sides >= least))
        if len(fitting):
            return float(sides[fitting[0]])
    return float(sides[-1])


def split_blocks(
    pixels: Sequence[LabelledPixels],
    *,
    block_m: float,
    buffer_m: float,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int,
) -> Split:
    """Train, validation and test polygons by spatial blocks, with a buffer between them.

    Of many assignments of blocks the one is taken that keeps most classes in train, then in test, then in validation,
    and comes nearest to ``fractions`` (train, validation, test) of each class's polygons after the buffer took its own.
    Same input and seed: same split.

    Raises:
        SplitError: fewer occupied blocks than parts, or a buffer that leaves a part without polygons.
    """
    layout = _layout(pixels)
    _check_fractions(fractions)
    block = _blocks(layout, block_m)
    parts = sum(fraction > 0 for fraction in fractions)
    if block.max() + 1 < parts:
        _too_few_blocks(int(block.max()) + 1, wanted=f"at least {parts}, one for each part", block_m=block_m)
    problem = Problem(layout, block, layout.neighbours(buffer_m), fractions)
    part = best_assignment(problem, np.random.default_rng(seed))
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        if fraction > 0 and not (part == wanted).any():
            raise SplitError(
                f"buffer leaves no polygon for {wanted.name.lower()}",
                got=f"buffer {buffer_m:g} m, blocks of {block_m:g} m, {len(part)} polygons",
                fix="use smaller chips (a smaller buffer), or label further parts of the scene",
            )
    split = _split(layout, part, block, block_m=block_m, buffer_m=buffer_m)
    _warn_about(layout, part, fractions)
    return split


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
    layout = _layout(pixels)
    layout, left_out = _without_single(layout, allowed=leave_out_single)
    block = _blocks(layout, block_m)
    occupied = int(block.max()) + 1
    folds = occupied if folds is None else folds
    if not 2 <= folds <= occupied:  # noqa: PLR2004 - one fold has nothing to train on
        _too_few_blocks(occupied, wanted=f"2..{occupied} folds, not {folds}", block_m=block_m)
    rng = np.random.default_rng(seed)
    pairs = layout.neighbours(buffer_m)
    fold_of_block = fold_assignment(layout, block, pairs, folds=folds, rng=rng)
    problem = Problem(layout, block, pairs, (1.0 - validation_fraction, validation_fraction, 0.0))
    splits = []
    for fold in range(folds):
        part = best_assignment(problem, rng, test_blocks=fold_of_block == fold)
        if not (part == Part.TRAIN).any():
            raise SplitError(
                f"fold {fold + 1} of {folds}: the buffer leaves no polygon to train on",
                got=f"buffer {buffer_m:g} m, blocks of {block_m:g} m",
                fix="use smaller chips (a smaller buffer)",
            )
        splits.append(_split(layout, part, block, block_m=block_m, buffer_m=buffer_m, left_out=left_out))
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
    layout, left_out = _without_single(_layout(pixels), allowed=leave_out_single)
    if not 2 <= folds <= len(layout.ids):  # noqa: PLR2004
        raise SplitError(f"{folds} folds", got=f"{len(layout.ids)} polygons", expected=f"2..{len(layout.ids)} folds")
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
        splits.append(_split(layout, part, block, block_m=0.0, buffer_m=0.0, left_out=left_out))
    return splits


def scene_folds(
    pixels: Sequence[LabelledPixels], *, block_m: float, seed: int, validation_fraction: float = 0.2
) -> list[Split]:
    """Leave one scene out: one Split per scene, TEST all polygons with pixels in it; validation by blocks of the rest.

    Raises:
        SplitError: fewer than two scenes, or a scene whose polygons are all there are.
    """
    if len(pixels) < 2:  # noqa: PLR2004
        raise SplitError("leaving one scene out needs several", got=f"{len(pixels)} scene", fix="use block folds")
    layout = _layout(pixels)
    block = _blocks(layout, block_m)
    rng = np.random.default_rng(seed)
    splits = []
    for number, scene in enumerate(pixels):
        test = np.isin(layout.ids, scene.polygon)
        if test.all() or not test.any():
            what = f"scene {number + 1} of {len(pixels)} holds {'all' if test.all() else 'no'} polygons"
            raise SplitError(what, fix="leave one block out instead")
        rest = Layout(layout.pixels, layout.ids[~test], layout.code[~test], layout.size_px[~test])
        part = np.full(len(layout.ids), Part.TEST, dtype=np.int8)
        _, own = np.unique(block[~test], return_inverse=True)
        fractions = (1.0 - validation_fraction, validation_fraction, 0.0)
        problem = Problem(rest, own.astype(np.int32), np.empty((0, 2), dtype=np.intp), fractions)
        part[~test] = best_assignment(problem, rng)
        splits.append(_split(layout, part, block, block_m=block_m, buffer_m=0.0))
    return splits


def _layout(pixels: Sequence[LabelledPixels]) -> Layout:
    if not pixels or not any(len(part) for part in pixels):
        raise SplitError("no labelled pixel in any scene", fix="check that labels and scenes overlap")
    layout = Layout.of(pixels)
    if len(layout.ids) < 2:  # noqa: PLR2004 - one polygon cannot be on two sides
        raise SplitError("one labelled polygon cannot be split", got="1 polygon", expected="several in each class")
    return layout


def _block_of(position: NDArray[np.float64], block_m: float) -> NDArray[np.int64]:
    cell = np.floor(position / block_m).astype(np.int64)
    return np.asarray(cell[:, 1] * 2**31 + cell[:, 0], dtype=np.int64)


def _blocks(layout: Layout, block_m: float) -> NDArray[np.int32]:
    """Number of each polygon's block, int32 [polygon], 0..occupied-1 from north-west to south-east."""
    if not block_m > 0:
        raise SplitError("size of a block", got=f"{block_m} m", expected="more than 0 m")
    _, block = np.unique(_block_of(layout.position_m, block_m), return_inverse=True)
    return block.astype(np.int32)


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1.0) > 1e-6:  # noqa: PLR2004 - rounding
        raise SplitError(
            "fractions for train, validation and test",
            got=fractions,
            expected="three of 0 or more with sum 1, train > 0",
        )


def _too_few_blocks(occupied: int, *, wanted: str, block_m: float) -> None:
    raise SplitError(
        "too few blocks hold polygons",
        got=f"{occupied} blocks of {block_m:g} m",
        expected=wanted,
        fix="use smaller blocks or fewer folds, or label other parts of the scene",
    )


def _split(
    layout: Layout,
    part: NDArray[np.int8],
    block: NDArray[np.int32],
    *,
    block_m: float,
    buffer_m: float,
    left_out: NDArray[np.int32] | None = None,
) -> Split:
    size = int(max(layout.ids.max(), *(left_out if left_out is not None and len(left_out) else [0]))) + 1
    parts = np.full(size, ABSENT, dtype=np.int8)
    blocks = np.full(size, -1, dtype=np.int32)
    parts[layout.ids] = part
    blocks[layout.ids] = block
    if left_out is not None:
        parts[left_out] = Part.BUFFER
    return Split(parts, blocks, float(block_m), float(buffer_m))


def _codes_with(codes: NDArray[np.uint8], *, at_least: int) -> NDArray[np.uint8]:
    unique, counts = np.unique(codes, return_counts=True)
    return np.asarray(unique[counts >= at_least], dtype=np.uint8)


def _without_single(layout: Layout, *, allowed: bool) -> tuple[Layout, NDArray[np.int32]]:
    """The layout without classes of one polygon, and the ids taken out."""
    keep = np.isin(layout.code, _codes_with(layout.code, at_least=2))
    if keep.all():
        return layout, np.empty(0, dtype=np.int32)
    named = ", ".join(f"{code} (polygon {i})" for code, i in zip(layout.code[~keep], layout.ids[~keep], strict=True))
    if not allowed or keep.sum() < 2:  # noqa: PLR2004
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


def _warn_about(layout: Layout, part: NDArray[np.int8], fractions: tuple[float, float, float]) -> None:
    lost = float((part == Part.BUFFER).mean())
    if lost > _MANY_LOST:
        warnings.warn(
            f"the buffer between blocks takes {lost:.0%} of the polygons; smaller chips lose fewer",
            SplitWarning,
            stacklevel=3,
        )
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        missing = sorted(set(layout.code.tolist()) - set(layout.code[part == wanted].tolist()))
        if missing and fraction > 0:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            codes = ", ".join(map(str, missing[:_SHOWN])) + more
            warnings.warn(
                f"no {wanted.name.lower()} polygon of class code {codes}; its polygons lie in too few blocks",
                SplitWarning,
                stacklevel=3,
            )
