"""What the XML of real and fake Sentinel-2 products says, by product."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import rasterio

from pipeline.errors import ProductError, ProductWarning
from pipeline.scenes.opening import open_scene
from pipeline.scenes.safe_metadata import BAND_KEYS, parse_product, parse_tile
from tests.fakes.landsat import Landsat, tar_landsat, write_landsat
from tests.fakes.real_safe import with_sparse_images
from tests.fakes.safe import KEYS, Safe, write_safe, zip_safe

REAL = {
    "S2A_MSIL1C_20200717T221941_R029_T01LAC_20200717T234135.SAFE": ("L1C", "02.09", "T01LAC", 0, "EPSG:32701"),
    "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE": ("L1C", "03.01", "T46RER", 0, "EPSG:32646"),
    "S2A_MSIL2A_20180721T053721_N0212_R062_T43MDV_20201011T181419.SAFE": ("L2A", "02.12", "T43MDV", 0, ""),
    "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE": ("L2A", "02.12", "T07HFE", 0, "EPSG:32707"),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.SAFE": ("L2A", "05.09", "T01WCP", -1e3, "EPSG:32601"),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022158.SAFE": ("L2A", "05.09", "T01WCP", -1e3, "EPSG:32601"),
    "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCS_20230626T022157.SAFE": ("L2A", "05.09", "T01WCS", -1e3, "EPSG:32601"),
    "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE": ("L2A", "05.09", "T01KAB", -1e3, "EPSG:32701"),
    "S2B_MSIL2A_20191228T210519_N0212_R071_T01CCV_20201003T104658.SAFE": ("L2A", "02.12", "T01CCV", 0, "EPSG:32701"),
    "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE": ("L2A", "04.00", "T33XWJ", -1e3, "EPSG:32633"),
    "esa_S2B_MSIL2A_20210122T133229_N0214_R081_T22HBD_20210122T155500.SAFE": (
        "L2A",
        "02.14",
        "T22HBD",
        0,
        "EPSG:32722",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_product_states_its_scale_and_offset(shared_data: Path, name: str) -> None:
    level, baseline, tile, offset, crs = REAL[name]
    folder = shared_data / "s2_safe_metadata" / name
    xml = next(path for path in folder.iterdir() if path.name.lower().startswith("mtd_msil"))
    meta = parse_product(xml.read_bytes(), path=str(xml))
    assert (meta.level, meta.baseline, meta.tile) == (level, baseline, tile)
    assert (meta.quantification, meta.nodata, meta.saturated) == (10_000, 0, 65_535)
    assert meta.offsets == (dict.fromkeys(BAND_KEYS, offset) if offset else {})
    assert meta.acquired_utc.strftime("_%Y%m%dT%H%M%S_") in name
    assert meta.product.split("_")[-2] == tile
    for inner in folder.glob("GRANULE/*/MTD_TL.xml"):
        found = parse_tile(inner.read_bytes(), path=str(inner))
        assert (found.tile, found.crs) == (tile, crs)
        assert found.shapes == {10: (10980, 10980), 20: (5490, 5490), 60: (1830, 1830)}


def test_real_tiles_lie_where_their_stac_items_say(shared_data: Path) -> None:
    compared = 0
    for item in shared_data.glob("s2_safe_metadata/*/expected_output.json"):
        for xml in item.parent.glob("GRANULE/*/MTD_TL.xml"):
            tile = parse_tile(xml.read_bytes(), path=str(xml))
            assets = json.loads(item.read_text())["assets"].values()
            places = [asset["proj:transform"] for asset in assets if asset.get("proj:shape") == [10980, 10980]]
            for place in places:
                assert (place[2], place[5]) == tile.upper_left
                compared += 1
    assert compared > 5


def test_a_tile_without_its_product_metadata_is_still_placed(shared_data: Path) -> None:
    xml = shared_data / "s2_safe_metadata" / "S2A_OPER_MSI_L1C_TL_SGS__20181231T203637_A018414_T10SDG" / "metadata.xml"
    tile = parse_tile(xml.read_bytes(), path=str(xml))
    assert (tile.tile, tile.crs, tile.shapes[60]) == ("T10SDG", "EPSG:32610", (1830, 1830))
    with pytest.raises(ProductError, match="not the metadata of a Sentinel-2 L1C or L2A product"):
        parse_product(xml.read_bytes(), path=str(xml))


def product_xml(folder: Path, what: Safe) -> bytes:
    return next(write_safe(folder, what).glob("*MTD*.xml")).read_bytes()


def test_offsets_are_taken_band_by_band(tmp_path: Path) -> None:
    offsets = {key: -1000 - number for number, key in enumerate(KEYS)}
    meta = parse_product(product_xml(tmp_path, Safe(offsets=offsets, size_m=60)), path="x.xml")
    assert meta.offsets == offsets
    assert "BOA_ADD_OFFSET -1012..-1000 by band" in meta.source


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (Safe(baseline="09.99", size_m=60), "baseline 09.99 is unknown"),
        (Safe(baseline="05.10", offsets={}, size_m=60), "baseline 05.10 but the XML states no offset"),
        (Safe(baseline="02.14", offsets={"B02": -1000}, size_m=60), "baseline 02.14 but the XML states an offset"),
    ],
)
def test_odd_baselines_are_named_and_the_xml_is_followed(tmp_path: Path, what: Safe, message: str) -> None:
    data = product_xml(tmp_path, what)
    with pytest.warns(ProductWarning, match=message):
        meta = parse_product(data, path="x.xml")
    assert meta.offsets == what.applied


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("BOA_QUANTIFICATION_VALUE", "GONE", "lacks BOA_QUANTIFICATION_VALUE"),
        (">10000<", ">many<", "BOA_QUANTIFICATION_VALUE in the metadata is not a number; got 'many'"),
        (">10000<", ">0<", "not positive"),
        ('band_id="12"', 'band_id="13"', "unknown band; got band_id 13"),
        ("PROCESSING_BASELINE", "GONE", "lacks PROCESSING_BASELINE"),
        (".024Z", "o'clock", "time of acquisition"),
        ("</n1:Level", "</n1:Lev", "not well-formed XML"),
        ("<n1:Level-2A_User_Product", "<!DOCTYPE a [<!ENTITY b 'c'>]><n1:Level-2A_User_Product", "not well-formed"),
    ],
)
def test_damaged_metadata_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    data = product_xml(tmp_path, Safe(size_m=60, edit={old: new}))
    with pytest.raises(ProductError, match=message) as caught:
        parse_product(data, path="MTD_MSIL2A.xml")
    assert "\n" not in str(caught.value)


def test_quantification_of_sen2cor_before_2_5_is_understood(tmp_path: Path) -> None:
    edit = {"BOA_QUANTIFICATION_VALUE": "L2A_BOA_QUANTIFICATION_VALUE"}
    data = product_xml(tmp_path, Safe(size_m=60, edit=edit, quantification=1000))
    assert parse_product(data, path="x.xml").quantification == 1000


@pytest.mark.parametrize("name", [name for name, (*_, crs) in REAL.items() if crs])
def test_every_real_tree_opens_without_reading_a_pixel(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    level, baseline, _, offset, crs = REAL[name]
    metadata = shared_data / "s2_safe_metadata" / name
    with pytest.raises(ProductError, match=r"band B01 \(coastal\) is missing; download the product again"):
        open_scene(metadata)
    path = with_sparse_images(metadata, tmp_path)
    forbid_reading(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProductWarning)  # the L1C trees come without their cloud masks
        scene = open_scene(path)
    assert (scene.level, scene.baseline, scene.grid.crs.to_string(), scene.grid.shape) == (
        level, baseline, crs, (10980, 10980),
    )  # fmt: skip
    assert {band.offset for band in scene.bands} == {offset / 10_000}
    assert len(scene.bands) == (13 if level == "L1C" else 12)
    assert all(band.provenance.startswith(f"MTD_MSI{level}.xml: ") for band in scene.bands)


def test_a_real_tree_without_its_tile_metadata_is_refused(shared_data: Path) -> None:
    (name,) = [name for name, (*_, crs) in REAL.items() if not crs]
    with pytest.raises(ProductError, match=r"SAFE has no tile metadata; expected GRANULE/\*/MTD_TL\.xml"):
        open_scene(shared_data / "s2_safe_metadata" / name)


def test_opening_reads_no_pixel_of_any_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write_safe(tmp_path / "a", Safe(size_m=240)),
        zip_safe(write_safe(tmp_path / "b", Safe(size_m=240))),
        write_safe(tmp_path / "c", Safe(level="L1C", baseline="02.09", size_m=240)),
        write_landsat(tmp_path / "d", Landsat(pixels=8)),
        tar_landsat(write_landsat(tmp_path / "e", Landsat(pixels=8, level="L1TP"))),
    ]
    forbid_reading(monkeypatch)
    for path in paths:
        assert open_scene(path).bands


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("pixels were read")

    monkeypatch.setattr(rasterio.DatasetReader, "read", refuse)
    monkeypatch.setattr(rasterio.DatasetReader, "read_masks", refuse)
