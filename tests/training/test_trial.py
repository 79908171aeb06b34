"""The network with context gets the share that held-out polygons speak for, and none where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.training.fit import fit
from pipeline.training.trial import FOLDER, Verdict, earned_share
from tests.training.worlds import TINY, make_job, parts

ASKED = replace(TINY, context_share="learned")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def test_a_better_member_earns_a_share_and_a_worse_one_none():
    polygon = np.repeat(np.arange(30, dtype=np.int32), 10)
    rng = np.random.default_rng(0)
    good, bad = (np.clip(rng.normal(mean, 0.05, 300), 0, 1) for mean in (0.8, 0.4))
    assert earned_share(bad, good, polygon=polygon).share == pytest.approx(1.0)
    assert earned_share(good, bad, polygon=polygon).share == 0.0


def test_members_that_are_wrong_in_different_places_share():
    polygon = np.repeat(np.arange(40, dtype=np.int32), 5)
    first = np.where(polygon % 2 == 0, 0.9, 0.2)
    verdict = earned_share(first, 1.1 - first, polygon=polygon)
    assert verdict.share == pytest.approx(0.5, abs=0.05)
    assert verdict.polygons == 40
    assert verdict.gain > verdict.error


def test_one_polygon_alone_does_not_speak_for_the_other_member():
    polygon = np.repeat(np.arange(6, dtype=np.int32), 4)
    first = np.full(24, 0.7)
    second = np.where(polygon == 5, 0.99, 0.69)
    found = earned_share(first, second, polygon=polygon)
    assert found.gain <= found.error
    assert found.share == 0.0
    assert earned_share(first[:4], first[:4] + 0.2, polygon=polygon[:4]).share == 0.0


def test_without_a_share_the_network_with_context_is_not_trained_again(job, tmp_path, monkeypatch):
    scene, split, scheme = job
    monkeypatch.setattr("pipeline.training.fit.try_context", lambda *_, **__: Verdict(0.0, 0.0, 0.1, 2))
    result = fit([scene], split, scheme, settings=ASKED, folder=tmp_path)
    assert [spec.encoder for spec in result.bundle.specs] == ["none"]
    assert not [row for row in result.history if "loss" in row]
    monkeypatch.setattr("pipeline.training.fit.try_context", lambda *_, **__: Verdict(0.35, 0.2, 0.1, 2))
    bundle = fit([scene], split, scheme, settings=ASKED, folder=tmp_path).bundle
    assert bundle.shares == pytest.approx((0.65, 0.35))
    assert bundle.provenance["context"] == {"share": 0.35, "gain": 0.2, "error": 0.1, "of": 2}


def test_the_trial_learns_from_training_polygons_and_is_judged_on_the_others(job, tmp_path):
    scene, split, scheme = job
    result = fit([scene], split, scheme, settings=ASKED, folder=tmp_path)
    note = result.bundle.provenance["context"]
    assert note["of"] == 2
    assert len(result.bundle.members) == 1 + (note["share"] > 0)
    assert (tmp_path / FOLDER / "last.ckpt").is_file()
    assert "trial" in result.seconds


def test_a_share_of_chip_classifiers_is_not_learned():
    with pytest.raises(ModelError, match="head chip"):
        replace(ASKED, head="chip")


def test_the_checkpoint_of_another_trial_is_not_resumed(job, tmp_path):
    scene, split, scheme = job
    fit([scene], split, scheme, settings=ASKED, folder=tmp_path)
    (tmp_path / "last.ckpt").unlink(missing_ok=True)
    fit([scene], split, scheme, settings=ASKED, folder=tmp_path, resume=True)
    with pytest.raises(ModelError, match=f"{FOLDER}.*checkpoint of another job"):
        fit([scene], parts(split, {1: 2, 9: 0}), scheme, settings=ASKED, folder=tmp_path, resume=True)
