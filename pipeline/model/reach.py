"""How far a network sees: the halo that a tile needs so that its classes are those of the whole scene."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.model.decoder import decoder_plan
from pipeline.model.encoder import build_encoder
from pipeline.model.network import stride_px
from pipeline.model.surroundings import REACH_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.network import Network
    from pipeline.model.spec import NetworkSpec

EFFECTIVE_SHARE = 0.99
_PROBES = 4


def reach_px(spec: NetworkSpec) -> int:
    """Theoretical reach in pixels: no pixel farther than this, along rows or columns, changes a pixel's logits.

    A convolution of kernel k on features of stride s adds s (k - 1) / 2, each halving of the resolution adds up to the
    stride that it leads to. Source: Araujo, Norris & Sim (2019), Computing receptive fields of convolutional neural
    networks, Distill, eq. 2.
    """
    spectral = sum(kernel // 2 for kernel in spec.spectral_kernels) if spec.has_spectral else 0
    spectral += REACH_PX if spec.surroundings and spec.has_spectral else 0
    if spec.head == "chip":
        # A cell's class is that of the chip around it: the farthest pixel of the chip from the farthest of the cell.
        return (spec.chip_px + spec.chip_stride_px) // 2 - 1
    if spec.encoder == "none":
        return spectral
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(spec)
    reach, stride = 0, 1
    for module in _main_path(encoder):
        kernel, step = _first(module.kernel_size), _first(module.stride)
        reach += kernel // 2 * stride
        stride *= step
    reach += stride - 1
    for step_stride, scale, _ in decoder_plan(encoder.strides):
        kernel = spec.fuse_kernel if step_stride == 1 else spec.decoder_kernel
        reach += kernel // 2 * step_stride * (scale > 0)
    return max(reach, spectral + spec.fuse_kernel // 2)


def _main_path(encoder: nn.Module) -> list[nn.Conv2d | nn.MaxPool2d]:
    """Convolutions and poolings one after the other, without the shortcuts beside them (which reach less far)."""
    return [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name
    ]


def _first(value: object) -> int:
    return int(value[0]) if isinstance(value, tuple) else int(str(value))


def effective_reach_px(network: Network, *, share: float = EFFECTIVE_SHARE, seed: int = 0) -> int:
    """Measured reach in pixels: within it lies ``share`` of the squared gradient of a pixel's logits by the input.

    Far smaller than the theoretical reach and never larger: the effective receptive field is a bell whose width grows
    with the square root of the depth. Source: Luo et al. (2016), Understanding the effective receptive field in deep
    convolutional neural networks, NeurIPS.

    Args:
        network: A trained network; its weights are not changed.
        share: Share of the squared gradient that the reach holds.
        seed: Of the standard normal input that is probed.
    """
    limit = reach_px(network.spec)
    if network.spec.head == "chip" or limit == 0:
        return limit
    stride = network.stride
    side = 2 * min(-(-limit // stride) * stride, 256) + stride
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((_PROBES, network.spec.bands_in, side, side), generator=generator)
    device = next(network.parameters()).device
    x = x.to(device).requires_grad_()
    training = network.training
    network.eval()
    # Probes at several places of the coarse cell in the middle, as reach differs with the place in the cell.
    places = [side // 2 - stride // 2 + stride * i // _PROBES for i in range(_PROBES)]
    with torch.enable_grad():
        logits = network(x)
        chosen = torch.stack([logits[i, :, at, at] for i, at in enumerate(places)])
        signs = torch.randn(chosen.shape, generator=generator).to(device)
        (gradient,) = torch.autograd.grad((chosen * signs).sum(), x)
    network.train(mode=training)
    return min(limit, max(_radius(gradient[i].pow(2).sum(0), at=at, share=share) for i, at in enumerate(places)))


def _radius(power: torch.Tensor, *, at: int, share: float) -> int:
    """Smallest Chebyshev distance from (at, at) within which ``share`` of ``power`` [row, col] lies."""
    offset = (torch.arange(power.shape[0], device=power.device) - at).abs()
    distance = torch.maximum(offset[:, None], offset[None, :])
    by_distance = torch.zeros(int(distance.max()) + 1, device=power.device, dtype=torch.float64)
    by_distance.index_add_(0, distance.flatten(), power.double().flatten())
    total = by_distance.cumsum(0)
    if not float(total[-1]) > 0:
        return 0
    return int(torch.searchsorted(total, share * total[-1]).item())


def halo_px(network: Network, *, share: float = EFFECTIVE_SHARE) -> int:
    """Halo for tiles: the effective reach rounded up to the network's stride, so that tiles stay on its grid."""
    reach = effective_reach_px(network, share=share)
    return -(-reach // network.stride) * network.stride if network.spec.head == "unet" else reach


def whole_cells(specs: Sequence[NetworkSpec], *, tile_px: int, halo_px: int) -> tuple[int, int]:
    """Tile and halo, at least as large as asked for, in whole strides: tiles then see the grid of the whole scene.

    The halo also holds the chip of every cell of a tile, where a member is a chip classifier.
    """
    stride = math.lcm(*(stride_px(spec) for spec in specs))
    halo = max([halo_px, *((spec.chip_px - spec.chip_stride_px) // 2 for spec in specs if spec.head == "chip")])
    return -(-tile_px // stride) * stride, -(-halo // stride) * stride
