"""Figures of a map on test pixels, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from pipeline.workflow.scoring import at_pixels, held_out, score_json, score_of
from tests.workflow.conftest import Run

NAMES = ("a", "b", "c")


def drawn(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, size)
    return np.where(rng.random(size) < 0.6, truth, rng.integers(0, 3, size)), truth


@examples(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_figures_are_those_of_scikit_learn(seed, size):
    mapped, truth = drawn(seed, size)
    matrix = confusion_matrix(truth, mapped, labels=[0, 1, 2]).T
    found = score_of("x", matrix, names=NAMES)
    assert found.overall_accuracy == pytest.approx(accuracy_score(truth, mapped))
    seen = sorted(set(truth) | set(mapped))
    figures = (
        (found.users, precision_score(truth, mapped, labels=seen, average=None, zero_division=0)),
        (found.producers, recall_score(truth, mapped, labels=seen, average=None, zero_division=0)),
        (found.f1, f1_score(truth, mapped, labels=seen, average=None, zero_division=0)),
    )
    for ours, theirs in figures:
        for number, value in zip(seen, theirs, strict=True):
            assert (ours[NAMES[number]] or 0.0) == pytest.approx(value)
    assert found.macro_f1 == pytest.approx(
        f1_score(truth, mapped, labels=sorted(set(truth)), average="macro", zero_division=0)
    )


def test_a_class_that_nobody_has_seen_has_no_figures():
    found = score_of("x", np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), names=NAMES)
    assert (found.users["c"], found.producers["c"], found.f1["c"]) == (None, None, None)
    assert found.macro_f1 == pytest.approx((6 / 7 + 8 / 9) / 2)


def test_an_empty_matrix_has_no_accuracy():
    found = score_of("x", np.zeros((3, 3), dtype=np.int64), names=NAMES)
    assert (found.overall_accuracy, found.macro_f1) == (0.0, 0.0)


def test_the_words_are_those_of_an_assessment_without_intervals():
    words = score_json(score_of("x", np.diag([1, 2, 3]), names=NAMES))
    assert words["overall_accuracy"] == {"estimate": 1.0, "se": None, "ci95": None}
    assert set(words["per_class"]) == set(NAMES)


def test_values_at_pixels_are_those_of_the_raster(finished: Run):
    import rasterio

    from pipeline.workflow.job import Job

    job = Job.load(finished.config)
    ((number, pixels),) = held_out(job)
    assert number == 0
    with rasterio.open(finished.folder / "scene_lc.tif") as dataset:
        codes = dataset.read(1)
    assert np.array_equal(at_pixels(finished.folder / "scene_lc.tif", pixels), codes[pixels.row, pixels.col])
