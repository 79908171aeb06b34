"""Grid and Window: the only pixel arithmetic in the project.

Between reading a scene's metadata and writing a map's affine no float coordinate is computed: windows are integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import array_bounds
from rasterio.windows import Window as RasterioWindow

from pipeline.errors import GridError, PipelineError
from pipeline.ground import SQUARE_METRES_PER_HECTARE, area_lattice, misplaced, size_on_ground, strip_areas_ha, weights

if TYPE_CHECKING:
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader


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
            got, expected = f"affine {tuple(self.transform)[:6]}", "rows and columns parallel to the axes"
            raise GridError("grid is rotated or sheared", got=got, expected=expected, fix="warp it with gdalwarp")
        if self.transform.a == 0 or self.transform.e == 0:
            raise GridError("grid has pixels of size 0", got=f"affine {tuple(self.transform)[:6]}")

    @classmethod
    def of(cls, dataset: DatasetReader) -> Self:
        """The grid of an open raster."""
        return cls(dataset.crs, dataset.transform, dataset.height, dataset.width)

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
        row, col = (math.floor(min(pair) + eps) for pair in ((row_a, row_b), (col_a, col_b)))
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
        centre = self.xy(self.height / 2 - 0.5, self.width / 2 - 0.5)
        return size_on_ground(self.crs, centre, self.pixel_size)

    @cached_property
    def _misplaced(self) -> str:
        return misplaced(self.crs, self.bounds, self.pixel_size)

    def check_place(self, *, what: str, path: Path | str, error: type[PipelineError]) -> None:
        """Refuse a grid that lies nowhere, or whose pixels have no size that pixels have; see `pipeline.ground`.

        Raises:
            PipelineError: of the class given.
        """
        if self._misplaced:
            fix = "assign the CRS that its coordinates are in with gdal_edit.py -a_srs"
            raise error(f"{what} lies where none can", path=path, got=self._misplaced, fix=fix)

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
        window; :func:`pipeline.ground.areas_by_code` adds them up.
        """
        window = window or self.window
        if self.crs.is_geographic:
            return strip_areas_ha(self.transform, slice(window.row, window.row_stop))[:, None]
        size_x, size_y = self.plane_size_m
        plane = size_x * size_y / SQUARE_METRES_PER_HECTARE
        lattice = self._area_lattice
        if lattice is None:
            return np.full((1, 1), plane)
        rows, cols, scale = lattice
        by_row = weights(rows, np.arange(window.row, window.row_stop)) @ scale
        if len(cols) == 1:
            return np.asarray(by_row * plane)
        return np.asarray(by_row @ weights(cols, np.arange(window.col, window.col_stop)).T * plane)

    def areas_at_ha(self, row: NDArray[np.integer], col: NDArray[np.integer]) -> NDArray[np.float64]:
        """Area on the ground in ha of single pixels, float64 [n]; those beyond the edge count as the nearest inside."""
        row, col = np.clip(row, 0, self.height - 1), np.clip(col, 0, self.width - 1)
        if self.crs.is_geographic:
            return np.asarray(strip_areas_ha(self.transform, slice(0, self.height))[row])
        plane = float(np.prod(self.plane_size_m)) / SQUARE_METRES_PER_HECTARE
        if self._area_lattice is None:
            return np.full(len(row), plane)
        rows, cols, scale = self._area_lattice
        by_row = np.asarray(weights(rows, row) @ scale)
        return np.asarray(plane * np.einsum("nk,nk->n", by_row, weights(cols, col)))

    @cached_property
    def pixel_area_range_ha(self) -> tuple[float, float]:
        """Area in ha of the smallest and of the largest pixel."""
        if self.crs.is_geographic:
            areas = strip_areas_ha(self.transform, slice(0, self.height))
        else:
            scale = np.ones(1) if self._area_lattice is None else self._area_lattice[2]
            areas = scale * float(np.prod(self.plane_size_m)) / SQUARE_METRES_PER_HECTARE
        return float(areas.min()), float(areas.max())

    @cached_property
    def _area_lattice(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
        """Rows, columns, and ground area over area in the plane [row, col]; None where that is 1 everywhere."""
        return area_lattice(self.crs, self.transform, self.shape)

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

    def same_pixels_as(self, other: Grid) -> bool:
        """Whether two grids are one: CRS, shape, direction of both axes, and corners to a thousandth of a pixel."""
        if self.crs != other.crs or self.shape != other.shape:
            return False
        if (self.transform.a > 0) != (other.transform.a > 0) or (self.transform.e > 0) != (other.transform.e > 0):
            return False
        corners = zip(self.bounds, other.bounds, self.pixel_size * 2, strict=True)
        return all(abs(a - b) <= 1e-3 * size for a, b, size in corners)
