"""The values that a network has learned are known again; another series, and another unit, is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pipeline.errors import SceneError, SceneWarning
from pipeline.forecast.learned import check_values, draw_sample
from tests.forecast.conftest import planted_values

VALUES = planted_values(steps=132)
SAMPLE = draw_sample(VALUES)
# Mean absolute anomaly of the planted cells, about.
SCALE = np.full((1, VALUES.shape[2]), 1.3, dtype=np.float32)


def check(values):
    check_values(SAMPLE, values.astype(np.float32), scale=SCALE, path="x.tif")


@pytest.mark.parametrize("values", [VALUES, np.concatenate([VALUES, 100 * VALUES[:5]]), VALUES + 5e-4])
def test_the_same_values_are_taken_in_silence(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(values)


def test_a_sample_holds_known_values_of_every_step():
    holes = VALUES.copy()
    holes[5] = np.nan
    sample = draw_sample(holes)
    assert set(range(len(VALUES))) - set(sample.step.tolist()) == {5}
    assert np.array_equal(holes[sample.step, sample.channel, sample.cell], sample.value)


def test_a_large_sample_stays_small():
    rng = np.random.default_rng(0)
    assert len(draw_sample(rng.random((5000, 2, 40)).astype(np.float32)).value) == 2 * 4096 * 2


def test_revised_values_are_said_with_share_and_size():
    revised = VALUES.copy()
    revised[-4:] += 2
    with pytest.warns(SceneWarning, match=r"x\.tif: of the values of the steps learned 3\.\d\d% are others, by 2 on"):
        check(revised)
    with pytest.warns(SceneWarning, match=r"100\.00% are others, by 0\.1 on average \(a usual change is 1\.3\)"):
        check(VALUES + 0.1)
    revised[-4:] = np.nan
    with pytest.warns(SceneWarning, match=r"learned 3\.\d\d% are unknown now; taken for the same series, revised"):
        check(revised)


@pytest.mark.parametrize("values", [planted_values(steps=132, seed=1), VALUES[::-1], VALUES + 300, -VALUES])
def test_another_series_is_refused(values):
    with pytest.raises(SceneError, match=r"x\.tif: values of the steps learned are not .*got \d+% of .*train on this"):
        check(values)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (10_000, r"10,000 times larger .*its scale times 0\.0001: "),
        (0.1, r"10 times smaller .*its scale times 10: "),
        (2.54, "2.54 tim"),
    ],
)
def test_another_unit_is_told_by_its_factor(factor, said):
    with pytest.raises(SceneError, match=said):
        check(VALUES * factor)
