"""Labels -> LabelledPixels: the labelled pixels of a scene, sparse, with the polygon each belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes

from pipeline.errors import LabelError
from pipeline.grid import Grid, Window
from pipeline.labels.geometries import is_point
from pipeline.legend import UNLABELLED
from pipeline.raster import burn_shapes

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from pipeline.labels.source import Labels

# Distances to a polygon's edge are counted up to this many pixels: beyond, a mixed pixel is out of the question.
EDGE_CAP_PX = 8
# Pixels of one rasterised strip of a large polygon; bounds memory at some tens of MB whatever the polygon.
_STRIP_PX = 4_000_000
HALF_TURN, FULL_TURN = 180.0, 360.0


@dataclass(frozen=True)
class Conflict:
    """Two polygons of different class that claim the same pixels; these pixels are left out."""

    polygons: tuple[int, int]  # Ids of the two, the lower first
    codes: tuple[int, int]  # Their class codes
    pixels: int  # How many pixels both claim


@dataclass(frozen=True, eq=False)
class LabelledPixels:
    """The labelled pixels of one scene, sorted by row, then column; every pixel at most once."""

    row: NDArray[np.int32]  # int32 [n], inside the grid
    col: NDArray[np.int32]  # int32 [n]
    code: NDArray[np.uint8]  # uint8 [n], class codes
    polygon: NDArray[np.int32]  # int32 [n], ids from 1 as in ``Labels.frame.poly_id``
    # uint8 [n], chessboard distance to the nearest pixel outside the polygon, 1 on its rim, at most
    # EDGE_CAP_PX; the scene's edge is no edge of the polygon
    edge_px: NDArray[np.uint8]
    grid: Grid  # The scene's grid
    conflicts: tuple[Conflict, ...] = ()  # Pairs of polygons that contradict each other
    # Ids of polygons without any pixel here: beyond the grid, too small, or wholly contested
    outside: tuple[int, ...] = ()
    too_small: tuple[int, ...] = ()  # Those of ``outside`` that lie over the grid but hold no pixel centre
    contested_px: int = 0  # Pixels left out because polygons of two classes claim them

    def __len__(self) -> int:
        """Number of labelled pixels."""
        return len(self.row)

    def dense(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Codes uint8 [row, col] (UNLABELLED where none) and polygon ids int32 [row, col] (0 where none).

        The window may reach beyond the grid.
        """
        codes = np.full(window.shape, UNLABELLED, dtype=np.uint8)
        polygons = np.zeros(window.shape, dtype=np.int32)
        position = self.within(window)
        rows, cols = self.row[position] - window.row, self.col[position] - window.col
        codes[rows, cols] = self.code[position]
        polygons[rows, cols] = self.polygon[position]
        return codes, polygons

    def within(self, window: Window) -> NDArray[np.intp]:
        """Positions [k] of the labelled pixels in ``window``, in order."""
        start, stop = np.searchsorted(self.row, (window.row, window.row_stop))
        cols = self.col[start:stop]
        inside: NDArray[np.intp] = np.flatnonzero((cols >= window.col) & (cols < window.col_stop)) + start
        return inside

    def select(self, which: NDArray[np.bool_] | Collection[int]) -> LabelledPixels:
        """Only some pixels: by a bool mask [n], or by polygon ids."""
        if isinstance(which, np.ndarray) and which.dtype == np.bool_:
            mask = which
        else:
            mask = np.isin(self.polygon, np.fromiter((int(i) for i in which), dtype=np.int32))
        kept: dict[str, Any] = {
            name: getattr(self, name)[mask] for name in ("row", "col", "code", "polygon", "edge_px")
        }
        return replace(self, **kept)

    def polygon_ids(self) -> NDArray[np.int32]:
        """Ids of the polygons that have pixels here, ascending."""
        return np.unique(self.polygon)


def burn(
    labels: Labels, grid: Grid, *, all_touched: bool | Collection[int] = False, point_window_px: int = 1
) -> LabelledPixels:
    """The pixels of ``grid`` whose centre lies in a polygon (or that it touches, with ``all_touched``).

    ``all_touched`` may also be the ids of the polygons that label what they touch. A point labels its pixel, or the
    window of ``point_window_px`` pixels a side around it (odd).

    Labels are brought to the grid's CRS. Pixels that polygons of two classes claim are left out and listed; where
    polygons of one class overlap, the lowest id has the pixel. Memory grows with the labelled pixels, never with the
    grid.
    """
    frame = to_grid_crs(labels.frame, grid)
    ids = frame["poly_id"].to_numpy(dtype=np.int32)
    codes = frame["code"].to_numpy(dtype=np.uint8)
    keys, edges, owners = [], [], []
    touched = np.isin(ids, list(all_touched)) if not isinstance(all_touched, bool) else np.full(len(ids), all_touched)
    for position, geometry in enumerate(frame.geometry.array):
        shape = _window_around(geometry, grid, side_px=point_window_px) if point_window_px > 1 else geometry
        for key, edge in _pixels_of(shape, grid, all_touched=bool(touched[position])):
            keys.append(key)
            edges.append(edge)
            owners.append(np.full(len(key), position, dtype=np.int32))
    key = np.concatenate(keys) if keys else np.empty(0, dtype=np.int64)
    edge = np.concatenate(edges) if edges else np.empty(0, dtype=np.uint8)
    owner = np.concatenate(owners) if owners else np.empty(0, dtype=np.int32)
    order = np.argsort(key, kind="stable")  # stable: of one pixel's claims, the lowest polygon id comes first
    key, edge, owner = key[order], edge[order], owner[order]
    kept, conflicts, contested = _settle(key, owner, codes, ids)
    missing = np.setdiff1d(ids, ids[owner[kept]])
    never = np.setdiff1d(ids, ids[owner])
    over = frame.intersects(shapely.box(*grid.bounds)).to_numpy()
    return LabelledPixels(
        row=(key[kept] // grid.width).astype(np.int32),
        col=(key[kept] % grid.width).astype(np.int32),
        code=codes[owner[kept]],
        polygon=ids[owner[kept]],
        edge_px=edge[kept],
        grid=grid,
        conflicts=conflicts,
        outside=tuple(int(i) for i in missing),
        too_small=tuple(int(i) for i in np.intersect1d(never, ids[over])),
        contested_px=contested,
    )


def _window_around(geometry: Any, grid: Grid, *, side_px: int) -> Any:
    """The square of whole pixels around each point of a geometry in the grid's CRS; other geometries as they are."""
    if not len(shapely.get_coordinates(geometry)) or shapely.get_dimensions(geometry) != 0:
        return geometry
    half_x, half_y = ((side_px / 2 - 0.01) * size for size in grid.pixel_size)
    squares = []
    for x, y in shapely.get_coordinates(geometry):
        row, col = grid.rowcol(x, y)
        centre_x, centre_y = grid.xy(row, col)
        squares.append(shapely.box(centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y))
    return shapely.union_all(squares)


def to_grid_crs(frame: GeoDataFrame, grid: Grid) -> GeoDataFrame:
    """The frame in the grid's CRS; long straight edges get vertices first, since a straight line in one CRS bends.

    With vertices every 0.05 degree or 5 km the line is off by less than 1 m: sagitta L^2 tan(lat) / 8R for a parallel.

    Raises:
        LabelError: there is no transformation between the two CRS.
    """
    target = str(grid.crs)
    frame = _across_180(frame, grid)
    if frame.crs == target:
        return frame
    step = 0.05 if frame.crs.is_geographic else 5000.0
    dense = frame.set_geometry(shapely.segmentize(np.asarray(frame.geometry.array, dtype=object), step), crs=frame.crs)
    try:
        return dense.to_crs(target)
    except Exception as err:  # pyproj raises several unrelated types
        raise LabelError("labels cannot be brought to the scene's CRS", got=err, expected=target) from err


def _across_180(frame: GeoDataFrame, grid: Grid) -> GeoDataFrame:
    """Polygons in degrees that cross the meridian of 180 degrees, or a grid that does: longitudes without a jump.

    A polygon from 179.9 to -179.9 degrees is 0.2 degrees wide, not 359.8; on a grid that goes on beyond 180 degrees
    what lies at -179.9 lies at 180.1.
    """
    if not frame.crs.is_geographic:
        return frame
    left, _, right, _ = grid.bounds if grid.crs.is_geographic else (0.0, 0.0, 0.0, 0.0)
    shapes = np.asarray(frame.geometry.array, dtype=object)
    bounds = shapely.bounds(shapes)
    jumps = bounds[:, 2] - bounds[:, 0] > HALF_TURN
    if right > HALF_TURN:
        jumps |= bounds[:, 2] <= left
    if left < -HALF_TURN:
        jumps |= bounds[:, 0] >= right
    if not jumps.any():
        return frame
    turn = -FULL_TURN if left < -HALF_TURN else FULL_TURN

    def moved(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([np.where(at[:, 0] * turn < 0, at[:, 0] + turn, at[:, 0]), at[:, 1]], axis=1)

    shapes[jumps] = [shapely.transform(shape, moved) for shape in shapes[jumps]]
    return frame.set_geometry(shapes, crs=frame.crs)


def _pixels_of(
    geometry: Any, grid: Grid, *, all_touched: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Row-major pixel numbers int64 [k] and edge distances uint8 [k] of one geometry, strip by strip."""
    from scipy.ndimage import distance_transform_cdt

    bounds = shapely.bounds(geometry)
    window = grid.window_of_bounds(tuple(bounds)) if np.isfinite(bounds).all() else None
    if window is None:
        return
    height = max(_STRIP_PX // window.width, 1)
    for start in range(window.row, window.row_stop, height):
        strip = Window(start, window.col, min(height, window.row_stop - start), window.width)
        around = strip.expand(EDGE_CAP_PX + 1)
        mask = burn_shapes([geometry], grid.crop(around), all_touched=all_touched)
        inner = strip.relative_to(around).slices
        rows, cols = np.nonzero(mask[inner])
        if len(rows):
            distance = distance_transform_cdt(mask, metric="chessboard")[inner][rows, cols]
            yield (
                (rows + strip.row).astype(np.int64) * grid.width + (cols + strip.col),
                np.minimum(distance, EDGE_CAP_PX).astype(np.uint8),
            )


def _settle(
    key: NDArray[np.int64], owner: NDArray[np.int32], codes: NDArray[np.uint8], ids: NDArray[np.int32]
) -> tuple[NDArray[np.bool_], tuple[Conflict, ...], int]:
    """Of sorted claims: which stand, the pairs of polygons that contradict each other, how many pixels that costs."""
    if not len(key):
        return np.empty(0, dtype=np.bool_), (), 0
    first = np.r_[True, key[1:] != key[:-1]]
    group = np.cumsum(first) - 1
    code = codes[owner]
    contested = np.zeros(group[-1] + 1, dtype=np.bool_)
    pairs = [np.empty((0, 2), dtype=np.int32)]
    for offset in range(1, int(np.bincount(group).max())):
        same = key[offset:] == key[:-offset]
        clash = np.flatnonzero(same & (code[offset:] != code[:-offset]))
        contested[group[clash]] = True
        pairs.append(np.stack([owner[clash], owner[clash + offset]], axis=1))
    unique, counts = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
    conflicts = tuple(
        Conflict((int(ids[a]), int(ids[b])), (int(codes[a]), int(codes[b])), int(count))
        for (a, b), count in zip(unique, counts, strict=True)
    )
    return first & ~contested[group], conflicts, int(contested.sum())


def erode_edges(pixels: LabelledPixels, erode_px: Mapping[int, int]) -> LabelledPixels:
    """Labelled pixels without the outer pixels of each polygon, by polygon id: there a pixel sees two classes.

    Of a polygon that would vanish its innermost pixels stay, so that no polygon is lost to its size.

    Raises:
        LabelError: more pixels than distances are known for.
    """
    if any(not 0 <= count < EDGE_CAP_PX for count in erode_px.values()):
        got = ", ".join(str(count) for count in sorted(set(erode_px.values())))
        raise LabelError("pixels taken off a polygon's rim", got=got, expected=f"0..{EDGE_CAP_PX - 1}")
    if not len(pixels) or not any(erode_px.values()):
        return pixels
    size = int(pixels.polygon.max()) + 1
    wanted, deepest = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for polygon, count in erode_px.items():
        if polygon < size:
            wanted[polygon] = count
    np.maximum.at(deepest, pixels.polygon, pixels.edge_px.astype(np.int64))
    least = np.minimum(wanted + 1, deepest)
    return pixels.select(pixels.edge_px >= least[pixels.polygon])


def pixel_outlines(pixels: LabelledPixels, ids: NDArray[np.int32]) -> list[Any]:
    """The outline of the pixels of each polygon, by ids that have some, in the grid's CRS."""
    order = np.argsort(pixels.polygon, kind="stable")
    starts = np.searchsorted(pixels.polygon[order], ids)
    stops = np.searchsorted(pixels.polygon[order], ids, side="right")
    outlines = []
    for start, stop in zip(starts, stops, strict=True):
        rows, cols = pixels.row[order[start:stop]], pixels.col[order[start:stop]]
        top, left = int(rows.min()), int(cols.min())
        mask = np.zeros((int(rows.max()) - top + 1, int(cols.max()) - left + 1), dtype=np.uint8)
        mask[rows - top, cols - left] = 1
        part = pixels.grid.crop(Window(top, left, *mask.shape))
        found = shapes(mask, mask=mask.astype(bool), transform=part.transform)
        outlines.append(shapely.union_all([shapely.geometry.shape(item) for item, _ in found]))
    return outlines


def with_areas(frame: GeoDataFrame, scenes: Sequence[LabelledPixels]) -> GeoDataFrame:
    """Rows of ``Labels.frame`` in their CRS, each point as the pixels it labels in the first scene where it does.

    Polygons stay as they were drawn, and so do points that label no pixel.
    """
    import geopandas as gpd

    shapes_of = np.array(frame.geometry.array, dtype=object)
    ids, waiting = frame["poly_id"].to_numpy(dtype=np.int32), is_point(shapes_of)
    for pixels in scenes:
        found = waiting & np.isin(ids, pixels.polygon_ids())
        if found.any():
            outlines = gpd.GeoSeries(pixel_outlines(pixels, ids[found]), crs=str(pixels.grid.crs))
            shapes_of[found] = np.asarray(outlines.to_crs(frame.crs).array, dtype=object)
        waiting &= ~found
    return frame.set_geometry(gpd.GeoSeries(shapes_of, index=frame.index, crs=frame.crs))
