"""Raster: pixels are never without their validity, names and place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import SceneError
from pipeline.grid import Grid
from pipeline.raster import Raster, open_raster
from pipeline.scenes.opening import open_scene
from pipeline.scenes.settings import SceneOptions
from tests.fakes.rasters import write_raster

if TYPE_CHECKING:
    from pathlib import Path

GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), 2, 3)


def test_a_band_is_found_by_name() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    raster = Raster(values, np.ones((2, 3), bool), ("red", "nir"), GRID)
    assert np.array_equal(raster.band("nir"), values[1])
    with pytest.raises(SceneError, match="no band 'blue'; got red, nir"):
        raster.band("blue")


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        (np.zeros((1, 2, 3), np.float32), np.ones((2, 3), bool)),
        (np.zeros((2, 2, 3), np.float32), np.ones((3, 2), bool)),
        (np.zeros((2, 2, 3), np.float64), np.ones((2, 3), bool)),
        (np.zeros((2, 2, 3), np.float32), np.ones((2, 3), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(values: np.ndarray, valid: np.ndarray) -> None:
    with pytest.raises(SceneError, match="raster with arrays"):
        Raster(values, valid, ("red", "nir"), GRID)


def _vrt(path: Path, source: str, *, raw: bool = False, relative: bool = False) -> Path:
    link = f'<SourceFilename relativeToVRT="{int(relative)}">{source}</SourceFilename>'
    band = (
        f'<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">{link}<PixelOffset>1</PixelOffset>'
        "<LineOffset>6</LineOffset></VRTRasterBand>"
        if raw
        else f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{link}<SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
    )
    place = "<SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,5800000,0,-10</GeoTransform>"
    path.write_text(f'<VRTDataset rasterXSize="6" rasterYSize="4">{place}{band}</VRTDataset>')
    return path


@pytest.mark.parametrize(
    "source",
    [
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "http://127.0.0.1:9/a.tif",
        "/vsis3/bucket/a.tif",
        "WMS:http://127.0.0.1:9/",
        "/vsizip//vsicurl/http://127.0.0.1:9/a.zip/a.tif",
        "vrt:///etc/passwd",
        "<VRTDataset/>".replace("<", "&lt;"),
    ],
)
def test_a_vrt_may_not_lead_away_from_the_disk(tmp_path: Path, source: str) -> None:
    path = _vrt(tmp_path / "a.vrt", source)
    with pytest.raises(SceneError, match=r"VRT names what is no file on the disk.*set scenes\.trust \(--trust\)"):
        open_scene(path)
    outer = _vrt(tmp_path / "outer.vrt", "a.vrt", relative=True)
    with pytest.raises(SceneError, match="VRT names what is no file on the disk"):
        open_scene(outer)


def test_raw_pixels_lie_in_the_folder_of_their_vrt(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "a.raw").write_bytes(bytes(range(1, 25)))
    assert open_scene(_vrt(tmp_path / "in" / "own.vrt", "a.raw", raw=True, relative=True)).band_names
    other = _vrt(tmp_path / "in" / "other.vrt", str(tmp_path / "a.raw"), raw=True)
    with pytest.raises(SceneError, match="VRT reads raw pixels outside its folder"):
        open_scene(other)
    with open_scene(other, options=SceneOptions(trust=True)).open() as reader:
        assert reader.read(reader.grid.window).values[0, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_vrt_of_files_on_the_disk_is_read(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.full((1, 4, 6), 7, np.uint8))
    for path in (_vrt(tmp_path / "r.vrt", "a.tif", relative=True), _vrt(tmp_path / "w.vrt", str(tmp_path / "a.tif"))):
        with open_scene(path).open() as reader:
            assert set(reader.read(reader.grid.window).values.ravel().tolist()) == {7.0}


def test_services_circles_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "wms.xml").write_text("<GDAL_WMS><Service name='TMS'/></GDAL_WMS>")
    with pytest.raises(SceneError, match="description of a raster by a service; got GDAL_WMS"):
        open_raster(tmp_path / "wms.xml")
    with pytest.raises(SceneError, match="VRTs that name one another"):
        open_raster(_vrt(tmp_path / "circle.vrt", "circle.vrt", relative=True))
    os.mkfifo(tmp_path / "pipe.tif")
    for path in (tmp_path / "pipe.tif", "/dev/zero"):
        with pytest.raises(SceneError, match="not a regular file"):
            open_raster(path)


def test_bands_of_different_types_are_read_together(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.full((1, 4, 6), 7, np.uint8))
    write_raster(tmp_path / "b.tif", np.full((1, 4, 6), 0.5, np.float32))
    text = _vrt(tmp_path / "v.vrt", "a.tif", relative=True).read_text()
    band = text[text.index("<VRTRasterBand") : text.index("</VRTDataset")]
    second = band.replace("a.tif", "b.tif").replace("Byte", "Float32").replace('band="1"', 'band="2"')
    (tmp_path / "v.vrt").write_text(text.replace("</VRTDataset", f"{second}</VRTDataset"))
    with open_scene(tmp_path / "v.vrt").open() as reader:
        assert reader.read(reader.grid.window).values[:, 0, 0].tolist() == [7.0, 0.5]
