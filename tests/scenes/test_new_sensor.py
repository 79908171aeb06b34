"""A sensor that nobody has thought of joins as CONTRIBUTING.md says: a band table, a parser, a generator."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import defusedxml.ElementTree as SafeXml
import numpy as np
import pytest

from pipeline import bands
from pipeline.bands import BandSpec
from pipeline.errors import ProductError
from pipeline.scenes import opening, quality
from pipeline.scenes.archive import list_product
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.opening import open_scene, treatment
from pipeline.scenes.scene import Scene
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource, resampling_for
from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from collections.abc import Sequence

NEWSAT = (BandSpec("blue", "BLU", 0.490, 5), BandSpec("nir", "NIR", 0.840, 5))
SIDE = 24


def looks_like_newsat(names: Sequence[str]) -> bool:
    return "newsat.xml" in names


def open_newsat(path: Path, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    files = list_product(path)
    (xml,) = files.find("*newsat.xml")
    root = SafeXml.fromstring(files.read(xml))
    gain = float(root.findtext("GAIN") or "nan")
    missing = [spec.key for spec in NEWSAT if not files.find(f"*{spec.key}.tif")]
    if missing:
        raise ProductError(f"band {', '.join(missing)} is missing", path=path, fix="download the product again")
    grid = open_geotiff(files.gdal(files.find("*BLU.tif")[0])).grid
    sources = tuple(
        BandSource(
            spec.name, files.gdal(files.find(f"*{spec.key}.tif")[0]), scale=gain, nodata=0, gsd_m=spec.gsd_m,
            unit=REFLECTANCE, resampling=resampling_for(spec.gsd_m, resolution_m or spec.gsd_m),
            provenance=f"newsat.xml: GAIN {gain:g}",
        )
        for spec in NEWSAT
    )  # fmt: skip
    layers = [
        QualitySource("CLOUD", files.gdal(name), bad_values=(1,), reasons=("1: cloud",))
        for name in files.find("*CLOUD.tif")
        if "cloud" in quality.check_mask(mask)
    ]
    place = grid if resolution_m is None else grid.with_pixel_size(resolution_m)
    return Scene(
        str(root.findtext("ID")), str(path), place, sources, tuple(layers), sensor="newsat", level="NS2",
    )  # fmt: skip


@dataclass(frozen=True)
class Newsat:
    """What product to fake."""

    gain: float = 5e-5
    leave_out: tuple[str, ...] = ()


def write_newsat(folder: Path, what: Newsat | None = None) -> Path:
    what = what or Newsat()
    for number, spec in enumerate(NEWSAT):
        if spec.key not in what.leave_out:
            dn = np.round(truth(number) / what.gain).astype(np.uint16)
            write_raster(folder / f"NS1_{spec.key}.tif", dn, transform=TRANSFORM @ TRANSFORM.scale(0.5))
    cloud = np.zeros((SIDE, SIDE), np.uint8)
    cloud[:4] = 1
    write_raster(folder / "NS1_CLOUD.tif", cloud, transform=TRANSFORM @ TRANSFORM.scale(0.5))
    (folder / "newsat.xml").write_text(f"<NEWSAT><ID>NS1</ID><GAIN>{what.gain}</GAIN></NEWSAT>")
    return folder


def truth(number: int) -> np.ndarray:
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    return 0.05 + 0.1 * number + 0.002 * rows + 0.001 * cols


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bands.TABLES, "newsat", NEWSAT)
    monkeypatch.setitem(opening.PRODUCTS, "newsat", (looks_like_newsat, open_newsat))
    monkeypatch.setitem(opening.LEVELS, "NS2", "surface")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_it_opens_by_its_files_and_gives_the_truth(tmp_path: Path, *, packed: bool) -> None:
    path = write_newsat(tmp_path / "NS1")
    if packed:
        with zipfile.ZipFile(tmp_path / "NS1.zip", "w") as archive:
            for file in sorted(path.iterdir()):
                archive.write(file, f"NS1/{file.name}")
        path = tmp_path / "NS1.zip"
    scene = open_scene(path)
    assert (scene.id, scene.sensor, scene.band_names, treatment(scene)) == (
        "NS1", "newsat", ("blue", "nir"), "surface reflectance",
    )  # fmt: skip
    with scene.open() as reader:
        raster = reader.read(scene.grid.window)
    assert not raster.valid[:4].any()
    assert raster.valid[4:].all()
    for number in range(2):
        assert np.abs(raster.values[number] - truth(number))[4:].max() < 0.5 * 5e-5 + 1e-7
    assert scene.ledger()["bands"][0]["provenance"] == "newsat.xml: GAIN 5e-05"  # type: ignore[index]


def test_what_it_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="NS1: band NIR is missing; download the product again"):
        open_scene(write_newsat(tmp_path / "NS1", Newsat(leave_out=("NIR",))))
