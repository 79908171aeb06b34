from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from pipeline.diagnostics import applicability
from pipeline.diagnostics.applicability import fit_applicability
from pipeline.errors import ReferenceDataError


@pytest.fixture
def training():
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 5)) * [1, 10, 0.1, 5, 2], rng.integers(0, 5, 300)


def test_index_and_threshold_follow_the_paper(training):
    features, folds = training
    model = fit_applicability(features, folds=folds)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    average = pdist(scaled).mean()
    distances = cdist(scaled, scaled)
    distances[folds[:, None] == folds] = np.inf
    index = distances.min(axis=1) / average
    low, high = np.quantile(index, [0.25, 0.75])
    assert model.mean_distance == pytest.approx(average, rel=1e-5)
    assert model.threshold == pytest.approx(index[index <= high + 1.5 * (high - low)].max(), rel=1e-4)
    new = features[:40] + 3
    expected = cdist((new - features.mean(axis=0)) / features.std(axis=0), scaled).min(axis=1) / average
    assert model.dissimilarity(new) == pytest.approx(expected, rel=1e-3)


def test_training_samples_are_inside_and_far_ones_outside(training):
    features, folds = training
    model = fit_applicability(features, folds=folds)
    assert model.dissimilarity(features).max() < 1e-3
    assert model.inside(features).all()
    assert not model.inside(features + 100 * features.std(axis=0)).any()


def test_pixels_without_features_are_outside(training):
    features, folds = training
    model = fit_applicability(features, folds=folds)
    pixels = features[:50].copy()
    pixels[[3, 40], 1] = np.nan
    inside = model.inside(pixels)
    assert np.flatnonzero(~inside).tolist() == [3, 40]


def test_weights_of_zero_take_a_feature_out(training):
    features, folds = training
    model = fit_applicability(features, folds=folds, weights=np.array([1, 1, 1, 1, 0]))
    moved = features.copy()
    moved[:, 4] += 1e6
    assert model.inside(moved).all()


def test_many_pairs_are_sampled_close_to_the_mean(training, monkeypatch):
    features, folds = training
    exact = fit_applicability(features, folds=folds).mean_distance
    monkeypatch.setattr(applicability, "MAX_PAIRS", 20_000)
    assert fit_applicability(features, folds=folds).mean_distance == pytest.approx(exact, rel=0.02)


def test_what_cannot_be_learned_from_is_refused(training):
    features, folds = training
    with pytest.raises(ReferenceDataError, match="folds"):
        fit_applicability(features, folds=np.zeros(300, dtype=int))
    with pytest.raises(ReferenceDataError, match="do not vary"):
        fit_applicability(np.ones((300, 2)), folds=folds)
