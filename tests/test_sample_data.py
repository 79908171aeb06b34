"""The sample data is what its generator makes, and a fair problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.features import rasterize

from pipeline.maps.legends import read_scheme
from pipeline.workflow.init import write_config
from tests.fakes.generator import SAMPLE_DATA as FOLDER
from tests.fakes.generator import load_generator

if TYPE_CHECKING:
    from types import ModuleType

IMAGES = ("aerial.tif", "sentinel2.tif", "landsat.tif", "reference.tif")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_generator()


@pytest.fixture(scope="module")
def small(generator: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small")
    generator.generate(out, 160, 7)
    return out


def _array(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1) if file.count == 1 else file.read()


@pytest.mark.parametrize("name", IMAGES)
def test_committed_arrays_have_the_generators_digest(generator: Any, name: str) -> None:
    written = json.loads((FOLDER / "checksums.json").read_text(encoding="utf-8"))
    assert generator.digest(_array(FOLDER / name)) == written[name]


def test_same_seed_makes_the_same_files_and_another_seed_others(generator: Any, small: Path, tmp_path: Path) -> None:
    again = generator.generate(tmp_path / "again", 160, 7)
    other = generator.generate(tmp_path / "other", 160, 8)
    assert again == json.loads((small / "checksums.json").read_text(encoding="utf-8"))
    assert all(again[name] != other[name] for name in IMAGES)
    first, second = gpd.read_file(small / "polygons.gpkg"), gpd.read_file(tmp_path / "again" / "polygons.gpkg")
    assert first.geometry.geom_equals(second.geometry).all()


def test_committed_vectors_are_what_the_generator_draws(generator: Any) -> None:
    truth = np.argsort(generator.codes_in_files(np.arange(9)))[_array(FOLDER / "reference.tif")]
    with rasterio.open(FOLDER / "sentinel2.tif") as file:
        seen, transform = file.read(1) > 0, file.transform
    drawn = generator.draw_polygons(np.where(seen, truth, 0).astype(np.uint8), generator.SEED, transform)
    committed = gpd.read_file(FOLDER / "polygons.gpkg")
    assert drawn["class"].tolist() == committed["class"].tolist()
    assert drawn.geometry.geom_equals_exact(committed.geometry, 1e-6).all()


def test_folder_stays_below_twelve_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 12_000_000


def test_scenes_carry_names_scaling_nodata_and_grids() -> None:
    with rasterio.open(FOLDER / "sentinel2.tif") as first, rasterio.open(FOLDER / "landsat.tif") as second:
        assert (first.count, second.count) == (10, 7)
        assert first.descriptions[0] == "blue"
        assert second.descriptions[0] == "coastal"
        assert set(first.scales) == {1e-4}
        assert set(first.offsets) == {-0.1}
        assert first.nodata == second.nodata == 0
        assert first.crs.to_epsg() == 32632
        assert second.crs.to_epsg() == 32633
        assert 0.002 < (first.read(1) == 0).mean() < 0.1


def test_polygons_are_sparse_of_every_class_and_nearly_right() -> None:
    polygons = gpd.read_file(FOLDER / "polygons.gpkg")
    legend = {item["name"]: item["code"] for item in json.loads((FOLDER / "legend.json").read_text(encoding="utf-8"))}
    with rasterio.open(FOLDER / "reference.tif") as file:
        truth, transform = file.read(1), file.transform
    shapes = [(shape, legend[name]) for shape, name in zip(polygons.geometry, polygons["class"], strict=True)]
    drawn = rasterize(shapes, out_shape=truth.shape, transform=transform)
    labelled = drawn > 0
    assert 180 <= len(polygons) <= 220
    assert set(polygons["class"]) == set(legend)
    assert labelled.mean() < 0.05
    assert 0.97 < (drawn == truth)[labelled].mean() < 1.0


def test_the_reference_has_codes_names_and_colours_of_the_demo(tmp_path: Path) -> None:
    config = tmp_path / "demo.yaml"
    write_config(
        [str(FOLDER / "sentinel2.tif")], labels=FOLDER / "polygons.gpkg", field="class", layer=None, output=config,
        overwrite=False,
    )  # fmt: skip
    classes = yaml.safe_load(config.read_text(encoding="utf-8"))["classes"]
    legend = {item.code: (item.name, item.color) for item in read_scheme(FOLDER / "reference.tif").classes}
    assert legend == {item["code"]: (item["name"], item["color"]) for item in classes}
    assert (
        json.loads((FOLDER / "legend.json").read_text(encoding="utf-8"))
        == read_scheme(FOLDER / "reference.tif").to_json()
    )


def test_small_variant_has_all_files(small: Path) -> None:
    others = {"polygons.gpkg", "legend.json", "checksums.json", "aerial.tif", "buildings.gpkg"}
    assert {file.name for file in small.iterdir()} == {*IMAGES} | others
