"""Raster: pixels are never without their validity, names and place."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import SceneError
from pipeline.grid import Grid
from pipeline.raster import Raster

GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), 2, 3)


def test_a_band_is_found_by_name() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    raster = Raster(values, np.ones((2, 3), bool), ("red", "nir"), GRID)
    assert np.array_equal(raster.band("nir"), values[1])
    with pytest.raises(SceneError, match="no band 'blue'; got red, nir"):
        raster.band("blue")


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        (np.zeros((1, 2, 3), np.float32), np.ones((2, 3), bool)),
        (np.zeros((2, 2, 3), np.float32), np.ones((3, 2), bool)),
        (np.zeros((2, 2, 3), np.float64), np.ones((2, 3), bool)),
        (np.zeros((2, 2, 3), np.float32), np.ones((2, 3), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(values: np.ndarray, valid: np.ndarray) -> None:
    with pytest.raises(SceneError, match="raster with arrays"):
        Raster(values, valid, ("red", "nir"), GRID)
