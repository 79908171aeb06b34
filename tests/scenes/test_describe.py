"""Bands are called by what names them, in the file or beside it; a doubtful alpha is looked at; files are turned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from pipeline.errors import SceneError
from pipeline.grid import Window
from pipeline.scenes.describe import band_in_name
from pipeline.scenes.geotiff import open_geotiff
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.situations import netcdf

SHAPE = (30, 40)


@pytest.mark.parametrize(
    ("stem", "band"),
    [
        ("T33UUU_20170216T102101_B04_10m", "B04"),
        ("HLS.S30.T33UUU.2024153T101031.v2.0.B8A", "B8A"),
        ("LC08_L2SP_193024_20240601_20240610_02_T1_SR_B5", "SR_B5"),
        ("LC08_L2SP_193024_20240601_20240610_02_T1_QA_PIXEL", "QA_PIXEL"),
        ("nir", "nir"),
    ],
)
def test_a_file_name_ends_with_its_band(stem: str, band: str) -> None:
    assert band_in_name(stem) == band


def test_a_stac_item_beside_a_file_names_its_bands(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.ones((2, *SHAPE), np.uint16))
    bands = [{"name": "B04", "eo:common_name": "red"}, {"name": "B08", "eo:common_name": "nir"}]
    item = {"type": "Feature", "assets": {"data": {"href": "./a.tif", "bands": bands}}}
    (tmp_path / "a.json").write_text(json.dumps(item))
    assert open_geotiff(tmp_path / "a.tif").band_names == ("red", "nir")


@pytest.mark.parametrize("name", ["Layer_1", "Band 1", "layer"])
def test_one_name_for_all_bands_is_none(tmp_path: Path, name: str) -> None:
    scene = open_geotiff(write_raster(tmp_path / "a.tif", np.ones((2, *SHAPE), np.uint16), names=(name, name)))
    assert scene.band_names == ("band1", "band2")
    assert "bands have no names: they are called by their position" in scene.notes


@pytest.mark.parametrize(("soft", "count"), [(False, 1), (True, 2)])
def test_alpha_is_judged_by_its_values(tmp_path: Path, *, soft: bool, count: int) -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 255, SHAPE) if soft else np.where(rng.random(SHAPE) < 0.5, 0, 255)
    values = np.stack([np.full(SHAPE, 9), alpha]).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", values, options={"alpha": "unspecified"})
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    scene = open_geotiff(path)
    assert len(scene.band_names) == count
    assert "alpha" in scene.notes[0]
    with scene.open() as reader:
        np.testing.assert_array_equal(
            reader.read(Window(0, 0, *SHAPE)).valid, np.ones(SHAPE, bool) if soft else alpha > 0
        )


def test_a_band_tagged_alpha_clears_no_other_when_warped(tmp_path: Path) -> None:
    values = np.full((2, *SHAPE), 9, np.uint8)
    values[1] = np.random.default_rng(0).integers(0, 200, SHAPE)
    values[1, :, :20] = 0
    path = write_raster(tmp_path / "a.tif", values, names=("red", "nir"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    scene = open_geotiff(path)
    other = scene.on_grid(scene.grid.with_pixel_size(15.0))
    with other.open() as reader:
        raster = reader.read(Window(2, 2, 10, 10))
    assert raster.valid.all()
    np.testing.assert_array_equal(raster.band("red"), np.full((10, 10), 9))


def test_alpha_called_near_infrared_is_a_band(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((2, *SHAPE), 255, np.uint8), names=("red", "nir"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    assert open_geotiff(path).band_names == ("red", "nir")


@pytest.mark.parametrize("turned", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("masked", [False, True])
def test_files_stored_the_other_way_round_are_turned(
    tmp_path: Path, turned: tuple[bool, bool], *, masked: bool
) -> None:
    east, north = turned
    rows, cols = np.indices(SHAPE)
    values = (rows * 100 + cols + 1).astype(np.float32)
    stored = values[:: -1 if north else 1, :: -1 if east else 1]
    flip = Affine.translation(SHAPE[1] * east, SHAPE[0] * north) @ Affine.scale(-1 if east else 1, -1 if north else 1)
    path = write_raster(tmp_path / "a.tif", stored, transform=TRANSFORM @ flip)
    if masked:
        with rasterio.open(path, "r+") as file:
            file.write_mask(stored > 100)
    scene = open_geotiff(path)
    assert scene.grid.transform == TRANSFORM
    with scene.open() as reader:
        whole, part = reader.read(Window(0, 0, *SHAPE)), reader.read(Window(5, 30, 20, 20))
    expected = values > 100 if masked else np.ones(SHAPE, bool)
    np.testing.assert_array_equal(whole.valid, expected)
    np.testing.assert_array_equal(whole.values[0], values * expected)
    np.testing.assert_array_equal(part.values[0, :, :10], (values * expected)[5:25, 30:])
    assert not part.valid[:, 10:].any()


def test_rasters_inside_a_file_are_listed_and_open_by_name(tmp_path: Path) -> None:
    file = netcdf(tmp_path / "a.nc")
    with pytest.raises(
        SceneError, match=r"file with several rasters inside; got netcdf:.*a\.nc:ndvi.*give one of these"
    ):
        open_geotiff(file)
    assert open_geotiff(f'NETCDF:"{file}":evi').id == "a_evi"
