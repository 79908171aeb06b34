"""Rules of a class: grown, shrunk, eroded, grouped; points as windows; an existing map as polygons."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import LabelError, LabelWarning
from pipeline.labels.rasterise import burn, erode_edges
from pipeline.labels.rasters import is_class_raster, read_map_labels
from pipeline.labels.source import LabelReport, Labels, buffer_polygons, group_classes
from pipeline.legend import ClassScheme, LandClass
from tests.labels.test_rasterise import GRID, SCHEME

LEFT, BOTTOM, RIGHT, TOP = GRID.bounds
STEP = GRID.pixel_size[0]
EXTENTS = [(GRID.bounds, GRID.crs.to_wkt())]


def labels(shapes: list[tuple[int, object]]) -> Labels:
    codes = [code for code, _ in shapes]
    frame = gpd.GeoDataFrame(
        {
            "poly_id": np.arange(1, len(codes) + 1, dtype=np.int32),
            "code": np.array(codes, dtype=np.uint8),
            "name": [SCHEME.by_code(code).name for code in codes],
            "feature": np.arange(len(codes)),
        },
        geometry=[shape for _, shape in shapes],
        crs=str(GRID.crs),
    )
    return Labels(Path("labels.gpkg"), frame, SCHEME, LabelReport(len(codes), 0, 0, 0, 0, 0, 0, len(codes)))


def square(row: int, col: int, side_px: int) -> shapely.Polygon:
    left, top = LEFT + col * STEP, TOP - row * STEP
    return shapely.box(left, top - side_px * STEP, left + side_px * STEP, top)


def test_only_the_polygons_named_label_what_they_touch():
    shifted = [shapely.transform(square(row, 5, 2), lambda xy: xy + 0.6 * STEP) for row in (5, 20)]
    pixels = burn(labels([(1, shifted[0]), (2, shifted[1])]), GRID, all_touched=[2])
    assert (pixels.polygon == 1).sum() == 4
    assert (pixels.polygon == 2).sum() == 9


def test_eroded_polygons_lose_their_rim_by_class():
    pixels = burn(labels([(1, square(2, 2, 6)), (2, square(20, 2, 6))]), GRID)
    eroded = erode_edges(pixels, {1: 0, 2: 2})
    assert (eroded.polygon == 1).sum() == 36
    assert (eroded.polygon == 2).sum() == 4
    assert (eroded.row[eroded.polygon == 2]).min() == 22


@given(side=st.integers(1, 9), erode=st.integers(0, 7))
def test_a_polygon_that_would_vanish_keeps_its_innermost_pixels(side, erode):
    eroded = erode_edges(burn(labels([(1, square(3, 3, side))]), GRID), {1: erode})
    inner = side - 2 * min(erode, (side - 1) // 2)
    assert len(eroded) == inner**2


def test_more_pixels_than_rims_are_counted_is_refused():
    with pytest.raises(LabelError, match=r"expected 0\.\.7"):
        erode_edges(burn(labels([(1, square(3, 3, 3))]), GRID), {1: 8})


def test_polygons_of_a_class_are_grown_and_shrunk_by_metres():
    given_labels = labels([(1, square(2, 2, 6)), (2, square(20, 2, 6))])
    moved = buffer_polygons(given_labels, {1: -STEP, 2: STEP})
    area = moved.frame.area.to_numpy() / STEP**2
    # Corners of a grown square are rounded: 36 + 4 x 6 + pi; the UTM zone of the labels is that of the grid.
    assert area == pytest.approx([16, 36 + 24 + np.pi], rel=0.01)
    assert buffer_polygons(given_labels, {}) is given_labels


def test_polygons_that_vanish_are_said():
    both = labels([(1, square(2, 2, 6)), (2, square(20, 2, 1))])
    with pytest.warns(LabelWarning, match="1 polygon that vanished"):
        assert buffer_polygons(both, {2: -STEP}).frame["poly_id"].tolist() == [1]
    with pytest.raises(LabelError, match="no polygon is left"):
        buffer_polygons(labels([(1, square(2, 2, 2))]), {1: -10 * STEP})


@given(row=st.integers(2, 20), col=st.integers(2, 20), dx=st.floats(0.0, 0.999), dy=st.floats(0.0, 0.999))
def test_a_point_labels_the_window_around_its_own_pixel(row, col, dx, dy):
    point = shapely.Point(LEFT + (col + dx) * STEP, TOP - (row + dy) * STEP)
    row, col = GRID.rowcol(point.x, point.y)
    pixels = burn(labels([(1, point)]), GRID, point_window_px=3)
    assert sorted(zip(pixels.row.tolist(), pixels.col.tolist(), strict=True)) == [
        (r, c) for r in range(row - 1, row + 2) for c in range(col - 1, col + 2)
    ]


def test_windows_are_of_points_only():
    pixels = burn(labels([(1, square(2, 2, 2))]), GRID, point_window_px=5)
    assert len(pixels) == 4


def test_groups_replace_codes_and_names_and_keep_the_listed():
    coarse = ClassScheme((LandClass(9, "Land", "#112233"),))
    grouped = group_classes(labels([(1, square(2, 2, 2)), (2, square(8, 8, 2))]), coarse, {1: 9, 2: 9})
    assert grouped.frame["code"].tolist() == [9, 9]
    assert grouped.frame["name"].tolist() == ["Land", "Land"]
    assert grouped.frame["listed"].tolist() == [1, 2]
    assert set(burn(grouped, GRID).code) == {9}


def write_map(path: Path, codes: np.ndarray) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": GRID.height, "width": GRID.width}
    with rasterio.open(path, "w", crs=GRID.crs, transform=GRID.transform, **profile) as file:
        file.write(codes, 1)
    return path


def halves() -> np.ndarray:
    codes = np.ones(GRID.shape, dtype=np.uint8)
    codes[:, GRID.width // 2 :] = 2
    return codes


def test_pieces_of_a_map_burn_back_to_the_maps_own_pixels(tmp_path):
    codes = halves()
    found = read_map_labels(
        write_map(tmp_path / "m.tif", codes), scheme=SCHEME, extents=EXTENTS, piece_px=7, pieces=10_000
    )
    dense, _ = burn(found, GRID).dense(GRID.window)
    assert np.array_equal(dense, codes)


def test_of_each_class_as_many_pieces_are_drawn_as_asked(tmp_path):
    path = write_map(tmp_path / "m.tif", halves())
    few = read_map_labels(path, scheme=SCHEME, extents=EXTENTS, piece_px=5, pieces=4)
    assert few.frame["code"].value_counts().to_dict() == {1: 4, 2: 4}
    assert few.frame["poly_id"].tolist() == list(range(1, 9))
    again = read_map_labels(path, scheme=SCHEME, extents=EXTENTS, piece_px=5, pieces=4)
    assert few.frame.geometry.geom_equals(again.frame.geometry).all()
    bounds = few.frame.geometry.bounds
    assert (bounds["maxx"] - bounds["minx"]).max() <= 5 * STEP + 1e-6


def test_only_the_part_over_the_scenes_is_read(tmp_path):
    path = write_map(tmp_path / "m.tif", halves())
    west = ((LEFT, BOTTOM, LEFT + 3 * STEP, TOP), GRID.crs.to_wkt())
    found = read_map_labels(path, scheme=SCHEME, extents=[west], piece_px=50, pieces=9)
    assert set(found.frame["code"]) == {1}
    assert found.frame.total_bounds[2] == pytest.approx(LEFT + 3 * STEP)


def test_pieces_lie_in_the_scenes_not_between_them(tmp_path):
    """Two scenes in opposite corners; the map's other two corners lie in the box around both."""
    path = write_map(tmp_path / "m.tif", halves())
    middle_x, middle_y = LEFT + GRID.width // 2 * STEP, TOP - GRID.height // 2 * STEP
    corners = [(LEFT, middle_y, middle_x, TOP), (middle_x, BOTTOM, GRID.bounds[2], middle_y)]
    extents = [(corner, GRID.crs.to_wkt()) for corner in corners]
    found = read_map_labels(path, scheme=SCHEME, extents=extents, piece_px=5, pieces=10_000)
    inside = shapely.union_all([shapely.box(*corner) for corner in corners])
    assert found.frame.geometry.union_all().symmetric_difference(inside).area < 1e-3
    assert set(found.frame["code"]) == {1, 2}


def test_a_map_of_elsewhere_is_refused(tmp_path):
    path = write_map(tmp_path / "m.tif", halves())
    away = ((LEFT - 99_000, BOTTOM, LEFT - 90_000, TOP), GRID.crs.to_wkt())
    with pytest.raises(LabelError, match="does not lie over the scenes"):
        read_map_labels(path, scheme=SCHEME, extents=[away], piece_px=5, pieces=5)
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(LabelError, match="not a raster"):
        read_map_labels(tmp_path / "text.tif", scheme=SCHEME, extents=EXTENTS, piece_px=5, pieces=5)


def test_rasters_are_known_by_their_ending():
    assert is_class_raster("worldcover.TIF")
    assert not is_class_raster("polygons.gpkg")
