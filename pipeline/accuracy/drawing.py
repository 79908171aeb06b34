"""Find random pixels of strata: ranks drawn without replacement, located strip by strip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.pixels import grid_of, read_codes, strips
from pipeline.accuracy.strata import MAX_STRATUM, OUTSIDE, MapStrata
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window, areas_by_code
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.accuracy.strata import StrataLayer

Found = list[tuple["NDArray[np.int64]", "NDArray[np.int64]"]]
# Units tried for each one wanted before a minimum distance is called impossible.
TRIES_PER_UNIT = 20


@dataclass(frozen=True)
class FrameCount:
    """Pixels [strip, stratum value] and area in ha [stratum value] of the frame."""

    windows: tuple[Window, ...]
    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]


class ValidPixels(MapStrata):
    """All valid pixels as one stratum, 0."""

    def __init__(self, dataset: DatasetReader) -> None:
        from contextlib import ExitStack

        self._stack, self._dataset = ExitStack(), dataset

    def read(self, window: Window) -> NDArray[np.int32]:
        """0 on valid pixels, OUTSIDE elsewhere."""
        return np.where(read_codes(self._dataset, window) == NODATA, np.int32(OUTSIDE), np.int32(0))

    def name(self, value: int) -> str:
        """The stratum's only name."""
        return "all" if value == 0 else str(value)


def count_frame(dataset: DatasetReader, layer: StrataLayer) -> FrameCount:
    """Pixels of every stratum in every strip; only pixels where the map has a class are in the frame."""
    grid = grid_of(dataset)
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
    if type(layer) is not MapStrata:
        values = np.where(read_codes(dataset, window) == NODATA, np.int32(OUTSIDE), values)
    return values


def pick(
    dataset: DatasetReader,
    layer: StrataLayer,
    count: FrameCount,
    values: NDArray[np.integer],
    shares: Sequence[int],
    rng: np.random.Generator,
    min_distance_m: float,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.intp]]:
    """Row, col and stratum index of the drawn pixels."""
    totals = count.pixels.sum(axis=0)
    extra = TRIES_PER_UNIT if min_distance_m > 0 else 1
    ranks = [
        rng.choice(int(totals[value]), min(int(totals[value]), share * extra), replace=False)
        for value, share in zip(values, shares, strict=True)
    ]
    found = _locate(dataset, layer, count, values, ranks)
    if min_distance_m > 0:
        found = _spaced(found, shares, grid_of(dataset), min_distance_m)
    row = np.concatenate([part[0] for part in found]).astype(np.int32)
    col = np.concatenate([part[1] for part in found]).astype(np.int32)
    return row, col, np.repeat(np.arange(len(found)), [len(part[0]) for part in found])


def _locate(
    dataset: DatasetReader,
    layer: StrataLayer,
    count: FrameCount,
    values: NDArray[np.integer],
    ranks: Sequence[NDArray[np.int64]],
) -> Found:
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


def _spaced(found: Found, shares: Sequence[int], grid: Grid, distance_m: float) -> Found:
    """The first units in random order that keep their distance from all before them, of any stratum."""
    size_x, size_y = grid.pixel_size_m
    taken: dict[tuple[int, int], list[tuple[float, float]]] = {}
    kept = []
    for (row, col), share in zip(found, shares, strict=True):
        rows: list[int] = []
        cols: list[int] = []
        for r, c in zip(row.tolist(), col.tolist(), strict=True):
            if len(rows) == share:
                break
            if _free(taken, c * size_x, r * size_y, distance_m):
                rows.append(r)
                cols.append(c)
        if len(rows) < share:
            raise ReferenceDataError(
                f"minimum distance of {distance_m:g} m",
                got=f"{len(rows)} of {share} units that keep it",
                fix="lower the distance or the sample size",
            )
        kept.append((np.array(rows), np.array(cols)))
    return kept


def _free(taken: dict[tuple[int, int], list[tuple[float, float]]], x: float, y: float, distance: float) -> bool:
    cell = int(x // distance), int(y // distance)
    near = (point for i in (-1, 0, 1) for j in (-1, 0, 1) for point in taken.get((cell[0] + i, cell[1] + j), ()))
    if any((x - px) ** 2 + (y - py) ** 2 < distance**2 for px, py in near):
        return False
    taken.setdefault(cell, []).append((x, y))
    return True
