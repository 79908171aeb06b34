"""The first stages of EfficientNet-B4, with the parameter names of segmentation_models_pytorch, without importing it.

Source: Tan & Le (2019), EfficientNet, ICML, table 1, widths times 1.4 and depths times 1.8 ("B4"). Written out, because
importing a library of all encoders takes seconds and hundreds of MB; a test compares every stride with it and with the
ONNX graph that the published weights come from.

A published block weights its channels by gates made of their means over the whole chip (squeeze and excitation; Hu et
al. 2018): a pixel's features then depend on the chip that it lies in. :func:`fold_gates` sets the gates to their means
over given chips and multiplies them into the weights. What networks are built of has no gates: a map does not depend on
its tiles. On EuroSAT fixed gates classify as well (0.867 against 0.870) and better beside chip statistics (0.901
against 0.873): ``python -m tests.benchmarks.bench_encoders``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "efficientnet_b4"
STEM_CHANNELS = 48
# Per stage: blocks, kernel, channels, factor by which a block widens. Each but the first halves the resolution.
STAGES = ((2, 3, 24, 1), (4, 3, 32, 6), (4, 5, 56, 6), (6, 3, 112, 6))
EPSILON = 1e-3
_SQUEEZE = 4
# Zeros above and left, below and right of strided convolutions, by kernel: those of the published graphs, which were
# made for images of 380 pixels (a 5 x 5 convolution then meets 95 rows).
_STRIDED_PADDING = {3: (0, 1), 5: (2, 2)}


class MobileBlock(nn.Module):
    """Widen, convolve each channel, narrow; added to the input where the shape allows ("MBConv").

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        kernel: Of the convolution of each channel.
        stride: Of that convolution.
        widen: Factor of the channels inside.
        gated: With the layers that make gates.
    """

    def __init__(self, channels_in: int, channels: int, *, kernel: int, stride: int, widen: int, gated: bool) -> None:
        super().__init__()
        inside = channels_in * widen
        self._expand_conv = nn.Conv2d(channels_in, inside, 1, bias=False) if widen > 1 else None
        self._bn0: nn.Module = nn.BatchNorm2d(inside, eps=EPSILON) if widen > 1 else nn.Identity()
        self._pad = _padding(kernel, stride)
        padding = kernel // 2 if stride == 1 else 0
        self._depthwise_conv = nn.Conv2d(
            inside, inside, kernel, stride=stride, padding=padding, groups=inside, bias=False
        )
        self._bn1: nn.Module = nn.BatchNorm2d(inside, eps=EPSILON)
        if gated:
            squeezed = max(1, channels_in // _SQUEEZE)
            self._se_reduce, self._se_expand = nn.Conv2d(inside, squeezed, 1), nn.Conv2d(squeezed, inside, 1)
        self._project_conv = nn.Conv2d(inside, channels, 1, bias=False)
        self._bn2: nn.Module = nn.BatchNorm2d(channels, eps=EPSILON)
        self.adds, self.gated = stride == 1 and channels_in == channels, gated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        inside = self.inside(x)
        if self.gated:
            inside = inside * self.gates(inside)
        out: torch.Tensor = self._bn2(self._project_conv(inside))
        return out + x if self.adds else out

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        """What the gates weight: float [chip, channel, row, col]."""
        wide = x if self._expand_conv is None else functional.silu(self._bn0(self._expand_conv(x)))
        return functional.silu(self._bn1(self._depthwise_conv(self._pad(wide))))

    def gates(self, inside: torch.Tensor) -> torch.Tensor:
        """Gates 0..1 made of the chip: float [chip, channel, 1, 1]."""
        squeezed = functional.silu(self._se_reduce(inside.mean((2, 3), keepdim=True)))
        return torch.sigmoid(cast("torch.Tensor", self._se_expand(squeezed)))


def efficientnet_stages(bands: int, *, depth: int, gated: bool = False) -> list[nn.Module]:
    """Stages that end at strides 2, 4, 8, 16, the first ``depth`` of them."""
    widths = (STEM_CHANNELS, *(channels for _, _, channels, _ in STAGES))
    stages: list[nn.Module] = []
    number = 0
    for index, (blocks, kernel, _, widen) in enumerate(STAGES[:depth]):
        stage, group = nn.Sequential(), nn.Sequential()
        if not index:
            stage.add_module("_pad", _padding(3, 2))
            stage.add_module("_conv_stem", nn.Conv2d(bands, STEM_CHANNELS, 3, stride=2, bias=False))
            stage.add_module("_bn0", nn.BatchNorm2d(STEM_CHANNELS, eps=EPSILON))
            stage.add_module("_swish", nn.SiLU())
        inside = (widths[index], *(widths[index + 1] for _ in range(blocks)))
        for position, (before, after) in enumerate(pairwise(inside)):
            stride = 2 if index and not position else 1
            block = MobileBlock(before, after, kernel=kernel, stride=stride, widen=widen, gated=gated)
            group.add_module(str(number), block)
            number += 1
        stage.add_module("_blocks", group)
        stages.append(stage)
    return stages


def _padding(kernel: int, stride: int) -> nn.Module:
    before, after = _STRIDED_PADDING[kernel]
    return nn.ZeroPad2d((before, after, before, after)) if stride > 1 else nn.Identity()


@torch.no_grad()
def fold_gates(stages: Iterable[nn.Module], chips: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of stages without gates, which do what gated ones do with their gates' means over given chips.

    Args:
        stages: Gated stages with their weights, in evaluation mode.
        chips: Standardised float [chip, band, row, col]; sides a multiple of the last stride.
    """
    tensors: dict[str, torch.Tensor] = {}
    x = chips
    for stage in stages:
        tensors |= {name: value for name, value in stage.state_dict().items() if "_se_" not in name}
        for name, part in _in_order(stage):
            if isinstance(part, MobileBlock):
                inside = part.inside(x)
                gates = part.gates(inside).mean(0, keepdim=True)
                weight = f"{name}._project_conv.weight"
                tensors[weight] = tensors[weight] * gates
                out = part._bn2(part._project_conv(inside * gates))  # noqa: SLF001 - as its forward does
                x = out + x if part.adds else out
            else:
                x = part(x)
    return tensors


def _in_order(stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in stage.named_children():
        if name == "_blocks":
            yield from ((f"{name}.{number}", block) for number, block in part.named_children())
        else:
            yield name, part
