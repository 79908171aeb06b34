from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.inference import fused
from pipeline.inference.fused import (
    EvenPool,
    FusedConv,
    FusedMobile,
    FusedResidual,
    FusedStep,
    fuse_layers,
    fused_works,
    padded,
)
from pipeline.model.efficientnet import MobileBlock
from pipeline.model.network import build_network, fuse_for_inference
from pipeline.model.spec import NetworkSpec


def noisy(spec: NetworkSpec) -> nn.Module:
    """A network whose batch norms do something, folded."""
    torch.manual_seed(3)
    network = build_network(spec).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data):
                values.normal_(0.0, 0.3)
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5)
    nn.init.normal_(network.head.weight, std=0.3)
    return fuse_for_inference(network)


SPECS = [
    NetworkSpec(4, 5, dropout=0.0),
    NetworkSpec(4, 5, encoder="resnet50", depth=4, stem_stride=2, dropout=0.0),
    NetworkSpec(4, 5, spectral_channels=0, depth=4, fuse_kernel=3, dropout=0.0),
    NetworkSpec(4, 5, head="chip", chip_px=32, chip_stride_px=8, dropout=0.0),
    NetworkSpec(4, 5, encoder="efficientnet_b4", depth=3, branches=2, dropout=0.0),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.encoder}-{spec.head}-{spec.spectral_channels}")
@pytest.mark.parametrize("works", [True, False], ids=["fused", "plain"])
def test_fused_networks_give_the_same_scores_to_rounding(
    spec: NetworkSpec, *, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not works:
        monkeypatch.setattr(fused, "fused_works", lambda _: False)
    plain = noisy(spec)
    quick = copy.deepcopy(plain)
    fuse_layers(quick)
    x = torch.randn(2, 4, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = plain(x), quick(x)
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_no_pass_for_a_relu_or_a_sum_is_left() -> None:
    network = noisy(SPECS[0])
    fuse_layers(network)
    kinds = [type(module) for module in network.modules()]
    assert nn.Conv2d not in kinds
    assert nn.ReLU not in kinds
    assert kinds.count(FusedResidual) == 8
    assert kinds.count(FusedStep) == 5


def test_no_pass_for_a_silu_or_a_padding_is_left() -> None:
    network = noisy(SPECS[-1])
    fuse_layers(network)
    kinds = {type(module) for module in network.modules()}
    assert FusedMobile in kinds
    assert not kinds & {MobileBlock, nn.Conv2d, nn.SiLU, nn.ZeroPad2d}


@pytest.mark.parametrize(("kernel", "zeros"), [(3, (0, 1, 0, 1)), (5, (2, 2, 2, 2)), (1, (0, 0, 0, 0))])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_padding_inside_a_convolution_changes_nothing(
    kernel: int, zeros: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    conv, pad = nn.Conv2d(3, 6, kernel, stride=2), nn.ZeroPad2d(zeros)
    x = torch.randn(1, 3, *size)
    assert torch.allclose(padded(conv, pad)(x), conv(pad(x)), atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (16, 10), (7, 12), (64, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maxima_of_every_second_pixel_are_those_of_torch(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[0, 0, 1, 1] = float("nan")
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(EvenPool()(x).nan_to_num(9.0), functional.max_pool2d(x, 3, 2, 1).nan_to_num(9.0))


def test_other_poolings_stay() -> None:
    network = nn.Sequential(nn.MaxPool2d(2, 2), nn.MaxPool2d(3, 2, 1))
    fuse_layers(network)
    assert [type(layer) for layer in network] == [nn.MaxPool2d, EvenPool]


def test_batch_norms_that_are_not_folded_are_left_alone() -> None:
    network = build_network(SPECS[0]).eval()
    expected = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    plain = copy.deepcopy(network)
    fuse_layers(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == expected
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(network(x), plain(x), rtol=1e-3, atol=1e-4)


def test_an_operator_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fused_works.cache_clear()
    monkeypatch.setattr(fused, "_fused", lambda _layer, x, _added: x[:, :3])
    assert not fused_works(torch.float32)
    fused_works.cache_clear()


def test_an_operator_that_is_missing_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> torch.Tensor:
        raise AttributeError("no such operator")

    fused_works.cache_clear()
    monkeypatch.setattr(fused, "_fused", missing)
    assert not fused_works(torch.float32)
    fused_works.cache_clear()


def test_shapes_are_known_without_data() -> None:
    conv = FusedConv(nn.Conv2d(3, 7, 3, stride=2, padding=1), follows="relu").to("meta")
    x = torch.empty(1, 3, 32, 32, device="meta")
    assert conv(x).shape == (1, 7, 16, 16)
