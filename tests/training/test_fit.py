from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pipeline.training.baseline import fit_forest
from pipeline.training.dataset import read_chips, turns
from pipeline.training.mixture import best_shares
from pipeline.training.polygon_trees import DRAWN_PIXELS, draw_polygons, fit_polygon_trees
from pipeline.training.teacher import PixelTable, fit_teacher

from pipeline.errors import ModelError
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.splits.split import Part
from pipeline.training.crossval import cross_validate, predict_pixels, summary
from pipeline.training.fit import FitSettings, fit
from tests.training.worlds import PIXELS, make_job

QUICK = replace(PIXELS, encoder="resnet18")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def test_a_network_learns_what_a_threshold_tells(job, tmp_path):
    scene, split, scheme = job
    result = fit([scene], split, scheme, settings=QUICK, folder=tmp_path)
    test = split.pixels(scene.pixels, Part.TEST)
    assert (predict_pixels(result.bundle, scene.source, test) == test.code).mean() > 0.95
    assert len(result.bundle.members) == 2
    again = load_bundle(save_bundle(tmp_path / "m.safetensors", result.bundle))
    assert again.bands == ("red", "nir")


def test_test_polygons_are_no_labels_in_chips(job):
    from pipeline.model.preprocess import Preprocess

    scene, split, scheme = job
    plain = Preprocess(("red", "nir"), (0.0, 0.0), (1.0, 1.0), 0.0)
    chips = read_chips(
        [scene], split=split, parts=(Part.TRAIN,), scheme=scheme, preprocess=plain, chip_px=32, labelled=99,
        unlabelled=4, seed=0,
    )  # fmt: skip
    seen = set(chips.polygon[chips.index != 255].unique().tolist())
    assert seen == set(split.polygons(Part.TRAIN).tolist())


def test_forest_and_network_are_judged_on_the_same_pixels(job, tmp_path):
    scene, split, scheme = job
    results = cross_validate(
        [scene], scheme, [split], methods=("forest", "forest_neighbourhood"), settings=QUICK, folder=tmp_path, trees=10
    )
    assert np.array_equal(results[0].reference, results[1].reference)
    assert summary(results, "forest")["pooled"]["overall_accuracy"] > 0.95
    resumed = cross_validate(
        [scene], scheme, [split], methods=("forest",), settings=QUICK, folder=tmp_path, resume=True
    )
    assert resumed[0].seconds == results[0].seconds


def test_forest_window_agrees_with_forest_pixels(job):
    from pipeline.scenes.reader import open_reader

    scene, split, scheme = job
    forest = fit_forest([scene], scheme, polygons=split.polygons(Part.TRAIN), sizes=(3,), trees=10)
    with open_reader(scene.source) as reader:
        window = forest.predict_window(reader, scene.source.grid.window)
        codes = forest.predict(reader, scene.pixels)
    assert np.array_equal(window[scene.pixels.row, scene.pixels.col], codes)


def test_a_draw_of_polygons_keeps_the_classes_and_takes_few_pixels_of_each():
    index = np.repeat(np.array([0, 0, 1, 1, 1], dtype=np.uint8), [500, 3, 40, 60, 2])
    polygon = np.repeat(np.array([4, 7, 2, 9, 5], dtype=np.int32), [500, 3, 40, 60, 2])
    sizes = {4: DRAWN_PIXELS, 7: 3, 2: 40, 9: DRAWN_PIXELS, 5: 2}
    for seed in range(5):
        rows = draw_polygons(index, polygon, rng=np.random.default_rng(seed))
        drawn = {own: (polygon[rows] == own).sum() / size for own, size in sizes.items()}
        assert all(times == int(times) for times in drawn.values())
        assert drawn[4] + drawn[7] == 2
        assert drawn[2] + drawn[9] + drawn[5] == 3


def test_trees_of_polygons_miss_polygons_and_know_every_class():
    rng = np.random.default_rng(0)
    polygon = np.repeat(np.arange(1, 13, dtype=np.int32), 30)
    index = (polygon % 3).astype(np.uint8)
    features = (index[:, None] + rng.normal(0, 0.1, (len(index), 4))).astype(np.float32)
    trees = fit_polygon_trees(features, index, polygon, trees=8, seed=1)
    again = fit_polygon_trees(features, index, polygon, trees=8, seed=1)
    probability = trees.predict_proba(features)
    assert np.array_equal(probability, again.predict_proba(features))
    assert np.allclose(probability.sum(axis=1), 1)
    assert (probability.argmax(axis=1) == index).mean() > 0.95
    assert {tree.n_classes_ for tree in trees.trees} == {3}


def test_the_better_expert_gets_the_larger_share():
    mine = np.array([[0.9] * 50, [0.3] * 50])
    assert best_shares(mine, np.ones(50), strength=0.01)[0] > 0.8
    assert abs(best_shares(mine, np.ones(50), strength=100.0)[0] - 0.5) < 0.05


@pytest.mark.parametrize(("polygons", "joins"), [(60, False), (120, True)])
def test_logistic_regression_joins_where_polygons_are_many(polygons, joins):
    rng = np.random.default_rng(0)
    polygon = np.repeat(np.arange(polygons, dtype=np.int32), 4)
    index = (polygon % 3).astype(np.uint8)
    features = (index[:, None] + rng.normal(0, 0.3, (len(index), 10))).astype(np.float32)
    table = PixelTable(features, index, polygon, 2)
    teacher = fit_teacher(table, classes=3, group_of=np.full(polygons, -1, dtype=np.int32), trees=3, seed=0)
    assert ("logistic" in {expert.kind for expert in teacher.experts}) is joins
    assert abs(teacher.shares.sum() - 1) < 1e-9
    probability = teacher.predict(features)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert (probability.argmax(axis=1) == index).mean() > 0.9
    assert np.allclose(teacher.held_out.sum(axis=1), 1, atol=1e-5)


def test_turns_count_repetitions():
    assert turns(np.array([7, 7, 3, 7])).tolist() == [0, 1, 0, 2]


def test_settings_that_cannot_train_are_refused():
    with pytest.raises(ModelError, match="steps"):
        FitSettings(steps=0)
