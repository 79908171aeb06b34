"""Grid and Window: the only pixel arithmetic in the project.

A Grid says where pixels lie (CRS, affine, height, width); a Window is a rectangle of whole pixels on a grid.
Between reading a scene's metadata and writing a map's affine no float coordinate is computed: windows are integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from pyproj import Geod
from rasterio.transform import array_bounds
from rasterio.windows import Window as RasterioWindow

from pipeline.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rasterio.crs import CRS

SQUARE_METRES_PER_HECTARE = 10_000.0
_GEOD = Geod(ellps="WGS84")


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

    @cached_property
    def pixel_size_m(self) -> tuple[float, float]:
        """(x, y) size in metres of the pixel at the grid's centre; geodesic on a geographic CRS."""
        if not self.crs.is_geographic:
            factor = self.crs.linear_units_factor[1]
            return self.pixel_size[0] * factor, self.pixel_size[1] * factor
        x, y = self.xy(self.height / 2 - 0.5, self.width / 2 - 0.5)
        size_x, size_y = self.pixel_size
        return (
            abs(_GEOD.inv(x - size_x / 2, y, x + size_x / 2, y)[2]),
            abs(_GEOD.inv(x, y - size_y / 2, x, y + size_y / 2)[2]),
        )

    @property
    def pixel_text(self) -> str:
        """Size of a pixel to read, ``10 m`` or ``8.24 x 8.20 m``."""
        sizes = self.pixel_size_m
        whole = all(abs(size - round(size)) < 0.001 * size for size in sizes)
        form = ",.0f" if whole else ",.2f" if min(sizes) >= 1 else ".3g"
        return " x ".join(dict.fromkeys(f"{size:{form}}" for size in sizes)) + " m"

    def pixel_area_ha(self, window: Window | None = None) -> NDArray[np.float64]:
        """Area in ha of a pixel in each row of ``window`` (default: all rows), float64 [row].

        On a geographic CRS the area is geodesic on the WGS84 ellipsoid: a parallel strip between two latitudes has
        area ``a^2 (1-e^2) / 2 * dlon * [s/(1-e^2 s^2) + atanh(e s)/e]`` with s = sin(latitude).
        Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eq. 3-12 (authalic q).
        """
        window = window or self.window
        if not self.crs.is_geographic:
            size_x, size_y = self.pixel_size_m
            return np.full(window.height, size_x * size_y / SQUARE_METRES_PER_HECTARE)
        edges = self.transform.f + self.transform.e * np.arange(window.row, window.row_stop + 1)
        sin_lat = np.sin(np.radians(np.clip(edges, -90.0, 90.0)))
        ecc2 = _GEOD.es
        ecc = math.sqrt(ecc2)
        q = (1 - ecc2) * (sin_lat / (1 - ecc2 * sin_lat**2) + np.arctanh(ecc * sin_lat) / ecc)
        strip = _GEOD.a**2 / 2 * np.radians(abs(self.transform.a)) * np.abs(np.diff(q))
        return np.asarray(strip / SQUARE_METRES_PER_HECTARE, dtype=np.float64)

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

    def same_pixels_as(self, other: Grid, tolerance_px: float = 1e-3) -> bool:
        """Whether two grids are one: CRS, shape, and corners equal to ``tolerance_px`` pixels."""
        if self.crs != other.crs or self.shape != other.shape:
            return False
        size_x, size_y = self.pixel_size
        return all(
            abs(a - b) <= tolerance_px * size
            for a, b, size in zip(self.bounds, other.bounds, (size_x, size_y, size_x, size_y), strict=True)
        )
