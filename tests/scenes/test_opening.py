"""One door: what lies there decides; scenes that do not mean the same are not mixed; one landscape reads alike."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from pipeline.errors import InputError, SceneError
from pipeline.scenes import remote
from pipeline.scenes.opening import check_treatment, list_scenes, open_all, open_scene, treatment
from pipeline.scenes.settings import SceneOptions
from tests.fakes import landsat, safe
from tests.fakes.landsat import Landsat, tar_landsat, write_landsat
from tests.fakes.safe import Safe, write_safe, zip_safe
from tests.fakes.stac_items import planetary_computer_item
from tests.fakes.stac_server import serve
from tests.inference.models import write_scene
from tests.scenes.test_geotiff import write

COMMON = {"B02": "blue", "B03": "green", "B04": "red", "B8A": "nir08", "B11": "swir16", "B12": "swir22"}


def landscape(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance of 240 m fields, the same for every sensor: a colour per field and band."""
    field = np.floor((x - safe.ULX) / 240) + 5 * np.floor((safe.ULY - y) / 240)
    order = ("blue", "green", "red", "nir08", "swir16", "swir22")
    band = order.index(name) if name in order else 6
    return 0.02 + 0.4 * np.modf(np.abs(np.sin(field * 7.1 + band * 2.3)) * 43.7)[0]


def by_key(key: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return landscape(COMMON.get(key, key), x, y)


def by_name(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(x.shape, 290.0) if name == "lwir11" else landscape(name, x, y)


def test_every_form_of_a_landscape_gives_the_same_reflectance(tmp_path: Path) -> None:
    assert (safe.ULX, safe.ULY) == (landsat.ULX, landsat.ULY)
    old, new = Safe(baseline="02.14", truth=by_key), Safe(baseline="05.10", truth=by_key)
    per_band = {"B02": -1000, "B03": -1100, "B04": -900, "B8A": -1000, "B11": 0, "B12": -1000}
    paths = {
        "SAFE 02.14": write_safe(tmp_path / "a", old),
        "SAFE 05.10": write_safe(tmp_path / "b", new),
        "SAFE 05.10 zip": zip_safe(write_safe(tmp_path / "c", new)),
        "SAFE with offsets by band": write_safe(tmp_path / "d", Safe(baseline="05.10", truth=by_key, offsets=per_band)),
        "L1C of the same reflectance": write_safe(tmp_path / "e", Safe(level="L1C", baseline="05.10", truth=by_key)),
        "Landsat 8": write_landsat(tmp_path / "f", Landsat(truth=by_name)),
        "Landsat 7 tar": tar_landsat(write_landsat(tmp_path / "g", Landsat(mission="LE07", truth=by_name))),
        "Landsat 5 level 1": write_landsat(tmp_path / "h", Landsat(mission="LT05", level="L1TP", truth=by_name)),
    }
    # Half a DN of Sentinel-2; half a DN of Landsat level 1 over the sine is less.
    for what, path in paths.items():
        scene = open_scene(path).select(list(COMMON.values()))
        with scene.open() as reader:
            raster = reader.read(scene.grid.window)
        size = scene.grid.pixel_size[0]
        rows, cols = np.mgrid[0 : scene.grid.height, 0 : scene.grid.width]
        x, y = safe.ULX + (cols + 0.5) * size, safe.ULY - (rows + 0.5) * size
        # Fields are whole pixels of every sensor; where 20 m pixels are interpolated, their rims mix.
        rim = ((x - safe.ULX) % 240 < 20) | ((x - safe.ULX) % 240 > 220) | ((safe.ULY - y) % 240 < 20)
        rim |= (safe.ULY - y) % 240 > 220
        assert raster.valid.all(), what
        for name in raster.bands:
            error = np.abs(raster.band(name) - landscape(name, x, y))[~rim | (size > 20)]
            assert error.max() <= 0.51e-4, (what, name)


def test_kinds_are_told_apart_by_what_lies_there(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint16))
    assert open_scene(tmp_path / "a.tif").sensor == ""
    assert open_scene(str(write_safe(tmp_path / "s"))).sensor == "sentinel-2"
    assert open_scene(str(write_landsat(tmp_path / "l", Landsat(mission="LT05")))).sensor == "landsat-tm"
    with pytest.raises(SceneError, match="no such file or folder"):
        open_scene(tmp_path / "nowhere")


def test_a_plain_raster_comes_on_the_resolution_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 4, 6), np.uint16))
    assert open_scene(path, resolution_m=20).grid.shape == (2, 3)
    place = Affine(1e-4, 0, 12, 0, -1e-4, 50)
    degrees = write(tmp_path / "b.tif", np.ones((1, 4, 6), np.uint16), crs="EPSG:4326", transform=place)
    with pytest.raises(SceneError, match="resolution in metres asked of a scene in degrees"):
        open_scene(degrees, resolution_m=20)


def test_scenes_of_different_treatment_are_refused_by_name(tmp_path: Path) -> None:
    surface, top = write_safe(tmp_path, Safe()), write_safe(tmp_path, Safe(level="L1C"))
    earlier, other = write_safe(tmp_path, Safe(baseline="02.14")), write_landsat(tmp_path)
    counts = write(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint16), names=("red",))
    check_treatment([open_scene(path) for path in (surface, earlier, other)])
    for odd in (top, counts):
        with pytest.raises(SceneError, match="scenes of one run are treated differently") as caught:
            check_treatment([open_scene(surface), open_scene(odd)])
        assert open_scene(surface).id in str(caught.value)
        assert open_scene(odd).id in str(caught.value)
    assert treatment(open_scene(counts)) == "DN, level not known"
    assert treatment(open_scene(surface)) == "surface reflectance"


def test_one_time_for_several_items_of_a_collection_is_refused(tmp_path: Path) -> None:
    items = [planetary_computer_item(tmp_path, lambda name: str(tmp_path / name), name=f"day{n}") for n in range(2)]
    (tmp_path / "both.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert [scene.id for scene in open_all(tmp_path / "both.json")] == ["day0", "day1"]
    with pytest.raises(SceneError, match="one time of acquisition for the 2 items of a collection"):
        open_all(tmp_path / "both.json", options=SceneOptions(acquired_utc=datetime(2025, 3, 2, tzinfo=UTC)))
    with pytest.raises(SceneError, match="collection of 2 items given as one scene"):
        open_scene(tmp_path / "both.json")


def test_what_the_user_knows_better_goes_into_the_ledger(tmp_path: Path) -> None:
    path = write_safe(tmp_path)
    red = open_scene(path, options=SceneOptions(offset=0.0)).select(["red"]).bands[0]
    assert (red.scale, red.offset) == (1e-4, 0.0)
    assert red.provenance.startswith("config, instead of MTD_MSIL2A.xml: BOA_QUANTIFICATION_VALUE 10000")
    assert open_scene(path).select(["red"]).bands[0].nodata == 0
    assert open_scene(path, options=SceneOptions(nodata="none")).select(["red"]).bands[0].nodata is None
    with pytest.raises(SceneError, match="cannot be set, as its metadata states them"):
        open_scene(path, options=SceneOptions(bands=("red",)))


def test_a_raster_behind_a_url_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    values = np.random.default_rng(0).integers(1, 9000, (2, 64, 80)).astype(np.uint16)
    with serve(tmp_path) as fake:
        local = write(tmp_path / "two.tif", values, names=("red", "nir"))
        scene = open_scene(fake.file_url("two.tif") + "?sig=topsecret")
        assert (scene.id, scene.path) == ("two", fake.file_url("two.tif"))
        assert (scene.grid, scene.band_names) == (open_scene(local).grid, ("red", "nir"))
        with scene.open() as reader:
            np.testing.assert_array_equal(reader.read(scene.grid.window).values, values)
        assert "topsecret" not in json.dumps(scene.ledger())
        fake.gone.add("/data/away.tif")
        with pytest.raises(SceneError, match=r"/data/away\.tif: not a raster that GDAL can open") as caught:
            open_scene(fake.file_url("away.tif") + "?sig=topsecret")
        assert "topsecret" not in str(caught.value)


def test_a_raster_in_gdals_own_spelling_is_opened_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 4, 6), np.uint16))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inner/a.tif")
    assert open_scene(f"/vsizip/{tmp_path}/a.zip/inner/a.tif").grid == open_scene(path).grid


@pytest.mark.parametrize(
    "name",
    [
        "HLS.S30.T33UUU.2024153T101031.v2.0.Fmask", "LC08_L2SP_190024_QA_PIXEL", "SCL",
        "T33UUU_20240601T102021_AOT_10m",
        "LC08_L2SP_193024_20240601_20240610_02_T1_SR_QA_AEROSOL",
    ],
)  # fmt: skip
def test_a_quality_layer_alone_is_no_scene(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / f"{name}.tif", np.ones((1, 4, 4), np.uint8))
    with pytest.raises(SceneError, match="file is a quality layer and no scene, by its name"):
        open_scene(path)
    assert open_scene(path, options=SceneOptions(bands=("wetness",))).band_names == ("wetness",)
    for other in ("T33UUU_20240601T102021_TCI_10m", "rectangles"):
        assert len(open_scene(write(tmp_path / f"{other}.tif", np.ones((3, 4, 4), np.uint8))).bands) == 3


@pytest.mark.parametrize(
    ("crs", "pixel", "said"),
    [
        ("EPSG:4326", 10.0, "EPSG:4326 is in degrees, but the coordinates are 500,000"),
        ("EPSG:4978", 10.0, "EPSG:4978 is geocentric"),
        ('LOCAL_CS["site",UNIT["metre",1]]', 10.0, "site is local"),
        ("EPSG:32633", 1e-5, "pixels of 1e-05 x 1e-05 m"),
        ("EPSG:32633", 1e7, "EPSG:32633 has no place on the ground|pixels of 1e[+]07"),
    ],
)
def test_a_place_where_no_scene_lies_is_refused_in_a_line(tmp_path: Path, crs: str, pixel: float, said: str) -> None:
    place = Affine(pixel, 0, 5e5, 0, -pixel, 5.8e6)
    path = write(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8), crs=crs, transform=place)
    with pytest.raises(SceneError, match=f"scene lies where none can; got ({said})"):
        open_scene(path)


def raster(path: Path, bands: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scene(path, np.zeros((bands, 8, 8), dtype=np.float32))
    return path


def test_a_text_file_holds_paths_beside_it_urls_and_remarks(tmp_path: Path) -> None:
    listed = tmp_path / "scenes.txt"
    listed.write_text("# dry season\n\na.tif\n/abs/b.SAFE\nhttps://example.org/item.json\n")
    found = list_scenes(listed, items=tmp_path / "items")
    assert found == [str(tmp_path / "a.tif"), "/abs/b.SAFE", "https://example.org/item.json"]


def test_a_folder_holds_products_and_rasters_of_several_bands(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    raster(folder / "b.tif", 3)
    (folder / "broken.tif").write_bytes(b"no raster")
    raster(folder / "bands" / "red.tif", 1)
    (folder / "S2A_X.SAFE" / "GRANULE").mkdir(parents=True)
    (folder / "readme.md").write_text("")
    found = [path.rsplit("/", 1)[-1] for path in list_scenes(folder, items=tmp_path / "items")]
    assert found == ["S2A_X.SAFE", "b.tif", "bands", "broken.tif"]


def test_a_product_and_a_folder_of_bands_are_one_scene(tmp_path: Path) -> None:
    for name in ("red", "nir"):
        raster(tmp_path / "bands" / f"{name}.tif", 1)
    safe = tmp_path / "S2A_X.SAFE"
    (safe / "GRANULE").mkdir(parents=True)
    for folder in (tmp_path / "bands", safe):
        assert list_scenes(folder, items=tmp_path / "items") == [str(folder)]


def test_a_collection_becomes_a_file_per_item(tmp_path: Path) -> None:
    def item(name: str) -> dict[str, object]:
        return {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
            "properties": {"datetime": "2024-06-01T00:00:00Z"}, "assets": {"red": {"href": f"./{name}/red.tif"}},
        }  # fmt: skip

    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item("a"), item("b")]}))
    found = list_scenes(path, items=tmp_path / "work")
    assert [name.rsplit("/", 1)[-1] for name in found] == ["a.json", "b.json"]
    written = json.loads((tmp_path / "work" / "b.json").read_text())
    assert written["assets"]["red"]["href"] == str(tmp_path / "b" / "red.tif")
    path.write_text(json.dumps(item("a")))
    assert list_scenes(path, items=tmp_path / "work") == [str(path)]


def test_nothing_there_and_nothing_in_it_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such list"):
        list_scenes(tmp_path / "none.txt", items=tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no scene in it"):
        list_scenes(tmp_path / "empty.txt", items=tmp_path)
