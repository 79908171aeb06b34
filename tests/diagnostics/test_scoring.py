"""Figures of a map on test pixels, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from pipeline.diagnostics.scoring import (
    at_pixels,
    classes_ahead,
    confusion_csv,
    score_json,
    score_of,
    score_values,
    values_ahead,
)
from tests.fakes.finished import Run

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
        (found.f1, f1_score(truth, mapped, labels=seen, average=None, zero_division=0) * np.isin(seen, truth)),
    )
    for ours, theirs in figures:
        for number, value in zip(seen, theirs, strict=True):
            assert (ours[NAMES[number]] or 0.0) == pytest.approx(value)
    ious = jaccard_score(truth, mapped, labels=sorted(set(truth)), average=None, zero_division=0)
    assert [found.iou[NAMES[number]] for number in sorted(set(truth))] == pytest.approx(list(ious))
    if len(seen) > 1:
        assert found.kappa == pytest.approx(cohen_kappa_score(truth, mapped))
    assert found.macro_f1 == pytest.approx(
        f1_score(truth, mapped, labels=sorted(set(truth)), average="macro", zero_division=0)
    )


def test_a_class_that_nobody_has_seen_has_no_figures():
    found = score_of("x", np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), names=NAMES)
    assert (found.users["c"], found.producers["c"], found.f1["c"]) == (None, None, None)
    assert found.macro_f1 == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert score_json(found)["macro_f1_without"] == ["c"]


def test_an_empty_matrix_has_no_accuracy():
    found = score_of("x", np.zeros((3, 3), dtype=np.int64), names=NAMES)
    assert (found.overall_accuracy, found.macro_f1) == (0.0, 0.0)


def test_the_file_has_figures_support_and_the_matrix():
    words = score_json(score_of("x", np.diag([1, 2, 3]), names=NAMES))
    assert (words["overall_accuracy"], words["kappa"], words["macro_f1"]) == (1.0, 1.0, 1.0)
    assert [words["per_class"][name]["support"] for name in NAMES] == [1, 2, 3]
    assert words["confusion"]["matrix"] == ((1, 0, 0), (0, 2, 0), (0, 0, 3))


def test_the_table_has_map_rows_and_reference_columns():
    text = confusion_csv(score_of("x", np.array([[3, 1, 0], [0, 4, 0], [0, 0, 5]]), names=NAMES))
    assert text.splitlines() == ["map \\ reference,a,b,c", "a,3,1,0", "b,0,4,0", "c,0,0,5"]


def test_values_at_pixels_are_those_of_the_raster(finished: Run):
    import rasterio

    from pipeline.workflow.job import Job

    job = Job.load(finished.config)
    ((number, pixels),) = job.test_pixels
    assert number == 0
    with rasterio.open(finished.folder / "maps" / "scene_lc.tif") as dataset:
        codes = dataset.read(1)
    assert np.array_equal(at_pixels(finished.folder / "maps" / "scene_lc.tif", pixels), codes[pixels.row, pixels.col])


def test_a_forest_that_is_ahead_is_named():
    matrices = {
        "network": [[8, 2], [3, 7]],
        "forest (bands)": [[9, 1], [3, 7]],
        "forest (neighbourhoods)": [[9, 1]] * 2,
    }
    network, plain, wide = (score_of(name, np.array(one), names=("a", "b")) for name, one in matrices.items())
    assert classes_ahead([network, plain, wide]).startswith(
        "forest (bands) is ahead of the network here, 80.0 % (macro-F1 0.7"
    )
    assert classes_ahead([plain, network, wide]) == ""


def test_a_baseline_of_values_that_is_ahead_is_named():
    measured = np.array([1.0, 2.0, 3.0, 4.0])
    good, bad = score_values("line", measured, measured + 0.1), score_values("network", measured, measured[::-1])
    mean = score_values("mean", measured, np.full(4, 2.5))
    assert "line is ahead of the network here (R2 0.99 against -3.00)" in values_ahead([bad, mean, good])
    assert values_ahead([good, mean, bad]) == ""
