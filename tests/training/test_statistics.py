"""Streamed statistics are those of numpy over all valid labelled pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.errors import LabelError, SceneError
from pipeline.grid import Grid, Window
from pipeline.raster import Raster
from pipeline.training import statistics
from pipeline.training.statistics import Accumulator, BandStatistics, band_statistics, valid_values
from tests.splits.test_split import GRID, scattered

_RNG = np.random.default_rng(0)
_VALUES = _RNG.gamma(2.0, 0.1, (3, 400, 400)).astype(np.float32)
_VALID = _RNG.random((400, 400)) > 0.3


class _Reader:
    """An image in memory that answers windows inside its grid."""

    def __init__(self, bands: tuple[str, ...] = ("a", "b", "c"), valid: np.ndarray = _VALID) -> None:
        self.grid: Grid = GRID
        self.bands = bands
        self._valid = valid
        self.largest = 0

    def read(self, window: Window) -> Raster:
        rows, cols = window.slices
        self.largest = max(self.largest, window.height * window.width)
        valid = self._valid[rows, cols]
        return Raster(np.where(valid, _VALUES[:, rows, cols], 0.0), valid, self.bands, GRID.crop(window))

    def close(self) -> None:
        """Nothing to close."""


def _expected() -> np.ndarray:
    pixels = scattered()
    usable = _VALID[pixels.row, pixels.col]
    return _VALUES[:, pixels.row[usable], pixels.col[usable]].astype(np.float64)


def test_statistics_equal_numpy_over_valid_pixels() -> None:
    found, expected = band_statistics([_Reader()], [scattered()]), _expected()
    assert found.n == expected.shape[1]
    np.testing.assert_allclose(found.mean, expected.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, expected.std(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.p02, np.percentile(expected, 2, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.p98, np.percentile(expected, 98, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.min, expected.min(axis=1))
    np.testing.assert_allclose(found.max, expected.max(axis=1))


def test_two_scenes_are_pooled_and_read_in_tiles() -> None:
    reader = _Reader()
    found = list(valid_values([reader, reader], [scattered(), scattered(1)], tile_px=128))
    assert {number for number, _, _ in found} == {0, 1}
    assert reader.largest <= 128 * 128
    assert band_statistics([reader, reader], [scattered(), scattered()]).n == 2 * _expected().shape[1]


def test_merging_chunks_loses_nothing_far_from_zero() -> None:
    values = (1e4 + np.random.default_rng(1).random((2, 5000))).astype(np.float32)
    total = Accumulator(("a", "b"))
    for start in range(0, 5000, 7):
        total.add(values[:, start : start + 7])
    total.add(values[:, :0])
    np.testing.assert_allclose(total.result().std, values.astype(np.float64).std(axis=1), rtol=1e-9)


def test_percentiles_of_more_pixels_than_the_sample_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_SAMPLE", 5000)
    total = Accumulator(("a",))
    for chunk in np.split(np.random.default_rng(2).random((1, 60_000)).astype(np.float32), 60, axis=1):
        total.add(chunk)
    found = total.result()
    assert found.p02[0] == pytest.approx(0.02, abs=0.008)
    assert found.p98[0] == pytest.approx(0.98, abs=0.008)


def test_statistics_survive_json() -> None:
    found = band_statistics([_Reader()], [scattered()])
    back = BandStatistics.from_json(json.loads(json.dumps(found.to_json())))
    assert back.to_json() == found.to_json()
    with pytest.raises(SceneError, match="without a list of bands"):
        BandStatistics.from_json(found.to_json() | {"bands": "abc"})


def test_what_has_no_statistics_is_an_error() -> None:
    with pytest.raises(LabelError, match="no valid labelled pixel"):
        band_statistics([_Reader(valid=np.zeros_like(_VALID))], [scattered()])
    with pytest.raises(SceneError, match="scene 2 has other bands than scene 1; got a, c, b; expected a, b, c"):
        band_statistics([_Reader(), _Reader(("a", "c", "b"))], [scattered(), scattered()])
    other = scattered(grid=Grid(GRID.crs, GRID.transform, 401, 400))
    with pytest.raises(LabelError, match="another grid"):
        band_statistics([_Reader()], [other])
