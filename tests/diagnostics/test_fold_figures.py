"""Figures of folds, their means, and pooled over the pixels of a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from pipeline.diagnostics.fold_figures import figures, per_class_f1, summary
from pipeline.legend import scheme_for
from pipeline.training.crossval import FoldResult

CODES = hnp.arrays(np.uint8, st.integers(2, 60), elements=st.integers(1, 5))


@given(CODES, st.randoms())
def test_figures_are_scikit_learns(reference, random):
    predicted = np.array([random.choice([1, 2, 3, 4, 5]) for _ in reference], dtype=np.uint8)
    found = figures(reference, predicted)
    assert found["overall_accuracy"] == pytest.approx(accuracy_score(reference, predicted))
    f1 = f1_score(reference, predicted, labels=np.unique(reference), average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(f1)
    if found["kappa"] is not None:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(reference, predicted))


def test_kappa_of_one_class_is_unknown_and_not_in_the_mean():
    one = np.ones(4, dtype=np.uint8)
    two = np.array([1, 1, 2, 2], dtype=np.uint8)
    assert figures(one, one)["kappa"] is None
    results = [
        FoldResult("forest", 0, one, one, one.astype(np.int32), 1.0),
        FoldResult("forest", 1, two, two, two.astype(np.int32), 2.0),
    ]
    data = summary(results, "forest")
    assert data["mean"]["kappa"] == 1.0
    assert data["seconds"] == [1.0, 2.0]


def test_pooled_figures_are_per_seed_and_averaged():
    def result(seed, fold, reference, predicted):
        ids = np.arange(len(reference), dtype=np.int32)
        return FoldResult("network", fold, np.uint8(reference), np.uint8(predicted), ids, 0.0, seed)

    results = [
        result(0, 0, [1, 1, 1], [1, 1, 1]),
        result(0, 1, [2], [1]),
        result(1, 0, [1, 1, 1], [1, 1, 1]),
        result(1, 1, [2], [2]),
    ]
    data = summary(results, "network")
    assert [item["overall_accuracy"] for item in data["seeds"]] == [0.75, 1.0]
    assert data["pooled"]["overall_accuracy"] == 0.875
    assert data["mean"]["overall_accuracy"] == 0.75
    assert data["sd"]["overall_accuracy"] == 0.5
    assert [(item["seed"], item["fold"]) for item in data["folds"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_pixels_that_no_method_saw_are_taken_out_and_counted():
    def result(method, predicted, fold=0):
        reference, ids = np.uint8([1, 1, 2, 2, 2]), np.int32([1, 1, 2, 2, 3])
        return FoldResult(method, fold, reference, np.uint8(predicted), ids, 0.0)

    results = [result("forest", [1, 0, 2, 1, 0]), result("network", [1, 1, 2, 0, 0]), result("forest", [0] * 5, fold=1)]
    forest, network = summary(results, "forest"), summary(results, "network")
    assert forest["pooled"] == figures(np.uint8([1, 1, 2, 2]), np.uint8([1, 0, 2, 1]))
    assert network["pooled"]["overall_accuracy"] == 0.75
    said = [(fold["pixels"], fold["pixels_not_valid"], fold["polygons"]) for fold in forest["folds"]]
    assert said == [(4, 1, 2), (0, 5, 0)]
    assert forest["folds"][1]["kappa"] is None
    assert forest["mean"] == {name: forest["folds"][0][name] for name in forest["mean"]}


def test_a_method_without_results_has_no_figures():
    data = summary([], "network")
    assert data["folds"] == []
    assert data["pooled"] == {"overall_accuracy": None, "macro_f1": None, "kappa": None}


def test_a_class_that_is_not_tested_has_no_f1():
    scheme = scheme_for(["low", "high"])[0]
    low = np.full(3, scheme.by_name("low").code, dtype=np.uint8)
    assert per_class_f1(low, low, scheme=scheme) == {"low": 1.0, "high": None}
