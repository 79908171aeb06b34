"""Frames see nothing later than their origin, and hold what they are called after."""

from __future__ import annotations

import numpy as np

from pipeline.forecast.frames import all_rows, cycles, frames, look_back, running_mean
from pipeline.forecast.settings import ForecastSettings
from tests.forecast.conftest import SEASON

SETTINGS = ForecastSettings(series=("x",), ahead=30)


def test_frames_see_nothing_later_than_their_origin(planted):
    origin = planted.start
    later = planted.values.copy()
    later[origin + 1 :] = 1e6
    near = np.arange(96).reshape(12, 8) % 12
    before, after = (
        look_back(values, seasons=(5, SEASON), neighbours=near, until=origin) for values in (planted.values, later)
    )
    for ahead in (1, 2, 11, 12, 13, 30):
        rows = all_rows([origin], ahead, channels=1, cells=12)
        assert np.array_equal(frames(before, rows, SETTINGS), frames(after, rows, SETTINGS))
        assert np.array_equal(before.base(rows), after.base(rows))


def test_the_last_cycle_before_the_origin_is_taken(planted):
    rows = all_rows([100], 30, channels=1, cells=2)
    assert cycles(rows, SEASON).tolist() == [36, 36]
    assert (rows.target - cycles(rows, SEASON) <= rows.origin).all()


def test_a_constant_anomaly_shows_in_the_first_frame(planted):
    rows = all_rows([planted.start], 1, channels=1, cells=12)
    expected = planted.past.anomaly[planted.start, 0]
    assert np.allclose(frames(planted.past, rows, SETTINGS)[:, 0], expected)


def test_unknown_steps_are_left_out_of_means():
    values = np.array([1, np.nan, 3, 5, np.nan], dtype=np.float32)[:, None]
    assert running_mean(values, 2)[:, 0].tolist() == [1, 1, 3, 4, 5]


def test_neighbours_and_region_are_means_of_known_cells():
    values = np.zeros((30, 1, 3), dtype=np.float32)
    values[20] = [[1, 2, np.nan]]
    near = np.array([[1, 2], [0, -1], [-1, -1]])
    past = look_back(values + np.arange(30)[:, None, None] % 2, seasons=(), neighbours=near, until=30)
    own = past.anomaly[20, 0]
    assert past.around[20, 0, 0] == own[1]
    assert past.around[20, 0, 1] == own[0]
    assert np.isnan(past.around[20, 0, 2])
    assert np.isclose(past.region[20, 0], np.nanmean(own))


def test_layers_are_known_no_further_than_forecasts_reach(planted):
    settings = ForecastSettings(series=("a.tif",), ahead=3)
    neighbours = np.full((12, 8), -1, dtype=np.int64)
    known = np.random.default_rng(0).random((600, 1), dtype=np.float32)
    rows = all_rows([400], 2, channels=1, cells=12)
    found = []
    for later in (1.0, 9.0):
        known[404:] = later
        past = look_back(planted.values, seasons=(SEASON,), neighbours=neighbours, until=480, known=known.copy())
        found.append(frames(past, rows, settings))
    assert np.array_equal(*found)
