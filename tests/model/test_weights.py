"""Pretrained weights: by name and from files, matched by band, refused where they do not fit."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.errors import ModelError, ModelWarning
from pipeline.model import records
from pipeline.model.bundle import save_bundle
from pipeline.model.network import build_network, freeze_encoder, parameter_groups
from pipeline.model.preprocess import Preprocess
from pipeline.model.records import OWN_NAME, fetch_weights, find_record, weight_records
from pipeline.model.spec import NetworkSpec
from pipeline.model.transfer import match_stem, nearest_band, rescale_stem
from pipeline.model.weights import EncoderWeights, load_weights

S2 = ("coastal", "blue", "green", "red", "rededge071", "nir", "nir08", "cirrus", "swir16", "swir22")
SPEC = NetworkSpec(4, 3, decoder_channels=(8,), spectral_channels=8)


def resnet_tensors(bands: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = torch.nn.Conv2d(bands, 64, 7, stride=2, padding=3, bias=False)
    torch.nn.init.normal_(net.bn1.running_mean)
    return net.state_dict()


def plain(bands) -> Preprocess:
    return Preprocess.from_statistics(bands=bands, mean=[0.0] * len(bands), std=[1.0] * len(bands))


def theirs(tensors, x):
    """The encoder's last features by torchvision itself."""
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = torch.nn.Conv2d(x.shape[1], 64, 7, stride=2, padding=3, bias=False)
    net.load_state_dict(tensors)
    net.eval()
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(S2))
def test_a_stem_for_the_same_bands_is_reordered(order):
    weight = torch.randn(8, len(S2), 3, 3, generator=torch.Generator().manual_seed(0))
    matched = match_stem(weight, known=S2, wanted=order)
    assert torch.equal(matched, weight[:, [S2.index(name) for name in order]])


@settings(max_examples=20, deadline=None)
@given(wanted=st.lists(st.sampled_from([*S2, "vv", "rededge078", "nir09"]), min_size=1, max_size=8, unique=True))
def test_any_choice_of_bands_keeps_the_variance_of_the_stem(wanted):
    weight = torch.randn(8, len(S2), 3, 3, generator=torch.Generator().manual_seed(0))
    matched = match_stem(weight, known=S2, wanted=wanted)
    torch.testing.assert_close(matched.pow(2).sum(), weight.pow(2).sum())
    assert matched.shape[1] == len(wanted)


def test_unknown_bands_start_from_the_nearest_in_wavelength():
    assert nearest_band("nir09", S2) == "nir08"
    assert nearest_band("rededge078", ["red", "nir"]) == "nir"
    assert nearest_band("lwir11", S2) is None
    assert nearest_band("elevation", S2) is None
    weight = torch.randn(8, len(S2), 3, 3)
    matched = match_stem(weight, known=S2, wanted=("red", "vv"))
    torch.testing.assert_close(matched[:, 1] / matched[:, 0], weight.mean(1) / weight[:, 3])


def test_a_rescaled_stem_gives_what_the_weights_would_have_seen():
    weight, x = torch.randn(6, 2, 3, 3), torch.rand(1, 2, 12, 12)
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0.2, 0.4], std=[0.1, 0.3], clip=0)
    mean, std = torch.tensor([0.1, 0.5]), torch.tensor([0.5, 2.0])
    expected = torch.nn.functional.conv2d((x - mean[:, None, None]) / std[:, None, None], weight)
    ours, constant = rescale_stem(weight, preprocess=preprocess, mean=mean.tolist(), std=std.tolist())
    found = torch.nn.functional.conv2d(preprocess.standardise(x), ours) + constant[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", ["", "module.encoder_q.", "backbone."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_gives_torchvisions_own_features(tmp_path, wrap, suffix):
    path, tensors = tmp_path / f"w{suffix}", resnet_tensors()
    named = {wrap + key: value for key, value in tensors.items()}
    if suffix == ".pth":
        torch.save({"state_dict": named, "epoch": 3} if wrap else named, path)
    else:
        save_file(named, path)
    bands = ("blue", "green", "red", "nir")
    weights = load_weights(path, architecture="resnet18", bands=bands)
    network = build_network(SPEC, weights=weights, preprocess=plain(bands)).eval()
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        found = network.encoder(x)[-1]
    torch.testing.assert_close(found, theirs(tensors, x), rtol=1e-3, atol=1e-4)
    # Another order of the bands is the same network.
    turned = build_network(SPEC, weights=weights, preprocess=plain(bands[::-1])).eval()
    with torch.no_grad():
        torch.testing.assert_close(turned.encoder(x.flip(1))[-1], found, rtol=1e-3, atol=1e-4)


def test_a_model_of_ours_serves_as_weights(bundle, tmp_path):
    path = save_bundle(tmp_path / "model.safetensors", bundle)
    weights = load_weights(path, architecture="resnet18")
    assert weights.bands == ("red", "nir")
    spec = bundle.specs[0]
    network = build_network(spec, weights=weights, preprocess=bundle.preprocess)
    for name, value in bundle.members[0].encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], value)


def test_the_weights_own_scaling_is_undone(tmp_path):
    tensors, bands = resnet_tensors(), ("blue", "green", "red", "nir")
    torch.save(tensors, tmp_path / "w.pth")
    weights = load_weights(tmp_path / "w.pth", architecture="resnet18", bands=bands)
    weights = replace(weights, scaling=((0.1,) * 4, (0.5,) * 4))
    preprocess = Preprocess.from_statistics(bands=bands, mean=[0.1] * 4, std=[0.05, 0.1, 0.2, 0.3], clip=0)
    network = build_network(SPEC, weights=weights, preprocess=preprocess).eval()
    values = torch.rand(1, 4, 64, 64)
    with torch.no_grad():
        found = network.encoder(preprocess.standardise(values))[-1]
    torch.testing.assert_close(found, theirs(tensors, (values - 0.1) / 0.5), rtol=1e-3, atol=1e-4)


def test_a_scaling_of_another_unit_is_not_used_and_said():
    bands, reflectance = ("blue", "green", "red", "nir"), torch.rand(2, 4, 32, 32) * 0.3
    weights = EncoderWeights(
        "published", "resnet18", resnet_tensors(), bands, ((0.1,) * 4, (0.05,) * 4), ("reflectance",) * 4
    )
    counts = 10_000 * reflectance
    own = Preprocess.from_statistics(bands=bands, mean=counts.mean((0, 2, 3)), std=counts.std((0, 2, 3)), clip=0)
    with pytest.warns(ModelWarning, match=r"another unit than blue \(DN, not reflectance\), green"):
        network = build_network(SPEC, weights=weights, preprocess=own, units=("DN",) * 4).eval()
    standardised = own.standardise(counts)
    with torch.no_grad():
        found = network.encoder(standardised)[-1]
    torch.testing.assert_close(found, theirs(dict(weights.tensors), standardised), rtol=1e-3, atol=1e-4)


def test_bands_of_the_weights_unit_keep_their_scaling():
    bands = ("blue", "green", "red", "nir")
    weights = EncoderWeights(
        "published", "resnet18", resnet_tensors(), bands, ((0.0,) * 4, (0.5,) * 4), ("reflectance",) * 4
    )
    with pytest.warns(ModelWarning, match=r"another unit than nir \(DN, not reflectance\):"):
        mixed = build_network(SPEC, weights=weights, preprocess=plain(bands), units=(*("reflectance",) * 3, "DN"))
    stem = weights.tensors["conv1.weight"]
    torch.testing.assert_close(mixed.encoder.stem.weight[:, :3], 2 * stem[:, :3])
    torch.testing.assert_close(mixed.encoder.stem.weight[:, 3], stem[:, 3])
    for units in ((), ("", "", "", "reflectance")):
        network = build_network(SPEC, weights=weights, preprocess=plain(bands), units=units)
        torch.testing.assert_close(network.encoder.stem.weight, 2 * stem)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_pickle_with_code_is_refused_without_running_it(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    with pytest.raises(ModelError, match="could run code") as caught:
        load_weights(path, architecture="resnet18")
    torch.save({"conv1.weight": Evil()}, path)
    with pytest.raises(ModelError, match="could run code"):
        load_weights(path, architecture="resnet18")
    assert "code ran" not in capsys.readouterr().out
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path):
    torch.save(resnet_tensors(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match="got resnet18; expected resnet50"):
        load_weights(tmp_path / "w.pth", architecture="resnet50", bands=("a", "b", "c", "d"))
    with pytest.raises(ModelError, match="got resnet50; expected resnet18"):
        load_weights("ResNet50_Weights.SENTINEL2_ALL_MOCO", architecture="resnet18")
    weights = load_weights(tmp_path / "w.pth", architecture="resnet18", bands=("a", "b", "c", "d"))
    other = replace(weights, tensors={k: v for k, v in weights.tensors.items() if not k.startswith("layer4")})
    with pytest.raises(ModelError, match=r"tensor layer4.*got nothing"):
        build_network(SPEC, weights=other, preprocess=plain(("a", "b", "c", "d")))
    with pytest.raises(ModelError, match="without encoder"):
        build_network(replace(SPEC, encoder="none"), weights=weights, preprocess=plain(("a", "b", "c", "d")))
    with pytest.raises(ModelError, match="pass preprocess"):
        build_network(SPEC, weights=weights)


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "t.safetensors").write_text("no weights, but more than eight letters")
    (tmp_path / "t.pth").write_text("")
    (tmp_path / "text.pth").write_text("these are no weights")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "fc.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    torch.save(resnet_tensors(), tmp_path / "w.pth")
    for name, words in (
        ("t.safetensors", "not a weights file"), ("t.pth", "not a weights file"),
        ("text.pth", "not a weights file"), ("absent.pth", "cannot open"),
        ("fc.pth", "no ResNet"), ("vgg.pth", "no ResNet"), ("w.pth", "bands of the weights"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=words):
            load_weights(tmp_path / name, architecture="resnet18")


def test_records_name_bands_and_scaling_of_published_weights():
    found = {item.name: item for item in weight_records()}
    moco = found["ResNet18_Weights.SENTINEL2_ALL_MOCO"]
    assert len(moco.bands) == 13
    assert moco.bands[:4] == ("coastal", "blue", "green", "red")
    assert moco.scaling == ((0.0,) * 13, (1.0,) * 13)
    assert found["ResNet50_Weights.SENTINEL2_ALL_SOFTCON"].scaling[1][0] == pytest.approx(0.0791)
    assert found["ResNet18_Weights.LANDSAT_OLI_SR_MOCO"].bands[4] == "nir08"
    assert found["ResNet152_Weights.SENTINEL2_MI_MS_SATLAS"].architecture == "resnet152"
    assert found["ResNet152_Weights.SENTINEL2_MI_MS_SATLAS"].scaling is None
    assert find_record("imagenet", architecture="resnet34").name == "ResNet34_Weights.IMAGENET1K_V1"
    with pytest.raises(ModelError, match="SENTINEL2_ALL_MOCO"):
        find_record("SENTINEL2_ALL_MOCO", architecture="resnet18")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A record whose file the test makes, in a hub folder of its own."""
    torch.save(resnet_tensors(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    url = (tmp_path / f"w-{digest}.pth").as_uri()
    (tmp_path / "w.pth").rename(tmp_path / f"w-{digest}.pth")
    record = records.WeightRecord("Ours.SMALL", "resnet18", ("blue", "green", "red", "nir"), url, None, "")
    monkeypatch.setattr(records, "weight_records", lambda: (record,))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return record


def test_weights_by_name_are_never_downloaded_in_silence(published):
    with pytest.raises(ModelError, match=r"are not here.*landcover weights get Ours.SMALL"):
        load_weights("Ours.SMALL", architecture="resnet18")
    assert not published.cache.exists()


def test_weights_by_name_are_fetched_once_and_checked(published):
    fetch_weights(published)
    weights = load_weights("Ours.SMALL", architecture="resnet18")
    assert weights.bands == published.bands
    published.cache.write_bytes(published.cache.read_bytes()[:-5])
    with pytest.raises(ModelError, match="not what its name says"):
        load_weights("Ours.SMALL", architecture="resnet18")


def test_without_a_network_the_error_says_where_to_put_the_file(published):
    gone = replace(published, url=published.url.replace("/w-", "/gone-"))
    with pytest.raises(ModelError, match="put it at") as caught:
        fetch_weights(gone)
    assert str(gone.cache) in str(caught.value)


def test_shipped_weights_are_those_of_the_bands_that_are_there():
    bands = ("red", "swir16", "nir")
    weights = load_weights(OWN_NAME, architecture="resnet18")
    spec = NetworkSpec(3, 2, depth=3, decoder_channels=(8,))
    stem = build_network(spec, weights=weights, preprocess=plain(bands)).encoder.stem.weight
    scaled = weights.tensors["conv1.weight"][:, weights.bands.index("nir")].float() * 6 / 3
    torch.testing.assert_close(stem[:, 2], scaled / weights.scaling[1][weights.bands.index("nir")])


def test_stages_learn_slower_the_nearer_to_the_input():
    network = build_network(SPEC)
    groups = parameter_groups(network, lr=1.0, layer_decay=0.5, weight_decay=0.1)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["rest"] == 1.0
    assert [rates[f"encoder {i}"] for i in range(5)] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert all(group["weight_decay"] == (0.0 if "norm" in group["name"] else 0.1) for group in groups)


def test_a_frozen_encoder_learns_nothing_not_even_statistics():
    network = build_network(SPEC)
    freeze_encoder(network)
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    network.train()
    network(torch.randn(2, 4, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert not any(group["name"].startswith("encoder") for group in parameter_groups(network, lr=1.0))
    freeze_encoder(network, frozen=False)
    assert network.encoder.training
    assert all(p.requires_grad for p in network.encoder.parameters())
