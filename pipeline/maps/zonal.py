"""Sums of pixels inside polygons of pixel edges, and areas of any polygon in ha, without rasterising.

The sum inside a ring of pixel edges is a line integral: every vertical unit edge at (row, col) adds or takes away the
sum of its row left of col. That costs as much as the boundary is long, whatever the polygon's size.
"""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import Geod

from pipeline.grid import SQUARE_METRES_PER_HECTARE, ground_area_scale
from pipeline.maps.pixels import row_bands

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from pipeline.grid import Grid
    from pipeline.maps.pixels import PixelRows

_GEOD = Geod(ellps="WGS84")
_EDGES = 500_000  # upright edges summed at once: some 40 MB


def write_row_sums(path: Path, pixels: PixelRows, *, grid: Grid, nodata: int) -> NDArray[np.uint32]:
    """Running sums along each row, uint32 [row, col 0..W] in a file on disk; nodata counts as 0.

    Raises:
        OSError: the disk is full. (Writing through a memory map would kill the process instead.)
    """
    with path.open("wb") as target:
        for window in row_bands(grid):
            values = pixels.read(window).astype(np.uint32)
            values[values == nodata] = 0
            sums = np.zeros((window.height, window.width + 1), dtype=np.uint32)
            np.cumsum(values, axis=1, out=sums[:, 1:])
            sums.tofile(target)
    return np.memmap(path, dtype=np.uint32, mode="r", shape=(grid.height, grid.width + 1))


def release_pages(row_sums: NDArray[np.uint32]) -> None:
    """Give back the memory in which the system holds parts of the file that were read; they are read again on demand.

    Only Linux and macOS can be told so; elsewhere the system decides by itself.
    """
    file: Any = row_sums.base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def sum_inside(
    row_sums: NDArray[np.uint32], corners: NDArray[np.int32], owner: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(sum of values, number of pixels) inside each of ``count`` polygons.

    Args:
        row_sums: As written by :func:`write_row_sums`.
        corners: int32 [corner, (col, row)] of closed rings, holes walked against their exterior.
        owner: int64 [corner]; the polygon of each corner. An edge between two rings' corners is vertical by chance only
            where the owner changes or the ring closes; such edges must be marked with owner -1 at their first corner.
        count: Number of polygons.
    """
    step = corners[1:, 1] - corners[:-1, 1]
    edges = np.flatnonzero((step != 0) & (owner[:-1] >= 0))
    total, pixels = np.zeros(count), np.zeros(count)
    # In portions: a polygon as large as a map has millions of edges. Sums of whole numbers are exact in any order.
    for first in range(0, len(edges), _EDGES):
        edge = edges[first : first + _EDGES]
        length = np.abs(step[edge])
        along = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        row = np.repeat(np.minimum(corners[edge, 1], corners[edge + 1, 1]), length) + along
        col = np.repeat(corners[edge, 0], length)
        polygon = np.repeat(owner[edge], length)
        sign = np.repeat(np.sign(step[edge]), length).astype(np.float64)
        total += np.bincount(polygon, weights=sign * row_sums[row, col], minlength=count)
        pixels += np.bincount(polygon, weights=sign * col, minlength=count)
    return np.abs(total), np.abs(np.rint(pixels)).astype(np.int64)


def areas_ha(polygons: NDArray[Any], crs: CRS) -> NDArray[np.float64]:
    """Area of each polygon in ha, on the ground.

    On a projected CRS it is that in the plane, times the scale of area at the centroid where the CRS is not
    equal-area. On a geographic CRS latitude is replaced by the authalic q, in which areas are planar; edges along
    meridians and parallels are exact, and sub-kilometre edges in between to better than 1e-6.
    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eq. 3-12.
    """
    if not crs.is_geographic:
        plane = shapely.area(polygons) * crs.linear_units_factor[1] ** 2 / SQUARE_METRES_PER_HECTARE
        centres = shapely.get_coordinates(shapely.centroid(polygons))
        return np.asarray(plane * ground_area_scale(crs, centres[:, 0], centres[:, 1]))
    ecc2 = _GEOD.es
    ecc = math.sqrt(ecc2)

    def authalic(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        sin_lat = np.sin(np.radians(xy[:, 1]))
        q = (1 - ecc2) * (sin_lat / (1 - ecc2 * sin_lat**2) + np.arctanh(ecc * sin_lat) / ecc)
        return np.column_stack([np.radians(xy[:, 0]), _GEOD.a**2 / 2 * q])

    return np.asarray(shapely.area(shapely.transform(polygons, authalic)) / SQUARE_METRES_PER_HECTARE)
