"""What the page is told is what the files say."""

from __future__ import annotations

import geopandas as gpd
import morecantile
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Geod, Transformer

from pipeline.errors import InputError
from pipeline.grid import Grid
from pipeline.maps.objects import write_objects
from pipeline.scenes.opening import open_scene
from pipeline.scenes.stack import stack_scenes
from pipeline.view.answers import BYTES, PNG, Answers, measure_ground, open_viewed
from pipeline.view.tiles import CASING, tile_grid
from tests.fakes.rasters import write_raster
from tests.fakes.viewed_maps import LIBRARY_NOTES, METRES, SCHEME, write_world

pytestmark = LIBRARY_NOTES


def lonlat(grid, row, col):
    return Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(*grid.xy(row, col))


@pytest.mark.parametrize(("row", "col"), [(100, 33), (25, 200), (179, 239), (0, 239)])
def test_a_point_has_the_values_of_its_pixel(world, answers, row, col):
    found = answers.point(0, *lonlat(world.grid, row, col))
    assert (found["row"], found["col"]) == (row, col)
    with rasterio.open(world.class_map) as dataset:
        (code,) = next(dataset.sample([world.grid.xy(row, col)]))
    assert found["class"]["code"] == code
    values = {item["id"]: item["value"] for item in found["values"]}
    assert values["conf"] == world.confidence[row, col]
    chances = [values[f"probability-{code}"] for code in SCHEME.codes]
    assert chances == world.probabilities[:, row, col].tolist()
    bands = found["scene"]["bands"]
    assert [band["value"] for band in bands] == pytest.approx(world.reflectance[:, row, col].tolist(), abs=1e-6)
    assert {band["unit"] for band in bands} == {"reflectance"}
    assert [band["um"] for band in bands] == sorted(band["um"] for band in bands)


def test_nodata_is_no_value(world, answers):
    found = answers.point(0, *lonlat(world.grid, 3, 3))
    assert found["inside"]
    assert found["class"] is None
    assert {item["value"] for item in found["values"]} == {None}
    assert found["scene"]["valid"] is False
    assert found["scene"]["bands"] == []


def test_outside_is_said(answers):
    found = answers.point(0, 100.0, 50.0)
    assert found["inside"] is False
    assert found["values"] == []
    assert answers.point(1, 0.0, 0.0) is None


def test_what_there_is(world, answers):
    (item,) = answers.describe()["maps"]
    assert item["size"] == list(world.grid.shape)
    assert [layer["id"] for layer in item["layers"]] == ["lc", "conf", *(f"probability-{c}" for c in SCHEME.codes)]
    west, south, east, north = item["bounds"]
    lon, lat = lonlat(world.grid, 90, 120)
    assert west < lon < east
    assert south < lat < north
    area = world.grid.pixel_areas_ha()[:, 0]
    for entry in item["classes"]:
        expected = ((world.codes == entry["code"]).sum(axis=1) * area).sum()
        assert entry["area_ha"] == pytest.approx(expected, rel=1e-3)


def test_only_layers_that_exist_have_tiles(answers):
    tile = tile_grid(12, 0, 0)
    assert answers.tile(0, "lc", tile)[0] == BYTES
    assert answers.tile(0, "false", tile)[0] == PNG
    for number, layer in ((0, "entropy"), (0, "../lc"), (1, "lc"), (-1, "lc"), (-1, "true")):
        assert answers.tile(number, layer, tile) is None


def test_lengths_and_areas_are_geodesic():
    degree = measure_ground([(0.0, 0.0), (1.0, 0.0)], closed=False)
    assert degree["length_m"] == pytest.approx(111_319.4908, abs=1e-3)  # a degree of WGS 84's equator
    corners = [(10.0, 50.0), (10.02, 50.0), (10.02, 50.01), (10.0, 50.01)]
    lons, lats = zip(*corners, strict=True)
    area, perimeter = Geod(ellps="WGS84").polygon_area_perimeter(lons, lats)
    for ring in (corners, corners[::-1]):
        found = measure_ground(ring, closed=True)
        assert found["area_ha"] == pytest.approx(abs(area) / 1e4)
        assert found["length_m"] == pytest.approx(perimeter)


def test_a_map_across_the_date_line_has_one_frame(tmp_path):
    crs = rasterio.crs.CRS.from_epsg(32660)
    grid = Grid(crs, rasterio.Affine(1000.0, 0.0, 700_000.0, 0.0, -1000.0, 1_000_000.0), 180, 240)
    own = write_world(tmp_path, "fiji", grid=grid)
    west, _, east, _ = Answers([open_viewed(own.class_map, name="a")], title="").describe()["maps"][0]["bounds"]
    assert west < 180 < east < west + 5


def test_layers_of_another_grid_are_not_shown(tmp_path):
    own = write_world(tmp_path, "a")
    other = Grid(METRES.crs, METRES.transform @ rasterio.Affine.translation(1, 0), *METRES.shape)
    write_world(tmp_path, "b", grid=other)
    (tmp_path / "maps" / "b_conf.tif").rename(tmp_path / "maps" / "a_conf.tif")
    assert "conf" not in [layer.id for layer in open_viewed(own.class_map, name="a").layers]


def test_areas_are_those_of_the_attribute_table_or_none(tmp_path):
    own = write_world(tmp_path, "a")
    assert set(dict(open_viewed(own.class_map, name="a").area_ha)) == set(SCHEME.codes)
    own.class_map.with_name("a_lc.tif.aux.xml").write_text("<PAMDataset/>", encoding="utf-8")
    assert dict(open_viewed(own.class_map, name="a").area_ha) == {}
    own.class_map.with_name("a_lc.tif.aux.xml").write_text("<PAM", encoding="utf-8")
    assert dict(open_viewed(own.class_map, name="a").area_ha) == {}


def test_files_that_are_no_maps_are_refused(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", np.ones((2, 4, 4), np.uint16))
    with pytest.raises(InputError, match="not a class map"):
        open_viewed(scene, name="a")
    with pytest.raises(InputError, match="cannot open"):
        open_viewed(tmp_path / "none.tif", name="a")


def test_a_file_that_is_cut_off_is_named(tmp_path):
    own = write_world(tmp_path, "a")
    opened = open_viewed(own.class_map, name="a")
    own.class_map.write_bytes(own.class_map.read_bytes()[:8])
    with pytest.raises(InputError, match=r"a_lc\.tif: cannot read the map"):
        Answers([opened], title="").point(0, *lonlat(own.grid, 100, 100))


def test_units_of_a_stack_are_those_of_its_dates(tmp_path):
    from dataclasses import replace
    from datetime import UTC, datetime

    scene = open_scene(write_world(tmp_path, "a").scene)
    dates = [replace(scene, acquired_utc=datetime(2020, month, 1, tzinfo=UTC)) for month in (5, 7)]
    assert set(stack_scenes(dates).units) == {"reflectance"}


def test_objects_are_outlines_in_tiles_and_named_at_a_place(tmp_path):
    world = write_world(tmp_path, "here")
    left, top = world.grid.xy(60, 60)
    house = shapely.box(left - 205, top - 105, left + 205, top + 105)
    row = {"id": [7], "class": ["wood <b>"], "code": [2], "area_m2": [86100.0], "confidence": [71.5], "vertices": [4]}
    frame = gpd.GeoDataFrame(row, geometry=[house], crs=world.grid.crs.to_string())
    write_objects(tmp_path / "maps" / "here_objects.gpkg", frame, scheme=SCHEME)
    viewed = open_viewed(world.class_map, name="here")
    assert viewed.layers[-1].label == "Objects"
    answers = Answers([viewed], title="")
    inside, outside = (answers.point(0, *lonlat(world.grid, row, 60))["object"] for row in (60, 90))
    assert inside == {"id": 7, "class": "wood <b>", "area_m2": 86100.0, "confidence": 71.5}
    assert outside is None
    lon, lat = lonlat(world.grid, 60, 60)
    found = morecantile.tms.get("WebMercatorQuad").tile(lon, lat, 15)
    tile = tile_grid(15, found.x, found.y)
    drawn = np.frombuffer(answers.tile(0, "objects", tile)[1], np.uint8).reshape(256, 256)
    answers.close()
    assert set(np.unique(drawn)) == {0, 2, CASING}
    mercator = Transformer.from_crs(world.grid.crs, "EPSG:3857", always_xy=True).transform
    there = shapely.transform(house, lambda xy: np.column_stack(mercator(*xy.T)))
    edge = shapely.buffer(shapely.boundary(there), tile.pixel_size[0])
    assert (rasterio.features.rasterize([edge], (256, 256), transform=tile.transform)[drawn == 2] == 1).all()
