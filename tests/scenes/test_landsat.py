"""Landsat Collection 2: three sensors, two levels, folder and tar; every real product; broken ones named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.errors import ProductError, SceneError, SceneWarning
from pipeline.raster import Raster
from pipeline.scenes.landsat import open_landsat, parse_mtl
from pipeline.scenes.ledger import measure, scene_ledger
from pipeline.scenes.opening import open_scene
from pipeline.scenes.scene import Scene
from pipeline.scenes.survey import look_at_scene
from tests.fakes.landsat import L1, RADIANCE, SR, ST, ULX, ULY, Landsat, ramp, tar_landsat, write_landsat

FULL = ("assets", "assets2", "assets3", "assets4")


def read(scene: Scene) -> Raster:
    with scene.open() as reader:
        return reader.read(scene.grid.window)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("mission", ["LT04", "LT05", "LE07", "LC08", "LC09"])
@pytest.mark.parametrize("level", ["L2SP", "L2SR", "L1TP", "L1GT"])
def test_every_sensor_and_level_gives_the_truth(tmp_path: Path, mission: str, level: str, *, packed: bool) -> None:
    what = Landsat(mission=mission, level=level)  # type: ignore[arg-type]
    root = write_landsat(tmp_path, what)
    scene = open_scene(tar_landsat(root) if packed else root)
    assert (scene.id, scene.level, scene.baseline) == (what.name, level, "02")
    assert {"blue", "green", "red", "nir08", "swir16", "swir22"} <= set(scene.band_names)
    assert ("lwir11" in scene.band_names) == (level != "L2SR")
    assert ("pan" in scene.band_names) == (level.startswith("L1") and mission[:2] != "LT")
    raster = read(scene)
    assert raster.valid.all()
    rows, cols = np.mgrid[0:40, 0:40]
    x, y = ULX + (cols + 0.5) * 30, ULY - (rows + 0.5) * 30
    for source in scene.bands:
        thermal = source.unit.startswith("W/")
        reflectance = SR[0] if level.startswith("L2") else 2 * L1[0]
        step = {"kelvin": ST[0], "reflectance": reflectance}.get(source.unit, RADIANCE[0])
        error = np.abs(raster.band(source.band) - ramp("lwir12" if thermal else source.band, x, y))
        # Half a DN, once more where 15 m pixels are averaged, and float32.
        quantum = step * (1.01 if source.band == "pan" else 0.51)
        assert error.max() <= quantum + 3e-5 * (source.unit == "kelvin") + 1e-6, source.band


def test_level_1_is_divided_by_the_sine_of_the_suns_elevation(tmp_path: Path) -> None:
    scene = open_scene(write_landsat(tmp_path, Landsat(level="L1TP", sun_elevation=30.0)))
    blue = next(source for source in scene.bands if source.band == "blue")
    assert (blue.scale, blue.offset) == pytest.approx((4e-5, -0.2))
    assert "sin(SUN_ELEVATION 30)" in blue.provenance


def test_gaps_of_the_failed_scan_line_corrector_stay_invalid(tmp_path: Path) -> None:
    valid = read(open_scene(write_landsat(tmp_path, Landsat(mission="LE07", gap_columns=(3, 4, 30))))).valid
    assert np.flatnonzero(~valid.any(axis=0)).tolist() == [3, 4, 30]
    assert valid.sum() == 37 * 40


CODES = {"nodata": 0, "dilated": 1, "cirrus": 2, "cloud": 3, "shadow": 4, "snow": 5, "water": 7}


def test_quality_bits_and_confidence_mask_as_asked(tmp_path: Path) -> None:
    qa = {(0, column): 1 << bit for column, bit in enumerate(CODES.values())}
    qa |= {(1, level): level << 8 for level in range(4)}
    path = write_landsat(tmp_path, Landsat(qa=qa))
    for mask in ((), None, ("snow",), ("water", "cirrus"), ("cloud_medium",)):
        valid = read(open_scene(path, mask=mask)).valid
        bad = {name for column, name in enumerate(CODES) if not valid[0, column]}
        default = {"nodata", "dilated", "cirrus", "cloud", "shadow"}
        assert bad == (default if mask is None else set(mask) & set(CODES))
        first = {("cloud_medium",): 2}.get(mask or (), 4)
        assert [bool(valid[1, level]) for level in range(4)] == [level < first for level in range(4)]
        assert valid[2:].all()


def test_saturated_and_dropped_pixels_are_not_valid(tmp_path: Path) -> None:
    radsat = {(0, 0): 1 << 0, (0, 1): 1 << 6, (0, 2): 1 << 8, (0, 3): 1 << 11, (0, 4): 1 << 9}
    oli = read(open_scene(write_landsat(tmp_path / "a", Landsat(radsat=radsat)))).valid
    assert oli[0, :6].tolist() == [False, False, True, False, True, True]
    tm = read(open_scene(write_landsat(tmp_path / "b", Landsat(mission="LT05", radsat=radsat)))).valid
    assert tm[0, :6].tolist() == [False, False, True, True, False, True]
    unmasked = open_scene(tmp_path / "b" / Landsat(mission="LT05").name, mask=("cloud",))
    assert read(unmasked).valid.all()


@pytest.mark.parametrize("metres", [15, 45, 60])
def test_a_chosen_grid_holds_the_same_reflectance(tmp_path: Path, metres: int) -> None:
    scene = open_landsat(write_landsat(tmp_path), resolution_m=metres)
    raster = read(scene)
    rows, cols = np.mgrid[0 : raster.grid.height, 0 : raster.grid.width]
    truth = ramp("red", ULX + (cols + 0.5) * metres, ULY - (rows + 0.5) * metres)
    assert np.abs(raster.band("red") - truth)[1:-1, 1:-1].max() < 6e-5


def test_the_three_spellings_of_the_metadata_are_one(tmp_path: Path, shared_data: Path) -> None:
    root = write_landsat(tmp_path)
    texts = sorted(shared_data.glob("landsat_c2_products/*/*_MTL.txt")) + sorted(root.glob("*_MTL.txt"))
    assert len(texts) == 8
    for text in texts:
        first = parse_mtl(text.read_bytes(), path=str(text))
        others = [path for path in (text.with_suffix(".json"), text.with_suffix(".xml")) if path.exists()]
        assert others
        for other in others:
            assert parse_mtl(other.read_bytes(), path=str(other)) == first


@pytest.mark.parametrize("suffix", ["txt", "json", "xml"])
def test_a_product_opens_by_any_one_of_its_metadata_files(tmp_path: Path, suffix: str) -> None:
    root = write_landsat(tmp_path, Landsat(mtl=(suffix,)))
    assert open_scene(root).bands == open_scene(next(root.glob("*_MTL.*"))).bands


@pytest.mark.parametrize("folder", FULL)
def test_every_real_product_reads_as_the_agencys_formula_says(shared_data: Path, folder: str) -> None:
    scene = open_scene(shared_data / "landsat_c2_products" / folder, mask=())
    surface_temperature = scene.level == "L2SP"
    assert scene.band_names[:7] == ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    assert ("lwir11" in scene.band_names) == surface_temperature
    raster = read(scene)
    for source in scene.bands:
        with rasterio.open(source.path) as file:
            dn = file.read(1).astype(np.float64)
        scale, offset = ST if source.unit == "kelvin" else SR
        expected = np.where(raster.valid, dn * scale + offset, 0)
        assert np.abs(raster.band(source.band) - expected).max() < 1e-4
        assert (dn[raster.valid] > 0).all()
    assert any("resampled before" in note for note in scene.notes)


def test_the_real_quality_band_masks_what_its_bits_say(shared_data: Path) -> None:
    scene = open_scene(shared_data / "landsat_c2_products" / "assets3", mask=("nodata", "cloud", "cirrus"))
    with rasterio.open(scene.quality[0].path) as file:
        qa = file.read(1)
    bad = (qa & 0b1101) > 0
    assert 0 < bad.mean() < 1
    assert not read(scene).valid[bad].any()
    assert scene.grid.crs.to_epsg() == 32618
    assert open_scene(shared_data / "landsat_c2_products" / "assets2").grid.crs.to_epsg() == 3031


@pytest.mark.parametrize("folder", FULL)
def test_the_share_masked_is_the_cloud_cover_that_is_stated(shared_data: Path, folder: str) -> None:
    """Also of the polar scene, all of which is cloud: the agency says 100 % too, so that nothing of it is usable."""
    path = shared_data / "landsat_c2_products" / folder
    (fill,) = measure(open_scene(path, mask=("nodata",))).masked.values()
    (fill_or_cloud,) = measure(open_scene(path, mask=("nodata", "cloud"))).masked.values()
    (mtl,) = path.glob("*_MTL.txt")
    stated = float(parse_mtl(mtl.read_bytes(), path=str(mtl))["IMAGE_ATTRIBUTES"]["CLOUD_COVER"])
    assert 100 * (fill_or_cloud - fill) / (1 - fill) == pytest.approx(stated, abs=0.3)
    if folder == "assets2":
        assert stated == 100
        measured = scene_ledger(open_scene(path))
        assert measured["invalid_share"] == 1
        assert measured["masked_share"]["QA_PIXEL: " + ", ".join(open_scene(path).quality[0].reasons)] == 1
        keeps = pytest.warns(
            SceneWarning, match="EPSG:3031 keeps no lengths here: pixels of 529.2 x 528 m are 541 x 540 m"
        )
        with keeps, pytest.raises(SceneError, match=r"no pixel of the scene can be used.*\(QA_PIXEL 100%"):
            look_at_scene(open_scene(path))


def test_metadata_without_images_name_the_first_missing_band(shared_data: Path) -> None:
    for folder, sensor in (("tm", "TM"), ("etm", "ETM"), ("oli-tirs", "OLI_TIRS"), ("assets5", "OLI_TIRS")):
        for path in (shared_data / "landsat_c2_products" / folder).glob("*_MTL.xml"):
            assert parse_mtl(path.read_bytes(), path=str(path))["IMAGE_ATTRIBUTES"]["SENSOR_ID"] == sensor
            with pytest.raises(ProductError, match=r"band B1 \((coastal|blue)\) is missing; expected L.*_SR_B1\.TIF"):
                open_scene(path)
    for path in (shared_data / "landsat_c2_products" / "mss").glob("*_MTL.xml"):
        with pytest.raises(ProductError, match=r"no band table for LANDSAT_\d MSS"):
            open_scene(path)


def test_several_products_in_a_folder_are_not_one_scene(tmp_path: Path) -> None:
    one, two = write_landsat(tmp_path, Landsat()), write_landsat(tmp_path, Landsat(date="20230711"))
    for file in two.iterdir():
        shutil.move(file, one)
    with pytest.raises(ProductError, match=r"2 products given as one scene.*give the MTL file of one of them"):
        open_scene(one)
    assert open_scene(one / f"{two.name}_MTL.json").id == two.name


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"LANDSAT_METADATA_FILE": "L1_METADATA_FILE"}, "Landsat Collection 1, whose calibration"),
        ({'COLLECTION_NUMBER = "02"': "COLLECTION_NUMBER = 01"}, "Landsat Collection 1, whose calibration"),
        ({"REFLECTANCE_MULT_BAND_4": "GONE"}, "MTL lacks REFLECTANCE_MULT_BAND_4"),
        ({"REFLECTANCE_ADD_BAND_4 = ": "REFLECTANCE_ADD_BAND_4 = x"}, "is not a number; got"),
        ({"END_GROUP = LANDSAT_METADATA_FILE": ""}, "not a whole MTL file; got it ends before END_GROUP"),
        ({"PRODUCT_CONTENTS": "SOMETHING_ELSE"}, "not the MTL of a Landsat Collection 2 product"),
        ({'"OLI_TIRS"': '"MSS"'}, "no band table for LANDSAT_8 MSS"),
        ({"10:02:35": "ten"}, "time of acquisition in the MTL"),
        ({f'LL_PROJECTION_X_PRODUCT = "{ULX + 15}': 'LL_PROJECTION_X_PRODUCT = "1'}, "MTL contradicts the image"),
    ],
)
def test_damaged_and_foreign_metadata_is_refused_in_one_line(
    tmp_path: Path, edit: dict[str, str], message: str
) -> None:
    root = write_landsat(tmp_path, Landsat(mtl=("txt",), edit=edit))
    with pytest.raises(ProductError, match=message) as caught:
        open_scene(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("SR_B5", r"band B5 \(nir08\) is missing; expected LC08_.*_SR_B5\.TIF"),
        ("QA_PIXEL", "quality layer PIXEL is missing"),
        ("QA_RADSAT", "quality layer RADIOMETRIC_SATURATION is missing"),
    ],
)
def test_what_a_product_lacks_is_named(tmp_path: Path, left_out: str, message: str) -> None:
    root = write_landsat(tmp_path, Landsat(leave_out=(left_out,)))
    with pytest.raises(ProductError, match=message):
        open_scene(root)


def test_a_night_scene_has_no_reflectance(tmp_path: Path) -> None:
    edit = {'"20.0000': '"-20.0000'}
    root = write_landsat(tmp_path, Landsat(level="L1TP", sun_elevation=20, edit=edit, mtl=("txt",)))
    with pytest.raises(ProductError, match=r"sun below the horizon.*SUN_ELEVATION -20"):
        open_scene(root)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.02])
def test_a_tar_cut_off_is_refused_before_any_pixel(tmp_path: Path, share: float) -> None:
    path = tar_landsat(write_landsat(tmp_path))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SceneError, match=r"\.tar: .*(not a whole tar|cut off|is missing|holds neither)") as caught:
        open_scene(path)
    assert "\n" not in str(caught.value)
