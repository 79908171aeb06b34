from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline.maps.pixels import row_bands
from pipeline.maps.segments import SegmentPixels, majority_within, scene_limits
from pipeline.scenes.opening import open_scene
from tests.fakes.pixels import ArrayPixels

pytest.importorskip("skimage", reason="scikit-image is not installed")
SIDE, FIELD = 150, 15


@pytest.fixture
def fields(tmp_path: Path):
    """A scene of square fields, the class of each, and a map of it with a fifth of its pixels wrong at random."""
    rng = np.random.default_rng(0)
    number = np.kron(np.arange((SIDE // FIELD) ** 2).reshape(-1, SIDE // FIELD), np.ones((FIELD, FIELD), dtype=int))
    bands = rng.uniform(0.05, 0.5, (3, number.max() + 1))[:, number] + rng.normal(0, 0.004, (3, SIDE, SIDE))
    truth = rng.integers(1, 4, number.max() + 1).astype(np.uint8)[number]
    codes = np.where(rng.random(truth.shape) < 0.2, rng.integers(1, 4, truth.shape), truth).astype(np.uint8)
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 3, "height": SIDE, "width": SIDE, "crs": "EPSG:32633",
        "transform": Affine(10, 0, 500_000, 0, -10, 5_800_000),
    }  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as target:
        target.write(bands.astype(np.float32))
        for band, name in enumerate(("red", "green", "blue"), 1):
            target.set_band_description(band, name)
    return open_scene(tmp_path / "scene.tif"), truth, codes


def filtered(source, codes: np.ndarray) -> SegmentPixels:
    return SegmentPixels(ArrayPixels(codes), source.grid, source, 25, scene_limits(source))


def test_speckle_goes_and_the_edges_of_fields_stay(fields):
    source, truth, codes = fields
    codes[:5, :5] = 0
    found = filtered(source, codes).read(source.grid.window)
    assert (found[:5, :5] == 0).all()
    seen = codes > 0
    assert (codes == truth)[seen].mean() < 0.9
    assert (found == truth)[seen].mean() > 0.97


def test_tiles_leave_no_borders_whatever_bands_are_read(fields, monkeypatch):
    source, _, codes = fields
    whole = filtered(source, codes).read(source.grid.window)
    monkeypatch.setattr("pipeline.maps.segments.BAND_ROWS", 50)
    pixels = filtered(source, codes)
    tiled = pixels.read(source.grid.window)
    bands = np.concatenate([pixels.read(window) for window in row_bands(source.grid, 40)])
    assert (tiled == bands).all()
    border = np.zeros(tiled.shape, dtype=bool)
    border[48:52], border[98:102], border[:, 48:52], border[:, 98:102] = True, True, True, True
    differs = tiled != whole
    assert differs[border].mean() <= differs[~border].mean() + 0.02


def test_a_pixel_keeps_a_class_that_is_as_frequent():
    labels = np.array([[1, 1, 1, 1, 0, 2]])
    codes = np.array([[1, 1, 2, 2, 3, 0]], dtype=np.uint8)
    assert majority_within(codes, labels).tolist() == [[1, 1, 2, 2, 3, 0]]
    assert majority_within(np.array([[1, 1, 1, 2, 3, 0]], dtype=np.uint8), labels).tolist() == [[1, 1, 1, 1, 3, 0]]
