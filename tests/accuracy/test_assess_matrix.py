from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from pipeline.accuracy.assess_estimators import agreement, cross_tabulate


def test_rows_are_the_map_and_columns_the_reference():
    mapped, truth = np.array([0, 0, 2, 1]), np.array([1, 0, 2, 1])
    assert (cross_tabulate(mapped, truth, classes=3) == confusion_matrix(truth, mapped).T).all()


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    mapped, truth = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    counts = cross_tabulate(mapped, truth, classes=4)
    assert agreement(counts.astype(float)).kappa == pytest.approx(cohen_kappa_score(truth, mapped))


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 50)).filter(lambda counts: counts.sum() > 0))
def test_quantity_and_allocation_add_up_to_the_disagreement(counts):
    found = agreement(counts.astype(float))
    wrong = 1 - np.trace(counts) / counts.sum()
    assert found.quantity_disagreement + found.allocation_disagreement == pytest.approx(wrong)


def test_kappa_does_not_exist_where_chance_explains_everything():
    assert agreement(np.array([[1.0, 0.0], [0.0, 0.0]])).kappa is None
