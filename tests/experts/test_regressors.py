"""Teachers of values: shares, intervals and interpolation against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from pipeline.errors import LabelError
from pipeline.experts.interpolation import Field
from pipeline.experts.regressor_mixture import fit_regressor_mixture, interval_factor, regressor_shares
from pipeline.experts.regressors import Places, ValueTable
from pipeline.experts.settings import Deadline


def _field(n: int = 60, days: int = 1) -> Field:
    rng = np.random.default_rng(2)
    xy = np.repeat(rng.uniform(0, 100_000, (n, 2)), days, axis=0)
    day = np.tile(np.arange(days), n)
    value = np.sin(xy[:, 0] / 20_000) + np.cos(xy[:, 1] / 25_000) + day + 0.05 * rng.standard_normal(n * days)
    return Field.fit(xy, day, value, np.repeat(np.arange(n), days))


def test_held_out_column_is_kriging_without_the_sample():
    field = _field()
    held = field.held_out()[:, 2]
    variance, reach, nugget = field.kernel
    apart = np.sqrt(3) * cdist(field.xy, field.xy) / reach
    cov = variance * (1 + apart) * np.exp(-apart)
    for left_out in (0, 17, 41):
        rest = np.arange(len(held)) != left_out
        mean = field.value[rest].mean()
        among = cov[np.ix_(rest, rest)] + (nugget + 1e-9) * np.eye(rest.sum())
        expected = mean + cov[left_out, rest] @ np.linalg.solve(among, field.value[rest] - mean)
        assert held[left_out] == pytest.approx(expected)


def test_held_out_columns_ignore_the_samples_own_value():
    field = _field(20, days=3)
    value = field.value.copy()
    value[7] += 100.0
    changed = Field(field.xy, field.day, value, field.group, field.kernel)
    assert np.allclose(field.held_out()[7], changed.held_out()[7])


def test_other_days_are_never_used():
    field = _field(20, days=2)
    found = field.columns(field.xy[:2], np.array([0, 1]))
    assert abs((found[1] - found[0]) - 1.0).max() < 0.6


def test_shares_go_to_the_teacher_that_is_right():
    rng = np.random.default_rng(0)
    target = rng.standard_normal(500)
    found = np.stack([target + 0.1 * rng.standard_normal(500), rng.standard_normal(500)], axis=1)
    shares = regressor_shares(found, target, np.ones(500), groups=20)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] > 0.99


def test_a_teacher_that_is_always_right_has_it_all():
    target = np.arange(10.0)
    shares = regressor_shares(np.stack([target + 1.0, target], axis=1), target, np.ones(10), groups=5)
    assert shares == pytest.approx([0.0, 1.0])


def test_few_groups_tell_teachers_apart_less():
    rng = np.random.default_rng(0)
    target = rng.standard_normal(500)
    found = np.stack([target + 0.5 * rng.standard_normal(500), target + 0.6 * rng.standard_normal(500)], axis=1)
    few, many = (regressor_shares(found, target, np.ones(500), groups=groups) for groups in (4, 40))
    assert 0.5 < few[0] < many[0] < 1.0


def test_interval_factor_makes_nine_of_ten_lie_within():
    rng = np.random.default_rng(1)
    spread = np.stack([-rng.uniform(0.5, 1.0, 2000), rng.uniform(0.5, 1.0, 2000)], axis=1)
    rest = 2.0 * rng.standard_normal(2000)
    factor = interval_factor(rest, spread, weight=np.ones(2000), group=np.arange(2000))
    inside = (rest >= factor * spread[:, 0]) & (rest <= factor * spread[:, 1])
    assert inside.mean() == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize("groups", [12, 16, 40])
def test_intervals_hold_in_new_groups_that_err_together(groups):
    """Of normal errors that are the same in all of a group, the share of new groups within follows from the factor."""
    rng, share = np.random.default_rng(2), []
    for _ in range(300):
        size = rng.integers(5, 40, groups)
        rest = np.repeat(rng.standard_normal(groups), size) + 0.01 * rng.standard_normal(size.sum())
        spread, group = np.tile([-1.0, 1.0], (len(rest), 1)), np.repeat(np.arange(groups), size)
        factor = interval_factor(rest, spread, weight=1.0 / size[group], group=group)
        share.append(2 * norm.cdf(factor) - 1)
    assert 0.89 < np.mean(share) < 0.97


def test_a_polygon_of_many_pixels_counts_once():
    """Thirty small errors of each of 100 polygons do not hide the errors of 100 points, which are as many samples."""
    rng = np.random.default_rng(3)
    scale, size = np.repeat([0.1, 1.0], 100), np.repeat([30, 1], 100)
    rest = np.repeat(scale * rng.standard_normal(200), size)
    polygon = np.repeat(np.arange(200), size)
    factor = interval_factor(rest, np.tile([-1.0, 1.0], (len(rest), 1)), weight=1 / size[polygon], group=polygon)
    inside = (2 * norm.cdf(factor / 0.1) - 1 + 2 * norm.cdf(factor) - 1) / 2
    assert inside == pytest.approx(0.9, abs=0.03)


def test_samples_of_one_group_are_refused():
    places = Places(np.zeros((12, 2), dtype=np.float32), np.zeros((12, 2)), np.zeros(12, dtype=np.int64))
    table = ValueTable(places, np.arange(12.0), np.zeros(12, dtype=np.int64), np.ones(12), 2)
    with pytest.raises(LabelError, match="one block or group"):
        fit_regressor_mixture(table, trees=2, seed=0)


def test_only_the_forest_is_fitted_once_the_time_is_up():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    places = Places(x, np.zeros((40, 2)), np.zeros(40, dtype=np.int64))
    table = ValueTable(places, x[:, 0].astype(float), np.arange(40) // 8, np.ones(40), 2)
    limit = Deadline.after(0.0)
    found = fit_regressor_mixture(table, trees=4, seed=0, deadline=limit)
    assert (found.kinds, found.shares.tolist(), limit.cut) == (("forest",), [1.0], ["teachers"])
    both = found.values_and_draws(places)
    assert both[:, 0] == pytest.approx(found.values(places))
    assert both[:, 1:] == pytest.approx(found.draws(places))


def _with_columns(columns: np.ndarray, target: np.ndarray, features: np.ndarray) -> ValueTable:
    n = len(target)
    places = Places(
        features.astype(np.float32), np.zeros((n, 2)), np.zeros(n, dtype=np.int64), columns.astype(np.float32)
    )
    return ValueTable(places, target, np.arange(n) // 12, np.ones(n), features.shape[1])


@pytest.mark.parametrize("helps", [True, False])
def test_an_encoder_is_admitted_where_it_helps_groups_held_out(*, helps: bool):
    rng = np.random.default_rng(4)
    features, columns = rng.normal(size=(144, 3)), rng.normal(size=(144, 40))
    target = (columns if helps else features)[:, 0] + 0.3 * rng.normal(size=144)
    table = _with_columns(columns, target, features)
    found = fit_regressor_mixture(table, trees=4, seed=0, kinds=("forest", "linear", "encoder"))
    assert found.admission is not None
    assert bool(found.admission.saved > found.admission.error) is helps
    assert bool(found.shares[-1] > 0.9) is helps
    assert found.shares.sum() == pytest.approx(1.0)
    plain, ridge = found.parts()
    assert (ridge is not None) is helps
    assert plain.shares.tolist() == pytest.approx([*(found.shares[:-1] / found.shares[:-1].sum()), 0.0])


def test_a_given_share_of_an_encoder_is_not_judged():
    rng = np.random.default_rng(6)
    target = rng.normal(size=144)
    table = _with_columns(target[:, None], target, rng.normal(size=(144, 3)))
    found = fit_regressor_mixture(table, trees=4, seed=0, kinds=("forest", "encoder"), given=0.25)
    assert (found.admission, found.shares.tolist()) == (None, [0.75, 0.25])
