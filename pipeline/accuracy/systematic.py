"""Systematic samples with several random starts, so that their variance can be estimated without bias.

One grid with one random start is a sample of a single cluster: no unbiased estimator of its variance exists. Several
grids, their starts drawn at random without replacement, are a simple random sample of grids, and the variance between
them says what the design does, whatever the map looks like: a one-stage cluster sample whose clusters are grids.

Source: Gautschi (1957), Some remarks on systematic sampling, Ann. Math. Stat. 28, 385-394; Cochran (1977), Sampling
Techniques, sect. 8.1 (a systematic sample is a sample of one cluster).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.pixels import read_codes
from pipeline.errors import ReferenceDataError
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.grid import Window

# Ten starts leave 9 degrees of freedom: Student's t is 2.26 instead of 1.96, and each grid is still a grid.
STARTS = 10
ONE_START = (
    "one grid with one start has no unbiased variance: standard errors are those of a simple random sample, which "
    "overstates them for most maps"
)


@dataclass(frozen=True, eq=False)
class Grids:
    """Grids drawn from all grids of one spacing.

    Attributes:
        row: int32 [unit].
        col: int32 [unit].
        start: int64 [unit]; the grid each unit belongs to, 0..m-1.
        sizes: int64 [grid]; valid pixels of each drawn grid.
        in_frame: Grids of this spacing with a valid pixel.
        step: Spacing in pixels.
    """

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    start: NDArray[np.intp]
    sizes: NDArray[np.int64]
    in_frame: int
    step: int


def draw_grids(
    dataset: DatasetReader,
    windows: Sequence[Window],
    *,
    total: int,
    size: int,
    starts: int,
    rng: np.random.Generator,
) -> Grids:
    """Square grids of pixels with random starts, about ``size`` pixels in all.

    Args:
        dataset: The map.
        windows: Strips of whole rows that cover it.
        total: Its valid pixels.
        size: Units wanted; the spacing is a whole number of pixels, so there are about as many.
        starts: Grids; 1 gives one grid, whose variance cannot be estimated without bias.
        rng: For the starts.

    Raises:
        ReferenceDataError: fewer than 1 start, or a sample too small for as many.
    """
    if not 1 <= starts <= size:
        raise ReferenceDataError("number of random starts", got=starts, expected=f"1 to {size}, the sample size")
    step = max(int(np.sqrt(total * starts / size)), int(np.ceil(np.sqrt(starts))))
    valid = _valid_by_start(dataset, windows, step).ravel()
    filled = np.flatnonzero(valid)
    if len(filled) < starts:
        raise ReferenceDataError("number of random starts", got=starts, expected=f"at most {len(filled)}")
    chosen = np.sort(rng.choice(filled, starts, replace=False))
    row, col, start = _pixels_of(dataset, windows, step, chosen)
    return Grids(row, col, start, valid[chosen], len(filled), step)


def _valid_by_start(dataset: DatasetReader, windows: Sequence[Window], step: int) -> NDArray[np.int64]:
    """Valid pixels of every grid, int64 [first row, first column]."""
    counts = np.zeros((step, step), dtype=np.int64)
    across = -(-dataset.width // step) * step
    for window in windows:
        valid = np.zeros((window.height, across), dtype=np.uint8)
        valid[:, : window.width] = read_codes(dataset, window) != NODATA
        by_column = valid.reshape(window.height, -1, step).sum(axis=1, dtype=np.int64)
        np.add.at(counts, np.arange(window.row, window.row_stop) % step, by_column)
    return counts


def _pixels_of(
    dataset: DatasetReader, windows: Sequence[Window], step: int, chosen: NDArray[np.intp]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.intp]]:
    """Row, column and grid of the valid pixels of the chosen grids, grid by grid; every strip is read once."""
    rows, cols, grids = [], [], []
    for window in windows:
        codes = read_codes(dataset, window)
        for number, first in enumerate(chosen.tolist()):
            top, left = (first // step - window.row) % step, first % step
            row, col = np.nonzero(codes[top::step, left::step] != NODATA)
            rows.append(window.row + top + row * step)
            cols.append(left + col * step)
            grids.append(np.full(len(row), number))
    grid = np.concatenate(grids)
    order = np.argsort(grid, kind="stable")
    row, col = np.concatenate(rows)[order], np.concatenate(cols)[order]
    return row.astype(np.int32), col.astype(np.int32), grid[order].astype(np.intp)
