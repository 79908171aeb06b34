"""Networks: shapes for any input, folding, reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.model.network import Ensemble, build_network, compute_dtype, fuse_for_inference, stride_px
from pipeline.model.reach import reach_px
from pipeline.model.spec import ENCODERS, NetworkSpec

SMALL = {"depth": 2, "decoder_channels": (8,), "spectral_channels": 8}


def shaken(spec: NetworkSpec, seed: int = 0):
    """A network whose batch norms are not the identity."""
    torch.manual_seed(seed)
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 41),
    cols=st.integers(1, 41),
    depth=st.integers(2, 3),
    stem=st.sampled_from([1, 2, 4]),
    spectral=st.sampled_from([0, 8]),
)
def test_logits_have_the_size_of_any_input(rows, cols, depth, stem, spectral):
    spec = NetworkSpec(3, 5, depth=depth, stem_stride=stem, decoder_channels=(8,), spectral_channels=spectral)
    network = build_network(spec).eval()
    with torch.inference_mode():
        x = torch.randn(1, 3, rows, cols)
        assert network(x).shape == (1, 5, rows, cols)
        assert network.features(x).shape == (1, network.features_out, rows, cols)
    assert network.stride == stride_px(spec)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50", "none"])
@pytest.mark.parametrize("head", ["unet", "chip"])
def test_folding_batch_norms_keeps_the_output(encoder, head):
    spec = NetworkSpec(4, 3, encoder=encoder, head=head, chip_px=16, chip_stride_px=8, **SMALL)
    network = shaken(spec)
    fused = fuse_for_inference(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    x = torch.randn(2, 4, 20, 24)
    with torch.inference_mode():
        torch.testing.assert_close(fused.per_pixel(x), network.per_pixel(x), rtol=1e-3, atol=1e-4)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()) or encoder == "none"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_is_built_with_its_strides(encoder):
    spec = NetworkSpec(4, 3, encoder=encoder)
    with torch.device("meta"):
        from pipeline.model.network import Network

        network = Network(spec)
        assert network(torch.empty(1, 4, 64, 64)).shape == (1, 3, 64, 64)
    assert network.stride == stride_px(spec)


def test_a_chip_classifier_maps_each_cell_by_the_chip_around_it():
    network = shaken(NetworkSpec(3, 4, head="chip", chip_px=16, chip_stride_px=8, **SMALL))
    x = torch.randn(1, 3, 32, 40)
    with torch.inference_mode():
        scores = network.per_pixel(x)
        chip = network(x[..., 4:20, 12:28])
        features = network.features(x)
    torch.testing.assert_close(scores[:, :, 8, 16], chip, rtol=1e-4, atol=1e-5)
    assert torch.equal(scores[:, :, 8, 16], scores[:, :, 15, 23])
    assert features.shape == (1, network.features_out, 32, 40)


def test_moments_of_two_views_are_those_of_the_turned_chip():
    spec = NetworkSpec(3, 4, encoder="resnet18", depth=2, head="chip", moments=2, spectral_channels=0, chip_px=32)
    network, x = build_network(spec).eval(), torch.randn(2, 3, 32, 32)
    one = build_network(replace(spec, moments=1)).eval()
    one.load_state_dict(network.state_dict())
    turned = x.transpose(-1, -2)
    assert torch.allclose(network.moments(x), network.moments(turned), atol=1e-5)
    assert torch.allclose(network.moments(x), (one.moments(x) + one.moments(turned)) / 2, atol=1e-5)
    assert not torch.allclose(one.moments(x), one.moments(turned), atol=1e-3)


def test_files_from_before_the_views_have_one():
    spec = NetworkSpec(3, 4, head="chip", moments=1, spectral_channels=0)
    assert NetworkSpec.from_json({**spec.to_json(), "moments": True}) == spec


@pytest.mark.parametrize(
    "settings_",
    [
        {"depth": 2},
        {"depth": 3, "stem_stride": 2, "fuse_kernel": 3},
        {"depth": 3, "columns": True, "surroundings": True},
        {"encoder": "none", "spectral_kernels": (3, 3)},
        {"head": "chip", "depth": 2, "chip_px": 16, "chip_stride_px": 8},
    ],
)
def test_no_pixel_beyond_the_theoretical_reach_matters(settings_):
    spec = NetworkSpec(2, 3, **{"decoder_channels": (8,), "spectral_channels": 8, **settings_})
    network = shaken(spec)
    reach = reach_px(spec)
    side = 2 * (reach + network.stride) + 2 * stride_px(spec)
    x = torch.randn(1, 2, side, side)
    with torch.inference_mode():
        before = network.per_pixel(x)
        x[..., side // 2, side // 2] += 100.0
        changed = (network.per_pixel(x) - before).abs().amax((0, 1)) > 1e-4
    rows = changed.any(1).nonzero().flatten()
    assert (rows - side // 2).abs().max() <= reach
    assert len(rows) > 0


def test_a_tile_with_full_halo_agrees_with_the_whole():
    network = shaken(NetworkSpec(2, 3, **SMALL))
    halo = -(-reach_px(network.spec) // network.stride) * network.stride
    x = torch.randn(1, 2, 4 * halo, 4 * halo)
    with torch.inference_mode():
        whole = network(x)[..., 2 * halo : 2 * halo + 8, halo : halo + 8]
        tile = network(x[..., halo : 3 * halo + 8, : 2 * halo + 8])[..., halo : halo + 8, halo : halo + 8]
    torch.testing.assert_close(tile, whole, rtol=1e-4, atol=1e-5)


def test_an_ensemble_averages_probabilities():
    members = [shaken(NetworkSpec(2, 3, encoder="none"), seed) for seed in (0, 1)]
    x = torch.randn(1, 2, 5, 6)
    with torch.inference_mode():
        mean = Ensemble(members, shares=(3, 1), temperature=1.0)(x).softmax(1)
        expected = 0.75 * members[0](x).softmax(1) + 0.25 * members[1](x).softmax(1)
        warm = Ensemble(members[:1], shares=(1,), temperature=2.0)(x)
        torch.testing.assert_close(warm, members[0](x) / 2)
    torch.testing.assert_close(mean, expected)


def test_spec_survives_json_and_refuses_what_it_does_not_know():
    spec = NetworkSpec(4, 3, encoder="resnet50", spectral_kernels=(3, 1))
    assert NetworkSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ModelError, match="widht is not known"):
        NetworkSpec.from_json({**spec.to_json(), "widht": 3})
    with pytest.raises(ModelError, match="incomplete"):
        NetworkSpec.from_json({"bands_in": 3})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"encoder": "vgg11_bn"}, "encoder; got vgg11_bn; expected one of resnet18"),
        ({"head": "transformer"}, "head"),
        ({"depth": 6}, "depth"),
        ({"stem_stride": 3}, "stem_stride"),
        ({"bands_in": 0}, "bands_in"),
        ({"dropout": 1.0}, "dropout"),
        ({"spectral_kernels": (2,)}, "spectral_kernels"),
        ({"spectral_kernels": ()}, "spectral_kernels is empty"),
        ({"encoder": "none", "spectral_channels": 0}, "without encoder"),
        ({"decoder_channels": ()}, "decoder_channels"),
        ({"chip_px": 16, "chip_stride_px": 17}, "chip_px"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_name(wrong, words):
    with pytest.raises(ModelError, match=words):
        NetworkSpec(**{"bands_in": 3, "classes": 2, **wrong})


def test_compute_dtype_is_one_the_machine_calculates_in():
    assert compute_dtype("cpu") in {torch.bfloat16, torch.float32}
