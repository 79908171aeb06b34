from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.inference.engine import Choice, TorchEngine
from pipeline.inference.fast import BlockEnsemble, speed_up, tile_layout
from pipeline.inference.fused import FusedConv, SurroundingSums, scales
from pipeline.inference.pixels import PLANES, TileLayout
from pipeline.model.network import Ensemble, build_network, fuse_for_inference
from pipeline.model.spec import NetworkSpec
from pipeline.model.surroundings import surroundings
from pipeline.training.networks import network_specs
from pipeline.training.settings import TrainingSettings


@pytest.mark.parametrize("shape", [(1, 10, 64, 48), (2, 3, 5, 7), (1, 1, 1, 1), (1, 2, 300, 400)])
def test_sums_are_the_surroundings_times_their_windows(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)
    kept = x.clone()
    expected = surroundings(x)
    found = SurroundingSums()(x) * scales(expected.shape[1])[None, :, None, None]
    assert torch.allclose(found, expected, atol=2e-5)
    assert torch.equal(x, kept)


def test_sums_are_added_in_float32_whatever_type_is_asked_for() -> None:
    x = 100.0 + torch.randn((1, 2, 40, 30), generator=torch.Generator().manual_seed(2))
    sums = SurroundingSums()
    # In bfloat16 numbers near 100 are half a unit apart: their deviation would be noise.
    short = sums(x, torch.bfloat16)
    assert short.dtype == torch.bfloat16
    assert torch.allclose(short.float(), sums(x), rtol=2**-7)


def default_specs() -> list[NetworkSpec]:
    """The network of pixels and the one with context."""
    settings = TrainingSettings.model_validate({"context": {"weights": "none"}})
    return [spec for spec in network_specs(settings, bands_in=4, classes=5, chip_px=64) if spec is not None]


def test_the_default_networks_give_the_same_scores_to_rounding() -> None:
    torch.manual_seed(0)
    encoder = {"encoder": "resnet18", "depth": 3, "stem_stride": 4, "spectral_kernels": (1, 1)}
    pretrained = NetworkSpec(4, 5, surroundings=True, dropout=0.0, **encoder)
    for spec in [*default_specs(), pretrained, replace(pretrained, columns=True)]:
        plain = fuse_for_inference(build_network(spec).eval())
        quick = speed_up(fuse_for_inference(plain))
        assert any(isinstance(module, FusedConv) for module in quick.modules())
        x = torch.randn(1, 4, 64, 96).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            assert torch.allclose(quick(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 64), (200, 128), (80, 48)])
@pytest.mark.parametrize(("surroundings", "values"), [(False, False), (True, False), (True, True)])
def test_blocks_of_an_ensemble_join_without_a_trace(size: tuple[int, int], *, surroundings: bool, values: bool) -> None:
    torch.manual_seed(1)
    specs = default_specs()
    specs.append(NetworkSpec(4, 5, depth=3, stem_stride=2, spectral_kernels=(3, 3), dropout=0.0))
    specs.append(NetworkSpec(4, 5, depth=3, columns=True, surroundings=surroundings, dropout=0.0))
    members = [fuse_for_inference(build_network(spec).eval()) for spec in specs]
    for member in members:
        torch.nn.init.normal_(member.head.weight, std=0.5)
    plain = Ensemble(members, shares=(0.4, 0.2, 0.1, 0.3), temperature=1.3, values=values).eval()
    quick = speed_up(copy.deepcopy(plain))
    assert isinstance(quick, BlockEnsemble)
    x = torch.randn(2, 4, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = plain(x), quick(x)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9999


def test_only_networks_of_single_pixels_want_float32_planes() -> None:
    def layout(**changes: Any) -> TileLayout:
        member = fuse_for_inference(build_network(NetworkSpec(3, 4, dropout=0.0, **changes)).eval())
        return tile_layout(speed_up(Ensemble([member], shares=(1.0,), temperature=1.0).eval()), torch.bfloat16)

    assert layout() == layout(encoder="none") == PLANES
    assert layout(spectral_channels=0) == TileLayout(torch.bfloat16, by_pixel=True)


def test_the_engines_layout_gives_the_scores_of_float32_planes() -> None:
    torch.manual_seed(2)
    member = fuse_for_inference(build_network(NetworkSpec(4, 5, spectral_channels=0, dropout=0.0)).eval())
    torch.nn.init.normal_(member.head.weight, std=0.5)
    engine = TorchEngine(Ensemble([member], shares=(1.0,), temperature=1.0).eval(), Choice())
    x = torch.randn(1, 4, 64, 96)
    laid_out = engine.layout.empty(4, 64, 96).copy_(x[0])[None]
    assert laid_out.stride() != x.stride()
    assert torch.equal(engine(laid_out), engine(x))


def test_networks_that_have_no_blocks_stay_whole() -> None:
    spec = NetworkSpec(4, 5, head="chip", chip_px=16, chip_stride_px=8, dropout=0.0)
    ensemble = Ensemble([build_network(spec).eval()], shares=(1.0,), temperature=1.0)
    assert speed_up(ensemble) is ensemble


@pytest.mark.parametrize("own", [{"encoder": "none"}, {"depth": 3, "columns": True}])
def test_a_single_members_temperature_is_kept(own: dict[str, Any]) -> None:
    spec = NetworkSpec(3, 4, surroundings=True, dropout=0.0, **own)
    member = fuse_for_inference(build_network(spec).eval())
    torch.nn.init.normal_(member.head.weight, std=0.5)
    plain = Ensemble([member], shares=(1.0,), temperature=1.7).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(speed_up(copy.deepcopy(plain))(x), plain(x), rtol=1e-4, atol=1e-5)
