"""On a planted series the baselines reach what is known of it, the network too, and intervals hold what they say."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from pipeline.errors import SceneError
from pipeline.forecast.frames import all_rows, look_back
from pipeline.forecast.network import train_forecast
from pipeline.forecast.rolling import AVERAGE, DAMPED, LAST, NETWORK, SEASONAL, Horizon, evaluate
from pipeline.forecast.settings import ForecastSettings
from pipeline.workflow.outcome import no_progress
from tests.forecast.conftest import SEASON, planted_values

SETTINGS = ForecastSettings(series=("x",), ahead=3, steps=400, width=32)


@pytest.fixture(scope="module")
def trained(planted):
    return train_forecast(planted.past, until=planted.start, settings=SETTINGS, progress=no_progress)


@pytest.fixture(scope="module")
def horizons(planted, trained):
    return evaluate(planted.past, trained, start=planted.start, channels=["ndvi"], progress=no_progress)


def test_the_damped_anomaly_reaches_the_least_error(planted, horizons):
    for horizon in horizons:
        assert horizon.mae[DAMPED] == pytest.approx(planted.least_error(horizon.ahead), rel=0.08)


def test_the_network_learns_season_and_damping(planted, horizons):
    for horizon in horizons:
        assert horizon.mae[NETWORK] < 1.12 * planted.least_error(horizon.ahead)
        assert horizon.mae[NETWORK] < 0.75 * min(horizon.mae[LAST], horizon.mae[SEASONAL]) or horizon.ahead == 1


def test_rules_forecast_what_their_names_say(planted, horizons):
    start, values = planted.start, planted.values[:, 0].astype(np.float64)
    for horizon in horizons:
        last = np.abs(values[start:] - values[start - horizon.ahead : -horizon.ahead]).mean()
        before = np.abs(values[start:] - values[start - SEASON : -SEASON]).mean()
        phase = np.stack([values[:start][step::SEASON].mean(0) for step in range(SEASON)])
        average = np.abs(values[start:] - phase[np.arange(start, len(values)) % SEASON]).mean()
        assert horizon.mae[LAST] == pytest.approx(last, rel=1e-5)
        assert horizon.mae[SEASONAL] == pytest.approx(before, rel=1e-5)
        assert horizon.mae[AVERAGE] == pytest.approx(average, rel=1e-5)


def test_intervals_hold_nine_of_ten(horizons):
    assert all(0.83 < horizon.coverage < 0.96 for horizon in horizons)


def test_skill_is_against_the_best_baseline(horizons):
    for horizon in horizons:
        best = min(value for name, value in horizon.mae.items() if name != NETWORK)
        assert horizon.skill == pytest.approx(1 - horizon.mae[NETWORK] / best)


def test_quantiles_never_cross_and_seeds_repeat(planted, trained):
    rows = all_rows([planted.start], 2, channels=1, cells=12)
    quantiles = trained.predict(planted.past, rows)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    few = SETTINGS.model_copy(update={"steps": 50})
    again = [train_forecast(planted.past, until=planted.start, settings=few, progress=no_progress) for _ in range(2)]
    assert np.array_equal(*(one.predict(planted.past, rows) for one in again))


def test_a_layer_known_ahead_is_learned(planted):
    rng = np.random.default_rng(1)
    event = (rng.random(600) < 0.2).astype(np.float32)
    values = planted.values + 8 * event[:, None, None]
    past = look_back(values, seasons=(SEASON,), neighbours=np.full((12, 8), -1), until=480, known=event[:, None])
    settings = SETTINGS.model_copy(update={"ahead": 1, "steps": 200})
    blind = look_back(values, seasons=(SEASON,), neighbours=np.full((12, 8), -1), until=480)
    errors = [
        evaluate(
            seen,
            train_forecast(seen, until=480, settings=settings, progress=no_progress),
            start=480,
            channels=["ndvi"],
            progress=no_progress,
        )
        for seen in (past, blind)
    ]
    assert errors[0][0].mae[NETWORK] < 0.6 * errors[1][0].mae[NETWORK]


def test_a_series_unknown_before_the_test_is_refused(planted):
    values = planted.values.copy()
    values[:480] = np.nan
    past = look_back(values, seasons=(SEASON,), neighbours=np.full((12, 8), -1), until=480)
    with pytest.raises(SceneError, match="no steps to learn from"):
        train_forecast(past, until=480, settings=SETTINGS, progress=no_progress)


def test_a_test_of_unknown_steps_is_refused(planted, trained):
    values = planted.values.copy()
    values[-1] = np.nan
    past = look_back(values, seasons=(SEASON,), neighbours=np.full((12, 8), -1), until=599)
    with pytest.raises(SceneError, match="no value is known in the steps of the test"):
        evaluate(past, trained, start=599, channels=["ndvi"], progress=no_progress)


def test_errors_are_those_of_each_channel():
    one = planted_values(steps=300)
    both = np.concatenate([one, 100 * one], axis=1)
    near = np.full((12, 8), -1, dtype=np.int64)
    past = look_back(both, seasons=(SEASON,), neighbours=near, until=240)
    settings = SETTINGS.model_copy(update={"steps": 50, "ahead": 2})
    trained = train_forecast(past, until=240, settings=settings, progress=no_progress)
    for horizon in evaluate(past, trained, start=240, channels=["a", "b"], progress=no_progress):
        small, large = horizon.channels["a"], horizon.channels["b"]
        expected = np.abs(one[240:] - one[240 - horizon.ahead : -horizon.ahead]).mean()
        assert small.mae[LAST] == pytest.approx(expected, rel=1e-5)
        assert large.mae[LAST] == pytest.approx(100 * expected, rel=1e-5)
        assert small.count == large.count == horizon.count / 2
        for name, value in horizon.mae.items():
            assert value == pytest.approx((small.mae[name] + large.mae[name]) / 2)
        assert horizon.coverage == pytest.approx((small.coverage + large.coverage) / 2)
        assert Horizon.from_json(asdict(horizon)) == horizon
