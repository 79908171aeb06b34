"""Which places of the scenes get soft labels."""

from __future__ import annotations

import pytest
import torch

from pipeline.model.preprocess import Preprocess
from pipeline.training.chip_set import read_chips
from pipeline.training.chips import choose_chips
from pipeline.training.settings import ChipSettings
from tests.training.worlds import SIDE, make_job

PLAIN = Preprocess(("red", "nir"), (0.0, 0.0), (1.0, 1.0), 0.0)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


def chips_of(job, *, chip_px, unlabelled, seed=0):
    scene, split, scheme = job
    settings = ChipSettings(size_px=chip_px, labelled=3, unlabelled=unlabelled, seed=seed)
    index = choose_chips({scene.source.id: scene.pixels}, settings=settings, split=split, scheme=scheme)
    return read_chips([scene], index, split=split, preprocess=PLAIN)


@pytest.mark.parametrize("chip_px", [32, 40])
def test_of_a_small_scene_every_pixel_is_there_once(job, chip_px):
    chips = chips_of(job, chip_px=chip_px, unlabelled=250)
    once = chips.once()
    assert int(once.sum()) == SIDE * SIDE
    assert len(chips.key[once].unique()) == SIDE * SIDE
    assert bool(chips.core(chips.valid)[once].all())


def test_of_a_larger_scene_places_are_drawn_and_do_not_overlap(job):
    chips = chips_of(job, chip_px=16, unlabelled=10)
    anywhere = chips.key[3:]
    assert len(anywhere) == 10
    assert len(anywhere.unique()) == anywhere.numel()
    assert not torch.equal(anywhere, chips_of(job, chip_px=16, unlabelled=10, seed=1).key[3:])
