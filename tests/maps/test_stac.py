"""STAC items: valid against the published schemas without a network, relative, and complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
from affine import Affine
from pystac import STACObjectType
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.crs import CRS

from pipeline.errors import OutputError
from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import scene_files, write_class_map, write_percent
from pipeline.maps.legends import read_counts
from pipeline.maps.stac import MapItem, ModelItem, class_objects, footprint, map_item, model_item, write_collection
from pipeline.maps.style import CONFIDENCE, DISSIMILARITY, ENTROPY, MARGIN
from tests.fakes.pixels import ArrayPixels

GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 330000, 0, -10, 5822040), 40, 60)
MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAKEN = datetime(2025, 7, 4, 10, 20, tzinfo=UTC)


@pytest.fixture
def scheme():
    return scheme_for(["Wälder & Büsche", "water", "built-up / paved"])[0]


@pytest.fixture
def record(tmp_path, scheme):
    codes = np.tile(np.array([0, 1, 2, 3], np.uint8), (40, 15))
    percent = np.where(codes == 0, 255, 60).astype(np.uint8)
    counts = write_class_map(tmp_path / "a_lc.tif", ArrayPixels(codes), grid=GRID, scheme=scheme)
    write_percent(tmp_path / "a_conf.tif", ArrayPixels(percent), grid=GRID, layer=CONFIDENCE)
    write_percent(tmp_path / "a_probabilities.tif", ArrayPixels(np.stack([percent] * 3)), grid=GRID, layer=scheme)
    return MapItem(
        "a",
        GRID,
        scheme,
        scene_files(tmp_path / "a_lc.tif"),
        MADE,
        acquired=TAKEN,
        counts=counts,
        sources=(str(tmp_path / "scene.tif"),),
        software={"torch": "2.4"},
    )


@pytest.fixture
def model(tmp_path, scheme):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"weights")
    return ModelItem(
        "2026 model",
        path,
        "U-Net, ResNet-18 encoder",
        scheme,
        ("red", "nir", "ndvi"),
        (0.1, 0.2, 0.3),
        (0.05, 0.06, 0.1),
        ("reflectance", "reflectance", "1"),
        MADE,
        framework_version="2.4.0+cpu",
        parameters=11_000_000,
        pretrained_source="SSL4EO-S12",
        hyperparameters={"epochs": 30},
    )


@pytest.fixture
def validator(shared_data):
    """Validates an item against the core and every extension whose schema is at hand; returns those it used."""
    checker = JsonSchemaSTACValidator()
    for path in sorted((shared_data / "stac_schemas").glob("*/*/schema.json")):
        schema = json.loads(path.read_text())
        checker.schema_cache[schema["$id"].rstrip("#")] = schema

    def validate(content):
        checker.validate_core(content, STACObjectType.ITEM, "1.1.0")
        used = [uri for uri in content["stac_extensions"] if uri in checker.schema_cache]
        for uri in used:
            checker.validate_extension(content, STACObjectType.ITEM, "1.1.0", uri)
        return {uri.split("/")[3] for uri in used}

    return validate


def test_map_item_is_valid(record, tmp_path, validator):
    used = validator(map_item(record, folder=tmp_path).to_dict())
    assert used >= {"projection", "raster", "classification", "file", "render"}


@pytest.mark.parametrize("acquired", [None, (TAKEN, MADE)])
def test_map_item_without_a_single_time_is_valid(record, tmp_path, validator, acquired):
    other = MapItem(**{**record.__dict__, "acquired": acquired})
    item = map_item(other, folder=tmp_path).to_dict()
    validator(item)
    assert item["properties"]["datetime"] is None


def test_every_layer_is_an_asset_with_a_render(record, tmp_path, scheme, validator):
    percent = np.full(GRID.shape, 60, np.uint8)
    paths = {"applicability", "entropy", "margin"}
    for layer in (DISSIMILARITY, ENTROPY, MARGIN):
        write_percent(tmp_path / f"a_{layer.suffix}.tif", ArrayPixels(percent), grid=GRID, layer=layer)
    others = {"polygons", "polygons_parquet", "polygons_fgb"}
    for end in ("gpkg", "parquet", "fgb"):
        (tmp_path / f"a_lc.{end}").write_bytes(b"x")
    files = scene_files(record.files.class_map)
    item = map_item(replace(record, files=files, model="m"), folder=tmp_path).to_dict()
    validator(item)
    assert paths | set(others) | {"classes", "confidence", "probabilities"} == set(item["assets"])
    renders = item["properties"]["renders"]
    assert paths | {"classes", "confidence"} < set(renders)
    assert all(set(render["assets"]) <= set(item["assets"]) for render in renders.values())
    assert [render["bidx"] for key, render in renders.items() if key.startswith("p_")] == [[1], [2], [3]]
    assert {"rel": "derived_from", "href": "./m.json", "type": "application/geo+json"} in item["links"]


def test_processing_fields_have_the_types_of_the_extension(record, tmp_path):
    # Source: processing extension 1.2.0, README: level and lineage are text, software maps names to versions.
    properties = map_item(record, folder=tmp_path).to_dict()["properties"]
    found = {key: value for key, value in properties.items() if key.startswith("processing:")}
    assert set(found) == {"processing:level", "processing:lineage", "processing:software"}
    assert found["processing:level"] == "L4"
    assert all(isinstance(v, str) for v in (found["processing:lineage"], *found["processing:software"].values()))


def test_counts_are_read_back_from_beside_the_map(record):
    assert read_counts(record.files.class_map) == replace(
        record.counts, area_ha=tuple(round(value, 4) for value in record.counts.area_ha)
    )
    sidecar = record.files.class_map.with_name(record.files.class_map.name + ".aux.xml")
    sidecar.unlink()
    assert read_counts(record.files.class_map) is None


def test_model_item_is_valid(model, tmp_path, validator):
    assert validator(model_item(model, folder=tmp_path).to_dict()) >= {"mlm", "classification", "file"}


def test_model_output_classes_follow_the_channels(model, tmp_path):
    item = model_item(model, folder=tmp_path).to_dict()
    (output,) = item["properties"]["mlm:output"]
    assert output["result"]["shape"][1] == len(output["classification:classes"]) == 3
    assert item["properties"]["mlm:framework_version"] == "2.4.0"


def test_collection_opens_with_pystac_and_finds_every_file(record, model, tmp_path):
    items = [map_item(record, folder=tmp_path), model_item(model, folder=tmp_path)]
    path = write_collection(tmp_path, items, identity="run", description="a run")
    collection = pystac.Collection.from_file(str(path))
    found = list(collection.get_items())
    assert [item.id for item in found] == ["a", "2026 model"]
    hrefs = [asset.href for item in found for asset in item.assets.values()]
    assert all(href.startswith("./") for href in hrefs)
    assert all((tmp_path / href).exists() for href in hrefs)
    JsonSchemaSTACValidator().validate_core(json.loads(path.read_text()), STACObjectType.COLLECTION, "1.1.0")


def test_items_of_one_name_are_refused(record, tmp_path):
    item = map_item(record, folder=tmp_path)
    with pytest.raises(OutputError, match="different names"):
        write_collection(tmp_path, [item, item], identity="run", description="a run")


def test_checksum_is_the_files_sha256(record, tmp_path):
    asset = map_item(record, folder=tmp_path).to_dict()["assets"]["classes"]
    digest = hashlib.sha256(record.files.class_map.read_bytes()).hexdigest()
    assert asset["file:checksum"] == f"1220{digest}"
    assert asset["file:size"] == record.files.class_map.stat().st_size


def test_render_colours_are_those_of_the_legend(record, tmp_path):
    render = map_item(record, folder=tmp_path).to_dict()["properties"]["renders"]["classes"]
    assert {int(k): tuple(v[:3]) for k, v in render["colormap"].items()} == {
        c.code: c.rgb for c in record.scheme.classes
    }
    assert render["resampling"] == "nearest"


def test_machine_names_are_unique_and_ascii():
    scheme, _ = scheme_for(["wald ä", "wald a", "水"])
    names = [entry["name"] for entry in class_objects(scheme)]
    assert len(set(names)) == 3
    assert all(name.isascii() and name for name in names)


def test_footprint_across_the_antimeridian_has_two_parts():
    grid = Grid(CRS.from_epsg(32601), Affine(1000, 0, 200000, 0, -1000, 7_000_000), 100, 400)
    geometry, bbox = footprint(grid)
    assert geometry["type"] == "MultiPolygon"
    assert bbox[0] > 170
    assert bbox[2] < -170


def test_grid_without_epsg_code_carries_its_wkt(record, tmp_path, validator):
    laea = CRS.from_proj4("+proj=laea +lat_0=51 +lon_0=9 +ellps=GRS80 +units=m")
    grid = Grid(laea, Affine(10, 0, 0, 0, -10, 0), 40, 60)
    item = map_item(MapItem(**{**record.__dict__, "grid": grid}), folder=tmp_path).to_dict()
    validator(item)
    assert item["properties"]["proj:code"] is None
    assert "Lambert" in item["properties"]["proj:wkt2"]
