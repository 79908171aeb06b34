from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.chips.splits import Part
from pipeline.errors import ModelError
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.training.baseline import fit_forest
from pipeline.training.crossval import cross_validate, predict_pixels, summary
from pipeline.training.dataset import read_chips, turns
from pipeline.training.fit import FitSettings, fit
from pipeline.training.teacher import best_shares
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


def test_the_better_expert_gets_the_larger_share():
    mine = np.array([[0.9] * 50, [0.3] * 50])
    assert best_shares(mine, np.ones(50), strength=0.01)[0] > 0.8
    assert abs(best_shares(mine, np.ones(50), strength=100.0)[0] - 0.5) < 0.05


def test_turns_count_repetitions():
    assert turns(np.array([7, 7, 3, 7])).tolist() == [0, 1, 0, 2]


def test_settings_that_cannot_train_are_refused():
    with pytest.raises(ModelError, match="steps"):
        FitSettings(steps=0)
