"""Layers that do not cover the scene: refused or told with the share, never a map of nothing."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipeline.errors import SceneError, SceneWarning
from pipeline.grid import Grid
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.indices import with_indices
from pipeline.scenes.layers import covered_share, dem_layer, raster_layer, with_layers
from pipeline.scenes.ledger import measure_layers
from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

SIDE = 64
UTM = CRS.from_epsg(32633)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    values = np.full((2, SIDE, SIDE), 0.3, dtype=np.float32)
    values[:, :, :16] = np.nan
    return open_geotiff(write_raster(tmp_path / "scene.tif", values, names=("red", "nir")))


def shifted(cols: float, rows: float = 0) -> Affine:
    return TRANSFORM @ Affine.translation(cols, rows)


@given(st.integers(-SIDE, SIDE), st.integers(-SIDE, SIDE))
def test_the_share_is_that_of_the_overlapping_rectangle(cols: int, rows: int) -> None:
    grid, layer = (Grid(UTM, place, SIDE, SIDE) for place in (TRANSFORM, shifted(cols, rows)))
    expected = (SIDE - abs(cols)) * (SIDE - abs(rows)) / SIDE**2
    assert covered_share(grid, by=layer) == pytest.approx(expected)


def test_the_share_is_known_across_coordinate_systems() -> None:
    grid = Grid(UTM, TRANSFORM, SIDE, SIDE)
    world = Grid(CRS.from_epsg(4326), Affine(0.1, 0, -180, 0, -0.1, 90), 1800, 3600)
    assert covered_share(grid, by=world) == 1
    south = Grid(CRS.from_epsg(4326), Affine(0.1, 0, -180, 0, -0.1, 0), 900, 3600)
    assert covered_share(grid, by=south) == 0
    polar = Grid(CRS.from_epsg(3031), Affine(1000, 0, -3e6, 0, -1000, 3e6), 6000, 6000)
    assert covered_share(grid, by=polar) == 0


def test_a_layer_elsewhere_is_refused_with_both_places(scene: Scene, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.tif", np.ones((SIDE, SIDE), np.float32), transform=shifted(1000))
    with pytest.raises(SceneError) as caught:
        with_layers(scene, [dem_layer(path)])
    assert str(caught.value) == (
        f"{path}: layer does not cover scene scene; got EPSG:32633 (510000.0, 4999360.0, 510640.0, 5000000.0); "
        "expected EPSG:32633 (500000.0, 4999360.0, 500640.0, 5000000.0); give one that covers the scene (several tiles "
        "of one layer join with gdalbuildvrt)"
    )


def test_a_layer_that_covers_a_part_is_told_with_the_share(scene: Scene, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "dem.tif", np.ones((SIDE, SIDE), np.float32), transform=shifted(16))
    with pytest.warns(SceneWarning, match=r"dem\.tif: layer covers 75% of scene scene; the rest has no data"):
        joined = with_layers(scene, [dem_layer(path)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the scene has no data where the layer has none: nothing is lost
        assert measure_layers(joined) == {"dem": 0}


def test_a_layer_with_gaps_is_told_an_empty_one_refused(scene: Scene, tmp_path: Path) -> None:
    heights = np.ones((SIDE, SIDE), np.float32)
    heights[:, 40:] = -1
    gaps = write_raster(tmp_path / "gaps.tif", heights, nodata=-1)
    joined = with_indices(with_layers(scene, [dem_layer(gaps, derive=["elevation"])]), ["NDVI"])
    with pytest.warns(SceneWarning, match=r"gaps\.tif: layer has no value for 50% of the usable pixels of scene scene"):
        assert measure_layers(joined) == {"gaps": 0.5}
    empty = raster_layer(write_raster(tmp_path / "empty.tif", np.full((SIDE, SIDE), -1.0), nodata=-1), bands=["soil"])
    with pytest.raises(SceneError, match=r"empty\.tif: layer has no value on scene scene; got nodata at every usable"):
        measure_layers(with_layers(scene, [empty]))
    # A layer of which no band is asked for is not looked at.
    assert measure_layers(with_layers(scene, [empty]).select(["red"])) == {}


def test_a_scene_without_layers_or_without_data_has_no_shares(scene: Scene, tmp_path: Path) -> None:
    assert measure_layers(scene) == {}
    nothing = open_geotiff(write_raster(tmp_path / "nan.tif", np.full((1, SIDE, SIDE), np.nan), names=("red",)))
    dem = dem_layer(write_raster(tmp_path / "dem.tif", np.ones((SIDE, SIDE), np.float32)))
    assert measure_layers(with_layers(nothing, [dem])) == {}
