"""Bands are called by what names them, in the file or beside it; a doubtful alpha is looked at; files are turned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from pipeline.errors import ModelError, SceneError
from pipeline.grid import Window
from pipeline.model.checks import check_source
from pipeline.model.spec import NetworkSpec
from pipeline.scenes.describe import BANDS, band_in_name
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.layers import embedding_layer, with_layers
from pipeline.scenes.opening import check_treatment, open_scene
from pipeline.scenes.settings import SceneOptions
from pipeline.training.networks import build_networks
from pipeline.training.settings import TrainingSettings
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.inference.models import bundle_of
from tests.situations.oddities import netcdf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

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


SIDE = 12
ALPHAEARTH = tuple(f"A{number:02d}" for number in range(64))


def quantised(count: int, *, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 128, (count, SIDE, SIDE), dtype=np.int8)


def write_alphaearth(path: Path, *, names: tuple[str, ...] = ALPHAEARTH) -> NDArray[np.int8]:
    """A small file as Google writes them: 64 bands of int8, -128 in all bands of a masked pixel."""
    stored = quantised(64)
    stored[:, 2, 3] = -128
    write_raster(path, stored, names=names)
    return stored


def write_tessera(path: Path, *, version: str | None = "1.0", variant: str = "vultr") -> NDArray[np.float32]:
    """A file as geotessera exports them: float32, NaN where there is nothing, version and variant in its tags."""
    values = np.random.default_rng(1).normal(0, 2, (128, SIDE, SIDE)).astype(np.float32)
    values[:, 0, 0] = np.nan
    write_raster(path, values, names=tuple(f"Tessera_Band_{number}" for number in range(128)))
    if version is not None:
        with rasterio.open(path, "r+") as file:
            file.update_tags(TESSERA_DATASET_VERSION=version, TESSERA_DATASET_VARIANT=variant, TESSERA_YEAR="2024")
    return values


def read(source: Source) -> Raster:
    with source.open() as reader:
        return reader.read(source.grid.window)


def test_alphaearth_is_the_signed_square_of_what_is_stored(tmp_path: Path) -> None:
    stored = write_alphaearth(tmp_path / "a.tif").astype(np.float64)
    scene = open_scene(tmp_path / "a.tif")
    raster = read(scene)
    truth = np.sign(stored) * (stored / 127.5) ** 2
    assert scene.band_names[:2] == ("a00", "a01")
    assert not raster.valid[2, 3]
    assert raster.valid.sum() == SIDE**2 - 1
    assert np.allclose(raster.values[:, raster.valid], truth[:, raster.valid], atol=1e-6)
    assert set(scene.units) == {"alphaearth"}
    assert "sign(q) (q / 127.5)^2" in str(scene.ledger())


def test_alphaearth_without_names_is_read_when_it_is_named(tmp_path: Path) -> None:
    write_alphaearth(tmp_path / "a.tif", names=())
    scene = open_scene(tmp_path / "a.tif", options=SceneOptions(embedding="alphaearth"))
    assert scene.band_names[-1] == "a63"
    write_raster(tmp_path / "b.tif", quantised(63))
    write_raster(tmp_path / "c.tif", quantised(63), names=tuple(f"band {number}" for number in range(63)))
    for name in ("b.tif", "c.tif"):
        with pytest.raises(SceneError, match="bands of alphaearth; got 63; expected 64, or some of them called a00"):
            open_scene(tmp_path / name, options=SceneOptions(embedding="alphaearth"))
    write_raster(tmp_path / "d.tif", quantised(2), names=("A03", "A07"))
    assert open_scene(tmp_path / "d.tif").band_names == ("a03", "a07")


def test_vectors_are_never_interpolated(tmp_path: Path) -> None:
    stored = write_alphaearth(tmp_path / "a.tif")
    scene = open_scene(tmp_path / "a.tif")
    finer = scene.on_grid(scene.grid.with_pixel_size(scene.grid.pixel_size[0] / 2))
    values = read(finer).values[5]
    truth = np.sign(stored[5]) * (stored[5] / np.float64(127.5)) ** 2
    truth[2, 3] = 0
    assert np.allclose(values, truth.repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_tessera_as_exported_keeps_values_and_says_its_version(tmp_path: Path) -> None:
    values = write_tessera(tmp_path / "t.tif")
    raster = read(scene := open_scene(tmp_path / "t.tif"))
    assert set(scene.units) == {"tessera 1.0 vultr"}
    assert not raster.valid[0, 0]
    assert np.array_equal(raster.values[:, 1:], values[:, 1:])


def test_tessera_in_int8_is_scaled_pixel_by_pixel(tmp_path: Path) -> None:
    stored = quantised(128)
    scales = np.random.default_rng(2).uniform(0.01, 0.1, (SIDE, SIDE)).astype(np.float32)
    scales[4, 5] = np.nan
    write_raster(tmp_path / "t.tif", stored)
    with rasterio.open(tmp_path / "t.tif", "r+") as file:
        file.update_tags(TESSERA_DATASET_VERSION="1.1")
    options = SceneOptions(embedding="tessera")
    with pytest.raises(SceneError, match=r"int8 without scales; expected t_scales\.tif beside it"):
        open_scene(tmp_path / "t.tif", options=options)
    write_raster(tmp_path / "t_scales.tif", scales[1:])
    with pytest.raises(SceneError, match="scales lie on other pixels"):
        open_scene(tmp_path / "t.tif", options=options)
    write_raster(tmp_path / "t_scales.tif", stored[0])
    with pytest.raises(SceneError, match="expected one band of float32"):
        open_scene(tmp_path / "t.tif", options=options)
    for useless in (np.full_like(scales, np.nan), np.zeros_like(scales), -scales):
        write_raster(tmp_path / "t_scales.tif", useless)
        with pytest.raises(SceneError, match="expected positive numbers"):
            open_scene(tmp_path / "t.tif", options=options)
    write_raster(tmp_path / "t_scales.tif", scales)
    scene = open_scene(tmp_path / "t.tif", options=options)
    raster = read(scene)
    assert not raster.valid[4, 5]
    assert np.allclose(raster.values[:, raster.valid], (stored * scales)[:, raster.valid], rtol=1e-6)
    assert str(tmp_path / "t_scales.tif") in scene.files
    with scene.open() as reader:
        part = reader.read(Window(-2, 3, 5, 6))
    assert np.array_equal(part.values[:, 2:], raster.values[:, :3, 3:9])


def test_versions_are_never_mixed(tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        write_tessera(tmp_path / f"{version}.tif", version=version)
    one, other = (open_scene(tmp_path / f"{version}.tif") for version in ("1.0", "1.1"))
    with pytest.raises(SceneError, match=r"treated differently; got .*tessera 1\.0 vultr; .*tessera 1\.1 vultr"):
        check_treatment([one, other])
    write_tessera(tmp_path / "none.tif", version=None)
    with pytest.raises(SceneError, match="no tag TESSERA_DATASET_VERSION"):
        open_scene(tmp_path / "none.tif")


def test_a_model_of_one_version_refuses_the_other(tmp_path: Path) -> None:
    write_tessera(tmp_path / "a.tif", version="1.1")
    scene = open_scene(tmp_path / "a.tif")
    bundle = bundle_of(NetworkSpec(BANDS["tessera"], 3, encoder="none", spectral_channels=4))
    preprocess = replace(bundle.preprocess, bands=scene.band_names)
    learned = replace(bundle, preprocess=preprocess, units=("tessera 1.0 vultr",) * BANDS["tessera"])
    with pytest.raises(ModelError, match=r"another unit.*got tessera 1\.1 vultr; expected tessera 1\.0 vultr"):
        check_source(learned, scene)


def test_a_layer_of_embeddings_lies_beside_a_scene(tmp_path: Path) -> None:
    write_alphaearth(tmp_path / "a.tif")
    ground = np.random.default_rng(3).uniform(0, 1, (2, SIDE, SIDE)).astype(np.float32)
    scene = open_geotiff(write_raster(tmp_path / "s.tif", ground, names=("red", "nir")))
    joined = with_layers(scene, [embedding_layer(tmp_path / "a.tif", "alphaearth", bands=("A03", "a01"))])
    assert joined.band_names == ("red", "nir", "a03", "a01")
    assert joined.units == ("reflectance", "reflectance", "alphaearth", "alphaearth")
    alone = read(open_scene(tmp_path / "a.tif").select(("a03", "a01")))
    assert np.array_equal(read(joined).values[2:], alone.values)


def test_networks_take_embeddings_as_they_are() -> None:
    bundle = bundle_of(NetworkSpec(64, 3, encoder="none", spectral_channels=4))
    for units, around in ((("alphaearth",) * 64, False), (("reflectance",) * 64, True)):
        networks = build_networks(TrainingSettings(), classes=3, chip_px=24, preprocess=bundle.preprocess, units=units)
        assert networks.pixels is not None
        assert networks.pixels.spec.surroundings == around
