"""Grid and Window: the only pixel arithmetic in the project.

A Grid says where pixels lie (CRS, affine, height, width); a Window is a rectangle of whole pixels on a grid.
Between reading a scene's metadata and writing a map's affine no float coordinate is computed: windows are integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from affine import Affine
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.transform import array_bounds
from rasterio.windows import Window as RasterioWindow

from pipeline.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.crs import CRS

SQUARE_METRES_PER_HECTARE = 10_000.0
SAMPLES_PER_SIDE = 3
SAMPLE_PX = 256
_GEOD = Geod(ellps="WGS84")
# Ground areas: spacing of the pixels where the scale of area is computed, how many at most along an axis, side of the
# square that is measured there (smaller ones would measure PROJ's rounding), and what is left of that rounding.
_NODE_M = 4_000.0
_MAX_NODES = 400
_PROBE_M = 1_000.0
_PLANE_TOLERANCE = 0.01
_NOISE = 1e-5
# Scale of area of UTM within its zone: 0.9992 to 1.0020 (Snyder 1987, p. 57-58: scale 0.9996 to 1.0010).
_UTM_TOLERANCE = 2.1e-3


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of whole pixels: rows ``row .. row+height-1``, columns ``col .. col+width-1``.

    ``row`` and ``col`` may be negative or beyond the grid (a halo at the scene's edge); sizes are positive.

    >>> Window(2, 3, 4, 5).expand(1)
    Window(row=1, col=2, height=6, width=7)
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse empty windows."""
        if self.height < 1 or self.width < 1:
            raise GridError(f"window of {self.height} x {self.width} pixels", expected="at least 1 x 1")

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """(row, column) slices into an array that starts at the grid's origin; only for windows inside the grid."""
        if self.row < 0 or self.col < 0:
            raise GridError(f"slices of window {self}", expected="row and column not negative")
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def expand(self, halo_px: int) -> Window:
        """The window with ``halo_px`` more pixels on each side."""
        return Window(self.row - halo_px, self.col - halo_px, self.height + 2 * halo_px, self.width + 2 * halo_px)

    def intersect(self, other: Window) -> Window | None:
        """The common pixels of two windows, None where there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def relative_to(self, outer: Window) -> Window:
        """This window in the pixel coordinates of an array that holds ``outer``."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    def to_rasterio(self) -> RasterioWindow:
        """The same window for rasterio."""
        return RasterioWindow(self.col, self.row, self.width, self.height)


@dataclass(frozen=True)
class Grid:
    """Where pixels lie: CRS, affine transform (pixel corner to CRS), height and width in pixels.

    The transform must be north-up or at least axis-parallel: rotated grids are refused, as rasterisation, areas and
    overviews all assume rows of constant northing.
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse grids without pixels, without scale, or rotated."""
        if self.height < 1 or self.width < 1:
            raise GridError(f"grid of {self.height} x {self.width} pixels", expected="at least 1 x 1")
        if self.transform.b != 0 or self.transform.d != 0:
            what = "grid is rotated or sheared"
            raise GridError(
                what,
                got=f"affine {tuple(self.transform)[:6]}",
                expected="rows and columns parallel to the axes",
                fix="warp it with gdalwarp",
            )
        if self.transform.a == 0 or self.transform.e == 0:
            raise GridError("grid has pixels of size 0", got=f"affine {tuple(self.transform)[:6]}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.height, self.width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in units of the CRS."""
        left, bottom, right, top = array_bounds(self.height, self.width, self.transform)
        return min(left, right), min(bottom, top), max(left, right), max(bottom, top)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(x, y) size of a pixel in units of the CRS, both positive."""
        return abs(self.transform.a), abs(self.transform.e)

    def crop(self, window: Window) -> Grid:
        """The grid of the pixels of ``window`` (which may reach beyond this grid)."""
        transform = self.transform @ Affine.translation(window.col, window.row)
        return Grid(self.crs, transform, window.height, window.width)

    def window_of_bounds(self, bounds: tuple[float, float, float, float]) -> Window | None:
        """The pixels touched by ``bounds`` (left, bottom, right, top in the grid's CRS), clipped to the grid.

        None where the bounds lie outside. Bounds on a pixel edge (to 1e-6 pixel) do not touch the next pixel.
        """
        left, bottom, right, top = bounds
        inverse = ~self.transform
        (col_a, row_a), (col_b, row_b) = inverse @ (left, top), inverse @ (right, bottom)
        eps = 1e-6
        row, col = math.floor(min(row_a, row_b) + eps), math.floor(min(col_a, col_b) + eps)
        row_stop, col_stop = math.ceil(max(row_a, row_b) - eps), math.ceil(max(col_a, col_b) - eps)
        touched = Window(row, col, max(row_stop - row, 1), max(col_stop - col, 1))
        return touched.intersect(self.window)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """CRS coordinates of the centre of pixel (row, col)."""
        x, y = self.transform @ (col + 0.5, row + 0.5)
        return x, y

    def rowcol(self, x: float, y: float) -> tuple[int, int]:
        """The pixel that holds a CRS coordinate; it may lie outside the grid."""
        col, row = ~self.transform @ (x, y)
        return math.floor(row), math.floor(col)

    @property
    def plane_size_m(self) -> tuple[float, float]:
        """(x, y) size of a pixel in the plane of a projected CRS, in metres."""
        factor = self.crs.linear_units_factor[1]
        return self.pixel_size[0] * factor, self.pixel_size[1] * factor

    @cached_property
    def pixel_size_m(self) -> tuple[float, float]:
        """(x, y) size in metres on the ground of the pixel at the grid's centre.

        The plane's own where it is right to 1 % (UTM, national grids); else geodesic (degrees, Mercator at 60 N).
        """
        x, y = self.xy(self.height / 2 - 0.5, self.width / 2 - 0.5)
        if self.crs.is_geographic:
            return _ground_lengths(x, y, self.pixel_size, to_degrees=None)
        plane = self.plane_size_m
        probe = _PROBE_M / max(plane)  # a small pixel would measure PROJ's rounding
        to_degrees = _to_degrees(self.crs.to_wkt())
        if to_degrees is None:
            return plane
        size_x, size_y = self.pixel_size
        ground = _ground_lengths(x, y, (size_x * probe, size_y * probe), to_degrees=to_degrees)
        right = all(abs(a - probe * b) <= _PLANE_TOLERANCE * probe * b for a, b in zip(ground, plane, strict=True))
        return plane if right or not all(map(math.isfinite, ground)) else (ground[0] / probe, ground[1] / probe)

    @property
    def keeps_metres(self) -> bool:
        """Whether lengths and areas in the plane are those on the ground, to 1 %."""
        return not self.crs.is_geographic and self.pixel_size_m == self.plane_size_m

    @property
    def pixel_text(self) -> str:
        """Size of a pixel to read, ``10 m`` or ``8.24 x 8.20 m``."""
        sizes = self.pixel_size_m
        whole = all(abs(size - round(size)) < 0.001 * size for size in sizes)
        form = ",.0f" if whole else ",.2f" if min(sizes) >= 1 else ".3g"
        return " x ".join(dict.fromkeys(f"{size:{form}}" for size in sizes)) + " m"

    def pixel_areas_ha(self, window: Window | None = None) -> NDArray[np.float64]:
        """Area on the ground in ha of the pixels of ``window`` (default: all), float64, as small as it can be.

        [1, 1] where all pixels have one area: on equal-area projections, and on transverse Mercator (UTM) within its
        zone, where the plane is right to 0.2 %. [row, 1] where it changes by row: geographic grids, Mercator. Else
        [row, col]: polar stereographic and conic grids, or UTM far outside its zone. All of them broadcast to the
        window; :func:`areas_by_code` adds them up.
        """
        window = window or self.window
        if self.crs.is_geographic:
            return _strip_areas_ha(self, window)[:, None]
        size_x, size_y = self.plane_size_m
        plane = size_x * size_y / SQUARE_METRES_PER_HECTARE
        lattice = self._area_lattice
        if lattice is None:
            return np.full((1, 1), plane)
        rows, cols, scale = lattice
        by_row = _weights(rows, np.arange(window.row, window.row_stop)) @ scale
        if len(cols) == 1:
            return np.asarray(by_row * plane)
        return np.asarray(by_row @ _weights(cols, np.arange(window.col, window.col_stop)).T * plane)

    def areas_at_ha(self, row: NDArray[np.integer], col: NDArray[np.integer]) -> NDArray[np.float64]:
        """Area on the ground in ha of single pixels, float64 [n]; those beyond the edge count as the nearest inside."""
        row, col = np.clip(row, 0, self.height - 1), np.clip(col, 0, self.width - 1)
        if self.crs.is_geographic:
            return np.asarray(_strip_areas_ha(self, self.window)[row])
        plane = float(np.prod(self.plane_size_m)) / SQUARE_METRES_PER_HECTARE
        if self._area_lattice is None:
            return np.full(len(row), plane)
        rows, cols, scale = self._area_lattice
        by_row = np.asarray(_weights(rows, row) @ scale)
        return np.asarray(plane * np.einsum("nk,nk->n", by_row, _weights(cols, col)))

    @cached_property
    def pixel_area_range_ha(self) -> tuple[float, float]:
        """Area in ha of the smallest and of the largest pixel."""
        if self.crs.is_geographic:
            areas = _strip_areas_ha(self, self.window)
        else:
            scale = np.ones(1) if self._area_lattice is None else self._area_lattice[2]
            areas = scale * float(np.prod(self.plane_size_m)) / SQUARE_METRES_PER_HECTARE
        return float(areas.min()), float(areas.max())

    @cached_property
    def _area_lattice(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
        """Rows, columns, and ground area over area in the plane [row, col]; None where that is 1 everywhere."""
        return _area_lattice(self)

    def tiles(self, tile_px: int) -> Iterator[Window]:
        """Windows of at most ``tile_px`` squared that partition the grid, row by row."""
        if tile_px < 1:
            raise GridError(f"tiles of {tile_px} pixels", expected="at least 1")
        for row in range(0, self.height, tile_px):
            for col in range(0, self.width, tile_px):
                yield Window(row, col, min(tile_px, self.height - row), min(tile_px, self.width - col))

    def with_pixel_size(self, size: float) -> Grid:
        """The same ground from the same corner in square pixels of ``size`` CRS units; the last may reach beyond it."""
        if not size > 0:
            raise GridError(f"pixels of {size} units", expected="more than 0")
        (size_x, size_y), old = self.pixel_size, self.transform
        height = math.ceil(self.height * size_y / size - 1e-6)
        width = math.ceil(self.width * size_x / size - 1e-6)
        step_x, step_y = math.copysign(size, old.a), math.copysign(size, old.e)
        return Grid(self.crs, Affine(step_x, 0.0, old.c, 0.0, step_y, old.f), height, width)

    def with_pixel_size_m(self, metres: float) -> Grid:
        """As :meth:`with_pixel_size`, in metres on the ground at the grid's centre."""
        return self.with_pixel_size(metres * self.pixel_size[0] / self.pixel_size_m[0])

    def north_up(self) -> Grid:
        """The same pixels, rows from north to south and columns from west to east."""
        old = self.transform
        left = old.c if old.a > 0 else old.c + old.a * self.width
        top = old.f if old.e < 0 else old.f + old.e * self.height
        return Grid(self.crs, Affine(abs(old.a), 0.0, left, 0.0, -abs(old.e), top), self.height, self.width)

    def same_pixels_as(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """Whether two grids are one: CRS, shape, direction of both axes, and corners to ``tolerance_px`` pixels."""
        if self.crs != other.crs or self.shape != other.shape:
            return False
        if (self.transform.a > 0) != (other.transform.a > 0) or (self.transform.e > 0) != (other.transform.e > 0):
            return False
        size_x, size_y = self.pixel_size
        return all(
            abs(a - b) <= tolerance_px * size
            for a, b, size in zip(self.bounds, other.bounds, (size_x, size_y, size_x, size_y), strict=True)
        )


@cache
def _to_degrees(wkt: str) -> Transformer | None:
    """From a projected CRS to degrees; None from a local one, for which there is no ground but the plane."""
    try:
        return Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)
    except ProjError:
        return None


def _ground_lengths(
    x: float, y: float, size: tuple[float, float], *, to_degrees: Transformer | None
) -> tuple[float, float]:
    """Geodesic length in metres of the two axes of a rectangle around a place."""
    xs, ys = [x - size[0] / 2, x + size[0] / 2, x, x], [y, y, y - size[1] / 2, y + size[1] / 2]
    lon, lat = (xs, ys) if to_degrees is None else to_degrees.transform(xs, ys)
    across, along = (float(_GEOD.inv(lon[i], lat[i], lon[i + 1], lat[i + 1])[2]) for i in (0, 2))
    return across, along


def areas_by_code(
    codes: NDArray[np.integer], areas_ha: NDArray[np.float64], *, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels int64 [code] and area in ha float64 [code] of codes 0..size-1; negative codes are left out.

    Args:
        codes: int [row, col].
        areas_ha: float64 that broadcasts to it: :meth:`Grid.pixel_areas_ha`.
        size: Number of codes.

    >>> areas_by_code(np.array([[0, 2], [2, -1]]), np.array([[1.0], [0.5]]), size=3)[1].tolist()
    [1.0, 0.0, 1.5]
    """
    inside = codes >= 0
    known = codes.ravel() if inside.all() else codes[inside]
    pixels = np.bincount(known, minlength=size).astype(np.int64)
    if areas_ha.size == 1:
        return pixels, np.asarray(pixels * areas_ha.ravel()[0])
    weights = np.broadcast_to(areas_ha, codes.shape)[inside]
    return pixels, np.asarray(np.bincount(known, weights=weights, minlength=size), dtype=np.float64)


def _strip_areas_ha(grid: Grid, window: Window) -> NDArray[np.float64]:
    """Geodesic area in ha of a pixel of each row of a geographic grid on the WGS84 ellipsoid, float64 [row].

    A strip between two latitudes has area ``a^2 / 2 * dlon * [q(north) - q(south)]`` with q as in :func:`_authalic_q`.
    """
    edges = grid.transform.f + grid.transform.e * np.arange(window.row, window.row_stop + 1)
    q = _authalic_q(np.radians(np.clip(edges, -90.0, 90.0)), _GEOD.es)
    strip = _GEOD.a**2 / 2 * np.radians(abs(grid.transform.a)) * np.abs(np.diff(q))
    return np.asarray(strip / SQUARE_METRES_PER_HECTARE, dtype=np.float64)


def _authalic_q(latitude: NDArray[np.float64], ecc2: float) -> NDArray[np.float64]:
    """``(1-e^2) [s/(1-e^2 s^2) + atanh(e s)/e]`` with s = sin(latitude in radians): area from the equator to there.

    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eq. 3-12 (authalic q).
    """
    sin_lat, ecc = np.sin(latitude), math.sqrt(ecc2)
    curved = np.arctanh(ecc * sin_lat) / ecc if ecc else sin_lat
    return np.asarray((1 - ecc2) * (sin_lat / (1 - ecc2 * sin_lat**2) + curved))


def _area_lattice(grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Ground area over area in the plane at pixels about 4 km apart: between them a line is right to 1e-6."""
    size_x, size_y = grid.plane_size_m
    rows, cols = _nodes(grid.height, size_y), _nodes(grid.width, size_x)
    x = grid.transform.c + grid.transform.a * (cols + 0.5)
    y = grid.transform.f + grid.transform.e * (rows + 0.5)
    scale = ground_area_scale(grid.crs, *np.meshgrid(x, y), side_m=max(size_x, size_y, _PROBE_M))
    if (scale == 1.0).all():
        return None
    if np.ptp(scale, axis=1).max() <= _NOISE / 10:
        return rows, cols[:1], scale.mean(axis=1, keepdims=True)
    return rows, cols, scale


def _nodes(pixels: int, size_m: float) -> NDArray[np.int64]:
    count = int(np.clip(math.ceil(pixels * size_m / _NODE_M), 1, _MAX_NODES)) + 1
    return np.unique(np.linspace(0, pixels - 1, count).round().astype(np.int64))


def _weights(nodes: NDArray[np.int64], at: NDArray[np.integer]) -> NDArray[np.float64]:
    """Weights of linear interpolation, float64 [at, node]."""
    return np.stack([np.interp(at, nodes, one) for one in np.eye(len(nodes))], axis=1)


def ground_area_scale(
    crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64], *, side_m: float = _PROBE_M
) -> NDArray[np.float64]:
    """Ground area over area in the plane at places of a projected CRS, float64 like ``x`` and ``y``.

    It is 1 where the plane keeps areas at all of these places (to 1e-5; transverse Mercator within its zone: to 0.2 %),
    and 0 beyond the edge of the world. The corners of a square of ``side_m`` metres go to the authalic sphere, on which
    areas are those of the ellipsoid, so that neither poles nor the date line are special.

    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eqs. 3-11 to 3-13 (authalic sphere).
    """
    full = pyproj.CRS.from_wkt(crs.to_wkt())
    geodetic = full.geodetic_crs
    if geodetic is None or geodetic.ellipsoid is None:  # a local CRS: there is no ground but the plane
        return np.ones(x.shape)
    axis, flat = geodetic.ellipsoid.semi_major_metre, geodetic.ellipsoid.inverse_flattening
    ecc2 = (2 - 1 / flat) / flat if flat else 0.0
    to_ground = Transformer.from_crs(full, geodetic, always_xy=True)
    polar = float(_authalic_q(np.array(np.pi / 2), ecc2))
    metre = crs.linear_units_factor[1]
    side = side_m / metre
    corners = []
    for right, up in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        lon, lat = to_ground.transform(x + right * side / 2, y + up * side / 2, radians=True)
        sin_beta = np.clip(_authalic_q(np.where(np.isfinite(lat), lat, np.nan), ecc2) / polar, -1.0, 1.0)
        cos_beta = np.sqrt(1 - sin_beta**2)
        corners.append(np.stack([cos_beta * np.cos(lon), cos_beta * np.sin(lon), sin_beta], axis=-1))
    normal = np.cross(corners[2] - corners[0], corners[3] - corners[1])
    ground = np.linalg.norm(normal, axis=-1) / 2 * axis**2 * polar / 2
    scale = ground / side_m**2
    operation = full.coordinate_operation
    tolerance = _UTM_TOLERANCE if operation and "Transverse Mercator" in operation.method_name else _NOISE
    if np.nanmax(np.abs(scale - 1), initial=0.0) <= tolerance:
        return np.ones(x.shape)
    return np.asarray(np.nan_to_num(scale))


def sample_windows(grid: Grid) -> tuple[Window, ...]:
    """Windows spread evenly over a grid; the whole grid where it is small."""
    side = SAMPLES_PER_SIDE * SAMPLE_PX
    if grid.height <= side and grid.width <= side:
        return (grid.window,)
    rows, cols = (_starts(length) for length in grid.shape)
    height, width = min(SAMPLE_PX, grid.height), min(SAMPLE_PX, grid.width)
    return tuple(Window(row, col, height, width) for row in rows for col in cols)


def _starts(length: int) -> list[int]:
    if length <= SAMPLE_PX:
        return [0]
    return sorted({round((i + 0.5) * length / SAMPLES_PER_SIDE - SAMPLE_PX / 2) for i in range(SAMPLES_PER_SIDE)})
