"""Labels that do not fit the scene are an error or a warning that says how."""

from __future__ import annotations

import warnings

import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import LabelError, LabelWarning
from pipeline.grid import Grid
from pipeline.labels.checks import Overlap, check_classes, check_overlap, check_pixels
from pipeline.labels.rasterise import burn
from tests.labels.test_rasterise import GRID, SCHEME, make_labels, pixel_box

FAR = Grid(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 1_000_000), 50, 50)


def test_labels_outside_the_scene_say_where_both_are() -> None:
    labels = make_labels([pixel_box(0, 0, 2, 2)], [1])
    with pytest.raises(LabelError, match=r"outside the scene; got labels in lon 9\.0.*expected scene in lon 15\.0"):
        check_overlap(labels, FAR)


def test_labels_partly_outside_are_counted_and_warned_about() -> None:
    labels = make_labels([pixel_box(1, 1, 2, 2), pixel_box(-1, 5, 2, 2), pixel_box(900, 0, 2, 2)], [1, 2, 2])
    with pytest.warns(LabelWarning) as caught:
        assert check_overlap(labels, GRID) == Overlap(1, 1, (3,))
    assert [str(w.message) for w in caught] == [
        "x.gpkg: 1 of 3 polygons lie outside the scene and are not used",
        "x.gpkg: 1 of 3 polygons reach over the scene's edge and are cut there",
    ]


def test_polygons_dissolved_by_class_are_said() -> None:
    fields = shapely.multipolygons([pixel_box(1, 1, 2, 2), pixel_box(20, 20, 2, 2)])
    with pytest.warns(LabelWarning, match="1 of 2 features have several parts.*Multipart to singleparts"):
        check_overlap(make_labels([fields, pixel_box(9, 9, 2, 2)], [1, 2]), GRID)


def test_a_polygon_inside_one_of_two_scenes_is_inside() -> None:
    labels = make_labels([pixel_box(1, 1, 2, 2)], [1])
    assert check_overlap(labels, [FAR, GRID]) == Overlap(1, 0, ())


def test_absent_and_single_classes_are_warned_about() -> None:
    labels = make_labels([pixel_box(0, 0, 2, 2), pixel_box(9, 9, 2, 2), pixel_box(20, 9, 2, 2)], [1, 2, 2])
    with pytest.warns(LabelWarning) as caught:
        assert check_classes(burn(labels, GRID), SCHEME) == {"one": (1, 4), "two": (2, 8), "three": (0, 0)}
    assert "no labelled pixel of class three" in str(caught[0].message)
    assert "one polygon only of class one" in str(caught[1].message)


def test_one_class_is_nothing_to_tell_apart() -> None:
    with pytest.raises(LabelError, match="fewer than two classes have pixels in the scene; got one"):
        check_classes([burn(make_labels([pixel_box(0, 0, 2, 2)], [1]), GRID)], SCHEME)


def test_what_burning_lost_is_warned_about_with_the_polygons() -> None:
    shapes = [pixel_box(0, 0, 2, 2), pixel_box(1, 1, 2, 2), pixel_box(9.1, 9.1, 0.1, 0.1)]
    labels = make_labels(shapes, [1, 2, 2])
    with pytest.warns(LabelWarning) as caught:
        check_pixels(labels, burn(labels, GRID))
    assert "1 pixels are claimed by two classes and left out: polygons 1 one / 2 two (1 px)" in str(caught[0].message)
    assert "1 polygon without a pixel centre, not used: 3" in str(caught[1].message)


def test_labels_that_fit_are_silent() -> None:
    labels = make_labels([pixel_box(0, 0, 2, 2), pixel_box(5, 5, 2, 2)], [1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_overlap(labels, GRID)
        check_pixels(labels, burn(labels, GRID))
