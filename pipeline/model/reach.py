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

    from pipeline.model.spec import NetworkSpec


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
    for name, module in encoder.named_modules():
        # The shortcuts beside the convolutions reach less far, other branches as far.
        beside = "downsample" in name or ".parts." in name.replace(".parts.0.", ".")
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and not beside:
            reach += _first(module.kernel_size) // 2 * stride
            stride *= _first(module.stride)
    reach += stride - 1
    if spec.columns:  # interpolation takes the next feature on either side
        return max(reach + encoder.strides[-1], REACH_PX * spec.surroundings)
    for step_stride, scale, _ in decoder_plan(encoder.strides):
        kernel = spec.fuse_kernel if step_stride == 1 else spec.decoder_kernel
        reach += kernel // 2 * step_stride * (scale > 0)
    return max(reach, spectral + spec.fuse_kernel // 2)


def _first(value: object) -> int:
    return int(value[0]) if isinstance(value, tuple) else int(str(value))


def whole_cells(specs: Sequence[NetworkSpec], *, tile_px: int, halo_px: int) -> tuple[int, int]:
    """Tile and halo, at least as large as asked for, in whole strides: tiles then see the grid of the whole scene.

    The halo also holds the chip of every cell of a tile, where a member is a chip classifier.
    """
    stride = math.lcm(*(stride_px(spec) for spec in specs))
    halo = max([halo_px, *((spec.chip_px - spec.chip_stride_px) // 2 for spec in specs if spec.head == "chip")])
    return -(-tile_px // stride) * stride, -(-halo // stride) * stride
