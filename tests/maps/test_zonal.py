"""Zonal statistics of maps and polygons that are not as they should be."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine

from pipeline.cli import main
from pipeline.errors import ConfigError, InputError, OutputError, PipelineError
from pipeline.maps.style import CONFIDENCE
from pipeline.maps.zonal import zonal_statistics
from pipeline.workflow.accuracy import zonal_of

pytest.importorskip("exactextract")
UTM, NORTH_UP = "EPSG:32632", Affine(10, 0, 500_000, 0, -10, 5_200_000)
SQUARE = shapely.box(500_000, 5_199_900, 500_100, 5_200_000)


def write_map(path: Path, values: np.ndarray, *, crs: str | None = UTM, transform: Affine = NORTH_UP) -> Path:
    """A raster of [band, row, col]."""
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, count=count, height=height, width=width, crs=crs,
        transform=transform,
    ) as target:  # fmt: skip
        target.write(values)
    return path


@pytest.fixture
def polygons(tmp_path: Path) -> Path:
    path = tmp_path / "zones.gpkg"
    gpd.GeoDataFrame({"value_note": ["text"]}, geometry=[SQUARE], crs=UTM).to_file(path)
    return path


@pytest.mark.parametrize(
    ("values", "crs", "transform", "said"),
    [
        (np.zeros((1, 20, 20), np.float32), None, NORTH_UP, "no CRS"),
        (np.zeros((1, 20, 20), np.float32), UTM, NORTH_UP @ Affine.rotation(30), "north up"),
        (np.zeros((1, 20, 20), np.float32), UTM, Affine(10, 0, 500_000, 0, 10, 5_199_800), "north up"),
        (np.zeros((1, 20, 20), np.complex64), UTM, NORTH_UP, "complex"),
    ],
)
def test_a_map_that_would_be_read_wrong_is_refused(
    values: np.ndarray, crs: str | None, transform: Affine, said: str, tmp_path: Path, polygons: Path
) -> None:
    path = write_map(tmp_path / "map.tif", values, crs=crs, transform=transform)
    with pytest.raises(InputError, match=said):
        zonal_statistics(path, polygons)


def test_bytes_in_several_bands_are_no_classes(tmp_path: Path, polygons: Path) -> None:
    path = write_map(tmp_path / "rgb.tif", np.full((3, 20, 20), 7, np.uint8))
    frame, names = zonal_statistics(path, polygons)
    assert "value_note" not in names
    assert frame["band_3_mean"].tolist() == [7.0]


def test_integers_with_names_or_a_palette_are_classes(tmp_path: Path, polygons: Path) -> None:
    codes = np.full((1, 20, 20), 311, np.int16)
    codes[0, :5] = 112
    heights = write_map(tmp_path / "dem.tif", codes)
    assert zonal_statistics(heights, polygons)[0]["band_1_max"].tolist() == [311.0]
    assert zonal_statistics(heights, polygons, classes=True)[0]["share class 112"].tolist() == [0.5]
    named = write_map(tmp_path / "clc.tif", codes)
    rows = "".join(f"<Row><F>{code}</F><F>x{code}</F></Row>" for code in (112, 311))
    fields = "".join(
        f"<FieldDefn><Name>{name}</Name><Usage>{use}</Usage></FieldDefn>" for name, use in (("v", 5), ("n", 2))
    )
    table = f"<GDALRasterAttributeTable>{fields}{rows}</GDALRasterAttributeTable>"
    named.with_name("clc.tif.aux.xml").write_text(f"<PAMDataset><PAMRasterBand>{table}</PAMRasterBand></PAMDataset>")
    assert zonal_statistics(named, polygons)[0]["share class 311"].tolist() == [0.5]
    painted = write_map(tmp_path / "paint.tif", codes.astype(np.uint16))
    with rasterio.open(painted, "r+") as target:
        target.write_colormap(1, {112: (255, 0, 0, 255)})
    assert zonal_statistics(painted, polygons)[0]["share class 112"].tolist() == [0.5]


def test_a_polygon_off_the_map_has_no_shares(tmp_path: Path, polygons: Path) -> None:
    frame = gpd.read_file(polygons)
    away = frame.set_geometry(frame.translate(1e5, 0))
    both = tmp_path / "both.gpkg"
    pd.concat([frame, away]).to_file(both)
    codes = np.full((1, 20, 20), 3, np.uint8)
    found, names = zonal_statistics(write_map(tmp_path / "map.tif", codes), both)
    assert found[names[0]].isna().tolist() == [False] * len(frame) + [True] * len(away)
    assert found[names[0]].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("bands", [1, 3])
def test_pixels_of_degrees_weigh_with_their_area(bands: int, tmp_path: Path) -> None:
    rows = np.broadcast_to(np.arange(200.0)[:, None], (bands, 200, 5))
    degrees = Affine(0.1, 0, 10, 0, -0.1, 60)
    path = write_map(tmp_path / "map.tif", rows.astype(np.float32), crs="EPSG:4326", transform=degrees)
    codes = write_map(tmp_path / "c.tif", (rows[:1] >= 100).astype(np.uint8), crs="EPSG:4326", transform=degrees)
    zone = shapely.box(10, 40, 10.5, 60)
    gpd.GeoDataFrame({"n": [1]}, geometry=[zone], crs="EPSG:4326").to_file(tmp_path / "z.gpkg")
    geod = pyproj.Geod(ellps="WGS84")
    edges = 60 - 0.1 * np.arange(201)
    areas = np.array([
        abs(geod.polygon_area_perimeter([10, 10.5, 10.5, 10], [top, top, low, low])[0])
        for top, low in itertools.pairwise(edges)
    ])  # fmt: skip
    found = zonal_statistics(path, tmp_path / "z.gpkg")[0]
    name = "value" if bands == 3 else "band_1"
    assert found[f"{name}_mean"].iloc[0] == pytest.approx((areas * np.arange(200)).sum() / areas.sum(), rel=1e-4)
    share = zonal_statistics(codes, tmp_path / "z.gpkg")[0]["share class 1"].iloc[0]
    assert share == pytest.approx(areas[100:].sum() / areas.sum(), rel=1e-4)


def test_a_damaged_map_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_map(tmp_path / "map.tif", np.random.default_rng(0).normal(size=(1, 400, 400)))
    path.write_bytes(path.read_bytes()[:-1_200_000])
    wide = gpd.GeoDataFrame({"n": [1]}, geometry=[SQUARE.buffer(4000)], crs=UTM)
    wide.to_file(tmp_path / "wide.gpkg")
    assert main(["zonal", str(path), str(tmp_path / "wide.gpkg"), "-o", str(tmp_path / "o.gpkg")]) == 2
    said = capsys.readouterr().err
    assert "raster cannot be read; got map.tif, band 1" in said
    assert len(said.splitlines()) == 1


def test_per_cent_are_values(tmp_path: Path, polygons: Path) -> None:
    path = write_map(tmp_path / "s_conf.tif", np.full((1, 20, 20), 80, np.uint8))
    with rasterio.open(path, "r+") as target:
        target.set_band_description(1, CONFIDENCE.band)
    assert zonal_statistics(path, polygons)[0]["band_1_mean"].tolist() == [80.0]


def test_values_are_not_taken_for_classes(tmp_path: Path, polygons: Path) -> None:
    path = write_map(tmp_path / "map.tif", np.ones((1, 20, 20), np.float32))
    with pytest.raises(InputError, match="no map of classes"):
        zonal_statistics(path, polygons, classes=True)
    with pytest.raises(ConfigError, match="expected classes or values"):
        zonal_of(path, polygons, layer=None, output=tmp_path / "o.gpkg", overwrite=False, kind="codes")


@pytest.mark.parametrize(
    ("column", "shape", "crs"),
    [
        ("Covered", SQUARE, UTM),
        ("name", shapely.box(-180, -90, 180, 90), "EPSG:4326"),
        ("name", shapely.box(0, 0, 10, 10), UTM),
    ],
)
def test_polygons_that_give_no_right_row_are_refused(
    column: str, shape: shapely.Polygon, crs: str, tmp_path: Path
) -> None:
    path = write_map(tmp_path / "map.tif", np.ones((1, 20, 20), np.float32))
    gpd.GeoDataFrame({column: [1]}, geometry=[shape], crs=crs).to_file(tmp_path / "p.gpkg")
    with pytest.raises(InputError):
        zonal_statistics(path, tmp_path / "p.gpkg")


@pytest.mark.parametrize("name", ["zones.gpkg", "map.tif", "out.shp", "out"])
def test_inputs_and_other_formats_are_not_written(name: str, tmp_path: Path, polygons: Path) -> None:
    path = write_map(tmp_path / "map.tif", np.ones((1, 20, 20), np.float32))
    before = {file: file.read_bytes() for file in (path, polygons)}
    with pytest.raises(OutputError):
        zonal_of(path, polygons, layer=None, output=tmp_path / name, overwrite=True)
    assert all(file.read_bytes() == data for file, data in before.items())
    assert not (tmp_path / "out.shp").exists()


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
def test_a_pipe_of_polygons_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gpkg")
    path = write_map(tmp_path / "map.tif", np.ones((1, 20, 20), np.float32))
    with pytest.raises(PipelineError, match="not a regular file"):
        zonal_statistics(path, tmp_path / "pipe.gpkg")
