"""Grid and Window: partition, placing and areas, against rasterio, pyproj and plain integers."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.transform import xy

from pipeline.errors import GridError
from pipeline.grid import Grid, Window

UTM = CRS.from_epsg(32633)
WGS84 = CRS.from_epsg(4326)
sizes = st.integers(1, 300)


def utm_grid(height: int = 30, width: int = 40, size: float = 10.0) -> Grid:
    return Grid(UTM, Affine(size, 0, 400_000, 0, -size, 5_800_000), height, width)


@given(height=sizes, width=sizes, tile=st.integers(1, 400))
def test_tiles_partition_any_grid_exactly(height: int, width: int, tile: int) -> None:
    seen = np.zeros((height, width), np.int64)
    for window in utm_grid(height, width).tiles(tile):
        seen[window.slices] += 1
        assert max(window.shape) <= tile
    assert (seen == 1).all()


def test_tiles_of_nothing_are_refused() -> None:
    with pytest.raises(GridError, match="tiles of 0 pixels"):
        list(utm_grid().tiles(0))


@given(row=st.integers(-50, 50), col=st.integers(-50, 50), height=sizes, width=sizes)
def test_a_cropped_grid_lies_where_rasterio_puts_its_corners(row: int, col: int, height: int, width: int) -> None:
    grid = utm_grid()
    ours = grid.crop(Window(row, col, height, width)).bounds
    left, top = xy(grid.transform, row, col, offset="ul")
    right, bottom = xy(grid.transform, row + height, col + width, offset="ul")
    assert ours == pytest.approx((left, bottom, right, top))


@given(st.integers(0, 29), st.integers(0, 39), st.integers(1, 30), st.integers(1, 40))
def test_the_window_of_a_windows_bounds_is_the_window(row: int, col: int, height: int, width: int) -> None:
    window = Window(row, col, min(height, 30 - row), min(width, 40 - col))
    grid = utm_grid(size=9.98)
    assert grid.window_of_bounds(grid.crop(window).bounds) == window


def test_bounds_outside_have_no_window() -> None:
    assert utm_grid().window_of_bounds((0, 0, 10, 10)) is None


def test_a_pixel_holds_its_own_centre() -> None:
    grid = utm_grid()
    assert [grid.rowcol(*grid.xy(r, c)) for r, c in ((0, 0), (29, 39), (-3, 50))] == [(0, 0), (29, 39), (-3, 50)]


@pytest.mark.parametrize("latitude", [0.0, 35.0, 60.0, 89.9, -45.0])
def test_geographic_pixel_areas_equal_those_of_geodesic_polygons(latitude: float) -> None:
    size = 0.01
    grid = Grid(WGS84, Affine(size, 0, 12, 0, -size, latitude + size), 2, 3)
    left, _, _, top = grid.bounds
    geod = Geod(ellps="WGS84")
    for row, area in enumerate(grid.pixel_area_ha()):
        north, south = top - row * size, top - (row + 1) * size
        # A parallel is no geodesic: many short steps follow it.
        lons = np.linspace(left, left + size, 200)
        ring_lons = [*lons, *lons[::-1]]
        ring_lats = [south] * 200 + [north] * 200
        expected = abs(geod.polygon_area_perimeter(ring_lons, ring_lats)[0]) / 10_000
        assert area == pytest.approx(expected, rel=1e-6)


def test_all_pixels_of_the_world_have_the_area_of_the_ellipsoid() -> None:
    grid = Grid(WGS84, Affine(1, 0, -180, 0, -1, 90), 180, 360)
    # Source: WGS84 surface area, 510 065 621.724 km2.
    assert grid.pixel_area_ha().sum() * 360 / 100 == pytest.approx(510_065_621.724, rel=1e-9)


def test_projected_pixel_areas_count_feet_as_feet() -> None:
    feet = Grid(CRS.from_epsg(2263), Affine(10, 0, 0, 0, -10, 0), 2, 2)
    assert feet.pixel_area_ha()[0] == pytest.approx((10 * 1200 / 3937) ** 2 / 10_000)


def test_pixel_size_in_degrees_is_geodesic() -> None:
    grid = Grid(WGS84, Affine(1e-4, 0, 10, 0, -1e-4, 60), 10, 10)
    x, y = grid.pixel_size_m
    assert x == pytest.approx(y / 2, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [((10, 10), "10 m"), ((8.237, 8.2), "8.24 x 8.20 m"), ((449.158, 449.158), "449 m"), ((0.25, 0.25), "0.25 m")],
)
def test_pixel_size_to_read_has_the_digits_that_tell(sizes: tuple[float, float], text: str) -> None:
    assert Grid(UTM, Affine(sizes[0], 0, 0, 0, -sizes[1], 0), 2, 2).pixel_text == text


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (Affine(10, 1, 0, 0, -10, 0), (2, 2), "rotated"),
        (Affine(0, 0, 0, 0, -10, 0), (2, 2), "size 0"),
        (Affine(10, 0, 0, 0, -10, 0), (0, 2), "grid of 0 x 2"),
    ],
)
def test_grids_without_an_answer_are_refused(transform: Affine, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(GridError, match=message):
        Grid(UTM, transform, *shape)


def test_windows_without_pixels_are_refused() -> None:
    with pytest.raises(GridError, match="window of 0 x 1"):
        Window(0, 0, 0, 1)


def test_slices_of_a_window_that_begins_outside_are_refused() -> None:
    with pytest.raises(GridError, match="not negative"):
        _ = Window(-1, 0, 2, 2).slices


windows = st.builds(Window, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9))


@given(windows, windows)
def test_intersections_are_what_sets_of_pixels_say(a: Window, b: Window) -> None:
    def pixels(w: Window | None) -> set[tuple[int, int]]:
        return {(r, c) for r in range(w.row, w.row_stop) for c in range(w.col, w.col_stop)} if w else set()

    assert pixels(a.intersect(b)) == pixels(a) & pixels(b)


@given(sizes, sizes, st.floats(1, 77))
@settings(max_examples=50)
def test_another_pixel_size_covers_the_same_ground_and_less_than_one_pixel_more(h: int, w: int, size: float) -> None:
    grid = utm_grid(h, w)
    other = grid.with_pixel_size(size)
    assert other.bounds[0] == grid.bounds[0]
    assert other.bounds[3] == grid.bounds[3]
    assert -1e-4 <= other.bounds[2] - grid.bounds[2] < size
    assert -1e-4 <= grid.bounds[1] - other.bounds[1] < size


def test_grids_that_differ_by_rounding_are_the_same_and_by_a_pixel_are_not() -> None:
    grid = utm_grid()
    assert grid.same_pixels_as(Grid(UTM, Affine(10, 0, 400_000.0001, 0, -10, 5_800_000), 30, 40))
    assert not grid.same_pixels_as(grid.crop(Window(0, 1, 30, 40)))
    assert not grid.same_pixels_as(Grid(CRS.from_epsg(32634), grid.transform, 30, 40))
