"""Polygons of a map: a coverage without gaps, right areas and means, units respected, style inside."""

from __future__ import annotations

import sqlite3

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy import ndimage

from pipeline.errors import ConfigError, OutputError
from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps import vectorise
from pipeline.maps.patches import patches
from pipeline.maps.vectorise import PolygonRules, minimum_pixels, sieve_codes
from pipeline.maps.vectors import LAYER, write_polygons
from tests.fakes.pixels import ArrayPixels

from .conftest import GEOGRAPHIC, PROJECTED
from .qgis import what_qgis_shows


def polygons_of(folder, codes, scheme, grid=PROJECTED, **more):
    count = write_polygons(folder / "a_lc.gpkg", ArrayPixels(codes), grid=grid, scheme=scheme, **more)
    frame = pyogrio.read_dataframe(folder / "a_lc.gpkg", layer=LAYER)
    assert len(frame) == count
    return frame


@pytest.mark.parametrize("smoothing", [0, 1, 2, 4])
def test_neighbours_share_every_edge(tmp_path, codes, scheme, smoothing):
    frame = polygons_of(tmp_path, codes, scheme, rules=PolygonRules(smoothing=smoothing))
    assert frame.is_valid.all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    union = shapely.union_all(frame.geometry.to_numpy())
    assert union.area == pytest.approx(frame.area.sum(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)), st.integers(0, 4)
)
def test_any_map_becomes_a_valid_coverage(codes, smoothing):
    nodes = vectorise.find_nodes(codes)
    batches = list(vectorise._batches(codes, nodes))
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), *codes.shape)
    done = [vectorise._finish(batch, grid=grid, nodes=nodes, sums=None, smoothing=smoothing) for batch in batches]
    geometry = np.concatenate([part.geometry for part in done]) if done else np.empty(0, object)
    assert shapely.is_valid(geometry).all()
    assert shapely.coverage_is_valid(geometry)
    patches = sum(ndimage.label(codes == code)[1] for code in (1, 2, 3))
    assert len(geometry) == patches
    if smoothing == 0:
        assert shapely.area(geometry).sum() == (codes > 0).sum() * 100


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(3, 14), st.integers(1, 12)), elements=st.integers(0, 2)), st.integers(0, 3)
)
def test_large_patches_end_along_shared_lines(codes, smoothing):
    nodes = vectorise.find_nodes(codes)
    outlines = list(patches(codes, band_rows=3, max_corners=6, on_cut=nodes.add))
    if not outlines:
        return
    batch = vectorise._outlines(
        [ring for rings, _ in outlines for ring in rings],
        [len(rings) for rings, _ in outlines],
        [code for _, code in outlines],
    )
    grid = Grid(CRS.from_epsg(32633), Affine(1, 0, 500_000, 0, 1, 0), *codes.shape)
    done = vectorise._finish(batch, grid=grid, nodes=nodes, sums=None, smoothing=smoothing)
    assert shapely.is_valid(done.geometry).all()
    assert shapely.coverage_is_valid(done.geometry)
    shapes = zip(done.geometry, done.code.tolist(), strict=True)
    assert np.array_equal(rasterize(shapes, out_shape=grid.shape, transform=grid.transform, dtype="uint8"), codes)
    assert shapely.union_all(done.geometry).area == pytest.approx(done.area_ha.sum() * 1e4, rel=1e-9)


def test_unsmoothed_polygons_burn_back_to_the_map(tmp_path, codes, scheme, grid):
    frame = polygons_of(tmp_path, codes, scheme, grid)
    pairs = zip(frame.geometry, frame["code"], strict=True)
    assert np.array_equal(rasterize(pairs, out_shape=grid.shape, transform=grid.transform, dtype="uint8"), codes)
    assert set(zip(frame["class"], frame["code"], strict=True)) == set(zip(scheme.names, scheme.codes, strict=True))


def test_smoothing_moves_no_pixel_centre_to_another_class(tmp_path, codes, scheme):
    frame = polygons_of(tmp_path, codes, scheme, rules=PolygonRules(smoothing=3))
    pairs = zip(frame.geometry, frame["code"], strict=True)
    back = rasterize(pairs, out_shape=PROJECTED.shape, transform=PROJECTED.transform, dtype="uint8")
    assert np.array_equal(back, codes)


def test_areas_are_planar_or_geodesic(tmp_path, codes, scheme, grid):
    frame = polygons_of(tmp_path, codes, scheme, grid, rules=PolygonRules(smoothing=2))
    if grid.crs.is_geographic:
        geod = Geod(ellps="WGS84")
        expected = [abs(geod.geometry_area_perimeter(shape)[0]) / 1e4 for shape in frame.geometry]
    else:
        expected = frame.area / 1e4
    assert frame["area_ha"].to_numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-4)


def test_areas_of_classes_equal_the_counted_pixels(tmp_path, codes, scheme):
    frame = polygons_of(tmp_path, codes, scheme, GEOGRAPHIC)
    rows = GEOGRAPHIC.pixel_areas_ha()[:, 0]
    for code, area in frame.groupby("code")["area_ha"].sum().items():
        assert area == pytest.approx((codes == code).sum(axis=1) @ rows, rel=1e-4)


@pytest.mark.parametrize("batch", [1000, 500_000])
def test_mean_confidence_is_that_of_the_pixels(tmp_path, codes, percent, scheme, monkeypatch, batch):
    monkeypatch.setattr(vectorise, "_BATCH_CORNERS", batch)
    frame = polygons_of(tmp_path, codes, scheme, confidence=ArrayPixels(percent), rules=PolygonRules(smoothing=2))
    inside = frame.geometry.representative_point()
    rows, cols = zip(*(PROJECTED.rowcol(p.x, p.y) for p in inside), strict=True)
    labels = np.zeros(codes.shape, int)
    for code in scheme.codes:
        part, _ = ndimage.label(codes == code)
        labels[part > 0] = part[part > 0] + labels.max()
    ids = labels[list(rows), list(cols)]
    expected = ndimage.mean(percent, labels, ids)
    assert frame["confidence"].to_numpy() == pytest.approx(expected, abs=0.051)


def test_no_patch_is_below_the_unit_unless_alone_in_nodata(tmp_path, scheme):
    codes = np.random.default_rng(5).integers(1, 5, (80, 80)).astype(np.uint8)
    codes[40:50] = 0
    codes[45, 20] = 2
    grid = Grid(PROJECTED.crs, PROJECTED.transform, 80, 80)
    frame = polygons_of(tmp_path, codes, scheme, grid, rules=PolygonRules(mmu_ha=0.2))
    small = frame[frame["area_ha"] < 0.2]
    assert len(small) == 1
    assert small["area_ha"].item() == pytest.approx(0.01)
    assert frame["area_ha"].sum() == pytest.approx((codes > 0).sum() * 0.01)


def test_a_class_keeps_its_own_unit(scheme):
    codes = np.ones((20, 20), np.uint8)
    codes[3, 3:5] = 2
    codes[10, 3:5] = 3
    grid = Grid(PROJECTED.crs, PROJECTED.transform, 20, 20)
    units = minimum_pixels(grid, scheme, mmu_ha=0.05, class_mmu_ha={scheme.names[1]: 0.01})
    assert units == {1: 5, 2: 1, 3: 5, 4: 5}
    sieved = sieve_codes(codes, units)
    assert (sieved == 2).sum() == 2
    assert (sieved == 3).sum() == 0


def test_unknown_classes_and_negative_units_are_refused(scheme):
    with pytest.raises(ConfigError, match="moon"):
        minimum_pixels(PROJECTED, scheme, class_mmu_ha={"moon": 1})
    with pytest.raises(ConfigError, match="-1"):
        minimum_pixels(PROJECTED, scheme, mmu_ha=-1)
    with pytest.raises(ConfigError, match=r"0\.\.4"):
        PolygonRules(smoothing=9)


def test_style_is_inside_and_qgis_shows_the_classes(tmp_path, codes, scheme, grid):
    polygons_of(tmp_path, codes, scheme, grid)
    with sqlite3.connect(tmp_path / "a_lc.gpkg") as connection:
        (row,) = connection.execute("SELECT f_table_name, f_geometry_column, useAsDefault FROM layer_styles").fetchall()
        (column,) = connection.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
    connection.close()
    assert row == (LAYER, column, 1)
    (layer,) = what_qgis_shows(tmp_path / "a_lc.gpkg")
    assert (layer["renderer"], layer["labels"]) == ("categorizedSymbol", list(scheme.names))


def test_other_formats_hold_the_same_polygons(tmp_path, codes, scheme):
    frame = polygons_of(tmp_path, codes, scheme, also=("parquet", "fgb"))
    parquet, flat = gpd.read_parquet(tmp_path / "a_lc.parquet"), gpd.read_file(tmp_path / "a_lc.fgb")
    assert parquet.geometry.geom_equals(frame.geometry).all()
    assert parquet.crs == flat.crs == frame.crs
    assert sorted(flat["area_ha"]) == sorted(frame["area_ha"])


def test_a_map_of_nodata_gives_an_empty_layer(tmp_path, scheme):
    assert len(polygons_of(tmp_path, np.zeros(PROJECTED.shape, np.uint8), scheme)) == 0


def test_existing_files_are_kept_and_nothing_is_left_behind(tmp_path, codes, scheme):
    polygons_of(tmp_path, codes, scheme)
    with pytest.raises(OutputError, match="exists"):
        polygons_of(tmp_path, codes, scheme)
    assert [path.name for path in tmp_path.iterdir()] == ["a_lc.gpkg"]


def test_class_names_follow_codes_out_of_order(tmp_path, codes):
    scheme, _ = scheme_for(["trees", "water", "built", "crops"])
    shuffled = np.array([0, *scheme.codes], np.uint8)[codes]
    frame = polygons_of(tmp_path, shuffled, scheme)
    assert set(zip(frame["class"], frame["code"], strict=True)) == set(zip(scheme.names, scheme.codes, strict=True))
