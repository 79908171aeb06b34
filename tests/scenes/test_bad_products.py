"""Every way a delivery can be broken, in the one line that a person reads on the command line."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import ProductWarning
from pipeline.scenes import remote
from pipeline.scenes.opening import open_scene
from tests.fakes.landsat import Landsat, tar_landsat, write_landsat
from tests.fakes.safe import Safe, write_safe, zip_safe
from tests.fakes.small_world import write_labels, write_settings
from tests.fakes.stac_items import earth_search_item
from tests.fakes.stac_server import serve

Break = Callable[[Path], Path]
SAFE, LANDSAT = Safe().name, Landsat().name


def without_product_xml(folder: Path) -> Path:
    return write_safe(folder, Safe(leave_out=("PRODUCT_XML",)))


def without_tile_xml(folder: Path) -> Path:
    return zip_safe(write_safe(folder, Safe(leave_out=("TILE_XML",))))


def without_a_band(folder: Path) -> Path:
    return write_safe(folder, Safe(leave_out=("B11",)))


def with_xml_of_another_tile(folder: Path) -> Path:
    path, other = write_safe(folder, Safe()), write_safe(folder / "other", Safe(tile="T32TQM"))
    shutil.copy(other / "MTD_MSIL2A.xml", path / "MTD_MSIL2A.xml")
    return path


def with_an_image_elsewhere(folder: Path) -> Path:
    path = write_safe(folder, Safe())
    xml = next(path.glob("GRANULE/*/MTD_TL.xml"))
    xml.write_text(xml.read_text().replace("<ULY>5800020<", "<ULY>5900040<"))
    return path


def with_a_jp2_cut_in_its_header(folder: Path) -> Path:
    path = write_safe(folder, Safe())
    image = next(path.rglob("*_B04_10m.jp2"))
    image.write_bytes(image.read_bytes()[:40])
    return path


def with_a_jp2_cut_in_its_pixels(folder: Path) -> Path:
    path = write_safe(folder, Safe(truth=lambda _, x, y: 0.3 + 0.2 * np.sin(x * y)))
    image = next(path.rglob("*_B04_10m.jp2"))
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return path


def tar_cut_in_half(folder: Path) -> Path:
    path = tar_landsat(write_landsat(folder))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def tar_that_climbs_out(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("x")
    with tarfile.open(folder / f"{LANDSAT}.tar", "w") as archive:
        archive.add(folder / "a.txt", f"../{LANDSAT}_MTL.txt")
    return folder / f"{LANDSAT}.tar"


def zip_that_climbs_out(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{SAFE}.zip", "w") as archive:
        archive.writestr(f"{SAFE}.SAFE/../../../etc/MTD_MSIL2A.xml", "<a/>")
    return folder / f"{SAFE}.zip"


def zip_bomb(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{SAFE}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{SAFE}.SAFE/MTD_MSIL2A.xml", b" " * 3_000_000)
    return folder / f"{SAFE}.zip"


def mtl_of_collection_1(folder: Path) -> Path:
    return write_landsat(folder, Landsat(mtl=("txt",), edit={"LANDSAT_METADATA_FILE": "L1_METADATA_FILE"}))


def two_tiles(folder: Path) -> Path:
    old = Safe(level="L1C", baseline="02.04", naming="old")
    one, two = (write_safe(folder / tile, Safe(**(vars(old) | {"tile": tile}))) for tile in ("T33UUU", "T32TQM"))
    granule = next((two / "GRANULE").iterdir())
    shutil.copytree(granule, one / "GRANULE" / granule.name)
    return one


def two_dates(folder: Path) -> Path:
    for date in ("20230625T101559", "20230705T101559"):
        write_safe(folder, Safe(date=date))
    return folder


def band_files_of_two_dates(folder: Path) -> Path:
    for number, date in enumerate(("20230625T101559", "20230705T101559")):
        safe = write_safe(folder / date, Safe(date=date))
        (folder / "bands").mkdir(exist_ok=True)
        shutil.copy(next(safe.rglob(f"*_B0{number + 2}_10m.jp2")), folder / "bands")
    return folder / "bands"


def encrypted_zip(folder: Path) -> Path:
    path = zip_safe(write_safe(folder, Safe()))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1  # the flag of the first member, in the directory at the end
    path.write_bytes(content)
    return path


CASES: dict[Break, str] = {
    without_product_xml: f"{{}}/{SAFE}.SAFE: SAFE has no product metadata; expected MTD_MSIL1C.xml or MTD_MSIL2A.xml; "
    "download it again",
    without_tile_xml: f"{{}}/{SAFE}.zip: SAFE has no tile metadata; expected GRANULE/*/MTD_TL.xml; download it again",
    without_a_band: f"{{}}/{SAFE}.SAFE: band B11 (swir16) is missing; download the product again",
    with_xml_of_another_tile: f"{{}}/{SAFE}.SAFE: metadata contradicts the files: product and granule are of different "
    "tiles; got T32TQM and T33UUU; download it again",
    with_an_image_elsewhere: f"{{}}/{SAFE}.SAFE: metadata contradicts the image of band coastal; got EPSG:32633 at "
    "399960, 5800020, 20 x 20 pixels of 60 m; expected EPSG:32633 at 399960, 5900040, (20, 20) pixels; download the "
    "product again",
    with_a_jp2_cut_in_its_header: "T33UUU_20230625T101559_B04_10m.jp2: image of band red cannot be opened; got ",
    with_a_jp2_cut_in_its_pixels: "T33UUU_20230625T101559_B04_10m.jp2: cannot read band [1] in rows 0..120, columns "
    "0..120; got ",
    tar_cut_in_half: f"{{}}/{LANDSAT}.tar: tar is cut off; got ",
    tar_that_climbs_out: f"{{}}/{LANDSAT}.tar: archive holds a path that leaves it: '../{LANDSAT}_MTL.txt'; do not use "
    "this file",
    zip_that_climbs_out: f"{{}}/{SAFE}.zip: archive holds a path that leaves it: "
    f"'{SAFE}.SAFE/../../../etc/MTD_MSIL2A.xml'; do not use this file",
    zip_bomb: f"{{}}/{SAFE}.zip: zip member '{SAFE}.SAFE/MTD_MSIL2A.xml' inflates beyond reason; got 2924 bytes that "
    "unpack to 3000000; do not use this file",
    encrypted_zip: f"{{}}/{SAFE}.zip: zip member '{SAFE}.SAFE/GRANULE/",
    mtl_of_collection_1: f"{{}}/{LANDSAT}/{LANDSAT}_MTL.txt: product is of Landsat Collection 1, whose calibration and "
    "quality bits differ; expected Collection 2; order the same scene from Collection 2",
    two_tiles: ".SAFE: 2 tiles given as one scene; got S2A_OPER_MSI_L1C_TL_SGS__20230625T101559_A004367_T32TQM_N02.04, "
    "S2A_OPER_MSI_L1C_TL_SGS__20230625T101559_A004367_T33UUU_N02.04; unpack it and give one folder below GRANULE",
    two_dates: f"{{}}: 2 products given as one scene; got {SAFE}.SAFE, {SAFE.replace('20230625T1015', '20230705T1015')}"
    ".SAFE; give them one by one",
    band_files_of_two_dates: "{}/bands: files of several dates given as one scene; got 20230625, 20230705; expected "
    "the bands of one date; give one folder per date and join them by inputs.time",
}


@pytest.mark.parametrize("broken", CASES, ids=lambda case: case.__name__)
def test_a_broken_delivery_is_one_line_of_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: Break
) -> None:
    scene = broken(tmp_path / "in")
    write_labels(tmp_path / "labels.gpkg")
    config = write_settings(tmp_path, scenes=[{"path": str(scene)}], inputs={"bands": ["red"]})
    if broken is band_files_of_two_dates:
        config = write_settings(tmp_path, scenes=[{"path": str(scene)}])
    assert main(["check", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("landcover: error: ", "landcover: warning: ")) for line in lines)
    assert [line for line in lines if CASES[broken].format(tmp_path / "in") in line] != [], lines


def test_an_unknown_baseline_is_named_and_the_product_is_read(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe(baseline="07.77"))
    with pytest.warns(ProductWarning) as caught:
        assert open_scene(path).baseline == "07.77"
    assert str(caught[0].message) == (
        f"{path}/MTD_MSIL2A.xml: processing baseline 07.77 is unknown; scale and offset are taken from its XML as they "
        "stand"
    )


@pytest.mark.parametrize("fault", ["gone", "stalled"])
def test_an_asset_that_is_gone_is_named_and_no_map_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from tests.inference.test_sources import write_model

    monkeypatch.setattr(remote, "RETRY_S", 0.01)
    monkeypatch.setattr(remote, "READ_S", 0.3)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    model = write_model(tmp_path, ("red", "nir"), bands=["red", "nir"])
    with serve(tmp_path / "served") as fake:
        fake.stall_s = 0.8
        item = earth_search_item(fake.folder, fake.file_url)
        (tmp_path / "item.json").write_text(json.dumps(item))
        path = f"/data/{item['id']}/B08.tif"
        (fake.gone if fault == "gone" else fake.stalled).add(path)
        arguments = ["predict", "--model", str(model), "--scene", str(tmp_path / "item.json")]
        assert main([*arguments, "-o", str(tmp_path / "maps"), "--engine", "torch"]) == 2
        assert fake.hits[path] >= (1 if fault == "gone" else 2)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert f"{fake.url}{path}: cannot read band [1] in rows" in line
    assert line.endswith("check the file; it may be cut off or damaged")
    assert not [file for file in (tmp_path / "maps").rglob("*") if file.is_file()]
