"""Assessments of a map of a real scene against real polygons, which are not a probability sample and are called so."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pytest
import rasterio
from sklearn.neighbors import NearestCentroid

from pipeline.cli import main
from pipeline.labels.rasterise import burn
from pipeline.labels.source import read_labels
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.reader import open_reader
from tests.accuracy.maps import write_map


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """A map of a real Landsat scene by nearest class means of every second polygon, and the other polygons."""
    folder = tmp_path_factory.mktemp("real")
    scene = open_geotiff(shared_data / "holden_le7" / "scene.tif")
    labels = read_labels(shared_data / "holden_le7" / "labels.gpkg", field="class")
    with open_reader(scene) as reader:
        raster = reader.read(scene.grid.window)
    pixels = burn(labels, scene.grid)
    learn = pixels.select(pixels.polygon % 2 == 0)
    means = NearestCentroid().fit(raster.values[:, learn.row, learn.col].T, learn.code)
    codes = means.predict(raster.values.reshape(len(raster.values), -1).T).reshape(scene.grid.shape)
    codes = np.where(raster.valid, codes, 0).astype(np.uint8)
    transform = scene.grid.transform
    write_map(
        folder / "map.tif", codes, crs=scene.grid.crs, origin=(transform.c, transform.f), pixel=transform.a,
        scheme=labels.scheme,
    )  # fmt: skip
    held = labels.frame[labels.frame["poly_id"] % 2 == 1]
    held[["poly_id", "name", "geometry"]].to_file(folder / "held.gpkg")
    return folder, codes, labels


def said(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_held_out_polygons_give_figures_without_intervals(real, capsys):
    folder, _, labels = real
    found = said(capsys, "assess", folder / "map.tif", "--reference", folder / "held.gpkg", "--field", "name")
    assert found["overall_accuracy"]["estimate"] > 0.7
    figures = [found["overall_accuracy"]]
    for item in found["per_class"].values():
        figures += [item[key] for key in ("users_accuracy", "producers_accuracy", "f1", "area_ha")]
    assert all("not a probability sample" in figure["note"] for figure in figures)
    assert all(figure["se"] is None and figure["ci95"] is None for figure in figures)
    assert set(found["per_class"]) == set(labels.scheme.names)
    assert found["sampling"]["probability_sample"] is False


def test_polygons_answer_for_few_points_of_a_sample(real, capsys):
    folder, codes, _ = real
    drawn = said(capsys, "design", folder / "map.tif", "--size", 200, "-o", folder / "sample.gpkg")
    strata = drawn["designs"][0]["strata"]
    assert sum(item["units"] for item in strata) == (codes > 0).sum()
    sample = geopandas.read_file(folder / "sample.gpkg", layer="sample")
    held = geopandas.read_file(folder / "held.gpkg").to_crs(sample.crs)
    inside = geopandas.sjoin(sample, held, how="left").drop_duplicates("id").sort_values("id")
    sample["reference"] = inside["name"].to_numpy()
    sample.to_file(folder / "filled.gpkg", layer="sample")
    known = int(sample["reference"].notna().sum())
    assert known < 100
    found = said(
        capsys, "assess", folder / "map.tif", "--reference", folder / "filled.gpkg", "--field", "reference"
    )["sampling"]  # fmt: skip
    assert found["excluded"]["by_reason"] == {"not interpreted": 200 - known}
    assert "not a probability sample" in found["words"]


def test_two_dates_of_one_place_give_a_from_to_map(real, shared_data, capsys):
    """The later map here is the earlier moved by a pixel: all change is error, and counted it looks like much."""
    folder, codes, labels = real
    with rasterio.open(folder / "map.tif") as source:
        transform, crs = source.transform, source.crs
    write_map(
        folder / "later.tif", np.roll(codes, 1, axis=1), crs=crs, origin=(transform.c, transform.f), pixel=transform.a,
        scheme=labels.scheme,
    )  # fmt: skip
    found = said(capsys, "change", folder / "map.tif", folder / "later.tif", "-o", folder / "change.tif")
    moved = sum(item["pixels"] for item in found["transitions"] if item["from"] != item["to"])
    assert moved == (np.roll(codes, 1, axis=1) != codes)[(codes > 0) & (np.roll(codes, 1, axis=1) > 0)].sum()
    assert "sample of change strata" in found["note"]
