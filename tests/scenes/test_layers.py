"""DEM, Sentinel-1 and other rasters on the scene's grid."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS

from pipeline.errors import SceneError, SceneWarning
from pipeline.grid import Grid, Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.layers import dem_layer, pixel_size_m, raster_layer, sentinel1_layer, with_layers
from pipeline.scenes.reader import open_reader
from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

SHAPE = (40, 50)
WHOLE = Window(0, 0, *SHAPE)
DERIVE = ("elevation", "slope", "northness", "eastness")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    values = np.full((1, *SHAPE), 0.3, dtype=np.float32)
    return open_geotiff(write_raster(tmp_path / "scene.tif", values, names=("red",)))


def plane(transform: Affine, shape: tuple[int, int], *, east: float, north: float) -> np.ndarray:
    rows, cols = np.indices(shape)
    x = transform.a * (cols + 0.5)
    y = transform.e * (rows + 0.5)
    return (1000 + east * x + north * y).astype(np.float32)


def test_a_plane_has_its_slope_and_direction_up_to_the_edges(scene: Scene, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.tif", plane(TRANSFORM, SHAPE, east=0.3, north=-0.4))
    with open_reader(with_layers(scene, [dem_layer(path, derive=DERIVE)])) as reader:
        raster = reader.read(WHOLE)
    assert raster.bands == ("red", *DERIVE)
    assert raster.valid.all()
    np.testing.assert_allclose(raster.band("slope"), np.degrees(np.arctan(0.5)), atol=1e-3)
    np.testing.assert_allclose(raster.band("northness"), 0.8, atol=1e-4)  # it rises to the south: falls to the north
    np.testing.assert_allclose(raster.band("eastness"), -0.6, atol=1e-4)


def test_level_ground_has_no_direction(scene: Scene, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.tif", np.full(SHAPE, 250, dtype=np.int16))
    with open_reader(with_layers(scene, [dem_layer(path, derive=DERIVE)])) as reader:
        raster = reader.read(WHOLE)
    assert (raster.band("elevation") == 250).all()
    for name in DERIVE[1:]:
        assert (raster.band(name) == 0).all()


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="gdaldem (gdal-bin) is not installed")
def test_slope_and_aspect_equal_gdaldem(scene: Scene, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = write_raster(tmp_path / "dem.tif", rng.uniform(0, 60, SHAPE).astype(np.float32))
    for kind in ("slope", "aspect"):
        subprocess.run(["gdaldem", kind, path, tmp_path / f"{kind}.tif", "-q"], check=True)
    with rasterio.open(tmp_path / "slope.tif") as slope, rasterio.open(tmp_path / "aspect.tif") as aspect:
        slopes, aspects = slope.read(1), np.radians(aspect.read(1))
    with open_reader(with_layers(scene, [dem_layer(path, derive=DERIVE)])) as reader:
        raster = reader.read(WHOLE)
    inner = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(raster.band("slope")[inner], slopes[inner], atol=1e-3)
    np.testing.assert_allclose(raster.band("northness")[inner], np.cos(aspects)[inner], atol=1e-3)
    np.testing.assert_allclose(raster.band("eastness")[inner], np.sin(aspects)[inner], atol=1e-3)


def test_windows_have_no_seams(scene: Scene, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    coarse = TRANSFORM @ Affine.scale(3)
    path = write_raster(tmp_path / "dem.tif", rng.uniform(0, 60, (14, 17)).astype(np.float32), transform=coarse)
    source = with_layers(scene, [dem_layer(path, derive=DERIVE)])
    with open_reader(source) as reader:
        whole = reader.read(WHOLE)
        for window in scene.grid.tiles(17):
            part = reader.read(window)
            np.testing.assert_array_equal(part.values, whole.values[:, *window.slices])
        beyond = reader.read(Window(-3, 45, 8, 8))
    np.testing.assert_array_equal(beyond.values[:, 3:, :5], whole.values[:, :5, 45:])
    assert not beyond.valid[:3].any()
    assert not beyond.valid[:, 5:].any()


def test_slope_on_a_geographic_grid_is_in_metres_everywhere(tmp_path: Path) -> None:
    transform = Affine(0.001, 0, 10, 0, -0.001, 60)
    grid_values = np.full((1, 30, 20), 0.3, dtype=np.float32)
    scene = open_geotiff(
        write_raster(tmp_path / "s.tif", grid_values, crs="EPSG:4326", transform=transform, names=("red",))
    )
    # Elevation that rises 10 % to the east: distances along each parallel by geodesics.
    geod = Geod(ellps="WGS84")
    lat = 60 - 0.001 * (np.arange(30) + 0.5)
    step = np.array([geod.inv(10, y, 10.001, y)[2] for y in lat])
    dem = (0.1 * step[:, None] * np.arange(20)).astype(np.float32)
    path = write_raster(tmp_path / "dem.tif", dem, crs="EPSG:4326", transform=transform)
    with open_reader(with_layers(scene, [dem_layer(path, derive=("slope", "eastness"))])) as reader:
        raster = reader.read(Window(0, 0, 30, 20))
    np.testing.assert_allclose(np.tan(np.radians(raster.band("slope"))), 0.1, rtol=2e-3)
    np.testing.assert_allclose(raster.band("eastness"), -1, atol=1e-3)


def test_pixel_sizes_equal_geodesic_distances() -> None:
    grid = Grid(CRS.from_epsg(4326), Affine(0.001, 0, 10, 0, -0.002, 71), 4000, 10)
    size_x, size_y = pixel_size_m(grid)
    geod = Geod(ellps="WGS84")
    for row in (0, 1234, 3999):
        lat = 71 - 0.002 * (row + 0.5)
        assert size_x[row] == pytest.approx(geod.inv(10, lat, 10.001, lat)[2], rel=1e-6)
        assert size_y[row] == pytest.approx(geod.inv(10, lat - 0.001, 10, lat + 0.001)[2], rel=1e-6)


def test_a_dem_that_ends_inside_leaves_the_rest_not_valid(scene: Scene, tmp_path: Path) -> None:
    dem = plane(TRANSFORM, (20, 50), east=0.1, north=0)
    dem[5, 5] = -9999
    path = write_raster(tmp_path / "dem.tif", dem, nodata=-9999)
    with pytest.warns(SceneWarning, match="layer covers 50% of scene"):
        source = with_layers(scene, [dem_layer(path)])
    with open_reader(source) as reader:
        raster = reader.read(WHOLE)
    expected = np.zeros(SHAPE, dtype=bool)
    expected[:20] = True
    expected[5, 5] = False
    np.testing.assert_array_equal(raster.valid, expected)
    np.testing.assert_allclose(raster.band("slope")[expected], np.degrees(np.arctan(0.1)), atol=0.01)


def test_backscatter_becomes_decibels_zero_is_not_valid(scene: Scene, tmp_path: Path) -> None:
    power = np.stack([np.full(SHAPE, 0.1), np.full(SHAPE, 0.01)]).astype(np.float32)
    power[1, 3, 3] = 0
    path = write_raster(tmp_path / "s1.tif", power)
    source = with_layers(scene, [sentinel1_layer(path)])
    with open_reader(source) as reader:
        raster = reader.read(WHOLE)
    assert raster.bands == ("red", "vv", "vh")
    assert not raster.valid[3, 3]
    assert raster.valid.sum() == raster.valid.size - 1
    np.testing.assert_allclose(raster.band("vv")[raster.valid], -10, atol=1e-5)
    np.testing.assert_allclose(raster.band("vh")[raster.valid], -20, atol=1e-5)


def test_any_raster_is_interpolated_between_its_pixels(scene: Scene, tmp_path: Path) -> None:
    codes = np.arange(20 * 25, dtype=np.float32).reshape(20, 25)
    path = write_raster(tmp_path / "soil.tif", codes, transform=TRANSFORM @ Affine.scale(2))
    with open_reader(with_layers(scene, [raster_layer(path, bands=["soil"])])) as reader:
        raster = reader.read(WHOLE)
    rows, cols = np.mgrid[1:39, 1:49] / 2 - 0.25  # a plane stays the same plane
    np.testing.assert_allclose(raster.band("soil")[1:-1, 1:-1], 25 * rows + cols, rtol=1e-6)


def test_the_scenes_mask_holds_for_layers_read_as_asked(tmp_path: Path) -> None:
    values = np.full((1, *SHAPE), 0.3, dtype=np.float32)
    values[0, 2, 2] = np.nan
    scene = open_geotiff(write_raster(tmp_path / "scene.tif", values, names=("red",)))
    path = write_raster(tmp_path / "dem.tif", plane(TRANSFORM, SHAPE, east=0.1, north=0))
    gone = raster_layer(write_raster(tmp_path / "gone.tif", np.ones(SHAPE, np.uint8)), bands=["gone"])
    (tmp_path / "gone.tif").unlink()
    source = with_layers(scene, [dem_layer(path), gone]).select(["slope"])
    with open_reader(source) as reader:
        raster = reader.read(WHOLE)
    assert raster.bands == source.band_names == ("slope",)
    assert not raster.valid[2, 2]
    assert [layer["kind"] for layer in source.ledger()["layers"]] == ["dem"]
    assert set(source.files) >= {str(path)}


def test_names_used_twice_and_unknown_terrain_are_refused(scene: Scene, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.tif", np.ones(SHAPE, np.float32))
    with pytest.raises(SceneError, match="band name used twice: red"):
        with_layers(scene, [raster_layer(path, bands=["red"])])
    with pytest.raises(SceneError, match="terrain bands of a DEM; got curvature"):
        dem_layer(path, derive=["curvature"])
