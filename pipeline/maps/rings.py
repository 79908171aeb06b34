"""Rings of pixel edges as a coverage: neighbours share every vertex, and smoothing keeps it so; sums inside them.

Boundaries between classes run along pixel edges and meet in nodes (lattice points where three or four edges meet).
An arc between two nodes belongs to two polygons. Each ring is cut at its nodes and every arc is smoothed by itself
with Chaikin's corner cutting, whose result does not depend on the direction it is walked in, in exact integer
arithmetic: both neighbours get the same vertices, bit for bit, so there is neither gap nor overlap.

Nor can smoothed arcs cross: every cut stays inside the triangle between a corner and the middles of its two edges, and
triangles of different corners are disjoint. No boundary moves by more than sqrt(1/8) = 0.354 pixels.

The sum of pixels inside a ring is a line integral: every vertical unit edge at (row, col) adds or takes away the sum of
its row left of col. That costs as much as the boundary is long, whatever the polygon's size.

Outlines of objects get few corners: an outline is simplified (Douglas-Peucker) to find where its walls begin and end,
turned so that they lie along the axes, and each wall becomes the line that leaves as much of the ragged outline on one
side as on the other; walls that are too short are merged into their neighbours. Of several directions the one whose
polygon shares most with the ragged one is taken; where no right-angled polygon comes near the simplified one, as of
round tanks, that one is kept.

Source: Chaikin (1974), An algorithm for high-speed curve generation, Computer Graphics and Image Processing 3, 346-349.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import GeometryType

from pipeline.ground import GEOD, SQUARE_METRES_PER_HECTARE, authalic_q, ground_area_scale
from pipeline.maps.pixels import PixelRows, row_bands
from pipeline.maps.style import PERCENT_NODATA

if TYPE_CHECKING:
    from rasterio.crs import CRS

    from pipeline.grid import Grid

_ROWS = 512
_NODE_EDGES = 3  # a lattice point where at least three boundary edges meet
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
    return _kept(rings, keep)


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
    made = Rings(points.reshape(-1, 2), fixed.ravel(), 2 * rings.sizes, rings.scale * _SCALE)
    return _kept(made, keep.ravel())


def _kept(rings: Rings, keep: NDArray[np.bool_]) -> Rings:
    counts = np.add.reduceat(keep, rings.starts, dtype=np.int64)
    return Rings(rings.points[keep], rings.fixed[keep], counts, rings.scale)


def write_row_sums(path: Path, pixels: PixelRows, *, grid: Grid) -> NDArray[np.uint32]:
    """Running sums of per cents along each row, uint32 [row, col 0..W] in a file on disk; nodata counts as 0.

    Raises:
        OSError: the disk is full. (Writing through a memory map would kill the process instead.)
    """
    with path.open("wb") as target:
        for window in row_bands(grid):
            values = pixels.read(window).astype(np.uint32)
            values[values == PERCENT_NODATA] = 0
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
    """
    if not crs.is_geographic:
        plane = shapely.area(polygons) * crs.linear_units_factor[1] ** 2 / SQUARE_METRES_PER_HECTARE
        centres = shapely.get_coordinates(shapely.centroid(polygons))
        return np.asarray(plane * ground_area_scale(crs, centres[:, 0], centres[:, 1]))

    def authalic(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = np.radians(xy).T
        return np.column_stack([lon, GEOD.a**2 / 2 * authalic_q(lat, GEOD.es)])

    return np.asarray(shapely.area(shapely.transform(polygons, authalic)) / SQUARE_METRES_PER_HECTARE)


# Walls shorter than this many tolerances join their neighbours.
_SHORTEST = 1.5
# A right-angled polygon may share so much less (IoU) with the ragged outline than the simplified one does.
_WORSE = 0.04
_WALLS = 4
_AXES = 2


class _Wall(NamedTuple):
    """Steps [start, stop) of a closed outline, around its end where stop <= start; along x (axis 0) or y (axis 1)."""

    axis: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class _Walk:
    """A closed outline, turned so that walls lie along the axes, with running sums over its steps."""

    # Lists: single numbers are looked up faster than in arrays
    points: list[list[float]]  # [point, (x, y)], the first again at the end
    length: list[list[float]]  # [axis, point]; running sum of the absolute steps along an axis
    moment: list[list[float]]  # [axis, point]; of these times the other coordinate of the step's middle

    @classmethod
    def of(cls, points: NDArray[np.float64]) -> _Walk:
        step = np.abs(points[1:] - points[:-1]).T
        middle = ((points[:-1] + points[1:]) / 2).T[::-1]
        sums = np.zeros((2, _AXES, len(points)))
        np.cumsum([step, step * middle], axis=2, out=sums[:, :, 1:])
        return cls(points.tolist(), *sums.tolist())

    def offset(self, wall: _Wall) -> float:
        """Where the wall lies: the mean of its other coordinate, by the way gone along the wall."""
        way = self._between(self.length[wall.axis], wall)
        if way > 0:
            return self._between(self.moment[wall.axis], wall) / way
        return self.points[wall.start][1 - wall.axis]

    def sign(self, wall: _Wall) -> float:
        """1 where the outline runs along the wall with its axis, -1 against it."""
        return 1.0 if self.points[wall.stop][wall.axis] >= self.points[wall.start][wall.axis] else -1.0

    @staticmethod
    def _between(sums: list[float], wall: _Wall) -> float:
        around = sums[-1] if wall.stop <= wall.start else 0.0
        return sums[wall.stop] - sums[wall.start] + around


def regular_outlines(polygons: NDArray[Any], *, tolerance: float, right_angles: bool = True) -> NDArray[Any]:
    """Polygons with few corners, and right angles where they fit.

    Polygons, object [polygon], lie in a plane whose angles and units are those of the ground; ``tolerance``, in these
    units, is how far an outline may be moved: about 1.5 pixels of the mask.

    Returns:
        Valid polygons, object [polygon]; one that nothing simpler stands for is returned as it is.
    """
    simple, rectangle = shapely.simplify(polygons, tolerance), shapely.oriented_envelope(polygons)
    flat = shapely.get_type_id(rectangle) != GeometryType.POLYGON
    usable = (
        (shapely.get_type_id(simple) == GeometryType.POLYGON) & ~shapely.is_empty(simple) & shapely.is_valid(simple)
    )
    if not right_angles:
        return np.where(usable, simple, polygons)
    found = np.where(flat, polygons, rectangle)
    for k in np.flatnonzero(usable & ~flat):
        found[k] = _regular(polygons[k], simple[k], rectangle[k], tolerance=tolerance)
    return found


def _regular(polygon: Any, simple: Any, rectangle: Any, *, tolerance: float) -> Any:
    outlines = _cornered(polygon, simple, tolerance=tolerance)
    made = (_right_angled(outlines, angle, tolerance=tolerance) for angle in _angles(simple, rectangle))
    candidates = [item for item in made if item is not None and item.is_valid]
    shared = iou(np.array([simple, *candidates], dtype=object), polygon)
    shared[0] -= _WORSE
    # The rectangle holds all of the polygon.
    shared = np.append(shared, shapely.area(polygon) / shapely.area(rectangle))
    order = [len(candidates) + 1, *range(1, len(candidates) + 1), 0]
    return [simple, *candidates, rectangle][order[int(shared[order].argmax())]]


def iou(one: Any, other: Any) -> NDArray[np.float64]:
    """Area that polygons share over the area that either covers, pair by pair."""
    both = shapely.area(shapely.intersection(one, other))
    return np.asarray(both / (shapely.area(one) + shapely.area(other) - both))


def _angles(simple: Any, rectangle: Any) -> tuple[float, ...]:
    """Directions of walls to try, in radians: the mean of all modulo 90 degrees, the longest, those of the envelope."""
    step = np.diff(shapely.get_coordinates(simple.exterior), axis=0)
    length, angle = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    side = np.diff(shapely.get_coordinates(rectangle)[:2], axis=0)[0]
    mean = np.angle((length**2 * np.exp(4j * angle)).sum()) / 4
    return float(mean), float(angle[length.argmax()]), float(np.arctan2(side[1], side[0]))


_Outline = tuple[NDArray[np.float64], list[int]]


def _cornered(polygon: Any, simple: Any, *, tolerance: float) -> list[_Outline]:
    """Points float64 [point, (x, y)] of the outline and of the holes that the tolerance leaves, and their corners."""
    rings = [(polygon.exterior, simple.exterior)]
    for ring in polygon.interiors:
        corners = shapely.simplify(ring, tolerance)
        if shapely.area(shapely.Polygon(ring)) > (2 * tolerance) ** 2 and shapely.get_num_coordinates(corners) > _WALLS:
            rings.append((ring, corners))
    found = []
    for ring, corners in rings:
        points = shapely.get_coordinates(ring)
        place = {tuple(point): index for index, point in enumerate(points[:-1].tolist())}
        found.append((points, sorted(place[tuple(point)] for point in shapely.get_coordinates(corners)[:-1].tolist())))
    return found


def _right_angled(outlines: Sequence[_Outline], angle: float, *, tolerance: float) -> Any:
    """The right-angled polygon along a direction; None where there is none."""
    shell, *holes = (_ring(*outline, angle=angle, tolerance=tolerance) for outline in outlines)
    return None if shell is None else shapely.Polygon(shell, [hole for hole in holes if hole is not None])


def _ring(
    points: NDArray[np.float64], corners: list[int], *, angle: float, tolerance: float
) -> NDArray[np.float64] | None:
    """Corners float64 [corner, (x, y)] of a ring whose walls all run along ``angle`` or across it."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    walk = _Walk.of(points @ turn.T)
    walls = _merged(walk, _walls(walk, corners), shortest=_SHORTEST * tolerance)
    if walls is None:
        return None
    offset = [walk.offset(wall) for wall in walls]
    found = [
        (here, there) if wall.axis else (there, here)
        for wall, here, there in zip(walls, offset, [*offset[1:], offset[0]], strict=True)
    ]
    return np.asarray(np.array(found) @ turn)


def _walls(walk: _Walk, corners: Sequence[int]) -> list[_Wall]:
    """The edges between corners of the simplified outline, neighbours along one axis joined."""
    ends = [walk.points[corner] for corner in corners]
    axis = [int(abs(b[1] - a[1]) > abs(b[0] - a[0])) for a, b in zip(ends, [*ends[1:], ends[0]], strict=True)]
    turns = [here for here in range(len(axis)) if axis[here] != axis[here - 1]]
    return [
        _Wall(axis[here], corners[here], corners[there])
        for here, there in zip(turns, [*turns[1:], *turns[:1]], strict=True)
    ]


def _merged(walk: _Walk, walls: list[_Wall], *, shortest: float) -> list[_Wall] | None:
    """Walls of which none is too short; each that is goes with both its neighbours into one. None: nothing is left."""
    while len(walls) >= _WALLS:
        offset = [walk.offset(wall) for wall in walls]
        long = [(offset[(k + 1) % len(walls)] - offset[k - 1]) * walk.sign(wall) for k, wall in enumerate(walls)]
        k = long.index(min(long))
        if long[k] >= shortest or (len(walls) == _WALLS and long[k] > 0):
            return walls
        before, after = walls[k - 1], walls[(k + 1) % len(walls)]
        kept = [walls[(k + 2 + i) % len(walls)] for i in range(len(walls) - 3)]
        walls = [_Wall(before.axis, before.start, after.stop), *kept]
    return None
