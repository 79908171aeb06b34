"""Complete footprints: the ground around them is a class; what nobody said stays unlabelled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import LabelError, LabelWarning
from pipeline.grid import Grid, Window
from pipeline.labels import footprints
from pipeline.labels.footprints import check_pixel_size, outlined, read_footprints, widths_m, with_ground
from pipeline.labels.rasterise import burn
from pipeline.labels.source import Labels, read_labels
from pipeline.legend import UNLABELLED, ClassScheme, LandClass

if TYPE_CHECKING:
    from pathlib import Path

SCHEME = ClassScheme((LandClass(1, "building", "#d55e00"), LandClass(2, "background", "#bbcc33")))
GRID = Grid(CRS.from_epsg(32632), Affine(0.5, 0, 600_000, 0, -0.5, 5_400_000), 96, 128)
WHOLE = Window(0, 0, 96, 128)


def box(left: float, top: float, right: float, bottom: float) -> Any:
    """In metres from the upper left corner of the grid."""
    return shapely.box(600_000 + left, 5_400_000 - bottom, 600_000 + right, 5_400_000 - top)


def write(path: Path, shapes: list[Any], *, crs: str = "EPSG:32632", **columns: Any) -> Path:
    frame = gpd.GeoDataFrame(columns or {"class": ["building"] * len(shapes)}, geometry=shapes, crs="EPSG:32632")
    frame.to_crs(crs).to_file(path, engine="pyogrio")
    return path


def labels_of(tmp_path: Path, shapes: list[Any], **options: Any) -> Labels:
    return read_labels(write(tmp_path / "houses.gpkg", shapes, **options), field="class", scheme=SCHEME)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3857"])
def test_every_pixel_of_the_scene_is_building_or_ground(tmp_path: Path, crs: str) -> None:
    labels = with_ground(labels_of(tmp_path, [box(5, 5, 15, 12)], crs=crs), [GRID], background="background")
    codes, _ = burn(labels, GRID).dense(WHOLE)
    expected = np.full(GRID.shape, 2, dtype=np.uint8)
    expected[10:24, 10:30] = 1
    assert (codes == expected).all()


def test_ground_beyond_the_area_stays_unlabelled(tmp_path: Path) -> None:
    area = write(tmp_path / "area.gpkg", [box(0, 0, 30, 48)])
    labels = labels_of(tmp_path, [box(5, 5, 15, 12), box(40, 5, 50, 12)])
    codes, _ = burn(with_ground(labels, [GRID], background="background", area=area), GRID).dense(WHOLE)
    assert set(np.unique(codes[:, :60])) == {1, 2}
    assert set(np.unique(codes[:, 60:])) == {1, UNLABELLED}


def test_touching_footprints_are_parted_by_a_strip_of_ground(tmp_path: Path) -> None:
    labels = with_ground(labels_of(tmp_path, [box(5, 5, 15, 15), box(15, 5, 25, 15)]), [GRID], background="background")
    codes, ids = burn(labels, GRID).dense(WHOLE)
    assert (codes[10:30, [29, 30]] == 2).all()
    assert (codes[10:30, [27, 32]] == 1).all()
    assert ids[15, 15] != ids[15, 45]


def test_a_footprint_drawn_twice_is_not_parted(tmp_path: Path) -> None:
    labels = with_ground(
        labels_of(tmp_path, [box(5, 5, 15, 15), box(5.2, 5, 15.2, 15)]), [GRID], background="background"
    )
    codes, _ = burn(labels, GRID).dense(WHOLE)
    assert (codes[10:30, 10:30] == 1).all()


def test_polygons_of_the_file_come_first_and_keep_their_ids(tmp_path: Path) -> None:
    before = labels_of(tmp_path, [box(5, 5, 15, 12), box(40, 5, 50, 12)])
    frame = with_ground(before, [GRID], background="background").frame
    assert frame["poly_id"].tolist() == list(range(1, len(frame) + 1))
    assert frame["feature"].tolist()[:3] == [0, 1, -1]
    assert set(frame["name"][2:]) == {"background"}


def test_of_many_squares_those_beside_footprints_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprints, "MOST_SQUARES", 2)
    labels = with_ground(labels_of(tmp_path, [box(5, 5, 15, 12)]), [GRID], background="background")
    codes, _ = burn(labels, GRID).dense(WHOLE)
    assert set(np.unique(codes[:32, :32])) == {1, 2}
    assert (codes == UNLABELLED).mean() > 0.7


def test_a_scene_without_a_footprint_is_not_ground_altogether(tmp_path: Path) -> None:
    elsewhere = Grid(GRID.crs, Affine(0.5, 0, 700_000, 0, -0.5, 5_400_000), 96, 128)
    with pytest.raises(LabelError, match="none lies in a scene"):
        with_ground(labels_of(tmp_path, [box(5, 5, 15, 12)]), [GRID, elsewhere], background="background")


def test_without_a_field_every_polygon_is_of_one_class(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.gpkg", [box(5, 5, 15, 12), box(20, 5, 30, 12)], number=[7, 8])
    assert read_labels(path, field="", only="building", scheme=SCHEME).frame["name"].tolist() == ["building"] * 2


def test_widths_are_those_of_the_ground() -> None:
    shape = shapely.affinity.rotate(box(5, 5, 25, 12), 30)
    assert widths_m(np.array([shape], dtype=object), GRID) == pytest.approx([7.0], rel=1e-3)
    mercator = Grid(CRS.from_epsg(3857), Affine(1, 0, 1_000_000, 0, -1, 8_400_000), 60, 80)
    assert widths_m(np.array([shapely.box(0, 0, 40, 20)], dtype=object), mercator)[0] < 11


@pytest.mark.parametrize(("pixel", "warned"), [(2.0, False), (2.6, True)])
def test_pixels_over_a_third_of_the_median_width_are_too_coarse(tmp_path: Path, *, pixel: float, warned: bool) -> None:
    grid = Grid(GRID.crs, Affine(pixel, 0, 600_000, 0, -pixel, 5_400_000), 30, 30)
    labels = labels_of(tmp_path, [box(5, 5, 15, 12), box(20, 5, 40, 12)])
    with pytest.warns(LabelWarning) if warned else _silent() as said:
        check_pixel_size(labels, [grid], {1})
    if warned:
        assert "too coarse for objects 7 m wide" in str(said[0].message)


def _silent() -> Any:
    import contextlib

    return contextlib.nullcontext([])


def test_lines_are_no_footprints(tmp_path: Path) -> None:
    path = write(tmp_path / "lines.gpkg", [shapely.LineString([(0, 0), (1, 1)])])
    with pytest.raises(LabelError, match=r"no polygons; got LineString; expected polygons, one per object"):
        read_footprints(path)


def test_self_crossing_footprints_are_repaired_with_a_word(tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    with pytest.warns(LabelWarning, match="1 polygon of invalid geometry"):
        frame = read_footprints(write(tmp_path / "bow.gpkg", [bow, shapely.box(20, 20, 30, 30)]))
    assert frame.geometry.is_valid.all()
    assert len(frame) == 2


def test_pixels_and_points_are_no_outlines_of_objects(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, [box(5, 5, 15, 12), box(20, 5, 40, 12)])
    assert outlined(labels, (1,)) == (1,)
    with pytest.warns(LabelWarning, match="labels of background are points, or none, not an outline per object"):
        assert outlined(labels, (1, 2)) == (1,)
    with pytest.warns(LabelWarning, match="labels of building are pixels of a raster"):
        assert outlined(replace(labels, path=tmp_path / "map.tif"), (1,)) == ()
