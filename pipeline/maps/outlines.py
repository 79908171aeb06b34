"""Ragged outlines -> few corners, right angles where the object has them; lines through the middle of the raggedness.

An outline is simplified (Douglas-Peucker) to find where its walls begin and end, turned so that they lie along the
axes, and each wall becomes the line that leaves as much of the ragged outline on one side as on the other; walls that
are too short are merged into their neighbours. Of several directions the one whose polygon shares most with the ragged
one is taken; where no right-angled polygon comes near the simplified one, as of round tanks, that one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import GeometryType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Walls shorter than this many tolerances join their neighbours.
_SHORTEST = 1.5
# A right-angled polygon may share so much less (IoU) with the ragged outline than the simplified one does.
_WORSE = 0.04
_WALLS = 4
_AXES = 2


@dataclass(frozen=True)
class _Wall:
    """Steps [start, stop) of a closed outline, around its end where stop <= start; along x (axis 0) or y (axis 1)."""

    axis: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class _Walk:
    """A closed outline, turned so that walls lie along the axes, with running sums over its steps."""

    points: NDArray[np.float64]  # float64 [point, (x, y)], the first again at the end
    length: NDArray[np.float64]  # float64 [axis, point]; running sum of the absolute steps along an axis
    moment: NDArray[np.float64]  # float64 [axis, point]; of these times the other coordinate of the step's middle

    @classmethod
    def of(cls, points: NDArray[np.float64]) -> _Walk:
        step = np.abs(np.diff(points, axis=0)).T
        middle = ((points[:-1] + points[1:]) / 2).T[::-1]
        sums = (
            np.concatenate([np.zeros((_AXES, 1)), np.cumsum(part, axis=1)], axis=1) for part in (step, step * middle)
        )
        return cls(points, *sums)

    def offset(self, wall: _Wall) -> float:
        """Where the wall lies: the mean of its other coordinate, by the way gone along the wall."""
        way = self._between(self.length[wall.axis], wall)
        if way > 0:
            return self._between(self.moment[wall.axis], wall) / way
        return float(self.points[wall.start, 1 - wall.axis])

    def sign(self, wall: _Wall) -> float:
        """1 where the outline runs along the wall with its axis, -1 against it."""
        return 1.0 if self.points[wall.stop, wall.axis] >= self.points[wall.start, wall.axis] else -1.0

    @staticmethod
    def _between(sums: NDArray[np.float64], wall: _Wall) -> float:
        around = sums[-1] if wall.stop <= wall.start else 0.0
        return float(sums[wall.stop] - sums[wall.start] + around)


def regular_outlines(polygons: NDArray[Any], *, tolerance: float, right_angles: bool = True) -> NDArray[Any]:
    """Polygons with few corners, and right angles where they fit.

    Args:
        polygons: Polygons, object [polygon], in a plane whose angles and units are those of the ground.
        tolerance: How far an outline may be moved, in units of the plane; about 1.5 pixels of the mask.
        right_angles: False simplifies only (Douglas-Peucker).

    Returns:
        Valid polygons, object [polygon]; one that nothing simpler stands for is returned as it is.
    """
    made = [_regular(polygon, tolerance=tolerance, right_angles=right_angles) for polygon in polygons]
    found = np.empty(len(made), dtype=object)
    found[:] = made
    return found


def _regular(polygon: Any, *, tolerance: float, right_angles: bool) -> Any:
    simple = shapely.simplify(polygon, tolerance)
    usable = shapely.get_type_id(simple) == GeometryType.POLYGON and not simple.is_empty and simple.is_valid
    if not right_angles:
        return simple if usable else polygon
    rectangle = shapely.oriented_envelope(polygon)
    if shapely.get_type_id(rectangle) != GeometryType.POLYGON:
        return polygon
    candidates = [rectangle]
    if usable:
        candidates += [
            _right_angled(polygon, simple, angle, tolerance=tolerance) for angle in _angles(simple, rectangle)
        ]
    candidates = [item for item in candidates if item is not None and item.is_valid]
    shared = [iou(item, polygon) for item in candidates]
    best = int(np.argmax(shared))
    if usable and shared[best] < iou(simple, polygon) - _WORSE:
        return simple
    return candidates[best]


def iou(one: Any, other: Any) -> float:
    """Area that two polygons share over the area that either covers."""
    both = shapely.area(shapely.intersection(one, other))
    return float(both / (shapely.area(one) + shapely.area(other) - both))


def _angles(simple: Any, rectangle: Any) -> tuple[float, ...]:
    """Directions of walls to try, in radians: the mean of all modulo 90 degrees, the longest, those of the envelope."""
    step = np.diff(shapely.get_coordinates(simple.exterior), axis=0)
    length, angle = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    side = np.diff(shapely.get_coordinates(rectangle)[:2], axis=0)[0]
    mean = np.angle((length**2 * np.exp(4j * angle)).sum()) / 4
    return float(mean), float(angle[length.argmax()]), float(np.arctan2(side[1], side[0]))


def _right_angled(polygon: Any, simple: Any, angle: float, *, tolerance: float) -> Any:
    """The right-angled polygon along a direction; None where there is none. Holes below the tolerance are filled."""
    shell = _ring(polygon.exterior, simple.exterior, angle, tolerance=tolerance)
    if shell is None:
        return None
    holes = []
    for ring in polygon.interiors:
        corners = shapely.simplify(ring, tolerance)
        if shapely.area(shapely.Polygon(ring)) > (2 * tolerance) ** 2 and shapely.get_num_coordinates(corners) > _WALLS:
            hole = _ring(ring, corners, angle, tolerance=tolerance)
            holes += [] if hole is None else [hole]
    return shapely.Polygon(shell, holes)


def _ring(ring: Any, simple: Any, angle: float, *, tolerance: float) -> NDArray[np.float64] | None:
    """Corners float64 [corner, (x, y)] of a ring whose walls all run along ``angle`` or across it."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = shapely.get_coordinates(ring)
    place = {tuple(point): index for index, point in enumerate(points[:-1].tolist())}
    corners = sorted(place[tuple(point)] for point in shapely.get_coordinates(simple)[:-1].tolist())
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
    following = [*corners[1:], corners[0]]
    step = np.abs(walk.points[following] - walk.points[corners])
    axis = (step[:, 1] > step[:, 0]).astype(int)
    turns = np.flatnonzero(axis != np.roll(axis, 1))
    return [
        _Wall(int(axis[here]), corners[here], corners[there])
        for here, there in zip(turns.tolist(), np.roll(turns, -1).tolist(), strict=True)
    ]


def _merged(walk: _Walk, walls: list[_Wall], *, shortest: float) -> list[_Wall] | None:
    """Walls of which none is too short; each that is goes with both its neighbours into one. None: nothing is left."""
    while len(walls) >= _WALLS:
        offset = [walk.offset(wall) for wall in walls]
        long = [(offset[(k + 1) % len(walls)] - offset[k - 1]) * walk.sign(wall) for k, wall in enumerate(walls)]
        k = int(np.argmin(long))
        if long[k] >= shortest or (len(walls) == _WALLS and long[k] > 0):
            return walls
        before, after = walls[k - 1], walls[(k + 1) % len(walls)]
        kept = [walls[(k + 2 + i) % len(walls)] for i in range(len(walls) - 3)]
        walls = [_Wall(before.axis, before.start, after.stop), *kept]
    return None
