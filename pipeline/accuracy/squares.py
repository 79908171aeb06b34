"""Squares of the map, the primary units of cluster samples: their sizes and strata, and the pixels drawn in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.accuracy.pixels import grid_of, read_codes, strips
from pipeline.accuracy.strata import OUTSIDE
from pipeline.errors import ReferenceDataError
from pipeline.grid import Window
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.accuracy.strata import StrataLayer


@dataclass(frozen=True, eq=False)
class Squares:
    """All squares of a map, counted from its corner row by row.

    Attributes:
        pixels: int64 [square]; valid pixels of the map.
        area_ha: float64 [square]; their area.
        stratum: int32 [square]; stratum of most of the square's pixels that have one (of the lowest number where two
            share it equally), OUTSIDE where none has.
    """

    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]
    stratum: NDArray[np.int32]


def survey_squares(dataset: DatasetReader, side: int, *, layer: StrataLayer | None = None) -> Squares:
    """Pixels, area and stratum of every square of ``side`` pixels; without ``layer`` all are of stratum 0.

    Raises:
        ReferenceDataError: a side below 1.
    """
    if side < 1:
        raise ReferenceDataError("side of a cluster in pixels", got=side, expected="at least 1")
    grid = grid_of(dataset)
    rows = -(-dataset.block_shapes[0][0] // side) * side  # strips of whole squares
    pixels: list[NDArray[np.int64]] = []
    area: list[NDArray[np.float64]] = []
    stratum: list[NDArray[np.int32]] = []
    for window in strips(grid, rows):
        valid = read_codes(dataset, window) != NODATA
        pixels.append(_sums(valid, side))
        areas = grid.pixel_areas_ha(window)
        area.append(pixels[-1] * areas[0, 0] if areas.size == 1 else _sums(valid * areas, side))
        values = np.zeros(valid.shape, dtype=np.int32) if layer is None else layer.read(window)
        stratum.append(_most(np.where(valid, values, OUTSIDE), side))
    return Squares(np.concatenate(pixels).ravel(), np.concatenate(area).ravel(), np.concatenate(stratum).ravel())


def _sums(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Sums over squares [square row, square col]; of bool, int64 counts."""
    kind = np.int64 if values.dtype == np.bool_ else values.dtype
    by_col = np.add.reduceat(values, np.arange(0, values.shape[1], side), axis=1, dtype=kind)
    return np.asarray(np.add.reduceat(by_col, np.arange(0, values.shape[0], side), axis=0))


def _most(values: NDArray[np.int32], side: int) -> NDArray[np.int32]:
    """The value that most pixels of a square have, int32 [square row, square col]; OUTSIDE counts for nothing."""
    shape = -(-values.shape[0] // side), -(-values.shape[1] // side)
    best, most = np.full(shape, OUTSIDE, dtype=np.int32), np.zeros(shape, dtype=np.int64)
    for value in np.unique(values[values != OUTSIDE]):
        count = _sums(values == value, side)
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
