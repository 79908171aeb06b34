"""Rings of pixel edges as a coverage: neighbours share every vertex, and smoothing keeps it so; sums inside them.

Boundaries between classes run along pixel edges and meet in nodes (lattice points where three or four edges meet).
An arc between two nodes belongs to two polygons. Each ring is cut at its nodes and every arc is smoothed by itself
with Chaikin's corner cutting, whose result does not depend on the direction it is walked in, in exact integer
arithmetic: both neighbours get the same vertices, bit for bit, so there is neither gap nor overlap.

Nor can smoothed arcs cross: arcs consist of unit steps, and every cut stays inside the triangle between a corner and
the middles of its two edges; the triangles of different corners are disjoint. No boundary moves by more than
sqrt(1/8) = 0.354 pixels.

The sum of pixels inside a ring is a line integral: every vertical unit edge at (row, col) adds or takes away the sum of
its row left of col. That costs as much as the boundary is long, whatever the polygon's size.

Source: Chaikin (1974), An algorithm for high-speed curve generation, Computer Graphics and Image Processing 3, 346-349.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import Geod

from pipeline.ground import SQUARE_METRES_PER_HECTARE, ground_area_scale
from pipeline.maps.pixels import row_bands

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from pipeline.grid import Grid
    from pipeline.maps.pixels import PixelRows

_ROWS = 512
_NODE_EDGES = 3  # a lattice point where at least three boundary edges meet
_GEOD = Geod(ellps="WGS84")
_EDGES = 500_000  # upright edges summed at once: some 40 MB
_SCALE = 4  # corner cutting divides by four: integers are multiplied instead


@dataclass(frozen=True, eq=False)
class Nodes:
    """Which lattice points of a grid are nodes; packed bits uint8 [row 0..H, col 0..W in eights]."""

    bits: NDArray[np.uint8]

    def at(self, points: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether lattice points int32 [point, (col, row)] are nodes."""
        col, row = points[:, 0], points[:, 1]
        return np.asarray((self.bits[row, col >> 3] >> (7 - (col & 7)).astype(np.uint8)) & 1, dtype=np.bool_)

    def add(self, points: NDArray[np.int32]) -> None:
        """Make lattice points int32 [point, (col, row)] nodes."""
        col, row = points[:, 0], points[:, 1]
        np.bitwise_or.at(self.bits, (row, col >> 3), (128 >> (col & 7)).astype(np.uint8))


def find_nodes(codes: NDArray[np.uint8]) -> Nodes:
    """The nodes of a class map uint8 [row, col]; outside it is nodata. The map's four corners count as nodes."""
    height, width = codes.shape
    bits = np.zeros((height + 1, (width + 8) // 8), dtype=np.uint8)
    for first in range(0, height + 1, _ROWS):
        last = min(first + _ROWS, height + 1)
        around = np.zeros((last - first + 1, width + 2), dtype=np.uint8)
        top, bottom = max(first - 1, 0), min(last, height)
        around[top - first + 1 : bottom - first + 1, 1:-1] = codes[top:bottom]
        upright, level = around[:, 1:] != around[:, :-1], around[1:] != around[:-1]
        edges = upright[1:].astype(np.uint8) + upright[:-1] + level[:, 1:] + level[:, :-1]
        node = edges >= _NODE_EDGES
        for row in {0, height} & set(range(first, last)):
            node[row - first, [0, -1]] = True
        bits[first:last] = np.packbits(node, axis=1)
    return Nodes(bits)


@dataclass(frozen=True, eq=False)
class Rings:
    """Closed rings, each without its closing point."""

    points: NDArray[np.int32]  # [point, (col, row)] in units of 1/scale pixel
    fixed: NDArray[np.bool_]  # [point] nodes
    sizes: NDArray[np.int64]  # [ring] points per ring
    scale: int = 1  # Units per pixel

    @property
    def starts(self) -> NDArray[np.int64]:
        """Index of the first point of each ring."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes, dtype=np.int64)

    def following(self) -> NDArray[np.int64]:
        """Index of the next point of the same ring."""
        index = np.arange(1, len(self.points) + 1)
        index[self.starts + self.sizes - 1] = self.starts
        return index

    def closed(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(points float64 [point, (col, row)] in pixels with closing points, offsets int64 [ring + 1])."""
        stops = self.starts + self.sizes
        points = np.insert(self.points, stops, self.points[self.starts], axis=0) / self.scale
        return points, np.concatenate([[0], np.cumsum(self.sizes + 1)])


def unit_rings(corners: NDArray[np.int32], sizes: NDArray[np.int64], nodes: Nodes) -> Rings:
    """Rings given by their closed corners int32 [corner, (col, row)], ``sizes`` corners each, cut into unit steps."""
    stops = np.cumsum(sizes)
    inner = np.ones(len(corners), dtype=np.bool_)
    inner[stops - 1] = False
    start = np.flatnonzero(inner)
    step = corners[start + 1] - corners[start]
    length = np.abs(step).sum(axis=1).astype(np.int64)
    direction = np.sign(step).astype(np.int32)
    along = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    points = np.repeat(corners[start], length, axis=0)
    points += np.repeat(direction, length, axis=0) * along.astype(np.int32)[:, np.newaxis]
    first_edge = stops - sizes - np.arange(len(sizes))
    return Rings(points, nodes.at(points), np.add.reduceat(length, first_edge))


def smooth(rings: Rings, rounds: int) -> Rings:
    """Rings after ``rounds`` of corner cutting; nodes stay where they are."""
    for _ in range(rounds):
        rings = _cut_corners(rings)
    return rings


def drop_straight(rings: Rings) -> Rings:
    """Rings without the points that lie on a straight line between their neighbours; nodes stay."""
    following = rings.following()
    ahead = rings.points[following] - rings.points
    behind = np.empty_like(ahead)
    behind[following] = ahead
    turn = ahead[:, 0].astype(np.int64) * behind[:, 1] - ahead[:, 1].astype(np.int64) * behind[:, 0]
    keep = (turn != 0) | rings.fixed
    return _kept(rings.points, rings.fixed, keep, sizes=rings.sizes, scale=rings.scale)


def _cut_corners(rings: Rings) -> Rings:
    following = rings.following()
    here, there = rings.points, rings.points[following]
    points = np.empty((len(here), 2, 2), dtype=np.int32)
    points[:, 0] = np.where(rings.fixed[:, np.newaxis], _SCALE * here, 3 * here + there)
    points[:, 1] = here + 3 * there
    fixed = np.zeros((len(here), 2), dtype=np.bool_)
    fixed[:, 0] = rings.fixed
    keep = np.ones((len(here), 2), dtype=np.bool_)
    keep[:, 1] = ~rings.fixed[following]
    return _kept(points.reshape(-1, 2), fixed.ravel(), keep.ravel(), sizes=2 * rings.sizes, scale=rings.scale * _SCALE)


def _kept(
    points: NDArray[np.int32],
    fixed: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    *,
    sizes: NDArray[np.int64],
    scale: int,
) -> Rings:
    counts = np.add.reduceat(keep, np.cumsum(sizes) - sizes, dtype=np.int64)
    return Rings(points[keep], fixed[keep], counts, scale)


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

    On Linux and macOS only; elsewhere the system decides.
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
