"""STAC items as scenes: the same reflectance from every mirror, and a reason for it."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

from pipeline.errors import PipelineError, ProductError, ProductWarning, SceneError
from pipeline.grid import Window
from pipeline.scenes import remote
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import SceneOptions
from pipeline.scenes.stac import open_item, open_items
from tests.fakes.safe import Safe, write_safe
from tests.fakes.stac_items import CLOUD, earth_search_item, landsat_item, planetary_computer_item, truth
from tests.fakes.stac_server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.raster import Raster
    from pipeline.scenes.scene import Scene
    from tests.fakes.stac_server import FakeStac

S2_BANDS = (
    "coastal blue green red rededge071 rededge075 rededge078 nir nir08 nir09 swir16 swir22".split()  # noqa: SIM905
)
TEN = Window(0, 0, 240, 240)
HALF_DN = 0.5e-4 + 1e-6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeStac]:
    with serve(tmp_path_factory.mktemp("stac")) as fake:
        yield fake


@pytest.fixture(scope="module")
def earth_search(server: FakeStac) -> dict[str, Any]:
    return earth_search_item(server.folder, server.file_url)


@pytest.fixture(scope="module")
def planetary_computer(server: FakeStac) -> dict[str, Any]:
    return planetary_computer_item(server.folder, server.file_url)


def read(scene: Scene, window: Window | None = None) -> Raster:
    with open_reader(scene) as reader:
        return reader.read(window or scene.grid.window)


def test_nodata_none_overrides_the_fill_of_the_sensor(planetary_computer: dict[str, Any]) -> None:
    assert {band.nodata for band in open_item(planetary_computer).bands} == {0}
    assert {band.nodata for band in open_item(planetary_computer, options=SceneOptions(nodata="none")).bands} == {None}


def test_two_stac_catalogues_give_the_truth(earth_search: dict[str, Any], planetary_computer: dict[str, Any]) -> None:
    rasters = [read(open_item(item)) for item in (earth_search, planetary_computer)]
    for raster in rasters:
        assert raster.bands == tuple(S2_BANDS)
        for name in ("blue", "green", "red", "nir"):
            error = np.abs(raster.band(name) - truth(name, 10))[raster.valid]
            assert error.max() <= HALF_DN
        for name in S2_BANDS:  # coarser bands arrive by bilinear interpolation of a smooth field
            inner = raster.valid[6:-6, 6:-6]
            assert np.abs(raster.band(name) - truth(name, 10))[6:-6, 6:-6][inner].max() < 3e-3
    np.testing.assert_array_equal(rasters[0].valid, rasters[1].valid)
    # GDAL interpolates in whole DN: a tie may fall either way, one DN apart.
    np.testing.assert_allclose(rasters[0].values, rasters[1].values, atol=1.01e-4)


def test_clouds_of_the_scene_classification_are_not_valid(earth_search: dict[str, Any]) -> None:
    raster = read(open_item(earth_search, bands=["red"]))
    expected = np.ones((120, 120), dtype=bool)
    expected[CLOUD] = False
    np.testing.assert_array_equal(raster.valid, np.kron(expected, np.ones((2, 2), dtype=bool)))
    assert read(open_item(earth_search, bands=["red"], mask=())).valid.all()


def test_landsat_items_of_stac_1_1_give_the_truth(server: FakeStac) -> None:
    scene = open_item(landsat_item(server.folder, server.file_url))
    assert (scene.sensor, scene.level, scene.baseline) == ("landsat-oli", "L2SP", "02")
    raster = read(scene)
    assert raster.bands == ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    assert not raster.valid[5:9, 5:9].any()
    assert raster.valid.sum() == 80 * 80 - 16
    for name in raster.bands:
        assert np.abs(raster.band(name) - truth(name, 30))[raster.valid].max() <= 1.4e-5


def test_landsat_items_without_raster_scale_take_collection_2s(server: FakeStac) -> None:
    item = landsat_item(server.folder, server.file_url)
    for asset in item["assets"].values():
        for band in asset.get("bands", []):
            del band["raster:scale"], band["raster:offset"]
    scene = open_item(item)
    assert {(band.scale, band.offset) for band in scene.bands} == {(2.75e-5, -0.2)}
    assert "LSDS-1619" in scene.bands[0].provenance


def test_the_reason_of_the_offset_is_in_the_ledger(
    earth_search: dict[str, Any], planetary_computer: dict[str, Any]
) -> None:
    one, two = open_item(earth_search), open_item(planetary_computer)
    assert one.mirror == "earth-search"
    assert "boa_offset_applied is true" in one.ledger()["notes"][0]
    assert two.mirror == "planetary-computer"
    assert "planetary-computer serves ESA's DN; processing baseline 05.11" in two.ledger()["bands"][0]["provenance"]
    assert {band.offset for band in one.bands} == {0.0}
    assert {band.offset for band in two.bands} == {-0.1}


def test_a_baseline_before_04_has_no_offset(server: FakeStac) -> None:
    item = planetary_computer_item(server.folder, server.file_url, name="S2A_old", baseline="02.14")
    scene = open_item(item, bands=["red"])
    assert scene.baseline == "02.14"
    raster = read(scene)
    assert np.abs(raster.band("red") - truth("red", 10))[raster.valid].max() <= HALF_DN


def test_an_undecidable_offset_is_refused_unless_told(planetary_computer: dict[str, Any]) -> None:
    item = deepcopy(planetary_computer) | {"links": []}
    with pytest.raises(ProductError, match="nothing says whether the offset was applied; give scale and offset"):
        open_item(item)
    assert open_item(item, options=SceneOptions(mirror="planetary-computer")).bands[0].offset == -0.1
    told = open_item(item, options=SceneOptions(scale=1e-4, offset=-0.1))
    assert told.bands[0].provenance == "config"
    unknown = deepcopy(planetary_computer)
    del unknown["properties"]["s2:processing_baseline"]
    with pytest.raises(ProductError, match="processing baseline is not given"):
        open_item(unknown)


def test_raster_offset_counts_where_no_mirror_took_it_out(earth_search: dict[str, Any]) -> None:
    item = deepcopy(earth_search)
    item["properties"]["earthsearch:boa_offset_applied"] = False
    scene = open_item(item, bands=["red"])
    assert scene.bands[0].offset == -0.1
    assert scene.bands[0].provenance == "STAC asset red: raster:offset"


PRODUCT_XML = """<?xml version="1.0"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2025-03-02T09:50:29.025Z</PRODUCT_START_TIME>
<PRODUCT_URI>S2B_MSIL2A_20250302T095029_N0511_R079_T33TVN_20250302T104753.SAFE</PRODUCT_URI>
<PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PROCESSING_BASELINE>05.11</PROCESSING_BASELINE>
<Product_Organisation><Granule_List><Granule>
<IMAGE_FILE>GRANULE/L2A_T33TVN_A041000_20250302T095029/IMG_DATA/R10m/T33TVN_20250302T095029_B04_10m</IMAGE_FILE>
</Granule></Granule_List></Product_Organisation>
</Product_Info><Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<QUANTIFICATION_VALUES_LIST>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>
<BOA_ADD_OFFSET_VALUES_LIST>OFFSETS</BOA_ADD_OFFSET_VALUES_LIST>
</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>"""


def test_the_products_own_xml_decides_before_the_mirrors_rule(
    server: FakeStac, planetary_computer: dict[str, Any]
) -> None:
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{n}">{-900 - n}</BOA_ADD_OFFSET>' for n in range(13))
    (server.folder / "mtd.xml").write_text(PRODUCT_XML.replace("OFFSETS", offsets))
    item = deepcopy(planetary_computer)
    item["assets"]["product-metadata"] = {"href": server.file_url("mtd.xml"), "type": "application/xml"}
    before = server.hits["/data/mtd.xml"]
    scene = open_item(item)
    assert server.hits["/data/mtd.xml"] == before + 1
    assert scene.select(["red"]).bands[0].offset == pytest.approx(-0.0903)
    assert "product metadata asset" in scene.bands[0].provenance
    server.gone.add("/data/mtd.xml")
    with pytest.warns(ProductWarning, match="HTTP 404.*the mirror's documented rule is used"):
        assert open_item(item, bands=["red"]).bands[0].offset == -0.1
    server.gone.clear()


def test_items_come_from_files_folders_urls_and_collections(
    server: FakeStac, earth_search: dict[str, Any], tmp_path: Path
) -> None:
    (server.folder / "a.json").write_text(json.dumps(earth_search))
    (tmp_path / "item.json").write_text(json.dumps(earth_search))
    reference = open_item(earth_search, bands=["red"])
    for source in (server.file_url("a.json"), tmp_path / "item.json", tmp_path):
        scene = open_item(source, bands=["red"])
        assert scene.bands == reference.bands
        assert scene.path == str(source)
    both = {"type": "FeatureCollection", "features": [earth_search, earth_search | {"id": "second"}]}
    (tmp_path / "both.json").write_text(json.dumps(both))
    assert [scene.id for scene in open_items(tmp_path / "both.json", bands=["red"])] == [earth_search["id"], "second"]
    with pytest.raises(ProductError, match="collection of 2 items given as one scene"):
        open_item(tmp_path / "both.json")
    collection = {"type": "Collection", "id": "c", "links": [{"rel": "item", "href": "./item.json"}]}
    (tmp_path / "collection.json").write_text(json.dumps(collection))
    assert open_item(tmp_path / "collection.json", bands=["red"]).bands == reference.bands


def test_relative_assets_lie_beside_their_item(tmp_path: Path) -> None:
    item = earth_search_item(tmp_path, lambda name: f"./{name}")
    (tmp_path / "item.json").write_text(json.dumps(item))
    raster = read(open_item(tmp_path, bands=["red"]))
    assert np.abs(raster.band("red") - truth("red", 10))[raster.valid].max() <= HALF_DN


def test_items_without_a_grid_are_asked_from_the_file(earth_search: dict[str, Any]) -> None:
    item = deepcopy(earth_search)
    for asset in item["assets"].values():
        asset.pop("proj:transform", None)
    assert open_item(item, bands=["red", "swir16"]).grid == open_item(earth_search, bands=["red"]).grid


def test_remote_windows_fetch_a_part_of_the_file(server: FakeStac) -> None:
    rng = np.random.default_rng(1)
    item = earth_search_item(server.folder, server.file_url, name="S2B_big")
    from tests.fakes.stac_items import write_cog

    write_cog(server.folder / "S2B_big" / "B04.tif", rng.integers(1, 9000, (2400, 2400), dtype=np.uint16), 1)
    for asset in item["assets"].values():
        asset.pop("proj:transform", None)
    size = (server.folder / "S2B_big" / "B04.tif").stat().st_size
    before = server.sent_bytes
    read(open_item(item, bands=["red"], mask=()), Window(1000, 1000, 64, 64))
    assert server.sent_bytes - before < size / 5


def test_a_coarser_grid_averages_finer_bands(earth_search: dict[str, Any]) -> None:
    scene = open_item(earth_search, bands=["red", "swir16"], resolution_m=20, mask=())
    assert scene.grid.shape == (120, 120)
    raster = read(scene)
    np.testing.assert_allclose(raster.band("red"), truth("red", 10).reshape(120, 2, 120, 2).mean((1, 3)), atol=2e-4)
    assert np.abs(raster.band("swir16") - truth("swir16", 20)).max() <= HALF_DN


def test_an_asset_that_is_gone_is_named_after_retries(
    server: FakeStac, earth_search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    item = deepcopy(earth_search)
    for name in ("gone", "flaky"):
        (server.folder / f"{name}.tif").write_bytes((server.folder / item["id"] / "B04.tif").read_bytes())
    server.gone.add("/data/gone.tif")
    server.flaky["/data/flaky.tif"] = 2
    item["assets"]["red"]["href"] = server.file_url("gone.tif")
    with pytest.raises(SceneError, match=r"gone\.tif: cannot read band \[1\]"):
        read(open_item(item, bands=["red"]))
    item["assets"]["red"]["href"] = server.file_url("flaky.tif")
    assert read(open_item(item, bands=["red"])).valid.any()


def test_a_server_that_does_not_answer_is_given_up(
    server: FakeStac, earth_search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "READ_S", 0.2)
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    server.stalled.update({"/data/stalled.tif", "/data/stalled.json"})
    with pytest.raises(ProductError, match=r"stalled\.json: cannot fetch metadata; got .*; try again later"):
        open_item(server.file_url("stalled.json"))
    item = deepcopy(earth_search)
    item["assets"]["red"]["href"] = server.file_url("stalled.tif")
    with pytest.raises(SceneError, match=r"stalled\.tif"):
        read(open_item(item, bands=["red"]))


@pytest.mark.parametrize(
    "href", ["file:///etc/passwd", "s3://bucket/a.tif", "vrt:///etc/passwd", "WMS:http://127.0.0.1:9/"]
)
def test_what_came_over_http_names_http_alone(server: FakeStac, earth_search: dict[str, Any], href: str) -> None:
    said = "address that a document from the network may not name; got"
    item = deepcopy(earth_search)
    item["assets"]["red"]["href"] = href
    (server.folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(ProductError, match=said):
        open_item(server.file_url("item.json"), bands=["red"])
    item["assets"]["red"], item["assets"]["scl"]["href"] = earth_search["assets"]["red"], href
    (server.folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(ProductError, match=said):
        open_item(server.file_url("item.json"), bands=["red"])
    links = [{"rel": "item", "href": href}]
    (server.folder / "c.json").write_text(json.dumps({"type": "Collection", "id": "c", "links": links}))
    with pytest.raises(ProductError, match=said):
        open_item(server.file_url("c.json"))


def test_a_path_in_what_came_over_http_is_one_of_its_server(server: FakeStac, earth_search: dict[str, Any]) -> None:
    item = deepcopy(earth_search)
    for href in ("/etc/passwd", "../../etc/passwd"):
        item["assets"]["red"]["href"] = href
        (server.folder / "item.json").write_text(json.dumps(item))
        path = open_item(server.file_url("item.json"), bands=["red"]).bands[0].path
        assert path.startswith("/vsicurl?")
        assert f"url={server.url}/" in path


def test_a_slow_drip_of_metadata_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WHOLE_S", 0.2)

    def drip() -> None:
        with listener.accept()[0] as caller, suppress(OSError):
            caller.recv(4096)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(60):
                caller.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(ProductError, match="metadata comes too slowly"):
            open_item(f"http://127.0.0.1:{listener.getsockname()[1]}/item.json")
        thread.join()


def test_what_is_not_an_item_is_refused(server: FakeStac, tmp_path: Path, earth_search: dict[str, Any]) -> None:
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(ProductError, match="cannot be read as JSON"):
        open_item(tmp_path / "text.json")
    (tmp_path / "other.json").write_text('{"type": "Topology"}')
    with pytest.raises(ProductError, match="not a STAC item or collection; got type 'Topology'"):
        open_item(tmp_path / "other.json")
    with pytest.raises(ProductError, match="cannot read metadata"):
        open_item(tmp_path / "missing.json")
    with pytest.raises(ProductError, match="HTTP 404"):
        open_item(server.file_url("missing.json"))
    with pytest.raises(ProductError, match="no asset for band lwir11"):
        open_item(earth_search, bands=["red", "lwir11"])
    broken = deepcopy(earth_search)
    del broken["properties"]
    with pytest.raises(ProductError, match="not a STAC item"):
        open_item(broken)


def test_items_without_a_quality_layer_are_told(earth_search: dict[str, Any]) -> None:
    item = deepcopy(earth_search)
    del item["assets"]["scl"]
    with pytest.warns(ProductWarning, match="clouds are not masked"):
        scene = open_item(item)
    assert "clouds are not masked" in scene.notes[-1]


def test_a_signature_is_read_with_and_shown_nowhere(earth_search: dict[str, Any]) -> None:
    item = deepcopy(earth_search)
    item["assets"]["red"]["href"] += "?sig=topsecret"
    scene = open_item(item, bands=["red"])
    assert read(scene, Window(0, 0, 8, 8)).values.any()
    assert "topsecret" not in json.dumps(scene.ledger())


def test_private_files_are_signed_when_they_are_read(
    server: FakeStac, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "SIGNED_HOSTS", ("127.0.0.1",))
    monkeypatch.setattr(remote, "SIGN_URL", f"{server.url}/sign?href=")
    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    item = planetary_computer_item(server.folder, server.file_url, name="S2B_private")
    xml = next(write_safe(tmp_path, Safe(baseline="05.11", size_m=60)).glob("MTD_MSIL2A.xml")).read_bytes()
    (server.folder / "S2B_private" / "MTD.xml").write_bytes(xml)
    item["assets"]["product-metadata"] = {"href": server.file_url("S2B_private/MTD.xml"), "type": "application/xml"}
    server.private.update(f"/data/S2B_private/{name}" for name in ("B04.tif", "SCL.tif", "MTD.xml"))
    scene = open_item(item, bands=["red"])
    assert scene.bands[0].provenance.startswith("product metadata asset: MTD.xml: BOA_QUANTIFICATION_VALUE 10000")
    with rasterio.Env(VSICURL_PC_SAS_SIGN_HREF_URL=f"{server.url}/sign?href="):
        raster = read(scene)
    assert np.abs(raster.band("red") - truth("red", 10))[raster.valid].max() <= HALF_DN
    assert "topsecret" not in json.dumps(scene.ledger()) + repr(scene)
    # What is on other hosts, or served by others, is asked for as it is.
    monkeypatch.setattr(remote, "SIGNED_HOSTS", (".blob.core.windows.net",))
    assert (
        "pc_url_signing"
        not in open_item(item, bands=["red"], options=AS_SERVED.model_copy(update={"mirror": "copernicus"}))
        .bands[0]
        .path
    )


AS_SERVED = SceneOptions(scale=1e-4, offset=-0.1)
ODD = (None, 0, -1, 1e308, "", "x", [], {}, [1], ["a"], {"a": 1}, True, "NaN", [None] * 6, "https://[bad", "2025-13-45")


def places_in(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in children for place in places_in(child, (*path, key)))]


@pytest.mark.filterwarnings("ignore::pipeline.errors.ProductWarning")
def test_a_damaged_item_opens_or_is_refused_in_words(tmp_path: Path) -> None:
    makers = (earth_search_item, planetary_computer_item, landsat_item)
    items = [make(tmp_path, lambda name: str(tmp_path / name)) | {"links": []} for make in makers]
    items[1]["properties"]["landcover:mirror"] = "planetary-computer"
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(400):
        item = deepcopy(items[rng.integers(len(items))])
        for key in [key for key in item["assets"] if rng.random() < 0.7]:
            del item["assets"][key]
        places = places_in(item)[1:]
        *parents, last = places[rng.integers(len(places))]
        node = item
        for key in parents:
            node = node[key]
        node[last] = ODD[rng.integers(len(ODD))]
        try:
            open_item(item)
        except PipelineError:
            refused += 1
    assert 50 < refused < 350


def test_real_landsat_items_are_understood(shared_data: Path) -> None:
    folder = shared_data / "landsat_c2_products" / "tm"
    scene = open_item(folder / "LT05_L2SP_010067_19860424_20200918_02_T2_SR_stac.json")
    assert (scene.sensor, scene.level, scene.baseline) == ("landsat-tm", "L2SP", "02")
    assert scene.band_names == ("blue", "green", "red", "nir08", "swir16", "swir22")
    assert {(band.scale, band.offset) for band in scene.bands} == {(2.75e-5, -0.2)}
    assert [layer.name for layer in scene.quality] == ["QA_PIXEL", "QA_RADSAT"]
    assert scene.grid.shape == (6911, 7761)
