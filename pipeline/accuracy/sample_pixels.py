"""Find the pixels of a sample: random ones of strata, located strip by strip, those of square grids, squares of a map.

One grid with one random start is a sample of a single cluster: no unbiased estimator of its variance exists. Several
grids, their starts drawn at random without replacement, are a simple random sample of grids, and the variance between
them says what the design does, whatever the map looks like: a one-stage cluster sample whose clusters are grids.

Source: Gautschi (1957), Some remarks on systematic sampling, Ann. Math. Stat. 28, 385-394; Cochran (1977), Sampling
Techniques, sect. 8.1 (a systematic sample is a sample of one cluster), chapters 9 to 11 (squares as primary units);
Stehman (1997), Remote Sens. Environ. 60, 258-269 (their variances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.class_maps import OUTSIDE, StrataLayer, read_codes, strips
from pipeline.accuracy.sample_allocation import MIN_PER_STRATUM, by_stratum, share_out
from pipeline.accuracy.sample_design import PrimaryUnits, Stratum
from pipeline.accuracy.sample_strata import MAX_STRATUM, MapStrata
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.accuracy.assess_frame import DesignKind
    from pipeline.accuracy.settings import DesignSettings


Found = list[tuple["NDArray[np.int64]", "NDArray[np.int64]"]]
ONE_START = (
    "one grid with one start has no unbiased variance: standard errors are those of a simple random sample, which "
    "overstates them for most maps"
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Units of a sample in the order in which they were found, and what the design says about them."""

    kind: DesignKind
    strata: tuple[Stratum, ...]  # With all their pixels; one without strata
    source: str  # Of the strata
    allocation: str  # How many were drawn, and by which rule
    row: NDArray[np.int32]  # [unit]
    col: NDArray[np.int32]  # [unit]
    stratum: NDArray[np.intp]  # [unit] index into ``strata``
    inclusion: NDArray[np.float64]  # [unit]
    clusters: PrimaryUnits | None = None


@dataclass(frozen=True)
class FrameCount:
    """Pixels [strip, stratum value] and area in ha [stratum value] of the frame."""

    windows: tuple[Window, ...]
    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]


class ValidPixels:
    """All valid pixels as one stratum, 0."""

    source = "none"

    def read(self, window: Window) -> NDArray[np.int32]:
        """Zeros."""
        return np.zeros(window.shape, dtype=np.int32)

    def name(self, value: int) -> str:
        """The stratum's only name."""
        return "all" if value == 0 else str(value)


def count_frame(dataset: DatasetReader, layer: StrataLayer) -> FrameCount:
    """Pixels of every stratum in every strip; only pixels where the map has a class are in the frame."""
    grid = Grid.of(dataset)
    windows = tuple(strips(grid, dataset.block_shapes[0][0]))
    counts: list[NDArray[np.int64]] = []
    area = np.zeros(MAX_STRATUM + 1)
    for window in windows:
        values = _in_frame(dataset, layer, window)
        found = areas_by_code(values, grid.pixel_areas_ha(window), size=MAX_STRATUM + 1)
        counts.append(np.trim_zeros(found[0], "b"))
        area += found[1]
    width = max((len(part) for part in counts), default=0)
    pixels = np.stack([np.pad(part, (0, width - len(part))) for part in counts])
    if not pixels.any():
        raise ReferenceDataError("no pixel of the map lies in a stratum", path=dataset.name)
    return FrameCount(windows, pixels, area[:width])


def _in_frame(dataset: DatasetReader, layer: StrataLayer, window: Window) -> NDArray[np.int32]:
    values = layer.read(window)
    if not isinstance(layer, MapStrata):
        values = np.where(read_codes(dataset, window) == NODATA, np.int32(OUTSIDE), values)
    return values


def pick(
    dataset: DatasetReader, layer: StrataLayer, count: FrameCount, values: NDArray[np.integer], shares: Sequence[int],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.intp]]:  # fmt: skip
    """Row, col and stratum index of the drawn pixels."""
    totals = count.pixels.sum(axis=0)
    ranks = [
        rng.choice(int(totals[value]), min(int(totals[value]), share), replace=False)
        for value, share in zip(values, shares, strict=True)
    ]
    found = _locate(dataset, layer, count, values, ranks)
    row = np.concatenate([part[0] for part in found]).astype(np.int32)
    col = np.concatenate([part[1] for part in found]).astype(np.int32)
    return row, col, np.repeat(np.arange(len(found)), [len(part[0]) for part in found])


def _locate(
    dataset: DatasetReader, layer: StrataLayer, count: FrameCount, values: NDArray[np.integer],
    ranks: Sequence[NDArray[np.int64]],
) -> Found:  # fmt: skip
    """Pixels of ranks 0..N-1 within each stratum, in the order of the ranks."""
    before = np.vstack([np.zeros_like(count.pixels[:1]), np.cumsum(count.pixels, axis=0)])
    found = [(np.empty(len(part), dtype=np.int64), np.empty(len(part), dtype=np.int64)) for part in ranks]
    for number, window in enumerate(count.windows):
        lows, highs = before[number][values], before[number + 1][values]
        hits = [
            np.flatnonzero((part >= low) & (part < high)) for part, low, high in zip(ranks, lows, highs, strict=True)
        ]
        if not any(len(hit) for hit in hits):
            continue
        strip = _in_frame(dataset, layer, window).ravel()
        for value, part, hit, low, (row, col) in zip(values, ranks, hits, lows, found, strict=True):
            if len(hit):
                flat = np.flatnonzero(strip == value)[part[hit] - low]
                row[hit], col[hit] = window.row + flat // window.width, window.col + flat % window.width
    return found


def draw_grids(
    dataset: DatasetReader, windows: Sequence[Window], *, total: int, size: int, starts: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32], PrimaryUnits, int]:
    """Square grids of pixels with random starts, about ``size`` pixels in all: row and col [unit], the grids, spacing.

    The spacing is a whole number of pixels; the variance of one grid (``starts`` 1) cannot be estimated without bias.

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
    return row, col, PrimaryUnits(start, valid[chosen], len(filled)), step


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


def draw_squares(
    dataset: DatasetReader, layer: StrataLayer | None, settings: DesignSettings, rng: np.random.Generator
) -> Drawn:
    """Squares drawn at random, then all of their pixels, or, in two stages, some.

    A square, counted from the map's corner, belongs to the stratum that most of its pixels have, or to none.

    Raises:
        ReferenceDataError: more squares than the map (or a stratum) has, or fewer than 2 in it.
    """
    squares, side = settings.size or 0, settings.cluster_px
    per_cluster = settings.per_cluster if settings.kind == "two_stage" else None
    pixels, area_ha, stratum = survey_squares(dataset, layer, side=side)
    values = np.unique(stratum[stratum != OUTSIDE])
    members = [np.flatnonzero(stratum == value) for value in values]
    filled = [len(part) for part in members]
    if not MIN_PER_STRATUM <= squares <= sum(filled):
        expected = f"{MIN_PER_STRATUM} to {sum(filled)}, the squares with valid pixels"
        raise ReferenceDataError("number of clusters", got=squares, expected=expected)
    names = ["all"] if layer is None else [layer.name(int(value)) for value in values]
    shares, words = [squares], f"{squares} of {sum(filled)} squares, {per_cluster or 'all'} pixels in each"
    if layer is not None:
        wished = by_stratum(settings.expected_users, names)
        shares, how = share_out(squares, settings.allocation or "proportional", units=filled, expected=wished)
        words += f"; squares by stratum: {', '.join(map(str, shares))} ({how})"
    chosen = np.concatenate(
        [np.sort(rng.choice(part, share, replace=False)) for part, share in zip(members, shares, strict=True)]
    )
    parts = [pixels_inside(dataset, int(i), side, per_cluster, rng) for i in chosen]
    taken, inside = np.array([len(part[0]) for part in parts]), pixels[chosen]
    of_square = np.repeat(np.arange(len(shares)), shares)
    drawn = np.bincount(of_square, weights=taken, minlength=len(names)).astype(int)
    strata = tuple(
        Stratum(int(value), name, int(pixels[here].sum()), float(area_ha[here].sum()), int(n))
        for value, name, here, n in zip(values, names, members, drawn, strict=True)
    )
    psu = np.repeat(np.arange(len(parts)), taken)
    chance = (np.array(shares) / np.array(filled))[of_square] * taken / inside
    clusters = PrimaryUnits(
        psu, inside, sum(filled), side,
        None if layer is None else of_square, () if layer is None else tuple(filled),
    )  # fmt: skip
    row, col = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    kind: DesignKind = "one-stage cluster" if per_cluster is None else "two-stage cluster"
    source = "none" if layer is None else f"squares by {layer.source}"
    return Drawn(kind, strata, source, words, row, col, of_square[psu], chance[psu], clusters)


def survey_squares(
    dataset: DatasetReader, layer: StrataLayer | None, *, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Valid pixels, area in ha and stratum of every square of ``side`` pixels, from the map's corner row by row.

    Without ``layer`` all are of stratum 0, else of that of most of their pixels (of the lowest number where two share
    it equally); OUTSIDE where none has one.
    """
    grid = Grid.of(dataset)
    rows = -(-dataset.block_shapes[0][0] // side) * side  # strips of whole squares
    pixels: list[NDArray[np.int64]] = []
    area: list[NDArray[np.float64]] = []
    stratum: list[NDArray[np.int32]] = []
    for window in strips(grid, rows):
        valid = read_codes(dataset, window) != NODATA
        pixels.append(square_sums(valid, side))
        areas = grid.pixel_areas_ha(window)
        area.append(pixels[-1] * areas[0, 0] if areas.size == 1 else square_sums(valid * areas, side))
        values = np.zeros(valid.shape, dtype=np.int32) if layer is None else layer.read(window)
        stratum.append(_most(np.where(valid, values, OUTSIDE), side))
    return np.concatenate(pixels).ravel(), np.concatenate(area).ravel(), np.concatenate(stratum).ravel()


def square_sums(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Sums over squares [square row, square col]; of bool, int64 counts."""
    kind = np.int64 if values.dtype == np.bool_ else values.dtype
    by_col = np.add.reduceat(values, np.arange(0, values.shape[1], side), axis=1, dtype=kind)
    return np.asarray(np.add.reduceat(by_col, np.arange(0, values.shape[0], side), axis=0))


def _most(values: NDArray[np.int32], side: int) -> NDArray[np.int32]:
    """The value that most pixels of a square have, int32 [square row, square col]; OUTSIDE counts for nothing."""
    shape = -(-values.shape[0] // side), -(-values.shape[1] // side)
    best, most = np.full(shape, OUTSIDE, dtype=np.int32), np.zeros(shape, dtype=np.int64)
    for value in np.unique(values[values != OUTSIDE]):
        count = square_sums(values == value, side)
        better = count > most
        best[better], most[better] = value, count[better]
    return best


def pixels_inside(
    dataset: DatasetReader, square: int, side: int, per_cluster: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and columns int32 of the valid pixels of a square, or of ``per_cluster`` of them drawn at random."""
    top, left = (part * side for part in divmod(square, -(-dataset.width // side)))
    window = Window(top, left, min(side, dataset.height - top), min(side, dataset.width - left))
    row, col = np.nonzero(read_codes(dataset, window) != NODATA)
    if per_cluster is not None:
        chosen = rng.choice(len(row), min(per_cluster, len(row)), replace=False)
        row, col = row[chosen], col[chosen]
    return (row + top).astype(np.int32), (col + left).astype(np.int32)
