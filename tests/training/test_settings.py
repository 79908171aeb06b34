"""Every training key changes what is trained, or lies in a section that is off."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import ModelWarning
from pipeline.training.settings import NO_WEIGHTS, STEP_KEYS, TrainingSettings
from tests.training.worlds import TINY as SLOWER
from tests.training.worlds import changed, fit, make_job

# Two steps: after one of Adam's a weight has moved by the learning rate, whatever the size of its gradient.
TINY = changed(SLOWER, {"context.steps": 2})
# A value of each key other than in TINY; in the comments what is looked at where it is not the weights.
OTHER = {
    "head": "chip",
    "refit": False,
    "seed": 1,
    "time_limit_s": 1e-6,
    "experts.enabled": False,
    "experts.trees": 4,
    "experts.soft_pixels": 100,
    "pixels.enabled": False,  # without a share beside it
    "pixels.steps": 5,
    "pixels.batch": 8,
    "pixels.lr": 1e-3,
    "pixels.weight_decay": 0.5,
    "context.enabled": False,
    "context.encoder": "resnet34",
    "context.weights": "auto",  # no pretrained weights for two bands: one network
    "context.weights_bands": ("red", "nir"),  # refused without a file
    "context.frozen": True,  # refused: random weights
    "context.steps": 5,
    "context.batch": 3,
    "context.lr": 1e-2,
    "context.weight_decay": 0.9,
    "context.dropout": 0.5,
    "context.smoothing": 0.5,
    "context.soft_weight": 0.0,
    "context.share": 0.4,  # the model's shares
    "context.patience": 1,  # the log has validations
    "context.devices": 3,  # refused: more than chips in a batch
    "context.nodes": 3,  # refused: more than chips in a batch
}
REFUSED = {"context.weights_bands", "context.frozen", "context.devices", "context.nodes"}


def keys(plain, prefix=""):
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def what_is_trained(bundle, history):
    tensors = {f"{i}.{name}": v for i, member in enumerate(bundle.members) for name, v in member.state_dict().items()}
    columns = sorted({name for row in history for name in row})
    return bundle.shares, columns, {name: value.double().sum().item() for name, value in tensors.items()}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def plain(job, tmp_path_factory):
    scene, split, scheme = job
    result = fit([scene], split, scheme, settings=TINY, folder=tmp_path_factory.mktemp("plain"))
    return what_is_trained(result.bundle, result.history)


def test_every_key_has_another_value_here():
    assert set(OTHER) == set(keys(TrainingSettings().model_dump()))


@pytest.mark.filterwarnings("ignore:training.time_limit_s")
@pytest.mark.parametrize("key", sorted(set(OTHER) - REFUSED))
def test_every_key_of_a_section_that_is_on_acts(job, plain, tmp_path, key):
    scene, split, scheme = job
    also = {"context.patience": {"refit": False}, "pixels.enabled": {"context.share": None}}.get(key, {})
    settings = changed(TINY, {key: OTHER[key], **also})
    result = fit([scene], split, scheme, settings=settings, folder=tmp_path)
    assert what_is_trained(result.bundle, result.history) != plain


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_keys_that_cannot_act_alone_are_refused(key):
    assert TINY.context.weights == NO_WEIGHTS
    with pytest.raises(ValidationError):
        changed(TINY, {key: OTHER[key]})


@pytest.mark.parametrize("key", sorted(key for key in OTHER if key.startswith("context.") and key.count(".") == 1))
def test_keys_of_a_section_that_is_off_do_not_act(key):
    off = changed(TINY, {"context.enabled": False})
    if key in {"context.enabled", *REFUSED}:
        return
    assert "no network with context" in changed(off, {key: OTHER[key]}).describe(12)


# A pretrained encoder that stays as it is under a linear discriminant.
KEPT = {"head: chip": {"head": "chip"}, "frozen: true": {"context.frozen": True}}
OF_STEPS = {f"context.{key}": OTHER[f"context.{key}"] for key in STEP_KEYS} | {
    "context.devices": 2, "context.nodes": 2, "context.patience": 2,
}  # fmt: skip


@pytest.mark.parametrize("kept", sorted(KEPT))
@pytest.mark.parametrize("key", sorted(OF_STEPS))
def test_keys_of_steps_are_refused_where_none_is_taken(kept, key):
    plain, given = changed(TrainingSettings(), KEPT[kept] | {"refit": False}), {key: OF_STEPS[key]}
    with pytest.raises(ValidationError, match=f"{key} without effect: the pretrained encoder is kept"):
        changed(plain, given)
    for acts in (
        {"context.frozen": False},
        {"context.weights": "none", "context.frozen": None},
        {"context.weights": "imagenet", "context.encoder": "resnet18"},
        {"context.enabled": False},
    ):
        changed(plain, acts | given)


def test_all_keys_of_steps_are_named_in_one_line():
    with pytest.raises(ValidationError, match=r"context\.steps, context\.lr without effect"):
        changed(TrainingSettings(), {"head": "chip", "context.steps": 5, "context.lr": 0.1})


def test_a_share_beside_pixels_that_are_off_is_refused():
    with pytest.raises(ValidationError, match=r"context\.share with pixels off"):
        changed(TrainingSettings(), {"pixels.enabled": False, "context.share": 0.3})


def test_without_experts_networks_learn_from_labels_alone(job, tmp_path):
    scene, split, scheme = job
    off = changed(TINY, {"experts.enabled": False})
    result = fit([scene], split, scheme, settings=off, folder=tmp_path)
    assert result.out_of_fold is None
    assert result.bundle.provenance["experts"] == {}
    again = fit([scene], split, scheme, settings=changed(off, {"context.soft_weight": 0.0}), folder=tmp_path)
    for one, other in zip(result.bundle.members, again.bundle.members, strict=True):
        assert torch.equal(one.head.weight, other.head.weight)


def test_the_time_limit_stops_the_experts_too(job, tmp_path):
    scene, split, scheme = job
    with pytest.warns(ModelWarning, match="experts of held-out folds"):
        result = fit([scene], split, scheme, settings=changed(TINY, {"time_limit_s": 1e-6}), folder=tmp_path)
    assert {"experts", "experts of held-out folds"} <= set(result.bundle.provenance["cut_short"])
    assert len(result.bundle.provenance["experts"]) == 1


def test_one_line_says_what_will_be_trained():
    line = TrainingSettings().describe(412)
    assert "\n" not in line
    assert line.startswith("trained on 412 polygons: experts (100 trees each, soft labels for 100,000)")
    assert "an encoder from pretrained weights at hand (300 steps, share as held-out polygons say)" in line
    assert "fewer than 100 polygons cannot judge it" in TrainingSettings().describe(50)
    assert "no network with context;" in changed(TrainingSettings(), {"context.enabled": False}).describe(412)
    on = changed(TrainingSettings(), {"context.weights": "none", "head": "chip"}).describe(412)
    assert "resnet18 from random weights (300 steps, share 0.15)" in on
    assert "a network of chip statistics (1500 steps)" in on
    chips = changed(TrainingSettings(), {"head": "chip"}).describe(412, what="chips")
    assert chips.startswith("trained on 412 chips: experts (100 trees each); a network of chip statistics")
    assert "frozen (linear discriminant, share as held-out chips say)" in chips


def test_a_run_may_be_resumed_with_more_time_or_other_devices():
    longer = changed(TINY, {"time_limit_s": 1.0, "context.devices": 2})
    assert json.dumps(longer.resumable) == json.dumps(TINY.resumable)
    assert changed(TINY, {"context.lr": 1.0}).resumable != TINY.resumable


@pytest.mark.parametrize(
    ("given", "follows"),
    [({}, ""), ({"refit": False}, "fitted without it"),
     ({"refit": False, "context": {"patience": 3}}, "neither early stopping nor")],
)  # fmt: skip
def test_a_class_without_validation_matters_as_settings_say(given, follows):
    found = TrainingSettings.model_validate(given).without_validation
    assert follows in found
    assert bool(found) == bool(follows)
