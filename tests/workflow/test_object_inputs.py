"""``landcover objects`` and ``assess OBJECTS`` on files that are not as they should be."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from pipeline.cli import main

if TYPE_CHECKING:
    from pathlib import Path

HOUSES = [shapely.box(500_000 + 50 * k, 5_199_000, 500_020 + 50 * k, 5_199_020) for k in range(3)]


def write_mask(path: Path, *, bands: int = 1, crs: str | None = "EPSG:32632", transform: Affine | None = None) -> Path:
    """A mask with one object."""
    mask = np.zeros((bands, 40, 40), dtype=np.uint8)
    mask[:, 5:15, 5:15] = 1
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=bands, height=40, width=40, crs=crs,
        transform=transform or Affine(1, 0, 500_000, 0, -1, 5_200_000),
    ) as target:  # fmt: skip
        target.write(mask)
    return path


def write_houses(path: Path, shapes: list[shapely.Polygon], crs: str) -> Path:
    """Polygons."""
    gpd.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path)
    return path


def refused(*arguments: object, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and a line that says it."""
    assert main([str(item) for item in arguments]) == 2
    assert said in capsys.readouterr().err


def test_masks_without_a_place_or_of_three_bands_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.gpkg"
    local = 'LOCAL_CS["plan",UNIT["metre",1]]'
    refused("objects", write_mask(tmp_path / "a.tif", crs=None), "-o", out, said="no CRS", capsys=capsys)
    refused("objects", write_mask(tmp_path / "b.tif", crs=local), "-o", out, said="none can", capsys=capsys)
    refused("objects", write_mask(tmp_path / "c.tif", bands=3), "-o", out, said="several bands", capsys=capsys)
    with warnings.catch_warnings(action="ignore"):
        bare = write_mask(tmp_path / "d.tif", transform=Affine.identity())
    refused("objects", bare, "-o", out, said="no geotransform", capsys=capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("shapes", "crs"),
    [
        (HOUSES, "EPSG:4326"),
        (HOUSES, 'LOCAL_CS["plan",UNIT["metre",1]]'),
        ([shapely.box(-180, -90, 180, 90)], "EPSG:4326"),
        ([shapely.box(1e9, 1e9, 1.1e9, 1.1e9)], "EPSG:3857"),
    ],
)
def test_polygons_that_lie_nowhere_are_refused(
    shapes: list[shapely.Polygon], crs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, good = write_houses(tmp_path / "p.gpkg", shapes, crs), write_houses(tmp_path / "g.gpkg", HOUSES, "EPSG:32632")
    refused("objects", path, "-o", tmp_path / "o.gpkg", said="polygons", capsys=capsys)
    refused("assess", path, "--reference", good, said="polygons", capsys=capsys)
    refused("assess", good, "--reference", path, said="polygons", capsys=capsys)


def test_what_is_read_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses = write_houses(tmp_path / "g.gpkg", HOUSES, "EPSG:32632")
    other = write_houses(tmp_path / "h.gpkg", HOUSES, "EPSG:32632")
    before = houses.read_bytes(), other.read_bytes()
    refused("objects", houses, "-o", houses, "--overwrite", said="made from", capsys=capsys)
    refused("assess", houses, "--reference", other, "-o", other, "--overwrite", said="made from", capsys=capsys)
    assert (houses.read_bytes(), other.read_bytes()) == before
    refused("objects", houses, "-o", tmp_path / "o.shp", said=".gpkg", capsys=capsys)


def test_options_that_would_not_count_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses, out = write_houses(tmp_path / "g.gpkg", HOUSES, "EPSG:32632"), tmp_path / "o.gpkg"
    mask = write_mask(tmp_path / "m.tif")
    refused("objects", houses, "--confidence", mask, "-o", out, said="confidence", capsys=capsys)
    refused("objects", houses, "--class", "a", "--class", "b", "-o", out, said="several classes", capsys=capsys)
    refused("assess", houses, "--reference", houses, "--field", "n", said="--field", capsys=capsys)


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
def test_pipes_are_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "p.tif")
    refused("objects", tmp_path / "p.tif", "-o", tmp_path / "o.gpkg", said="not a regular file", capsys=capsys)
