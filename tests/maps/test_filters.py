from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import sieve
from scipy import ndimage

from pipeline.grid import Window
from pipeline.maps.pixels import MajorityPixels, SievedPixels, patch_px
from tests.fakes.pixels import ArrayPixels
from tests.inference.models import grid_of


def majority(codes: np.ndarray, side: int) -> np.ndarray:
    """The slow way: count, and keep the pixel's own class unless another has more."""

    def one(values: np.ndarray) -> float:
        own = values[len(values) // 2]
        counts = np.bincount(values.astype(int), minlength=4)
        counts[0] = 0
        return own if own == 0 or counts[int(own)] == counts.max() else counts.argmax()

    return ndimage.generic_filter(codes, one, size=side, mode="constant", cval=0)


@given(seed=st.integers(0, 99), side=st.sampled_from([3, 5]), rows=st.integers(1, 7))
def test_majority_is_the_slow_count_whatever_the_bands(seed: int, side: int, rows: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 4, (23, 17)).astype(np.uint8)
    grid = grid_of(*codes.shape)
    found = MajorityPixels(ArrayPixels(codes), grid, side)
    made = np.concatenate([found.read(Window(row, 0, min(rows, 23 - row), 17)) for row in range(0, 23, rows)])
    assert np.array_equal(made, majority(codes, side))


@given(seed=st.integers(0, 30), rows=st.integers(1, 40))
def test_a_sieve_does_not_depend_on_the_bands_it_is_read_in(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.kron(rng.integers(0, 4, (12, 6)), np.ones((5, 5))).astype(np.uint8)
    codes[rng.random(codes.shape) > 0.95] = 2
    grid = grid_of(*codes.shape)
    found = SievedPixels(ArrayPixels(codes), grid, 6)
    full = found.read(grid.window)
    bands = [found.read(Window(row, 0, min(rows, 60 - row), 30)) for row in range(0, 60, rows)]
    assert (np.concatenate(bands) == full).mean() > 0.995  # two pixels may be equally near
    assert np.array_equal(full == 0, codes == 0)


def test_patches_below_the_size_are_gone_and_larger_ones_stay() -> None:
    codes = np.ones((400, 400), dtype=np.uint8)
    codes[50:52, 50:52], codes[200:300, 200:300], codes[250, 250], codes[100:110, :] = 2, 3, 2, 0
    grid = grid_of(400, 400)
    got = SievedPixels(ArrayPixels(codes), grid, 5).read(grid.window)
    assert set(np.unique(got)) == {0, 1, 3}
    assert (got == 3).sum() == 100 * 100
    assert np.array_equal(got == 0, codes == 0)
    # GDAL agrees where one neighbour alone surrounds a patch.
    assert np.array_equal(got, sieve(codes, 5, mask=codes > 0, connectivity=4))


def test_a_patch_that_only_nodata_surrounds_stays() -> None:
    codes = np.zeros((30, 30), dtype=np.uint8)
    codes[10:12, 10:12] = 2
    grid = grid_of(30, 30)
    assert np.array_equal(SievedPixels(ArrayPixels(codes), grid, 9).read(grid.window), codes)


def test_hectares_are_pixels_of_the_ground() -> None:
    assert [patch_px(size, grid_of(10, 10)) for size in (0.01, 0.05, 0.051, 1.0)] == [1, 5, 6, 100]


@pytest.mark.parametrize("side", [3, 7])
def test_memory_of_the_majority_does_not_grow_with_the_map(side: int) -> None:
    class Rows:
        dtype = np.dtype(np.uint8)

        def __init__(self, height: int) -> None:
            self.shape = (height, 400)

        def read(self, window: Window) -> np.ndarray:
            return np.ones(window.shape, dtype=np.uint8)

    peaks = []
    for height in (600, 6000):
        found = MajorityPixels(Rows(height), grid_of(height, 400), side)
        tracemalloc.start()
        for row in range(0, height, 200):
            found.read(Window(row, 0, 200, 400))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
