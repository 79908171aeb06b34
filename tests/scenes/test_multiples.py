"""Interpolation of 20 and 60 m pixels onto 10 m: GDAL's bilinear, the same from every window, nothing mixed in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from pipeline.grid import Grid, Window
from pipeline.scenes.reader import open_reader
from tests.scenes.test_reader import LEFT, TOP, UTM, scene_of, write


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Random pixels of 20, 30 and 60 m on the same ground of 1200 x 1800 m, some of them 0."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(7)
    paths = {}
    for metres in (20, 30, 60):
        pixels = rng.integers(1, 9999, (2, 1200 // metres, 1800 // metres)).astype(np.float32)
        pixels[rng.random(pixels.shape) < 0.1] = 0
        paths[metres] = write(folder / f"{metres}.tif", pixels, size=metres)
    return paths


@pytest.mark.parametrize("metres", [20, 30, 60])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_it_equals_gdals_warper(noise: dict[int, Path], metres: int, resampling: str) -> None:
    scene = scene_of(noise[metres], shape=(120, 180), resampling=resampling)
    with open_reader(scene) as reader:
        ours = reader.read(scene.grid.window)
    grid = scene.grid
    with (
        rasterio.open(noise[metres]) as file,
        WarpedVRT(
            file,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling[resampling],
        ) as warped,
    ):
        theirs = warped.read(1)
    assert ours.valid.all()
    assert ours.values[0] == pytest.approx(theirs, rel=1e-5, abs=1e-2)


@given(
    st.integers(-5, 110), st.integers(-5, 170), st.integers(1, 90), st.integers(1, 90), st.sampled_from((20, 30, 60))
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_window_holds_what_the_whole_holds(
    noise: dict[int, Path], row: int, col: int, height: int, width: int, metres: int
) -> None:
    scene = scene_of(noise[metres], shape=(120, 180), count=2, nodata=0)
    window = Window(row, col, height, width)
    with open_reader(scene) as reader:
        whole, part = reader.read(Window(-5, -5, 130, 190)), reader.read(window)
    inside = window.intersect(Window(-5, -5, 130, 190))
    assert inside is not None
    ours, theirs = inside.relative_to(window).slices, inside.relative_to(Window(-5, -5, 130, 190)).slices
    assert np.array_equal(part.valid[ours], whole.valid[theirs])
    assert np.allclose(part.values[:, *ours], whole.values[:, *theirs], rtol=1e-6)


def test_what_is_no_observation_does_not_spread(noise: dict[int, Path]) -> None:
    scene = scene_of(noise[20], shape=(120, 180), nodata=0)
    with rasterio.open(noise[20]) as file:
        native = file.read(1)
    with open_reader(scene) as reader:
        raster = reader.read(scene.grid.window)
    assert np.array_equal(raster.valid, (native > 0).repeat(2, axis=0).repeat(2, axis=1))
    assert raster.values[0][raster.valid].min() >= native[native > 0].min()


def test_a_grid_inside_a_coarse_pixel_is_placed_exactly(noise: dict[int, Path]) -> None:
    scene = scene_of(noise[60], shape=(120, 180))
    shifted = replace(scene, grid=Grid(UTM, Affine(10, 0, LEFT + 70, 0, -10, TOP - 130), 50, 60))
    with open_reader(scene) as reader, open_reader(shifted) as other:
        whole, part = reader.read(scene.grid.window), other.read(shifted.grid.window)
    assert np.array_equal(part.values[0], whole.values[0, 13:63, 7:67])
