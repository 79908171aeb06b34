"""Trees along rotated axes: what whitening does, what rotations leave as it was, and where cuts along bands fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.experts.trees import (
    RIDGE,
    TREES_PER_TURN,
    fit_polygon_trees,
    fit_rotated_trees,
    random_rotation,
    sum_of_trees,
    whitening,
)


def few_fields(polygons: int = 12, pixels: int = 40, *, seed: int = 0):
    """Two classes that differ by a little in the difference of two bands, whose sum varies a lot."""
    rng = np.random.default_rng(seed)
    polygon = np.repeat(np.arange(1, polygons + 1, dtype=np.int32), pixels)
    index = (polygon % 2).astype(np.uint8)
    bright = rng.normal(0, 3, (polygons + 1, 1))[polygon] + rng.normal(0, 3, (len(polygon), 1))
    noise = rng.normal(0, 0.02, (len(polygon), 2))
    features = bright + noise + np.where(index, 0.04, -0.04)[:, None] * [1, -1]
    return features.astype(np.float32), index, polygon


def test_trees_asked_in_turn_say_what_they_say_together():
    features, index, polygon = few_fields()
    trees = fit_polygon_trees(features, index, polygon, trees=7, seed=0).trees
    together = np.sum([tree.predict_proba(features) for tree in trees], axis=0)
    assert np.array_equal(sum_of_trees(trees, features), together)


def covariance_within(features, polygon):
    return np.mean([np.cov(features[polygon == name].T) for name in np.unique(polygon)], axis=0)


def test_whitened_polygons_are_as_wide_as_they_are_long():
    features, index, polygon = few_fields()
    whiten = whitening(features, index, polygon)
    within = covariance_within(features.astype(np.float64), polygon)
    ridge = RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    assert np.allclose(whiten.T @ (within + ridge) @ whiten, np.eye(2), atol=1e-6)


def test_points_are_whitened_by_their_classes():
    features, index, polygon = few_fields()
    points = np.arange(len(polygon), dtype=np.int32)
    assert np.allclose(whitening(features, index, points), whitening(features, index, index.astype(np.int32)))
    assert not np.allclose(whitening(features, index, points), whitening(features, index, polygon))


def test_pixels_all_alike_are_left_but_for_scale():
    features = np.ones((6, 3), np.float32)
    whiten = whitening(features, np.zeros(6, np.uint8), np.arange(6, dtype=np.int32))
    assert np.allclose(whiten.T @ whiten, np.eye(3) / RIDGE)


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_a_rotation_keeps_distances(size, seed):
    turn = random_rotation(size, rng=np.random.default_rng(seed))
    assert np.allclose(turn.T @ turn, np.eye(size))


def test_a_difference_of_bands_is_learned_by_turned_axes():
    features, index, polygon = few_fields()
    unseen, truth, _ = few_fields(seed=1)
    rotated = fit_rotated_trees(features, index, polygon, weight=np.ones(len(index)), trees=30, seed=0)
    along = fit_polygon_trees(features, index, polygon, trees=30, seed=0)
    right = (rotated.predict_proba(unseen).argmax(axis=1) == truth).mean()
    assert right > 0.9
    assert right > (along.predict_proba(unseen).argmax(axis=1) == truth).mean() + 0.1


@pytest.mark.parametrize("trees", [1, TREES_PER_TURN, TREES_PER_TURN + 3])
def test_there_are_as_many_trees_as_asked_and_shares_sum_to_1(trees):
    features, index, polygon = few_fields(4, 5)
    fitted = fit_rotated_trees(features, index, polygon, weight=np.ones(len(index)), trees=trees, seed=0)
    assert sum(map(len, fitted.trees)) == trees
    assert len(fitted.turns) == len(fitted.trees)
    assert np.allclose(fitted.predict_proba(features).sum(axis=1), 1)


def test_the_unit_of_the_bands_does_not_matter():
    features, index, polygon = few_fields(6, 20)
    weight = np.ones(len(index))
    unit = fit_rotated_trees(features * np.float32(1024), index, polygon, weight=weight, trees=10, seed=0)
    plain = fit_rotated_trees(features, index, polygon, weight=weight, trees=10, seed=0)
    assert np.mean(unit.predict_proba(features * np.float32(1024)) == plain.predict_proba(features)) > 0.95
