"""Class map -> polygons: minimum mapping unit, smoothing that keeps neighbours together, area and mean confidence.

The whole sieved map (one byte per pixel) is in memory; its patches are outlined band by band and put together across
bands, so tiles and bands leave no seams; polygons are measured, smoothed and written in batches. Only a patch of more
than half a million corners is divided, along straight lines: neither memory nor a program that opens it could bear it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import sieve as gdal_sieve

from pipeline.errors import ConfigError
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.patches import patches
from pipeline.maps.pixels import PixelRows, check_shape, row_bands
from pipeline.maps.rings import (
    Nodes,
    areas_ha,
    drop_straight,
    find_nodes,
    release_pages,
    smooth,
    sum_inside,
    unit_rings,
    write_row_sums,
)

if TYPE_CHECKING:
    from pipeline.grid import Grid

MAX_SMOOTHING = 4
_BATCH_CORNERS = 250_000  # corners of polygons handled at once: some 50 MB while they are smoothed


# Patches are removed from small to large, each round four times larger: noise first merges into what it lies in, so
# that a cluster of small patches is not left over because every neighbour is small too.
_GROWTH = 4


@dataclass(frozen=True)
class PolygonRules:
    """How a class map becomes polygons."""

    mmu_ha: float = 0.0  # Minimum mapping unit in ha; smaller patches join their largest neighbour
    class_mmu_ha: Mapping[str, float] | None = None  # Other units for some classes, by name
    smoothing: int = 0  # Rounds of corner cutting, 0 (pixel edges) to 4; 2 looks smooth

    def __post_init__(self) -> None:
        """Refuse rounds that only add vertices."""
        if not 0 <= self.smoothing <= MAX_SMOOTHING:
            raise ConfigError("smoothing of polygons", got=self.smoothing, expected=f"0..{MAX_SMOOTHING} rounds")


@dataclass(frozen=True, eq=False)
class PolygonBatch:
    """Some polygons of a map."""

    geometry: NDArray[Any]  # Polygons in the CRS of the map, object [polygon]
    code: NDArray[np.uint8]  # [polygon]
    area_ha: NDArray[np.float64]  # [polygon] of the geometry, geodesic on a geographic CRS
    # [polygon] mean in percent over the polygon's pixels before smoothing; None without one
    confidence: NDArray[np.float64] | None


def polygons(
    codes: PixelRows,
    *, grid: Grid, scheme: ClassScheme, rules: PolygonRules, confidence: PixelRows | None = None, scratch: Path,
) -> Iterator[PolygonBatch]:  # fmt: skip
    """The polygons of a class map, in batches; patches touching by a corner only are two polygons.

    ``scratch`` takes four bytes per pixel while confidence is summed.

    Raises:
        OSError: the scratch folder is full.
    """
    check_shape(codes, grid)
    minimum = minimum_pixels(grid, scheme, mmu_ha=rules.mmu_ha, class_mmu_ha=rules.class_mmu_ha)
    sieved = sieve_codes(_whole(codes, grid), minimum)
    nodes = find_nodes(sieved)
    sums = None
    if confidence is not None:
        check_shape(confidence, grid)
        sums = write_row_sums(scratch / "row_sums", confidence, grid=grid)
    for batch in _batches(sieved, nodes):
        yield _finish(batch, grid=grid, nodes=nodes, sums=sums, smoothing=rules.smoothing)
        if sums is not None:
            release_pages(sums)


@dataclass(frozen=True, eq=False)
class _Outlines:
    """Polygons of pixel edges: closed rings of corners int32 [corner, (col, row)]."""

    corners: NDArray[np.int32]
    ring_sizes: NDArray[np.int64]
    rings_per_polygon: NDArray[np.int64]
    code: NDArray[np.uint8]


def _whole(codes: PixelRows, grid: Grid) -> NDArray[np.uint8]:
    array = np.empty(grid.shape, dtype=np.uint8)
    for window in row_bands(grid):
        array[window.slices] = codes.read(window)
    return array


def _batches(codes: NDArray[np.uint8], nodes: Nodes) -> Iterator[_Outlines]:
    rings: list[NDArray[np.int32]] = []
    per_polygon: list[int] = []
    values: list[int] = []
    corners = 0
    for outline, value in patches(codes, on_cut=nodes.add):
        rings += outline
        per_polygon.append(len(outline))
        values.append(value)
        corners += sum(map(len, outline))
        if corners >= _BATCH_CORNERS:
            yield _outlines(rings, per_polygon, values)
            rings, per_polygon, values, corners = [], [], [], 0
    if values:
        yield _outlines(rings, per_polygon, values)


def _outlines(rings: list[NDArray[np.int32]], per_polygon: list[int], values: list[int]) -> _Outlines:
    sizes = np.array([len(ring) for ring in rings], dtype=np.int64)
    return _Outlines(np.concatenate(rings), sizes, np.array(per_polygon), np.array(values, dtype=np.uint8))


def _finish(
    batch: _Outlines, *, grid: Grid, nodes: Nodes, sums: NDArray[np.uint32] | None, smoothing: int
) -> PolygonBatch:
    rings = drop_straight(smooth(unit_rings(batch.corners, batch.ring_sizes, nodes), smoothing))
    points, ring_offsets = rings.closed()
    transform = grid.transform
    xy = points * (transform.a, transform.e) + (transform.c, transform.f)
    polygon_offsets = np.concatenate([[0], np.cumsum(batch.rings_per_polygon)])
    offsets = (ring_offsets, polygon_offsets)
    geometry = np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets))
    confidence = None if sums is None else _mean_inside(batch, sums)
    return PolygonBatch(geometry, batch.code, areas_ha(geometry, grid.crs), confidence)


def _mean_inside(batch: _Outlines, sums: NDArray[np.uint32]) -> NDArray[np.float64]:
    ring_owner = np.repeat(np.arange(len(batch.code)), batch.rings_per_polygon)
    owner = np.repeat(ring_owner, batch.ring_sizes)
    owner[np.cumsum(batch.ring_sizes) - 1] = -1  # no edge leads from one ring to the next
    total, pixels = sum_inside(sums, batch.corners, owner, len(batch.code))
    return np.asarray(total / pixels)


def minimum_pixels(
    grid: Grid, scheme: ClassScheme, *, mmu_ha: float = 0.0, class_mmu_ha: Mapping[str, float] | None = None
) -> dict[int, int]:
    """Smallest patch that is kept, in pixels, by code: no smaller patch reaches the unit on any row of the grid.

    Raises:
        ConfigError: a unit is negative, or a class is unknown.
    """
    own = dict(class_mmu_ha or {})
    unknown = sorted(set(own) - set(scheme.names))
    if unknown:
        what = f"minimum mapping unit of unknown class {', '.join(unknown)}"
        raise ConfigError(what, expected=", ".join(scheme.names))
    if min([mmu_ha, *own.values()]) < 0:
        raise ConfigError("minimum mapping unit in ha", got=min([mmu_ha, *own.values()]), expected="0 or more")
    smallest_ha = grid.pixel_area_range_ha[0]
    # The small subtraction keeps a unit of exactly n pixels from becoming n + 1 by rounding.
    return {c.code: max(1, math.ceil(own.get(c.name, mmu_ha) / smallest_ha - 1e-6)) for c in scheme.classes}


def sieve_codes(codes: NDArray[np.uint8], minimum_px: Mapping[int, int]) -> NDArray[np.uint8]:
    """Codes uint8 [row, col] in which patches (4-connected) below their class's minimum have joined a neighbour.

    Nodata neither joins nor is joined: a small patch alone in nodata stays, as dropping it would remove an observation.
    """
    units = sorted({size for size in minimum_px.values() if size > 1})
    if not units:
        return codes
    # Without a mask GDAL needs a byte less per pixel.
    seen = None if codes.all() else (codes != NODATA).view(np.uint8)
    current = codes
    for unit in units:
        sieved = _sieve_up_to(current, unit, seen)
        table = np.zeros(256, dtype=np.bool_)
        table[[code for code, size in minimum_px.items() if size >= unit]] = True
        # Patches of classes with a smaller unit were removed only as long as this unit was looked at.
        current = sieved if table[list(minimum_px)].all() else np.where(table[current], sieved, current)
    return current


def _sieve_up_to(codes: NDArray[np.uint8], unit: int, seen: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    size = 2
    while size < unit:
        codes = gdal_sieve(codes, size, mask=seen, connectivity=4)
        size *= _GROWTH
    result: NDArray[np.uint8] = gdal_sieve(codes, unit, mask=seen, connectivity=4)
    return result
