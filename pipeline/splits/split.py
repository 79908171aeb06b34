"""Who may learn from which polygon: spatial blocks and a buffer between them.

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
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from pydantic import Field, model_validator

from pipeline.errors import LabelError, SplitError, SplitWarning, counted
from pipeline.labels.rasterise import LabelledPixels
from pipeline.settings import Fraction, Settings
from pipeline.splits.geometry import Layout, block_keys, blocks_of
from pipeline.splits.search import Problem, best_assignment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source

# Enough blocks for five folds of five: fewer, and one odd block decides a fold.
WISHED_BLOCKS = 25
# Fewer occupied blocks than this leave no choice when three parts with a buffer are to be filled.
NEEDED_BLOCKS = 9
_MANY_LOST = 0.25
_SHOWN = 10


class SplitSettings(Settings):
    """Which polygons train, stop and test the model: whole polygons, by spatial blocks."""

    block_m: float | None = Field(
        None, gt=0, description="Side of a spatial block in metres. Default: from the label layout."
    )
    buffer_m: float | None = Field(
        None, ge=0, description="Distance kept free between the parts, in metres. Default: half a chip."
    )
    train: Fraction = Field(0.6, description="Share of the labels that trains.")
    validation: Fraction = Field(0.2, description="Share that chooses when to stop and calibrates the confidence.")
    test: Fraction = Field(0.2, description="Share that is only used for the figures at the end.")
    seed: int = Field(0, ge=0, description="Seed of the assignment.")

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Of train, validation and test."""
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _sum(self) -> SplitSettings:
        total = sum(self.fractions)
        if abs(total - 1) > 1e-6:  # noqa: PLR2004 - rounding of three decimals
            msg = f"train + validation + test is {total:g}; expected 1"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """A scene to learn from and its labelled pixels, on the scene's own grid."""

    source: Source
    pixels: LabelledPixels

    def __post_init__(self) -> None:
        """Refuse labels of another grid."""
        if not self.source.grid.same_pixels_as(self.pixels.grid):
            raise LabelError("labels were burned on another grid than the scene's", path=self.source.path)


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
        tested_scene: Number of the only scene whose pixels are tested, the one that is left out; None: all are.
    """

    part: NDArray[np.int8]
    block_of: NDArray[np.int32]
    block_m: float
    buffer_m: float
    tested_scene: int | None = None

    def polygons(self, part: Part) -> NDArray[np.int32]:
        """Ids of the polygons of ``part``, ascending."""
        return np.flatnonzero(self.part == part).astype(np.int32)

    def pixels(self, pixels: LabelledPixels, part: Part) -> LabelledPixels:
        """The labelled pixels of one scene that belong to ``part``."""
        return pixels.select(self.part[pixels.polygon] == part)

    def tested(self, pixels: Sequence[LabelledPixels]) -> list[LabelledPixels]:
        """The pixels of each scene that are tested: those of TEST, where one scene is left out of that one alone."""
        return [
            self.pixels(scene, Part.TEST) if self.tested_scene in {None, number} else scene.select(())
            for number, scene in enumerate(pixels)
        ]

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
    *,
    block_m: float,
    buffer_m: float,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int,
    scheme: ClassScheme | None = None,
) -> Split:
    """Train, validation and test polygons by spatial blocks, with a buffer between them.

    Of many assignments of blocks the one is taken that keeps most classes in train, then in test, then in validation,
    and comes nearest to ``fractions`` (train, validation, test) of each class's polygons after the buffer took its own.
    Same input and seed: same split. Warnings call the classes as ``scheme`` does, by code without one.

    Raises:
        SplitError: fewer occupied blocks than parts, or a buffer that leaves a part without polygons.
    """
    layout = layout_of(pixels)
    _check_fractions(fractions)
    block = blocks_of(layout, block_m)
    parts = sum(fraction > 0 for fraction in fractions)
    if block.max() + 1 < parts:
        least = f"at least {parts}, one for each part"
        refuse_few_blocks(int(block.max()) + 1, wanted=least, block_m=block_m, small=count_small(pixels))
    problem = Problem(layout, block, layout.neighbours(buffer_m), fractions)
    part = best_assignment(problem, np.random.default_rng(seed))
    for wanted, fraction in zip((Part.TRAIN, Part.VALIDATION, Part.TEST), fractions, strict=True):
        if fraction > 0 and not (part == wanted).any():
            raise SplitError(
                f"buffer leaves no polygon for {wanted.name.lower()}",
                got=f"buffer {buffer_m:g} m, blocks of {block_m:g} m, {counted(len(part), 'polygon')}",
                fix="use smaller chips (a smaller buffer), or label further parts of the scene",
            )
    split = split_of(layout, part, block, block_m=block_m, buffer_m=buffer_m)
    names = {item.code: item.name for item in scheme.classes} if scheme else {}
    _warn_about(layout, part, fractions, names=names)
    return split


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


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1.0) > 1e-6:  # noqa: PLR2004 - rounding
        raise SplitError(
            "fractions for train, validation and test",
            got=fractions,
            expected="three of 0 or more with sum 1, train > 0",
        )


def count_small(pixels: Sequence[LabelledPixels]) -> int:
    """How many polygons hold the centre of no pixel of any scene."""
    used = {int(polygon) for part in pixels for polygon in part.polygon_ids()}
    return len({polygon for part in pixels for polygon in part.too_small} - used)


def refuse_few_blocks(occupied: int, *, wanted: str, block_m: float, small: int = 0) -> NoReturn:
    """Say that the blocks do not suffice; where ``small`` polygons hold no pixel centre, that these might.

    Raises:
        SplitError: always.
    """
    raise SplitError(
        "too few blocks hold polygons",
        got=f"{occupied} blocks of {block_m:g} m",
        expected=wanted,
        fix="use smaller blocks or fewer folds, or label other parts of the scene"
        + (f"; labels.all_touched: true uses the {small} polygons without a pixel centre too" if small else ""),
    )


def split_of(
    layout: Layout,
    part: NDArray[np.int8],
    block: NDArray[np.int32],
    *,
    block_m: float,
    buffer_m: float,
    left_out: NDArray[np.int32] | None = None,
) -> Split:
    """The Split of polygons' parts, int8 [polygon of the layout]; those ``left_out`` (ids) are BUFFER."""
    size = int(max(layout.ids.max(), *(left_out if left_out is not None and len(left_out) else [0]))) + 1
    parts = np.full(size, ABSENT, dtype=np.int8)
    blocks = np.full(size, -1, dtype=np.int32)
    parts[layout.ids] = part
    blocks[layout.ids] = block
    if left_out is not None:
        parts[left_out] = Part.BUFFER
    return Split(parts, blocks, float(block_m), float(buffer_m))


def _warn_about(
    layout: Layout, part: NDArray[np.int8], fractions: tuple[float, float, float], *, names: Mapping[int, str]
) -> None:
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
            classes = ", ".join(names.get(code, f"code {code}") for code in missing[:_SHOWN]) + more
            warnings.warn(
                f"no {wanted.name.lower()} polygon of class {classes}; its polygons lie in too few blocks",
                SplitWarning,
                stacklevel=3,
            )
