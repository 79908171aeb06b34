from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
from shapely.geometry import LineString, box

from pipeline.errors import InputError
from pipeline.grid import Window
from pipeline.inference.areas import read_area
from pipeline.inference.predict import predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.scenes.reader import SceneReader
from tests.inference.models import grid_of, identity_bundle, one_hot, write_scene

if TYPE_CHECKING:
    from pathlib import Path

GRID = grid_of(100, 80)


def save(path: Path, window: Window, *, crs: str = "EPSG:4326") -> Path:
    shape = geopandas.GeoSeries([box(*GRID.crop(window).bounds)], crs=GRID.crs.to_string())
    geopandas.GeoDataFrame(geometry=shape).to_crs(crs).to_file(path)
    return path


def test_only_the_area_is_mapped_and_what_it_touches_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = np.random.default_rng(0).integers(0, 3, GRID.shape)
    scene = write_scene(tmp_path / "scene.tif", one_hot(classes, count=3))
    inside, outside = Window(10, 10, 40, 25), Window(20, 20, 10, 10)
    read: list[Window] = []
    real = SceneReader.read
    monkeypatch.setattr(SceneReader, "read", lambda self, window: (read.append(window), real(self, window))[1])
    asked = MapSettings(
        engine="torch", dtype="float32", tile_px=20, halo_px=0,
        aoi=str(save(tmp_path / "aoi.gpkg", inside, crs="EPSG:32633")), mask=str(save(tmp_path / "m.geojson", outside)),
    )  # fmt: skip
    expected = np.zeros(GRID.shape, dtype=np.uint8)
    expected[inside.slices] = (3 * classes + 1)[inside.slices]
    expected[outside.slices] = 0
    with predict_scene(identity_bundle(3), scene, out=tmp_path / "out", settings=asked) as mapped:
        assert np.array_equal(mapped.codes.read(GRID.window), expected)
    assert all(window.intersect(inside) for window in read)


def test_tiles_inside_the_mask_are_left_out(tmp_path: Path) -> None:
    area = read_area(GRID, mask=save(tmp_path / "mask.gpkg", Window(0, 0, 60, 80)))
    assert area is not None
    assert not area.touches(Window(10, 10, 20, 20))
    assert area.touches(Window(50, 10, 20, 20))
    assert np.array_equal(area.mask(Window(50, 0, 20, 3)), np.arange(50, 70)[:, None].repeat(3, 1) >= 60)


def test_no_files_are_no_area() -> None:
    assert read_area(GRID) is None


def test_bad_files_are_named(tmp_path: Path) -> None:
    far = geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs="EPSG:4326")
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(InputError, match=r"far\.gpkg.*outside the scene"):
        read_area(GRID, aoi=tmp_path / "far.gpkg")
    geopandas.GeoDataFrame(geometry=[LineString([(0, 0), (1, 1)])], crs="EPSG:4326").to_file(tmp_path / "line.gpkg")
    with pytest.raises(InputError, match="no polygons"):
        read_area(GRID, mask=tmp_path / "line.gpkg")
    (tmp_path / "text.gpkg").write_text("not a layer")
    with pytest.raises(InputError, match="not a vector file that GDAL can read"):
        read_area(GRID, aoi=tmp_path / "text.gpkg")
    with pytest.raises(InputError, match="no such file"):
        read_area(GRID, aoi=tmp_path / "gone.gpkg")
