"""The seam figure: whether a map shows where its tiles were cut.

A scene is mapped twice, the second time with tiles cut elsewhere. Along the cuts of the first tiling, classes change
from one pixel to the next in the first map; in the second map the same pixel pairs lie inside tiles. The ratio of the
two counts is 1 where tiles leave no trace, whatever the landscape does there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Grid, Window
from pipeline.inference.predict import Prediction, predict_scene
from pipeline.inference.tiles import round_up
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from pipeline.inference.plan import Plan
    from pipeline.inference.rows import RowStore
    from pipeline.inference.settings import MapSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

_ROWS = 512
# Pixels on each side of a cut that count as its neighbourhood.
_NEAR_PX = 8


@dataclass(frozen=True)
class Seams:
    """What a tiling does to a map."""

    # Class changes across the cuts, as a share of those at the same places where nothing was cut: 1 for none
    seam: float
    noise: float  # Half the 95 % interval of ``seam`` were there none, from the number of changes (Poisson)
    agreement: float  # Share of valid pixels with the same class in both tilings
    near: float  # Share of valid pixels within 8 pixels of a cut of either tiling whose class differs
    far: float  # The same for all other pixels


def seam_figure(
    bundle: ModelBundle, source: Source, prediction: Prediction, *, out: Path, settings: MapSettings
) -> Seams:
    """Map the scene again with tiles cut half a tile later, and compare.

    ``prediction`` is the first map, made with ``settings``; ``out`` takes the second one, whose files go in the end.
    """
    plan = prediction.plan
    shift = round_up(plan.tile_px // 2, plan.stride_px)
    shifted = replace(plan, shift_px=shift)
    with predict_scene(bundle, source, out=out, settings=settings, plan=shifted, fresh=True) as other:
        figures = compare_tilings(prediction.codes, other.codes, grid=prediction.grid, plans=(plan, shifted))
    other.remove()
    return figures


def compare_tilings(first: RowStore, second: RowStore, *, grid: Grid, plans: tuple[Plan, Plan]) -> Seams:
    """Seams of ``first`` against ``second``, whose tiles are those of ``plans``."""
    cuts, others = (_cuts(grid, plan) for plan in plans)
    near_rows, near_cols = (_near(a | b, size) for a, b, size in zip(cuts, others, grid.shape, strict=True))
    changes = np.zeros(2, dtype=np.int64)
    differ = np.zeros(2, dtype=np.int64)
    seen = np.zeros(2, dtype=np.int64)
    for row in range(0, grid.height, _ROWS):
        window = Window(row, 0, min(_ROWS, grid.height - row), grid.width)
        pair = [first.read(window), second.read(window)]
        changes += [_across_columns(codes, cuts[1]) for codes in pair]
        valid = pair[0] != NODATA
        near = near_rows[row : window.row_stop, None] | near_cols[None, :]
        for place, where in enumerate((near, ~near)):
            seen[place] += int((valid & where).sum())
            differ[place] += int((valid & where & (pair[0] != pair[1])).sum())
    for cut in sorted(cuts[0]):
        above = Window(cut - 1, 0, 2, grid.width)
        changes += [_across_columns(store.read(above).T, {1}) for store in (first, second)]
    shares = differ / np.maximum(seen, 1)
    control = max(int(changes[1]), 1)
    return Seams(
        seam=max(int(changes[0]), 1) / control,
        noise=float(1.96 * np.sqrt(2.0 / control)),
        agreement=1.0 - float(differ.sum() / max(int(seen.sum()), 1)),
        near=float(shares[0]),
        far=float(shares[1]),
    )


def _across_columns(codes: NDArray[np.uint8], cuts: set[int]) -> int:
    """Pixel pairs across the cuts that are both valid and of two classes."""
    count = 0
    for cut in cuts:
        left, right = codes[:, cut - 1], codes[:, cut]
        count += int(((left != right) & (left != NODATA) & (right != NODATA)).sum())
    return count


def _cuts(grid: Grid, plan: Plan) -> tuple[set[int], set[int]]:
    """First rows and first columns of all tiles but those at the edge of the grid."""
    tiles = plan.tiles(grid)
    return {tile.write.row for tile in tiles} - {0}, {tile.write.col for tile in tiles} - {0}


def _near(cuts: set[int], size: int) -> NDArray[np.bool_]:
    near = np.zeros(size, dtype=np.bool_)
    for cut in cuts:
        near[max(cut - _NEAR_PX, 0) : cut + _NEAR_PX] = True
    return near
