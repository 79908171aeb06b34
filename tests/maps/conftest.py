"""Grids and a class map that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.legend import scheme_for

PROJECTED = Grid(CRS.from_epsg(32633), Affine(10, 0, 330000, 0, -10, 5822040), 300, 400)
GEOGRAPHIC = Grid(CRS.from_epsg(4326), Affine(9e-5, 0, -76.7, 0, -7.4e-5, 34.7), 300, 400)


@pytest.fixture(params=[PROJECTED, GEOGRAPHIC], ids=["projected", "geographic"])
def grid(request):
    return request.param


@pytest.fixture
def scheme():
    return make_scheme()


def make_scheme():
    return scheme_for(["water & ice", "forest <dry>", "Äcker", "town"])[0]


@pytest.fixture
def codes():
    return make_codes()


def make_codes():
    """Patches, noise and nodata; every class occurs."""
    rng = np.random.default_rng(3)
    pixels = np.kron(rng.integers(0, 5, (30, 40)), np.ones((10, 10), int)).astype(np.uint8)
    noise = rng.random(pixels.shape) < 0.02
    pixels[noise] = rng.integers(0, 5, noise.sum())
    return pixels


@pytest.fixture
def percent(codes):
    return make_percent(codes)


def make_percent(codes):
    """Confidence where there is a class, 255 elsewhere."""
    values = np.random.default_rng(4).integers(30, 101, codes.shape).astype(np.uint8)
    values[codes == 0] = 255
    return values
