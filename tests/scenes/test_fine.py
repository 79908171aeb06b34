from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling

from pipeline.grid import Grid, Window
from pipeline.maps.look import Glimpse, coarse_grid, look_at
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.multiples import FineFile, fine_file
from pipeline.scenes.reader import SceneReader
from pipeline.scenes.settings import SceneOptions

SHAPE = (150, 210)
PLACE = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def coordinates(path: Path, *, overviews: bool = False, interleave: str = "pixel") -> Path:
    """Bands that hold row, column, and row + column of each pixel, from 1; 0 is nodata, in the corner."""
    rows, cols = np.indices(SHAPE) + 1
    values = np.stack([rows, cols, rows + cols]).astype(np.uint16)
    values[:, :20, :20] = 0
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint16", "crs": CRS.from_epsg(32633), "transform": PLACE}
    profile |= {"height": SHAPE[0], "width": SHAPE[1], "nodata": 0, "tiled": True, "blockxsize": 32, "blockysize": 16}
    with rasterio.open(path, "w", interleave=interleave, **profile) as target:
        target.write(values)
        target.descriptions = ("a", "b", "c")
    if overviews:
        with rasterio.open(path, "r+") as target:
            target.build_overviews([3], Resampling.average)
    return path


def opened(path: Path):
    return open_geotiff(path, options=SceneOptions(bands=("a", "b", "c"), scale=1.0, offset=0.0))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("max_px", [70, 42, 16])
def test_a_picture_has_the_pixels_in_the_middle_of_its_own(tmp_path: Path, max_px: int, interleave: str) -> None:
    scene = opened(coordinates(tmp_path / "scene.tif", interleave=interleave))
    seen = look_at(scene, ("c", "a"), max_px=max_px)
    factor = -(-SHAPE[1] // max_px)
    rows, cols = np.indices(seen.valid.shape) * factor + factor // 2
    assert seen.valid.shape == (SHAPE[0] // factor, SHAPE[1] // factor)
    inside = (rows >= 20) | (cols >= 20)
    assert np.array_equal(seen.valid, inside)
    assert np.array_equal(seen.values[1], np.where(inside, rows + 1, 0))
    assert np.array_equal(seen.values[0], np.where(inside, rows + cols + 2, 0))


@pytest.mark.parametrize("max_px", [70, 42, 16, 900])
def test_a_glimpse_of_tiles_is_what_a_look_gives(tmp_path: Path, max_px: int) -> None:
    scene = opened(coordinates(tmp_path / "scene.tif"))
    glimpse = Glimpse(scene, ("c", "b", "a"), max_px=max_px)
    with scene.select(("c", "b", "a")).open() as reader:
        for window in scene.grid.tiles(64):
            glimpse.add(reader.read(window.expand(7)), window.expand(7))
    expected = look_at(scene, ("a", "b", "c"), max_px=max_px)  # the first bands of a scene without colours
    assert np.array_equal(glimpse.raster.valid, expected.valid)
    assert np.array_equal(glimpse.raster.values, expected.values)
    assert glimpse.raster.grid == expected.grid
    assert Glimpse(scene, ("b",), max_px=max_px).raster is None


def test_a_part_of_a_scene_is_looked_at_in_place(tmp_path: Path) -> None:
    scene = opened(coordinates(tmp_path / "scene.tif"))
    grid = coarse_grid(scene.grid.crop(Window(33, 51, 60, 90)), 30)
    with scene.on_grid(grid, for_display=True).open() as reader:
        assert isinstance(reader, SceneReader)
        seen = reader.read(grid.window)
        assert any(isinstance(file, FineFile) for file in reader._files.values())
    assert np.array_equal(seen.values[0][:, 0], 33 + np.arange(20) * 3 + 1 + 1)
    assert np.array_equal(seen.values[1][0], 51 + np.arange(30) * 3 + 1 + 1)


def test_overviews_are_used_for_a_picture(tmp_path: Path) -> None:
    seen = look_at(opened(coordinates(tmp_path / "scene.tif", overviews=True)), ("a",), max_px=70)
    # A third of the size: the overview's own pixels, means of three rows that are the middle one.
    assert np.array_equal(seen.values[0][10:, 30], np.arange(10, 50) * 3 + 2)


def test_what_is_to_be_measured_is_resampled(tmp_path: Path) -> None:
    scene = opened(coordinates(tmp_path / "scene.tif"))
    with scene.on_grid(coarse_grid(scene.grid, 70)).open() as reader:
        assert isinstance(reader, SceneReader)
        reader.read(Window(0, 0, 5, 5))
        assert not any(isinstance(file, FineFile) for file in reader._files.values())


@pytest.mark.parametrize(
    "grid",
    [
        Grid(CRS.from_epsg(32633), PLACE, *SHAPE),
        Grid(CRS.from_epsg(32633), PLACE @ Affine.scale(2.5), 40, 40),
        Grid(CRS.from_epsg(32633), PLACE @ Affine.translation(0.5, 0) @ Affine.scale(2), 40, 40),
        Grid(CRS.from_epsg(32633), PLACE @ Affine.scale(2), 76, 40),
        Grid(CRS.from_epsg(32633), PLACE @ Affine.translation(-2, 0) @ Affine.scale(2), 40, 40),
        Grid(CRS.from_epsg(32634), PLACE @ Affine.scale(2), 40, 40),
    ],
    ids=["its own grid", "no multiple", "half a pixel aside", "beyond the end", "before the start", "another CRS"],
)
def test_grids_of_other_pixels_are_left_to_the_warper(tmp_path: Path, grid: Grid) -> None:
    with rasterio.open(coordinates(tmp_path / "scene.tif")) as dataset:
        assert fine_file(dataset, grid) is None
