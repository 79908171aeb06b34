"""Objects of a class map: one polygon each, separated, measured on the ground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import LegendError
from pipeline.grid import Grid
from pipeline.legend import ClassScheme, LandClass
from pipeline.maps.objects import Objects, find_objects, object_frame, split_patch, without_overlaps, write_objects
from pipeline.maps.settings import ObjectSettings
from pipeline.raster import burn_shapes
from tests.fakes.pixels import ArrayPixels

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

SCHEME = ClassScheme((LandClass(1, "building", "#d55e00"), LandClass(2, "background", "#117733")))
GRID = Grid(CRS.from_epsg(32632), Affine(0.5, 0, 600_000, 0, -0.5, 5_400_000), 120, 160)


def codes_of(shapes: list[Any], grid: Grid = GRID) -> NDArray[np.uint8]:
    """1 in the shapes, given in metres from the upper left corner (x right, y down), 2 elsewhere."""
    size = np.array(grid.pixel_size)
    placed = [
        shapely.transform(s, lambda xy: np.array([grid.transform.c, grid.transform.f]) + xy / 0.5 * size * (1, -1))
        for s in shapes
    ]
    return np.where(burn_shapes(placed, grid) > 0, 1, 2).astype(np.uint8)


def found(
    codes: NDArray[np.uint8],
    tmp_path: Path,
    *,
    grid: Grid = GRID,
    confidence: NDArray[np.uint8] | None = None,
    **keys: Any,
) -> GeoDataFrame:
    settings = ObjectSettings.model_validate({"classes": ("building",), **keys})
    sure = None if confidence is None else ArrayPixels(confidence)
    objects = find_objects(
        ArrayPixels(codes), grid=grid, scheme=SCHEME, settings=settings, confidence=sure, scratch=tmp_path
    )
    return object_frame(objects, crs=grid.crs, scheme=SCHEME)


def test_each_building_is_one_right_angled_object(tmp_path: Path) -> None:
    boxes = [shapely.box(5, 5, 15, 12), shapely.box(30, 20, 42, 40), shapely.box(60, 8, 70, 18)]
    frame = found(codes_of(boxes), tmp_path)
    assert sorted(frame["area_m2"]) == [70, 100, 240]
    assert set(frame["vertices"]) == {4}
    assert list(frame["id"]) == [1, 2, 3]
    assert set(frame["class"]) == {"building"}


def test_small_specks_and_pinholes_are_no_objects(tmp_path: Path) -> None:
    codes = codes_of([shapely.box(5, 5, 15, 12)])
    codes[14:16, 14:16], codes[100:102, 100:102] = 2, 1
    frame = found(codes, tmp_path)
    assert list(frame["area_m2"]) == [70]
    assert len(found(codes, tmp_path, min_area_m2=0.5)) == 2


def test_touching_buildings_are_separated_at_their_neck(tmp_path: Path) -> None:
    codes = codes_of([shapely.box(5, 5, 20, 20), shapely.box(21, 5, 36, 20), shapely.box(19, 12, 22, 13)])
    assert len(found(codes, tmp_path, separate=False)) == 1
    frame = found(codes, tmp_path)
    assert len(frame) == 2
    assert frame["area_m2"].to_numpy() == pytest.approx([225, 225], rel=0.03)


def test_the_arms_of_one_building_are_not(tmp_path: Path) -> None:
    shape = shapely.union_all([shapely.box(5, 5, 45, 13), shapely.box(5, 5, 13, 40), shapely.box(37, 5, 45, 40)])
    assert len(found(codes_of([shape]), tmp_path)) == 1


def test_a_party_wall_is_seen_in_the_confidence(tmp_path: Path) -> None:
    codes = codes_of([shapely.box(5, 5, 45, 20)])
    sure = np.full(codes.shape, 95, dtype=np.uint8)
    assert len(found(codes, tmp_path, confidence=sure)) == 1
    sure[:, 47:53] = 5
    frame = found(codes, tmp_path, confidence=sure)
    assert len(frame) == 2
    assert frame["confidence"].between(75, 90).all()


def test_areas_in_web_mercator_are_those_of_the_ground(tmp_path: Path) -> None:
    """At 60 N a square of web mercator is a quarter of that on the ground."""
    grid = Grid(CRS.from_epsg(3857), Affine(1.0, 0, 1_000_000, 0, -1.0, 8_400_000), 60, 80)
    codes = np.full(grid.shape, 2, dtype=np.uint8)
    codes[10:30, 10:50] = 1
    frame = found(codes, tmp_path, grid=grid)
    ground = gpd.GeoSeries(frame.geometry).to_crs("EPSG:3035").area[0]
    assert frame.geometry.area[0] == pytest.approx(800)
    assert frame["area_m2"][0] == pytest.approx(ground, rel=0.01)
    assert frame["area_m2"][0] < 250


def test_objects_do_not_overlap_and_the_surer_one_stays() -> None:
    boxes = np.array([shapely.box(0, 0, 10, 10), shapely.box(8, 0, 18, 10)], dtype=object)
    clear = without_overlaps(boxes, np.array([60.0, 90.0]))
    assert shapely.area(clear).tolist() == [80, 100]


def test_a_map_without_objects_gives_an_empty_layer(tmp_path: Path) -> None:
    frame = found(np.full(GRID.shape, 2, dtype=np.uint8), tmp_path)
    path = write_objects(tmp_path / "none.gpkg", frame, scheme=SCHEME)
    read = gpd.read_file(path, layer="objects")
    assert read.empty
    assert {"id", "class", "area_m2", "confidence", "vertices"} <= set(read.columns)


def test_the_file_holds_its_style(tmp_path: Path) -> None:
    frame = found(codes_of([shapely.box(5, 5, 15, 12)]), tmp_path)
    path = write_objects(tmp_path / "objects.gpkg", frame, scheme=SCHEME)
    assert (
        "#d55e00" in gpd.read_file(path, layer="layer_styles")["styleQML"][0]
        or "213,94,0" in gpd.read_file(path, layer="layer_styles")["styleQML"][0]
    )


@pytest.mark.parametrize(("classes", "said"), [((), "no class is marked"), (("house",), "no class called 'house'")])
def test_no_class_marked_says_so(tmp_path: Path, classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(LegendError, match=said):
        found(np.full(GRID.shape, 1, dtype=np.uint8), tmp_path, classes=classes)


def test_a_disc_is_one_peak_and_two_that_touch_are_two() -> None:
    rows, cols = np.mgrid[:60, :100]
    one = (rows - 30) ** 2 + (cols - 30) ** 2 < 20**2
    two = one | ((rows - 30) ** 2 + (cols - 66) ** 2 < 20**2)
    sure = np.ones(one.shape)
    assert split_patch(one, sure, minimum_px=9).max() == 1
    number = split_patch(two, sure, minimum_px=9)
    assert number.max() == 2
    assert ((number > 0) == two).all()


def test_no_objects_make_an_empty_frame() -> None:
    none = Objects(np.empty(0, dtype=object), np.empty(0, dtype=np.uint8), np.empty(0))
    assert object_frame(none, crs=GRID.crs, scheme=SCHEME).empty


def test_patches_together_are_separated_as_each_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    cells = [(row, col) for row in range(0, 120, 40) for col in range(0, 160, 40)]
    codes, sure = np.full(GRID.shape, 2, dtype=np.uint8), rng.integers(50, 100, GRID.shape).astype(np.uint8)
    for row, col in cells:
        place, centres = np.indices((40, 40)), rng.uniform(12, 28, (2, 2, 1, 1))
        discs = [np.hypot(*(place - centre)) < 8 for centre in centres]
        codes[row : row + 40, col : col + 40][np.any(discs, axis=0)] = 1
    together = found(codes, tmp_path, confidence=sure, min_area_m2=4)
    alone = []
    for row, col in cells:
        one = np.full_like(codes, 2)
        one[row : row + 40, col : col + 40] = codes[row : row + 40, col : col + 40]
        alone += found(one, tmp_path, confidence=sure, min_area_m2=4).geometry.tolist()
    assert len(together) > len(cells)
    assert {shape.wkb for shape in together.geometry} == {shape.wkb for shape in alone}
