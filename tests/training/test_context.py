"""What goes into training and what it leaves behind: pretrained and frozen encoders, checkpoints, the log, resuming."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import pytest
import torch
import torchvision

from pipeline.errors import ModelError, ModelWarning
from pipeline.experts.settings import Deadline
from pipeline.model.records import RGB
from pipeline.model.weights import EncoderWeights
from pipeline.training.context import BEST, LAST, train_context
from tests.training.test_devices import copies, network
from tests.training.worlds import TINY, changed, fit, make_job, parts


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """A ResNet-18 of two bands that never learned."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None)
    network.conv1 = torch.nn.Conv2d(2, 64, 7, stride=2, padding=3, bias=False)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def same(one, other):
    """Whether two models have the same tensors, bit for bit."""
    left, right = (
        {f"{i}.{name}": value for i, member in enumerate(bundle.members) for name, value in member.state_dict().items()}
        for bundle in (one, other)
    )
    return set(left) == set(right) and all(torch.equal(value, right[name]) for name, value in left.items())


class Interrupt(Exception):  # noqa: N818 - no error
    """Somebody pulled the plug."""


def pull_the_plug_after(steps):
    seen = []

    def progress(stage, step, _total):
        if stage == "network":
            seen.append(step)
            if step >= steps:
                raise Interrupt

    return progress


def test_weights_of_another_architecture_are_refused(job, tmp_path, resnet_file):
    scene, split, scheme = job
    settings = changed(
        TINY,
        {"context.encoder": "resnet50", "context.weights": str(resnet_file), "context.weights_bands": ("red", "nir")},
    )
    with pytest.raises(ModelError, match="another architecture"):
        fit([scene], split, scheme, settings=settings, folder=tmp_path)


def test_weights_with_code_in_them_are_not_opened(job, tmp_path):
    scene, split, scheme = job
    path = tmp_path / "evil.pth"
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.touch, ())

    path.write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    with pytest.raises(ModelError, match="could run code"):
        fit([scene], split, scheme, settings=changed(TINY, {"context.weights": str(path)}), folder=tmp_path)
    assert not ran.exists()


def test_a_frozen_encoder_keeps_the_weights_it_came_with(job, tmp_path, resnet_file):
    scene, split, scheme = job
    settings = changed(
        TINY, {"context.weights": str(resnet_file), "context.weights_bands": ("red", "nir"), "context.frozen": True}
    )
    context = fit([scene], split, scheme, settings=settings, folder=tmp_path).bundle.members[1]
    theirs = torch.load(resnet_file, weights_only=True)
    ours = {name.split(".", 2)[2]: value for name, value in context.encoder.state_dict().items()}
    assert "conv1.weight" in ours
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    free = fit(
        [scene], split, scheme, settings=changed(settings, {"context.frozen": False}), folder=tmp_path
    ).bundle.members[1]
    learned = {name.split(".", 2)[2]: value for name, value in free.encoder.state_dict().items()}
    assert not torch.equal(learned["conv1.weight"], theirs["conv1.weight"])


def test_a_resumed_run_ends_with_the_uninterrupted_model(job, tmp_path):
    scene, split, scheme = job
    whole = fit([scene], split, scheme, settings=changed(TINY, {"context.steps": 20}), folder=tmp_path / "whole")
    plug = pull_the_plug_after(10)
    with pytest.raises(Interrupt):
        fit(
            [scene],
            split,
            scheme,
            settings=changed(TINY, {"context.steps": 20}),
            folder=tmp_path / "cut",
            progress=plug,
        )
    assert torch.load(tmp_path / "cut" / LAST, weights_only=True)["global_step"] == 9
    rest = fit(
        [scene], split, scheme, settings=changed(TINY, {"context.steps": 20}), folder=tmp_path / "cut", resume=True
    )
    assert same(whole.bundle, rest.bundle)
    assert [row["step"] for row in rest.history if "loss" in row] == [10, 20]


def test_a_checkpoint_of_other_networks_is_not_resumed(job, tmp_path):
    scene, split, scheme = job
    fit([scene], split, scheme, settings=changed(TINY, {"context.steps": 1}), folder=tmp_path)
    with pytest.raises(ModelError, match="another network"):
        fit(
            [scene],
            split,
            scheme,
            settings=changed(TINY, {"context.encoder": "resnet34"}),
            folder=tmp_path,
            resume=True,
        )
    (tmp_path / LAST).write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="not a checkpoint"):
        fit([scene], split, scheme, settings=TINY, folder=tmp_path, resume=True)


def test_when_time_is_up_training_stops_and_keeps_what_it_has(job, tmp_path):
    scene, split, scheme = job
    settings = changed(TINY, {"context.steps": 1000, "time_limit_s": 1e-6, "context.patience": 1, "refit": False})
    with pytest.warns(ModelWarning, match="network at step 1 of 1000 cut short"):
        result = fit([scene], split, scheme, settings=settings, folder=tmp_path)
    assert "network at step 1 of 1000" in result.bundle.provenance["cut_short"]
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 1
    assert (tmp_path / BEST).is_file()
    assert len(result.bundle.members) == 2


def test_validation_leaves_the_best_and_the_last_checkpoint(job, tmp_path):
    scene, split, scheme = job
    result = fit(
        [scene], split, scheme, settings=changed(TINY, {"context.patience": 50, "refit": False}), folder=tmp_path
    )
    best = torch.load(tmp_path / BEST, weights_only=True)["state_dict"]
    assert (tmp_path / LAST).is_file()
    assert all(torch.equal(v, best[f"network.{k}"]) for k, v in result.bundle.members[1].state_dict().items())
    judged = {row["step"]: row["val_loss"] for row in result.history if "val_loss" in row}
    assert list(judged) == list(range(1, TINY.context.steps + 1))
    assert all(0 <= row["val_accuracy"] <= 1 for row in result.history if "val_accuracy" in row)
    stored = torch.load(tmp_path / BEST, weights_only=True)
    assert judged[stored["global_step"]] == min(judged.values())


def test_without_validation_only_the_last_checkpoint_is_kept(job, tmp_path):
    scene, split, scheme = job
    (tmp_path / BEST).write_bytes(b"of an older run")
    fit([scene], split, scheme, settings=TINY, folder=tmp_path)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == TINY.context.steps
    assert not (tmp_path / BEST).exists()


def test_log_and_progress_tell_of_every_stage(job, tmp_path):
    scene, split, scheme = job
    seen = {}

    def progress(stage, step, steps):
        seen[stage] = (step, steps)

    settings = changed(TINY, {"pixels.steps": 20})
    result = fit([scene], split, scheme, settings=settings, folder=tmp_path, progress=progress)
    assert seen == {"experts": (20, 20), "pixel network": (20, 20), "network": (6, 6)}
    assert [row["step"] for row in result.history if "pixel_loss" in row] == [10, 20]
    assert [row["step"] for row in result.history if "loss" in row] == [6]


def test_published_weights_learn_from_counts_unscaled(tmp_path, monkeypatch):
    (scene, split, scheme), tensors = make_job(tmp_path), torchvision.models.resnet18(weights=None).state_dict()
    weights = EncoderWeights("published", "resnet18", tensors, RGB, ((0.1,) * 3, (0.05,) * 3), ("reflectance",) * 3)
    monkeypatch.setattr("pipeline.training.networks.load_weights", lambda *_, **__: weights)
    counts = replace(scene.source, bands=tuple(replace(band, unit="DN") for band in scene.source.bands))
    settings = changed(TINY, {"context.weights": "published", "context.encoder": "resnet18", "context.frozen": True})
    with pytest.warns(ModelWarning, match=r"another unit than red \(DN, not reflectance\), nir"):
        fit([replace(scene, source=counts)], split, scheme, settings=settings, folder=tmp_path)


CUT = changed(TINY, {"context.steps": 20, "time_limit_s": 1e-6})


@pytest.fixture(scope="module")
def cut_once(job, tmp_path_factory):
    scene, split, scheme = job
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.warns(ModelWarning, match="time_limit_s"):
        fit([scene], split, scheme, settings=CUT, folder=folder)
    return folder


@pytest.fixture
def cut(cut_once, tmp_path):
    """The folder of a training that was cut short: a copy."""
    return shutil.copytree(cut_once, tmp_path / "run")


@pytest.mark.parametrize(
    "changes", [{"context.lr": 1e-3}, {"context.steps": 40}, {"seed": 1}, {"context.dropout": 0.3}], ids=str
)
def test_a_checkpoint_of_other_settings_is_not_resumed(job, cut, changes):
    scene, split, scheme = job
    before = (cut / LAST).read_bytes()
    with pytest.raises(ModelError, match=r"checkpoint of another job.*train without resume"):
        fit([scene], split, scheme, settings=changed(CUT, changes), folder=cut, resume=True)
    assert (cut / LAST).read_bytes() == before


@pytest.mark.parametrize("how", ["split", "labels", "scene"])
def test_a_checkpoint_of_other_labels_or_chips_is_not_resumed(job, cut, tmp_path, how):
    """After another draw, what were training polygons may be tested: their labels must not be in the model."""
    scene, split, scheme = job
    if how == "split":
        split = parts(split, {1: 2, 9: 0})
    if how == "labels":
        code = scene.pixels.code.copy()
        code[scene.pixels.polygon == 1] = scheme.by_name("high").code
        scene = replace(scene, pixels=replace(scene.pixels, code=code))
    if how == "scene":
        scene = replace(make_job(tmp_path, noise_seed=1)[0], pixels=scene.pixels)
    with pytest.raises(ModelError, match="checkpoint of another job"):
        fit([scene], split, scheme, settings=CUT, folder=cut, resume=True)


def test_a_checkpoint_judged_on_other_polygons_is_not_resumed(job, tmp_path):
    scene, split, scheme = job
    settings = changed(CUT, {"context.patience": 5, "refit": False})
    with pytest.warns(ModelWarning, match="time_limit_s"):
        fit([scene], split, scheme, settings=settings, folder=tmp_path)
    with pytest.raises(ModelError, match="checkpoint of another job"):
        fit([scene], parts(split, {7: 2, 9: 1}), scheme, settings=settings, folder=tmp_path, resume=True)


def test_a_checkpoint_that_names_no_job_is_not_resumed(job, cut):
    scene, split, scheme = job
    stored = torch.load(cut / LAST, weights_only=True)
    del stored["callbacks"]["Watch"]["job"]
    torch.save(stored, cut / LAST)
    with pytest.raises(ModelError, match="checkpoint of another job"):
        fit([scene], split, scheme, settings=CUT, folder=cut, resume=True)


def test_more_time_goes_on_with_the_same_job(tmp_path):
    settings = changed(CUT, {"time_limit_s": 500})

    def learn(where, deadline, *, resume=False):
        learned = network()
        given = {"settings": settings, "folder": tmp_path / where, "deadline": deadline, "resume": resume}
        train_context(learned, copies(), None, **given)
        return learned

    learn("cut", Deadline.after(0.0))
    assert torch.load(tmp_path / "cut" / LAST, weights_only=True)["global_step"] == 1
    rest = learn("cut", Deadline(), resume=True).state_dict()
    assert all(torch.equal(value, rest[name]) for name, value in learn("whole", Deadline()).state_dict().items())


def test_the_best_state_of_another_job_is_not_taken(job, tmp_path):
    scene, split, scheme = job
    (tmp_path / BEST).write_bytes(b"of an older run")
    settings = changed(CUT, {"context.patience": 5, "refit": False})
    with pytest.warns(ModelWarning, match="time_limit_s"):
        fit([scene], split, scheme, settings=settings, folder=tmp_path, resume=True)
    assert torch.load(tmp_path / BEST, weights_only=True)["global_step"] == 1
