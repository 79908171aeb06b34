from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from pipeline.diagnostics.confidence import fit_confidence, fit_temperature, reliability


@pytest.fixture(scope="module")
def overconfident():
    """Scores three times too large for labels drawn from their probabilities."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((20_000, 4)) * 1.5
    labels = np.array([rng.choice(4, p=p) for p in softmax(scores, axis=1)])
    return scores * 3.0, labels


def _ece(probabilities, labels):
    return reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels).ece


def test_the_diagram_is_scikit_learns():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1.0, 5000)
    correct = rng.random(5000) < confidence**2
    found = reliability(confidence, correct, bins=10)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    used = found.count > 0
    assert found.accuracy[used] == pytest.approx(accuracy)
    assert found.confidence[used] == pytest.approx(mean)
    assert found.ece == pytest.approx((np.abs(accuracy - mean) * found.count[used]).sum() / 5000)
    assert found.to_json()["accuracy"][0] is None


def test_temperature_finds_the_factor_that_was_put_in(overconfident):
    scores, labels = overconfident
    temperature = fit_temperature(scores, labels)
    assert temperature == pytest.approx(3.0, rel=0.03)
    calibrated = softmax(scores / temperature, axis=1)
    assert _ece(calibrated, labels) < 0.02 < _ece(softmax(scores, axis=1), labels)


def test_confidence_ignores_the_scores_of_unlikely_classes():
    """Votes that give unlikely classes nothing, and a likeliest class that is as often right as it says."""
    rng = np.random.default_rng(3)
    sure = rng.uniform(0.5, 0.95, 20_000)
    probabilities = np.full((len(sure), 4), 1e-6)
    probabilities[:, 0], probabilities[:, 1] = sure, 1 - sure - 2e-6
    # What is not the likeliest class is the one that got no vote.
    labels = np.where(rng.random(len(sure)) < sure, 0, 3)
    logits = np.log(probabilities)
    assert fit_confidence(logits, labels) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(logits, labels) > 2


def test_confidence_alone_finds_the_factor_that_was_put_in(overconfident):
    scores, labels = overconfident
    assert fit_confidence(scores, labels) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("fit", [fit_confidence, fit_temperature])
def test_a_temperature_goes_as_far_as_the_polygons_can_show(overconfident, fit):
    scores, labels = overconfident
    n = np.arange(len(labels))
    found = [fit(scores, labels, polygon=n % polygons) for polygons in (9, 20_000)]
    assert found[0] == 1.0  # too few to know their spread
    assert found[1] == pytest.approx(3.0, rel=0.05)
    # Fifty pixels of a polygon that are right or wrong together are one observation, not fifty.
    once, often = (
        fit(np.repeat(scores[:400], times, axis=0), np.repeat(labels[:400], times), polygon=n[: 400 * times] // times)
        for times in (1, 50)
    )
    assert once == pytest.approx(often)
    assert 2.0 < once < 3.0


def test_calibrated_scores_mostly_keep_their_temperature():
    rng = np.random.default_rng(6)
    found, bold = [], []
    for _ in range(40):
        scores = rng.standard_normal((60, 4)) * 1.5
        labels = np.array([rng.choice(4, p=p) for p in softmax(scores, axis=1)])
        found.append(fit_confidence(scores, labels, polygon=np.arange(60)))
        bold.append(fit_confidence(scores, labels))
    assert np.mean(np.array(found) == 1.0) > 0.55  # 68 % of intervals of one standard error hold the truth
    assert np.abs(np.log(found)).mean() < 0.4 * np.abs(np.log(bold)).mean()
