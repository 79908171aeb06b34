"""Folds, figures and files of cross-validation; the networks and forests themselves are tested in test_fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import SplitError
from pipeline.splits.folds import fewer_polygons, random_pixel_fold
from pipeline.splits.split import Part
from pipeline.training import crossval
from tests.training.worlds import PIXELS, TINY, changed, cross_validate, fit, make_job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def forest(job, splits, folder, **options):
    scene, _, scheme = job
    settings = {"methods": ("forest",), "settings": TINY, "folder": folder, "trees": 5, "resume": True} | options
    return cross_validate([scene], scheme, splits, **settings)


def test_an_interrupted_run_goes_on_where_it_stopped(job, tmp_path, monkeypatch):
    _, split, _ = job
    done = []
    ordinary = crossval._predict

    def counted(*args, **options):
        done.append(args[0])
        if len(done) == 2:
            raise KeyboardInterrupt
        return ordinary(*args, **options)

    monkeypatch.setattr(crossval, "_predict", counted)
    with pytest.raises(KeyboardInterrupt):
        forest(job, [split, split, split], tmp_path)
    results = forest(job, [split, split, split], tmp_path)
    assert len(done) == 4  # one that was kept, one interrupted, two more
    assert [item.fold for item in results] == [0, 1, 2]


@pytest.mark.parametrize("how", ["settings", "labels", "split", "blocks", "parts", "damage"])
def test_what_is_kept_of_another_job_is_not_taken(job, tmp_path, how):
    scene, split, scheme = job
    before = forest(job, [split], tmp_path, keys={"forest": "a"})[0]
    (kept,) = tmp_path.glob("*.npz")
    content = kept.read_bytes()
    if how == "damage":
        kept.write_bytes(content[: len(content) // 2])
    if how == "split":
        part = split.part.copy()
        part[[6, 8]] = part[[8, 6]]
        split = replace(split, part=part)
    if how == "blocks":
        split = replace(split, block_of=split.block_of // 2)
    if how == "labels":
        scene = replace(scene, pixels=scene.pixels.select(scene.pixels.polygon != 6))
    keys = {"forest": "b" if how == "settings" else "a"}
    other = {"settings": changed(TINY, {"refit": False})} if how == "parts" else {}
    after = forest((scene, split, scheme), [split], tmp_path, keys=keys, **other)[0]
    assert after.seconds != before.seconds


def test_only_folds_asked_for_are_done_earlier_ones_given(job, tmp_path):
    _, split, _ = job
    assert [item.fold for item in forest(job, [split] * 3, tmp_path, only=[1])] == [1]
    assert [item.fold for item in forest(job, [split] * 3, tmp_path, only=[2])] == [1, 2]


def test_earlier_results_of_other_methods_are_given_too(job, tmp_path):
    _, split, _ = job
    forest(job, [split], tmp_path)
    both = forest(job, [split], tmp_path, methods=("forest_neighbourhood",))
    assert [item.method for item in both] == ["forest", "forest_neighbourhood"]


def test_progress_counts_the_folds_asked_for(job, tmp_path):
    _, split, _ = job
    said = []
    forest(job, [split] * 3, tmp_path, only=[0, 2], progress=lambda *news: said.append(news))
    assert said == [("forest", 1, 2), ("forest", 2, 2)]


def test_random_folds_test_every_pixel_once(job):
    scene, _, _ = job
    highest = int(scene.pixels.polygon.max())
    seen = np.zeros(len(scene.pixels), dtype=int)
    for fold in range(5):
        (told,), split = random_pixel_fold([scene], folds=5, fold=fold, seed=3)
        tested = split.part[told.pixels.polygon] == Part.TEST
        seen += tested
        assert set(told.pixels.polygon[tested] - highest) == set(scene.pixels.polygon)
        assert set(told.pixels.polygon[~tested]) == set(scene.pixels.polygon)
        assert tested.sum() == len(scene.pixels) // 5
        assert np.array_equal(told.pixels.code, scene.pixels.code)
    assert (seen == 1).all()


def test_both_methods_learn_and_are_tested_on_random_pixels(job, tmp_path):
    scene, _, scheme = job
    told, split = random_pixel_fold([scene], folds=5, fold=1, seed=0)
    results = cross_validate(
        told, scheme, [split], methods=("forest", "network"), settings=changed(PIXELS, {"pixels.steps": 4}),
        folder=tmp_path,
        trees=5, first_fold=1,
    )  # fmt: skip
    assert [item.fold for item in results] == [1, 1]
    assert all(len(item.predicted) == len(scene.pixels) // 5 for item in results)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_smaller_shares_of_polygons_are_parts_of_larger_ones(job):
    scene, split, _ = job
    shares = [fewer_polygons(split, [scene.pixels], share=share, seed=1) for share in (0.3, 0.6, 1.0)]
    learned = [set(np.flatnonzero(np.isin(item.part, (0, 1))).tolist()) for item in shares]
    assert learned[0] < learned[1] < learned[2]
    assert np.array_equal(shares[2].part, split.part)
    for item in shares:
        assert np.array_equal(item.polygons(Part.TEST), split.polygons(Part.TEST))
        kept = scene.pixels.code[item.part[scene.pixels.polygon] == Part.TRAIN]
        assert len(np.unique(kept)) == 2


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(job, share):
    scene, split, _ = job
    with pytest.raises(SplitError, match="share"):
        fewer_polygons(split, [scene.pixels], share=share, seed=0)


@pytest.mark.parametrize(("changes", "polygons"), [({}, 8), ({"refit": False}, 6)], ids=str)
def test_forest_and_network_learn_from_the_same_polygons(job, tmp_path, monkeypatch, changes, polygons):
    scene, split, scheme = job
    told = []
    ordinary = crossval.fit_forest

    def listening(*args, **options):
        told.append(options["polygons"].tolist())
        return ordinary(*args, **options)

    monkeypatch.setattr(crossval, "fit_forest", listening)
    settings = changed(PIXELS, {"pixels.steps": 4, **changes})
    (result,) = forest(job, [split], tmp_path, settings=settings)
    network = fit([scene], split, scheme, settings=settings, folder=tmp_path)
    assert told == [list(range(1, polygons + 1))]
    assert result.learned == polygons
    assert set(network.out_of_fold.polygon.tolist()) == set(told[0])
