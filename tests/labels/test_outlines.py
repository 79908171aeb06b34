"""What a label covers: polygons as drawn, points as the pixels they label."""

from __future__ import annotations

import numpy as np
from shapely.geometry import MultiPoint, Point

from pipeline.grid import Grid
from pipeline.labels.rasterise import burn, pixel_outlines, with_areas
from tests.labels.test_rasterise import GRID, make_labels, pixel_box


def at(row: float, col: float) -> Point:
    return pixel_box(row, col, 1, 1).centroid


def test_a_polygon_on_pixel_edges_is_the_outline_of_its_pixels() -> None:
    shapes = [pixel_box(4, 5, 3, 5), pixel_box(20, 5, 1, 1)]
    found = pixel_outlines(burn(make_labels(shapes, [1, 2]), GRID), np.array([2, 1], dtype=np.int32))
    assert [outline.equals(shape) for outline, shape in zip(found, shapes[::-1], strict=True)] == [True, True]


def test_points_become_the_squares_they_label_and_polygons_stay() -> None:
    drawn = pixel_box(30.2, 30.4, 5, 5)
    labels = make_labels([at(4, 5), drawn, MultiPoint([at(10, 10), at(20, 20)]), at(-9, 0)], [1, 2, 1, 1])
    found = with_areas(labels.frame, [burn(labels, GRID, point_window_px=3)])
    square, polygon, two, outside = found.geometry
    assert square.equals(pixel_box(3, 4, 3, 3))
    assert polygon is drawn
    assert two.equals(pixel_box(9, 9, 3, 3).union(pixel_box(19, 19, 3, 3)))
    assert outside.equals(at(-9, 0))
    assert labels.frame.geometry.iloc[0].equals(at(4, 5))


def test_a_point_has_pixels_of_the_first_scene_it_lies_in() -> None:
    labels = make_labels([at(4, 5)], [1])
    labels = make_labels(list(labels.frame.to_crs(4326).geometry), [1], crs="EPSG:4326")
    beside = Grid(GRID.crs, GRID.transform @ GRID.transform.translation(500, 0), 10, 10)
    coarse = Grid(GRID.crs, GRID.transform @ GRID.transform.scale(2), 30, 40)
    found = with_areas(labels.frame, [burn(labels, grid) for grid in (beside, coarse, GRID)])
    assert found.crs == labels.frame.crs
    assert found.to_crs(32632).geometry.iloc[0].symmetric_difference(pixel_box(4, 4, 2, 2)).area < 1e-3
