"""Pretraining without labels, on a small scene, and what becomes of the file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.cli.entry import main
from pipeline.errors import ModelError, OutputError, SceneError
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.weights import load_weights, save_encoder
from pipeline.scenes.opening import open_scene
from pipeline.training.pretrain import MaskedBatches, pretrain
from pipeline.training.settings import PretrainSettings
from tests.fakes.small_world import BANDS, reflectance, write_scene, write_world

FEW = PretrainSettings(steps=2, batch=2, chip_px=32, chips=4)
SPEC = NetworkSpec(4, 3, depth=4, decoder_channels=(8,), spectral_channels=8)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return open_scene(write_scene(tmp_path_factory.mktemp("scene") / "scene.tif"))


@pytest.fixture(scope="module")
def found(scene):
    return pretrain([scene], settings=FEW)


def test_something_of_every_chip_is_taken_and_something_left():
    x = torch.randn(6, 4, 32, 32)
    valid = torch.ones(6, 32, 32, dtype=torch.bool)
    valid[:, :4] = False
    batches = MaskedBatches(x, valid, FEW.model_copy(update={"batch": 32, "band_share": 0.9}))
    seen, target, missing = batches.batch(3)
    assert seen.shape == target.shape == missing.shape == (32, 4, 32, 32)
    assert (seen[missing] == 0).all()
    untouched = seen == target
    assert (untouched | (seen == 0)).all()
    assert untouched.flatten(1).any(dim=1).all()
    assert missing.flatten(1).any(dim=1).all()
    assert all(torch.equal(a, b) for a, b in zip(batches.batch(3), (seen, target, missing), strict=True))
    assert len(list(batches)) == FEW.steps


def test_what_is_not_valid_is_not_judged():
    x, valid = torch.randn(2, 4, 32, 32), torch.zeros(2, 32, 32, dtype=torch.bool)
    assert not MaskedBatches(x, valid, FEW).batch(0)[2].any()


def test_bands_and_scaling_are_those_of_the_scene(found):
    assert found.preprocess.bands == BANDS
    assert found.preprocess.mean == pytest.approx(reflectance().mean(axis=(1, 2)), abs=0.03)
    assert found.history[-1]["step"] == FEW.steps
    assert np.isfinite(found.history[-1]["loss"])


def test_the_encoder_fits_networks_by_band_name(found, tmp_path):
    about = {"bands": list(found.preprocess.bands), "mean": list(found.preprocess.mean),
             "std": list(found.preprocess.std)}  # fmt: skip
    path = save_encoder(tmp_path / "e.safetensors", found.tensors, about=about)
    weights = load_weights(path, architecture="resnet18")
    assert weights.bands == BANDS
    assert weights.scaling == (found.preprocess.mean, found.preprocess.std)
    turned = Preprocess.from_statistics(
        bands=BANDS[::-1], mean=found.preprocess.mean[::-1], std=found.preprocess.std[::-1]
    )
    network = build_network(SPEC, weights=weights, preprocess=turned)
    torch.testing.assert_close(network.encoder.stem.weight.flip(1), found.tensors["conv1.weight"])
    assert torch.equal(network.encoder.state_dict()["stages.2.layer2.0.conv1.weight"],
                       found.tensors["layer2.0.conv1.weight"])  # fmt: skip
    with pytest.raises(ModelError, match="got resnet18; expected resnet50"):
        load_weights(path, architecture="resnet50")


def test_another_scaling_of_the_same_bands_is_undone(found, tmp_path):
    about = {"bands": list(BANDS), "mean": list(found.preprocess.mean), "std": list(found.preprocess.std)}
    weights = load_weights(
        save_encoder(tmp_path / "e.safetensors", found.tensors, about=about), architecture="resnet18"
    )
    own = replace(found.preprocess, clip=0.0)
    # The same means, as padding with zeros stands for the mean.
    other = replace(own, std=tuple(3.0 * value for value in own.std))
    values = torch.rand(1, 4, 64, 64)
    features = [
        build_network(SPEC, weights=weights, preprocess=scaling).eval().encoder(scaling.standardise(values))[-1]
        for scaling in (own, other)
    ]
    torch.testing.assert_close(features[1], features[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"encoder": "none"}, {"encoder": "alexnet"}, {"steps": 0}, {"chip_px": 8}, {"batch": 1}, {"lr": 0.0}]
)
def test_settings_that_cannot_train_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PretrainSettings.model_validate(wrong)


def test_scenes_of_other_bands_and_empty_scenes_are_refused(scene, tmp_path):
    with pytest.raises(SceneError, match="bands differ"):
        pretrain([scene, scene.select(("red", "nir"))], settings=FEW)
    empty = open_scene(write_scene(tmp_path / "empty.tif", np.full((4, 96, 96), -1.0, np.float32), nodata=-1.0))
    with pytest.raises(SceneError, match="hardly a valid pixel"):
        pretrain([empty], settings=FEW)


def test_the_command_writes_weights_that_can_be_named(tmp_path, capsys):
    config = write_world(tmp_path)
    options = ["--steps", "1", "--batch", "2", "--chip-px", "32", "--json", "--quiet"]
    assert main(["pretrain", str(config), *options]) == 0
    data = json.loads(capsys.readouterr().out)
    path = tmp_path / "run" / "model" / "pretrained_resnet18.safetensors"
    assert data["written"] == [str(path)]
    assert data["bands"] == list(BANDS)
    assert load_weights(path, architecture="resnet18").units == ("reflectance",) * len(BANDS)
    assert main(["pretrain", str(config), *options]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["weights", "show", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["weights"]
    assert (shown["encoder"], shown["bands"]) == ("resnet18", list(BANDS))


def test_unknown_encoders_and_other_formats_are_refused(tmp_path, capsys):
    config = write_world(tmp_path)
    assert main(["pretrain", str(config), "--encoder", "none"]) == 2
    assert "encoder to pretrain; got none" in capsys.readouterr().err
    assert main(["pretrain", str(config), "--encoder", "resnet18", "-o", str(tmp_path / "w.pth")]) == 2
    assert "safetensors" in capsys.readouterr().err


def test_an_encoder_that_cannot_be_written_is_an_error(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the encoder"):
        save_encoder(tmp_path / "file" / "e.safetensors", found.tensors, about={})
