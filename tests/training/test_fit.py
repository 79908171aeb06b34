from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.diagnostics.fold_figures import summary
from pipeline.errors import ModelWarning
from pipeline.experts.experts import PixelTable
from pipeline.experts.forest import fit_forest
from pipeline.experts.mixture import fit_mixture
from pipeline.experts.settings import Deadline
from pipeline.experts.shares import best_shares
from pipeline.experts.trees import DRAWN_PIXELS, draw_polygons, fit_polygon_trees
from pipeline.legend import IGNORE_INDEX
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.model.preprocess import Preprocess
from pipeline.splits.split import Part
from pipeline.training.chip_set import read_chips
from pipeline.training.chips import choose_chips
from pipeline.training.crossval import predict_pixels
from tests.training.worlds import CHIPS, PIXELS, changed, cross_validate, fit, make_job

QUICK = changed(PIXELS, {"context.enabled": True})


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
    scene, split, scheme = job
    plain = Preprocess(("red", "nir"), (0.0, 0.0), (1.0, 1.0), 0.0)
    index = choose_chips({scene.source.id: scene.pixels}, settings=CHIPS, split=split, scheme=scheme)
    chips = read_chips([scene], index, split=split, preprocess=plain)
    seen = set(chips.polygon[chips.index != IGNORE_INDEX].unique().tolist())
    assert seen == set(split.polygons(Part.TRAIN).tolist()) | set(split.polygons(Part.VALIDATION).tolist())


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


def test_a_draw_of_polygons_keeps_classes_and_takes_few_pixels():
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
def test_a_kernel_joins_where_polygons_are_many(polygons, joins):
    rng = np.random.default_rng(0)
    polygon = np.repeat(np.arange(polygons, dtype=np.int32), 4)
    index = (polygon % 3).astype(np.uint8)
    features = (index[:, None] + rng.normal(0, 0.3, (len(index), 10))).astype(np.float32)
    table = PixelTable(features, index, polygon, 2)
    mixture = fit_mixture(table, classes=3, group_of=np.full(polygons, -1, dtype=np.int32), trees=3, seed=0)
    assert ("kernel" in {expert.kind for expert in mixture.experts}) is joins
    assert abs(mixture.shares.sum() - 1) < 1e-9
    probability = mixture.predict(features)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert (probability.argmax(axis=1) == index).mean() > 0.9
    assert np.allclose(mixture.out_of_fold.probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"context.steps": 0}, {"pixels.enabled": False, "context.enabled": False}], ids=str)
def test_settings_that_cannot_train_are_refused(wrong):
    with pytest.raises(ValidationError, match=r"steps|nothing to train"):
        changed(QUICK, wrong)


def test_a_network_learns_although_experts_took_all_the_time(tmp_path, monkeypatch):
    scene, split, scheme = make_job(tmp_path)
    settings = changed(PIXELS, {"time_limit_s": 100.0, "pixels.steps": 20})
    gone = Deadline(0.0)
    monkeypatch.setattr(Deadline, "after", classmethod(lambda *_: gone))
    with pytest.warns(ModelWarning, match=r"time_limit_s \(100 s\) ended first: experts, .*higher limit"):
        result = fit([scene], split, scheme, settings=settings, folder=tmp_path / "run")
    assert result.history[-1]["step"] == 20
    assert "experts" in result.bundle.provenance["cut_short"]
