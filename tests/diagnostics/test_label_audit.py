"""Doubtful labels and places to label next, where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.diagnostics.label_audit import (
    CELL_PX,
    CellTable,
    audit_table,
    confident_suggestions,
    look_over_scenes,
    normal_entropy,
    out_of_fold,
    spread_places,
)
from pipeline.splits.folds import polygon_folds
from tests.training.worlds import make_job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def test_suggestions_follow_confident_learning():
    # Mean self-confidence: class 0 (0.9 + 0.7 + 0.2) / 3 = 0.6, class 1 (0.8 + 0.6) / 2 = 0.7.
    probability = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6]])
    given = np.array([0, 0, 0, 1, 1], dtype=np.uint8)
    assert confident_suggestions(probability, given).tolist() == [-1, -1, 1, -1, -1]


def test_a_class_that_nobody_was_given_is_never_suggested():
    probability = np.array([[0.1, 0.0, 0.9], [0.9, 0.1, 0.0]])
    assert confident_suggestions(probability, np.array([0, 0], dtype=np.uint8))[0] == -1


def test_a_polygon_with_a_wrong_class_is_found_out(job):
    scene, _, scheme = job
    wrong = 5
    low, high = (scheme.by_name(name).code for name in ("low", "high"))
    code = np.where(scene.pixels.polygon == wrong, high, scene.pixels.code).astype(np.uint8)
    assert low in scene.pixels.code[scene.pixels.polygon == wrong]
    mislabelled = replace(scene, pixels=replace(scene.pixels, code=code))
    table = audit_table([mislabelled], scheme, seed=0)
    splits = polygon_folds([mislabelled.pixels], folds=4, seed=0, validation_fraction=0.0)
    votes = out_of_fold(table, splits, classes=2, seed=0)
    suggested = confident_suggestions(votes.probability, votes.given)
    assert votes.polygon[suggested >= 0].tolist() == [wrong]
    assert votes.agree[votes.polygon == wrong][0] < 0.2
    assert votes.agree[votes.polygon != wrong].mean() > 0.9
    assert votes.probability.sum(axis=1) == pytest.approx(1.0)
    assert set(votes.fold.tolist()) == {0, 1, 2, 3}


def test_cells_lie_where_no_label_is(job):
    scene, _, scheme = job
    table = audit_table([scene], scheme, seed=0)
    cells = look_over_scenes([scene], table.forest(), classes=2, windows=9, seed=0)
    assert len(cells) > 0
    _, row, col = cells.place.T
    assert (row % CELL_PX == 0).all()
    labelled = set(zip(scene.pixels.row // CELL_PX, scene.pixels.col // CELL_PX, strict=True))
    assert not labelled & set(zip(row // CELL_PX, col // CELL_PX, strict=True))
    assert cells.probability.sum(axis=1) == pytest.approx(1.0)
    # The halves differ in the second band, and cells are wholly in one of them.
    likely = scheme.index_to_code[cells.probability.argmax(axis=1)]
    expected = np.where(col < 48, scheme.by_name("low").code, scheme.by_name("high").code)
    assert (likely == expected).mean() > 0.95


def test_places_are_the_best_and_keep_their_distance():
    col = np.arange(0, 80, CELL_PX, dtype=np.int64)
    entropy = np.linspace(0, 1, len(col))
    cells = CellTable(
        np.stack([np.zeros_like(col), np.zeros_like(col), col], axis=1), np.tile([0.3, 0.7], (len(col), 1)), entropy,
        np.zeros((len(col), 1), np.float32),
    )  # fmt: skip
    places = spread_places(cells.place, entropy / 2, count=3, apart_px=[20.0])
    assert [cells.window(place).col for place in places] == [72, 48, 24]


def test_entropy_is_one_for_equal_chances():
    assert normal_entropy(np.full((1, 4), 0.25))[0] == pytest.approx(1.0)
    assert normal_entropy(np.array([[1.0, 0.0, 0.0]]))[0] == pytest.approx(0.0, abs=1e-6)
