"""Pretrained encoders of a scene: which is found, what it takes, what it gives."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from pipeline.errors import ModelError, ModelWarning
from pipeline.model import pretrained
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.pretrained import COUNTS, SceneBands, search_encoders
from pipeline.model.records import OWN_FOLDER, OWN_NAME, find_record
from pipeline.model.spec import NetworkSpec
from pipeline.model.weights import read_weights

SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
S2 = ("coastal", *SIX[:3], "rededge071", *SIX[3:])


def units(bands):
    return ("reflectance",) * len(bands)


@pytest.fixture(autouse=True)
def _hub_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


@pytest.fixture
def _without_packages(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)


def searched(bands=S2, *, weights="auto", **scene):
    facts = {"sensor": "sentinel-2", "level": "L1C", "units": units(bands)} | scene
    return search_encoders(SceneBands(bands, **facts), weights=weights)


def all_found(bands=S2, **scene):
    return searched(bands, **scene).encoders


def found(bands=S2, **scene):
    return next(iter(all_found(bands, **scene)), None)


def test_models_of_one_package_stand_side_by_side():
    pytest.importorskip("ukis_csmask", reason="pip install 'landcover-pipeline[weights]'")
    assert [item.name for item in all_found()] == ["ukis_csmask_6b_l1c", "ukis_csmask_4b_l1c"]
    assert len(all_found(weights="ukis_csmask_4b_l1c")) == 1
    assert len(all_found(level="")) == 1
    cirrus = all_found((*S2, "cirrus"), level="")
    assert [item.name for item in cirrus] == ["ukis_csmask_6b_l1c", "ukis_csmask_4b_l1c"]


@pytest.mark.parametrize(
    ("scene", "name", "taken"),
    [
        ({}, "ukis_csmask_6b_l1c", SIX),
        ({"level": "L2A"}, "ukis_csmask_6b_l2a", SIX),
        ({"bands": S2[:6]}, "ukis_csmask_4b_l1c", SIX[:4]),
        (
            {"bands": ("nir08", *SIX[:3], *SIX[4:]), "sensor": "landsat-oli", "level": "L2SP"},
            "ukis_csmask_6b_l2a",
            (*SIX[:3], "nir08", *SIX[4:]),
        ),
        ({"bands": ("swir16", "red", "green")}, OWN_NAME, ("green", "red", "swir16")),
        ({"level": ""}, OWN_NAME, S2),
        ({"sensor": ""}, OWN_NAME, S2),
    ],
)
def test_weights_are_chosen_by_sensor_level_and_bands(scene, name, taken):
    if name != OWN_NAME:
        pytest.importorskip("ukis_csmask", reason="pip install 'landcover-pipeline[weights]'")
    encoder = found(**scene)
    assert (encoder.name, encoder.bands) == (name, taken)
    assert [encoder.given[i] for i in encoder.band_index] == list(taken)
    assert name.startswith("ukis") == ("Apache-2.0" in encoder.describe() and "CloudSEN12" in encoder.describe())


@pytest.mark.parametrize(
    "scene",
    [
        {"units": ("DN",) * len(S2), "sensor": ""},
        {"units": ("DN",) * len(S2), "statistics": ([37.0] * len(S2), [20.0] * len(S2))},  # bytes
        {"units": ("percent",) * len(S2)},
        {"units": ()},
        {"bands": ("red", "nir")},
        {"bands": ("vv", "vh", "elevation")},
        {"statistics": ([1500.0] * len(S2), [800.0] * len(S2))},
        {"weights": "none"},
    ],
)
def test_a_scene_of_other_values_or_bands_gets_none(scene):
    assert found(**scene) is None


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        ({"units": ("percent",) * len(S2)}, "it takes reflectance, and coastal, .* are in percent"),
        ({"units": ("DN",) * len(S2), "statistics": ([37.0] * len(S2), [20.0] * len(S2))},
         r"values are 0\.0\d+ times those .*taken as counts x 0\.0001"),
        ({"bands": ("red", "nir")}, "the scene has 2 of its bands, not 3"),
    ],
)  # fmt: skip
def test_it_is_said_why_no_weights_fit(scene, why):
    assert re.match(f"{OWN_NAME}: {why}", searched(**scene).why_not)


def test_counts_without_a_scaling_are_taken_as_counts():
    counts = {"units": ("DN",) * len(S2), "statistics": ([1500.0] * len(S2), [800.0] * len(S2))}
    for weights in ("auto", OWN_NAME):
        found = searched(**counts, weights=weights)
        assert found.factor == COUNTS
        assert found.encoders
    with pytest.raises(ModelError, match="times those it was trained"):
        searched(**counts, weights=OWN_NAME, sensor="")


@pytest.mark.parametrize("near", ["nir", "nir08"])
def test_a_landsat_may_call_its_near_infrared_either_way(near):
    bands = (*SIX[:3], near, *SIX[4:])
    record = find_record("ukis_csmask_6b_l2a", architecture="")
    assert not SceneBands(bands, "landsat-etm", "L2SP", units(bands)).why_not(record)
    assert "lacks" in SceneBands((*SIX[:3], *SIX[4:]), "landsat-etm", "L2SP", units(bands[:5])).why_not(record)


@pytest.mark.parametrize(("level", "other"), [("L1C", False), ("L2A", True), ("", False)])
def test_weights_of_another_level_are_named_with_a_warning(level, other):
    pytest.importorskip("ukis_csmask", reason="pip install 'landcover-pipeline[weights]'")
    with pytest.warns(ModelWarning, match="it is for level TOA, the scene is of level L2A") if other else nullcontext():
        assert found(weights="ukis_csmask_4b_l1c", level=level).name == "ukis_csmask_4b_l1c"


@pytest.mark.usefixtures("_without_packages")
def test_without_the_package_the_shipped_encoder_is_found():
    assert found().name == OWN_NAME


def test_what_is_named_and_does_not_fit_is_refused(tmp_path):
    for wrong, words in (
        ({"weights": "ukis_csmask_6b_l1c", "bands": SIX[:5]}, "do not fit the scene: the scene lacks swir22"),
        ({"weights": OWN_NAME, "bands": ("red", "nir")}, "has 2 of its bands, not 3"),
        ({"weights": OWN_NAME, "statistics": ([1500.0] * len(S2), [800.0] * len(S2))}, r"times those it was trained"),
        ({"weights": "ResNet18_Weights.SENTINEL2_ALL_MOCO", "bands": S2}, "the scene lacks rededge075"),
        ({"weights": str(tmp_path / "absent.pth")}, "cannot open"),
        ({"weights": "nothing"}, "no weights called"),
    ):
        with pytest.raises(ModelError, match=words):
            found(**wrong)


def test_published_weights_in_the_hub_come_first(monkeypatch):
    torch.manual_seed(0)
    record = replace(
        find_record("ResNet18_Weights.SENTINEL2_ALL_MOCO", architecture="resnet18"),
        bands=("blue", "green", "red"), scaling=((0.1,) * 3, (0.1,) * 3), url="https://nowhere/small.pth",
    )  # fmt: skip
    record.cache.parent.mkdir(parents=True)
    spec = NetworkSpec(3, 2, decoder_channels=(8,))
    torch.save({k.split(".", 3)[3]: v for k, v in build_network(spec).state_dict().items() if k.startswith("encoder.")},
               record.cache)  # fmt: skip
    monkeypatch.setattr(pretrained, "libraries_records", lambda: (record,))
    encoder = found()
    assert encoder.name == record.name
    assert encoder.channels == (64, 64, 128)
    assert found(level="L2A").name != record.name


def test_features_are_those_of_valid_pixels_at_three_strides():
    encoder = found(bands=SIX, weights=OWN_NAME)
    x, valid = torch.rand(2, 6, 37, 50) * 0.4, torch.ones(2, 37, 50, dtype=torch.bool)
    whole = encoder.features(x)
    assert [tuple(f.shape) for f in whole] == [(2, 64, 19, 25), (2, 64, 10, 13), (2, 128, 5, 7)]
    valid[:, :4, :4] = False
    spoilt = x.masked_fill(~valid[:, None], 1e6)
    for found_, same in zip(encoder.features(spoilt, valid), encoder.features(x, valid), strict=True):
        assert torch.equal(found_, same)
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert encoder.calibrated(x) is encoder


def test_the_order_of_a_scenes_bands_does_not_matter():
    x = torch.rand(1, 6, 32, 32) * 0.4
    there = found(bands=SIX, weights=OWN_NAME).features(x)
    back = found(bands=SIX[::-1], weights=OWN_NAME).features(x.flip(1))
    for one, other in zip(there, back, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [OWN_NAME, "ukis_csmask_6b_l1c"])
def test_a_network_starts_from_the_same_features(name):
    if name != OWN_NAME:
        pytest.importorskip("ukis_csmask", reason="pip install 'landcover-pipeline[weights]'")
    bands = ("elevation", *SIX)
    encoder = found(bands=bands, weights=name)
    x = torch.rand(2, 7, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.4
    if name != OWN_NAME:
        with pytest.raises(ModelError, match="calibrated"):
            encoder.weights()
        encoder = encoder.calibrated(x)
    scaling = Preprocess.from_statistics(bands=bands, mean=[0.2] * 7, std=[0.05] * 7, clip=0)
    spec = NetworkSpec(7, 3, decoder_channels=(8,), **encoder.spec_encoder)
    network = build_network(spec, weights=encoder.weights(), preprocess=scaling, units=("m", *units(SIX))).eval()
    with torch.no_grad():
        ours = network.encoder(scaling.standardise(x))
    for one, other in zip(ours, encoder.features(x), strict=True):
        # Beyond the edge lie zeros: the mean of the one scaling, not of the other.
        torch.testing.assert_close(one[..., 6:-6, 6:-6], other[..., 6:-6, 6:-6], rtol=1e-2, atol=1e-2)


def test_the_shipped_encoder_is_small_and_has_a_card():
    file, card = OWN_FOLDER / f"{OWN_NAME}.safetensors", (OWN_FOLDER / "README.md").read_text()
    assert file.stat().st_size < 6_000_000
    for word in ("Sentinel-2", "Landsat", "Apache-2.0", "EuroSAT", "tools/pretrain_encoder.py"):
        assert word in card
    assert read_weights(file).bands == find_record(OWN_NAME, architecture="resnet18").bands
