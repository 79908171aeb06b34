"""The training set of the networks, with an encoder: what the time limit leaves out, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.experts.settings import Deadline
from pipeline.legend import IGNORE_INDEX
from pipeline.model.surroundings import surroundings
from pipeline.splits.split import Split
from pipeline.training.chip_set import ChipSet
from pipeline.training.training_set import soft_labels, training_set
from tests.training.encoders import SETTINGS, chips, shipped_encoder
from tests.training.worlds import changed


@pytest.fixture(scope="module")
def frozen():
    return shipped_encoder()


def noise(count):
    """Chips of noise, a polygon in each."""
    x, valid = chips(count, 16, seed=5)
    polygon = torch.arange(count, dtype=torch.int32)[:, None, None].expand(-1, 16, 16).contiguous()
    index = torch.full((count, 16, 16), IGNORE_INDEX, dtype=torch.uint8)
    index[:, 4:8, 4:8] = (torch.arange(count) % 3).to(torch.uint8)[:, None, None]
    return ChipSet(x, valid, index, polygon, torch.arange(index.numel()).reshape(index.shape))


def learned(frozen, changes, *, deadline, judged):
    """The training set of 120 chips of noise."""
    count = 120
    split = Split(np.zeros(count, dtype=np.int8), np.full(count, -1, dtype=np.int32), 0.0, 0.0)
    settings = changed(SETTINGS, {"experts.trees": 2, "experts.soft_pixels": 100, **changes})
    return training_set(
        noise(count), ids=np.arange(count, dtype=np.int32), split=split, classes=3, settings=settings,
        deadline=deadline, frozen=frozen, judged=judged,
    )  # fmt: skip


@pytest.mark.parametrize(("judged", "experts"), [(True, True), (False, True), (False, False)])
def test_there_is_a_probe_with_a_share_and_without(frozen, judged, experts):
    """A network with context that stands alone starts from it, also where held-out polygons gave it no share."""
    found = learned(frozen, {"experts.enabled": experts}, deadline=Deadline(), judged=judged)
    assert found.probe is not None
    if found.mixture is not None and judged:
        assert found.mixture.admission.share == 0  # noise has nothing to admit it for


def test_columns_not_done_in_time_are_left_out(frozen):
    found = learned(frozen, {}, deadline=Deadline(0.0), judged=True)
    assert found.table.encoder == 0
    assert found.table.features.shape[1] == surroundings(chips()[0]).shape[1]
    assert not any(expert.encoder for expert in found.mixture.experts)
    assert found.probe is None


class Ticking(Deadline):
    """A deadline that passes after it was asked so many times."""

    def __init__(self, times):
        super().__init__(1e12)
        object.__setattr__(self, "asked", list(range(times)))

    @property
    def left_s(self):
        return float(self.asked.pop() + 1) if self.asked else 0.0

    def share(self, part):  # noqa: ARG002 - this one goes on counting
        return self


def test_columns_cut_midway_leave_the_surroundings_of_all(frozen):
    """Once some chips have columns and the time is up, those of all are left out, and none of their labels."""
    whole = learned(frozen, {}, deadline=Deadline(), judged=True)
    found = learned(frozen, {}, deadline=Ticking(20), judged=True)
    plain = whole.table.features.shape[1] - frozen.count
    assert found.table.encoder == 0
    assert np.array_equal(found.table.features, whole.table.features[:, :plain])
    assert np.array_equal(found.table.polygon, whole.table.polygon)


class Even:
    """A mixture that knows nothing, and remembers how many features it was shown."""

    seen = 0

    def predict(self, features):
        self.seen = features.shape[1]
        return np.full((len(features), 3), 1 / 3, dtype=np.float32)


def test_soft_labels_of_an_encoder_end_in_time_all_over(frozen):
    """The other experts' soft labels are there for all chips; those that need the encoder for some, from all over."""
    chip_set, plain, encoder = noise(120), Even(), Even()
    every, some = soft_labels([plain, encoder], chip_set, pixels=20_000, seed=0, deadline=Ticking(30), frozen=frozen)
    done = torch.nonzero(some.where.flatten(1).any(1)).flatten()
    assert every.where.flatten(1).any(1).all()
    assert 10 < len(done) < 40
    assert done.max() - done.min() > 60
    assert encoder.seen == plain.seen + frozen.count
    for part in (every, some):
        assert len(part.features) == len(part.target) == int(part.where.sum())
    # The rows are those of the pixels, chip by chip.
    rows = every.where[done].flatten(1).sum(1).tolist()
    assert [len(part) for part in torch.split(some.features, rows)] == rows
    first = int(every.where[: done[0]].sum())
    assert torch.equal(some.features[: rows[0]], every.features[first : first + rows[0]])


@pytest.mark.parametrize("changes", [{"context.share": 0.3}, {"pixels.enabled": False}], ids=str)
def test_an_encoder_that_was_asked_for_has_its_time(frozen, changes):
    found = learned(frozen, changes, deadline=Deadline(0.0), judged=False)
    assert found.table.encoder == frozen.count
    assert found.probe is not None
