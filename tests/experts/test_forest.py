from __future__ import annotations

import numpy as np
import pytest

from pipeline.experts.forest import fit_forest
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from tests.training.worlds import make_job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def test_trees_are_bounded_and_the_forest_sees_all_pixels(job, monkeypatch):
    scene, split, scheme = job
    learn = {"polygons": split.polygons(Part.TRAIN), "trees": 60}
    whole = fit_forest([scene], scheme, **learn)
    assert whole.forest.max_samples is None
    monkeypatch.setattr("pipeline.experts.forest.TREE_PIXELS", 100)
    bounded = fit_forest([scene], scheme, **learn)
    # The weights of a tree's root are the pixels it drew.
    assert {int(tree.tree_.weighted_n_node_samples[0]) for tree in bounded.forest.estimators_} == {100}
    drawn = np.unique(np.concatenate(bounded.forest.estimators_samples_))
    assert len(drawn) > 0.9 * len(split.pixels(scene.pixels, Part.TRAIN))
    test = split.pixels(scene.pixels, Part.TEST)
    with open_reader(scene.source) as reader:
        assert (bounded.predict(reader, test) == test.code).mean() > 0.95
