"""Outlines of the patches of a map, from bands of rows: memory grows with a band and with the patches that leave it.

GDAL outlines each band by itself. Patches inside one band are done. Where two bands meet, the edges that a patch has
with itself are taken out; what is left of its rings are chains of edges, and at each of their ends exactly one other
chain begins: together they are the rings of the whole patch, corner by corner what one pass over the map would give.

A patch that winds through a whole map can have millions of corners, more than a program that opens it can bear. One
that has gathered ``max_corners`` at the end of a band ends there, along a straight line, and goes on as another patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.features import shapes

from pipeline.legend import NODATA

Ring: TypeAlias = "NDArray[np.int32]"
"""Corners int32 [corner, (col, row)]; closed rings repeat the first corner at the end."""
BAND_ROWS = 512
# Half a million corners are some 40 MB in a GeoPackage when smoothed, which QGIS still draws and edits in seconds.
MAX_CORNERS = 500_000
_Owners: TypeAlias = "list[_Patch | None]"


@dataclass(eq=False)
class _Patch:
    """A patch, or what is known of it: its code, whole rings, and chains that wait for their other ends."""

    code: int
    rings: list[Ring]
    chains: list[Ring] = field(default_factory=list)
    into: _Patch | None = None
    corners: int = 0

    def root(self) -> _Patch:
        """The patch that this one has become part of."""
        root = self
        while root.into is not None:
            root = root.into
        here = self
        while here.into is not None:
            here.into, here = root, here.into
        return root


def patches(
    codes: NDArray[np.uint8],
    *, band_rows: int = BAND_ROWS, max_corners: int = MAX_CORNERS, on_cut: Callable[[Ring], None] | None = None,
) -> Iterator[tuple[list[Ring], int]]:  # fmt: skip
    """(rings, code) of every patch (4-connected) of uint8 [row, col], nodata left out; the first ring is the exterior.

    Exteriors are walked one way round, holes the other. Patches come in the order in which they are complete.

    ``band_rows`` are outlined at once; a patch with more than ``max_corners`` ends at the band's end. ``on_cut`` is
    told the two ends int32 [end, (col, row)] of every line along which a patch ends so, before any patch that touches
    it is given.
    """
    height, width = codes.shape
    open_above: _Owners = [None] * width
    top = np.zeros(width, dtype=np.bool_)
    waiting: dict[int, _Patch] = {}
    for first in range(0, height, band_rows):
        last = min(first + band_rows, height)
        bottom = _shared(codes, last)
        open_below: _Owners = [None] * width
        done: list[tuple[list[Ring], int]] = []
        for geometry, value in shapes(codes[first:last], connectivity=4):
            if int(value) == NODATA:
                continue
            rings = _rings(geometry["coordinates"], first)
            patch = _cut(rings, int(value), {first: top, last: bottom}, {first: open_above, last: open_below})
            whole = patch.root()
            if whole.chains:
                waiting[id(whole)] = whole
            else:
                done.append((rings, int(value)))
        for start, stop in _end_large(open_below, last, max_corners=max_corners):
            bottom[start:stop] = False
            if on_cut is not None:
                on_cut(np.array([(start, last), (stop, last)], dtype=np.int32))
        yield from done
        open_above, top = open_below, bottom
        still = {id(patch.root()) for patch in open_above if patch is not None}
        for key in [key for key in waiting if key not in still]:
            patch = waiting.pop(key)
            if patch.into is None:
                yield _assemble(patch), patch.code


def _end_large(owners: _Owners, line: int, *, max_corners: int) -> list[tuple[int, int]]:
    """Close the patches that are too large along the line they leave a band by; gives the (from, to) cols closed."""
    roots = [None if patch is None else patch.root() for patch in owners]
    large = {id(patch): patch for patch in roots if patch is not None and patch.corners > max_corners}
    if not large:
        return []
    key = np.array([id(patch) if id(patch) in large else 0 for patch in roots], dtype=np.int64)
    ends = np.flatnonzero(np.diff(np.concatenate([[0], key, [0]])))
    closed = [(int(a), int(b)) for a, b in pairwise(ends) if key[a]]
    for start, stop in closed:
        # Pixels lie on the right hand of an outline in rows that grow downwards: lower edges lead to the left.
        large[int(key[start])].chains.append(np.array([(stop, line), (start, line)], dtype=np.int32))
        owners[start:stop] = [None] * (stop - start)
    return closed


def _shared(codes: NDArray[np.uint8], row: int) -> NDArray[np.bool_]:
    """Bool [col]: whether the pixels above and below the line at ``row`` are of one patch."""
    if row in {0, len(codes)}:
        return np.zeros(codes.shape[1], dtype=np.bool_)
    same: NDArray[np.bool_] = (codes[row - 1] == codes[row]) & (codes[row] != NODATA)
    return same


def _rings(coordinates: list[list[tuple[float, float]]], first: int) -> list[Ring]:
    rings = [
        np.asarray(ring, dtype=np.float64).astype(np.int32) + np.array([0, first], np.int32) for ring in coordinates
    ]
    return rings if _signed_area(rings[0]) > 0 else [ring[::-1] for ring in rings]


def _signed_area(ring: Ring) -> float:
    """Area of a closed ring of level and upright edges, of which the level ones carry it all; its sign is the way."""
    return float(np.dot(np.diff(ring[:, 0]).astype(np.float64), -ring[:-1, 1].astype(np.float64)))


def _cut(rings: list[Ring], code: int, shared: dict[int, NDArray[np.bool_]], owners: dict[int, _Owners]) -> _Patch:
    """A patch of one band without the edges that it shares with itself in the bands above and below.

    ``owners`` of the line above names the patches that end there, which this one joins; that of the line below is
    filled in for the next band.
    """
    patch = _Patch(code, [], corners=sum(map(len, rings)))
    upper = min(owners)
    met: list[tuple[int, int, int]] = []
    for ring in rings:
        gaps = _gaps(ring, shared)
        if gaps:
            patch.chains += _chains(ring, gaps)
            met += [(int(ring[edge, 1]), min(ends), max(ends)) for edge, *ends in gaps]
        else:
            patch.rings.append(ring)
    for line, start, stop in met:
        if line != upper:
            owners[line][start:stop] = [patch] * (stop - start)
    # Joined only now: a patch that has become part of another one takes nothing more in.
    for line, start, stop in met:
        if line == upper:
            for above in {id(item): item for item in owners[line][start:stop] if item is not None}.values():
                _join(above.root(), patch.root())
    return patch


def _gaps(ring: Ring, shared: dict[int, NDArray[np.bool_]]) -> list[tuple[int, int, int]]:
    """The parts (edge, from col, to col) of a closed ring that its patch shares with itself in another band."""
    gaps = []
    for line, here in shared.items():
        level = np.flatnonzero((ring[:-1, 1] == line) & (ring[1:, 1] == line))
        for edge in level.tolist():
            gaps += [(edge, *run) for run in _runs(here, int(ring[edge, 0]), int(ring[edge + 1, 0]))]
    return gaps


def _runs(shared: NDArray[np.bool_], start: int, stop: int) -> list[tuple[int, int]]:
    """The shared parts of a level edge as (from col, to col), in the edge's direction and order."""
    low, high = min(start, stop), max(start, stop)
    padded = np.concatenate([[False], shared[low:high], [False]])
    ends = (np.flatnonzero(padded[1:] != padded[:-1]) + low).tolist()
    runs = list(zip(ends[::2], ends[1::2], strict=True))
    return runs if stop > start else [(b, a) for a, b in reversed(runs)]


def _chains(ring: Ring, gaps: list[tuple[int, int, int]]) -> list[Ring]:
    """What is left of a closed ring without its gaps (edge, from col, to col); both ends of a chain are in it."""
    # Gaps of one edge are in the ring's direction already: sorting by edge must not reorder them.
    order = sorted(range(len(gaps)), key=lambda i: (gaps[i][0], abs(gaps[i][1] - int(ring[gaps[i][0], 0]))))
    made = []
    for this, following in zip(order, [*order[1:], order[0]], strict=True):
        edge, _, begin = gaps[this]
        next_edge, end, _ = gaps[following]
        line, next_line = ring[edge, 1], ring[next_edge, 1]
        forth = (end - begin) * int(ring[edge + 1, 0] - ring[edge, 0]) >= 0  # col ``end`` follows ``begin``
        ahead = next_edge > edge or (next_edge == edge and this != following and forth)
        between = (
            ring[edge + 1 : next_edge + 1] if ahead else np.concatenate([ring[edge + 1 : -1], ring[: next_edge + 1]])
        )
        chain = np.concatenate([[[begin, line]], between, [[end, next_line]]]).astype(np.int32)
        chain = chain[np.concatenate([[True], (chain[1:] != chain[:-1]).any(axis=1)])]
        if len(chain) > 1:
            made.append(chain)
    return made


def _join(one: _Patch, other: _Patch) -> None:
    """Make two patches one; the larger takes the smaller."""
    if one is other:
        return
    if len(one.chains) + len(one.rings) < len(other.chains) + len(other.rings):
        one, other = other, one
    one.rings += other.rings
    one.chains += other.chains
    one.corners += other.corners
    other.rings, other.chains, other.into = [], [], one


def _assemble(patch: _Patch) -> list[Ring]:
    """The rings of a whole patch: chains end to end, cut where they touch themselves; the exterior first."""
    after = {(int(chain[0, 0]), int(chain[0, 1])): chain for chain in patch.chains}
    rings = patch.rings
    while after:
        start, chain = after.popitem()
        parts = [chain]
        while (end := (int(chain[-1, 0]), int(chain[-1, 1]))) != start:
            chain = after.pop(end)
            parts.append(chain)
        rings = rings + _simple(np.concatenate([part[:-1] for part in parts]))
    outer = next(i for i, ring in enumerate(rings) if _signed_area(ring) > 0)
    return [rings[outer], *rings[:outer], *rings[outer + 1 :]]


def _simple(ring: Ring) -> list[Ring]:
    """Closed rings that pass no point twice, of a ring without its closing corner."""
    ring = ring[_turns(ring)]
    key = ring[:, 1].astype(np.int64) << 32 | ring[:, 0]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    twice = np.flatnonzero(count[inverse] > 1)
    if not len(twice):
        return [np.concatenate([ring, ring[:1]])]
    ring = np.roll(ring, -twice[0], axis=0)
    starts = twice - twice[0]
    made: list[Ring] = []
    stack: list[Ring] = []
    place: dict[tuple[int, int], int] = {}
    for part in np.split(ring, starts[1:]):
        point = (int(part[0, 0]), int(part[0, 1]))
        if point in place:
            made.append(_closed(stack[place[point] :]))
            del stack[place[point] :]
            place = {where: index for where, index in place.items() if index < len(stack)}
        place[point] = len(stack)
        stack.append(part)
    return [*made, _closed(stack)]


def _closed(parts: list[Ring]) -> Ring:
    return np.concatenate([*parts, parts[0][:1]])


def _turns(ring: Ring) -> NDArray[np.bool_]:
    """Whether the ring turns at a corner; where chains met in a straight line it does not."""
    behind, ahead = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: NDArray[np.bool_] = (behind[:, 0] == 0) != (ahead[:, 0] == 0)
    return turns
