"""Squares of a map, the primary units of cluster samples: their sizes and strata, and the draw.

Source: Stehman (1997), Remote Sens. Environ. 60, 258-269 (variances); Cochran (1977), Sampling Techniques, chapters 9
to 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.accuracy.class_maps import OUTSIDE, read_codes, strips
from pipeline.accuracy.sample_allocation import MIN_PER_STRATUM, by_stratum, share_out
from pipeline.accuracy.sample_design import PrimaryUnits, Stratum
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.accuracy.class_maps import StrataLayer


@dataclass(frozen=True, eq=False)
class DrawnSquares:
    """A cluster sample."""

    strata: tuple[Stratum, ...]  # The strata of squares, with all their pixels; one without strata
    words: str  # How many squares were drawn, and by which rule
    row: NDArray[np.int32]  # [unit]
    col: NDArray[np.int32]  # [unit]
    inclusion: NDArray[np.float64]  # [unit]
    clusters: PrimaryUnits  # The squares
    of_square: NDArray[np.intp]  # [square] index into ``strata``


def draw_squares(
    dataset: DatasetReader,
    layer: StrataLayer | None,
    *,
    squares: int,
    side: int,
    per_cluster: int | None,
    allocation: str,
    expected_users: Mapping[str, float] | float,
    rng: np.random.Generator,
) -> DrawnSquares:
    """Squares drawn at random, then all or some of their pixels.

    A square of ``side`` pixels, counted from the map's corner, belongs to the stratum that most of its pixels have;
    squares without one are not drawn from. ``per_cluster`` pixels are drawn in each (two stages); None takes all.

    Raises:
        ReferenceDataError: more squares than the map (or a stratum) has, or fewer than 2 in it.
    """
    every = survey_squares(dataset, side, layer=layer)
    values = np.unique(every.stratum[every.stratum != OUTSIDE])
    members = [np.flatnonzero(every.stratum == value) for value in values]
    filled = [len(part) for part in members]
    if not MIN_PER_STRATUM <= squares <= sum(filled):
        expected = f"{MIN_PER_STRATUM} to {sum(filled)}, the squares with valid pixels"
        raise ReferenceDataError("number of clusters", got=squares, expected=expected)
    names = ["all"] if layer is None else [layer.name(int(value)) for value in values]
    shares, words = [squares], f"{squares} of {sum(filled)} squares, {per_cluster or 'all'} pixels in each"
    if layer is not None:
        wished = by_stratum(expected_users, names)
        shares, how = share_out(squares, allocation, units=filled, expected=wished)
        words += f"; squares by stratum: {', '.join(map(str, shares))} ({how})"
    chosen = np.concatenate(
        [np.sort(rng.choice(part, share, replace=False)) for part, share in zip(members, shares, strict=True)]
    )
    parts = [pixels_inside(dataset, int(i), side, per_cluster, rng) for i in chosen]
    taken, inside = np.array([len(part[0]) for part in parts]), every.pixels[chosen]
    of_square = np.repeat(np.arange(len(shares)), shares)
    drawn = np.bincount(of_square, weights=taken, minlength=len(names)).astype(int)
    strata = tuple(
        Stratum(int(value), name, int(every.pixels[here].sum()), float(every.area_ha[here].sum()), int(n))
        for value, name, here, n in zip(values, names, members, drawn, strict=True)
    )
    psu = np.repeat(np.arange(len(parts)), taken)
    chance = (np.array(shares) / np.array(filled))[of_square] * taken / inside
    clusters = PrimaryUnits(
        psu, inside, sum(filled), side,
        None if layer is None else of_square, () if layer is None else tuple(filled),
    )  # fmt: skip
    row, col = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return DrawnSquares(strata, words, row, col, chance[psu], clusters, of_square)


@dataclass(frozen=True, eq=False)
class Squares:
    """All squares of a map, counted from its corner row by row."""

    pixels: NDArray[np.int64]  # [square] valid pixels of the map
    area_ha: NDArray[np.float64]  # [square] their area
    # [square] stratum of most of the square's pixels that have one (of the lowest number where two share it equally),
    # OUTSIDE where none has
    stratum: NDArray[np.int32]


def survey_squares(dataset: DatasetReader, side: int, *, layer: StrataLayer | None = None) -> Squares:
    """Pixels, area and stratum of every square of ``side`` pixels; without ``layer`` all are of stratum 0.

    Raises:
        ReferenceDataError: a side below 1.
    """
    if side < 1:
        raise ReferenceDataError("side of a cluster in pixels", got=side, expected="at least 1")
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
    return Squares(np.concatenate(pixels).ravel(), np.concatenate(area).ravel(), np.concatenate(stratum).ravel())


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
