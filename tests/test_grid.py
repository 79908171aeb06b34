"""Grid and Window: partition, placing and areas, against rasterio, pyproj and plain integers."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.transform import xy

from pipeline.errors import GridError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code

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
def test_geographic_pixel_areas_equal_geodesic_polygons(latitude: float) -> None:
    size = 0.01
    grid = Grid(WGS84, Affine(size, 0, 12, 0, -size, latitude + size), 2, 3)
    left, _, _, top = grid.bounds
    geod = Geod(ellps="WGS84")
    for row, area in enumerate(grid.pixel_areas_ha()[:, 0]):
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
    assert grid.pixel_areas_ha()[:, 0].sum() * 360 / 100 == pytest.approx(510_065_621.724, rel=1e-9)


def ground_ha(grid: Grid, row: int, col: int) -> float:
    """Area of a pixel by pyproj: many short geodesics follow its straight edges."""
    along = np.linspace(0, 1, 20, endpoint=False)
    one, none = np.ones(20), np.zeros(20)
    cols, rows = np.concatenate([along, one, 1 - along, none]), np.concatenate([none, along, one, 1 - along])
    to_lonlat = Transformer.from_crs(grid.crs.to_wkt(), WGS84.to_wkt(), always_xy=True)
    lon, lat = to_lonlat.transform(*(grid.transform @ (col + cols, row + rows)))
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0]) / 10_000


@pytest.mark.parametrize(
    ("epsg", "corner", "px", "shape"),
    [
        (3857, (1e6, 8.4e6), 30, (900, 1)),  # four times too large in the plane
        (3395, (1e6, 8e6), 1000, (900, 1)),
        (3413, (-3e5, -1e6), 300, (900, 800)),
        (3031, (0, 0), 500, (900, 800)),  # the pole is its corner
        (2154, (1e5, 7.1e6), 250, (900, 800)),
        (32633, (-9e5, 6e6), 30, (900, 800)),  # far outside its zone
        (32633, (4e5, 5e6), 10, (1, 1)),
        (3035, (4e6, 3e6), 100, (1, 1)),
        (5070, (1e5, 2e6), 30, (1, 1)),
    ],
)
def test_pixel_areas_are_those_of_geodesic_polygons(epsg, corner, px, shape) -> None:
    grid = Grid(CRS.from_epsg(epsg), Affine(px, 0, corner[0], 0, -px, corner[1]), 900, 800)
    areas = grid.pixel_areas_ha()
    assert areas.shape == shape
    areas = np.broadcast_to(areas, grid.shape)
    close = 2e-3 if epsg == 32633 and shape == (1, 1) else 1e-5
    for row, col in ((0, 0), (450, 400), (899, 799), (333, 77)):
        assert areas[row, col] == pytest.approx(ground_ha(grid, row, col), rel=close)
    low, high = grid.pixel_area_range_ha
    assert (low, high) == pytest.approx((areas.min(), areas.max()), rel=1e-5)
    row, col = np.array([0, 450, 899]), np.array([799, 400, 3])
    assert np.allclose(grid.areas_at_ha(row, col), areas[row, col], rtol=1e-12)
    window = Window(300, 70, 40, 20)
    part = np.broadcast_to(grid.pixel_areas_ha(window), window.shape)
    assert np.allclose(part, areas[window.slices], rtol=1e-12)


def test_south_up_pixels_have_the_same_areas() -> None:
    north = Grid(CRS.from_epsg(3857), Affine(30, 0, 0, 0, -30, 9e6), 600, 5)
    south = Grid(north.crs, Affine(30, 0, 0, 0, 30, 9e6 - 600 * 30), 600, 5)
    assert np.allclose(north.pixel_areas_ha(), south.pixel_areas_ha()[::-1], rtol=1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_areas_by_code_add_up_each_pixel(height: int, width: int, random) -> None:
    codes = np.array([[random.randint(-1, 4) for _ in range(width)] for _ in range(height)])
    for shape in ((1, 1), (height, 1), (height, width)):
        areas = np.array([[random.random() for _ in range(shape[1])] for _ in range(shape[0])])
        pixels, found = areas_by_code(codes, areas, size=5)
        assert pixels.tolist() == [(codes == code).sum() for code in range(5)]
        full = np.broadcast_to(areas, codes.shape)
        assert found == pytest.approx([full[codes == code].sum() for code in range(5)])


def test_pixel_sizes_count_feet_as_feet() -> None:
    feet = Grid(CRS.from_epsg(2263), Affine(10, 0, 0, 0, -10, 0), 2, 2)
    assert feet.pixel_size_m == pytest.approx((10 * 1200 / 3937, 10 * 1200 / 3937))


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
def test_another_pixel_size_covers_the_ground_within_a_pixel(h: int, w: int, size: float) -> None:
    grid = utm_grid(h, w)
    other = grid.with_pixel_size(size)
    assert other.bounds[0] == grid.bounds[0]
    assert other.bounds[3] == grid.bounds[3]
    assert -1e-4 <= other.bounds[2] - grid.bounds[2] < size
    assert -1e-4 <= grid.bounds[1] - other.bounds[1] < size


def test_grids_equal_by_rounding_are_one_by_a_pixel_are_not() -> None:
    grid = utm_grid()
    assert grid.same_pixels_as(Grid(UTM, Affine(10, 0, 400_000.0001, 0, -10, 5_800_000), 30, 40))
    assert not grid.same_pixels_as(grid.crop(Window(0, 1, 30, 40)))
    assert not grid.same_pixels_as(Grid(CRS.from_epsg(32634), grid.transform, 30, 40))


def test_grids_of_other_directions_are_not_the_same() -> None:
    grid = utm_grid()
    turned = Grid(grid.crs, Affine(10, 0, grid.transform.c, 0, 10, grid.transform.f - 10 * grid.height), *grid.shape)
    assert turned.bounds == grid.bounds
    assert not turned.same_pixels_as(grid)
    assert turned.north_up().same_pixels_as(grid)
    west = Grid(grid.crs, Affine(-10, 0, grid.transform.c + 10 * grid.width, 0, -10, grid.transform.f), *grid.shape)
    assert not west.same_pixels_as(grid)
    assert west.north_up() == grid


@pytest.mark.parametrize(
    ("epsg", "x", "y", "metres"),
    [
        (3857, 0, 8_399_738, 5.01),
        (3857, 0, 0, 10.0),
        (32633, 500_000, 6_000_000, 10.0),
        (3035, 4_321_000, 3_210_000, 10.0),
    ],
)
def test_pixels_are_measured_on_the_ground(epsg: int, x: float, y: float, metres: float) -> None:
    grid = Grid(CRS.from_epsg(epsg), Affine(10, 0, x, 0, -10, y), 20, 20)
    assert grid.pixel_size_m == pytest.approx((metres, metres), abs=0.02)
    assert grid.plane_size_m == (10, 10)
    assert grid.keeps_metres is (metres == 10)
