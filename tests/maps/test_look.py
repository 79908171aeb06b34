"""Stretches for display are those of what was observed."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.maps.look import stretch_limits
from pipeline.raster import Raster

GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 330000, 0, -10, 5822040), 100, 100)


def raster(values, valid=None):
    names = tuple(f"b{number}" for number in range(len(values)))
    return Raster(values, np.ones(GRID.shape, dtype=np.bool_) if valid is None else valid, names, GRID)


@pytest.fixture
def bright():
    return np.random.default_rng(0).uniform(0.1, 0.4, (3, *GRID.shape)).astype(np.float32)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_undeclared_fill_does_not_stretch_the_picture(bright, fill):
    filled = bright.copy()
    filled[:, :40] = fill
    valid = np.ones(GRID.shape, dtype=np.bool_)
    valid[:40] = False
    assert stretch_limits(raster(filled)) == pytest.approx(np.array(stretch_limits(raster(bright, valid))))


def test_dark_water_in_one_band_is_no_fill(bright):
    bright[2, :40] = 0.0
    assert stretch_limits(raster(bright))[2][0] == 0.0


def test_a_band_of_its_own_has_no_fill():
    plain = np.repeat(np.arange(4, dtype=np.float32), 2500).reshape(1, *GRID.shape)
    assert stretch_limits(raster(plain)) == ((0.0, 3.0),)
