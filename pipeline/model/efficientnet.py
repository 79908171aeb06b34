"""The first layers of EfficientNet-B4, with the parameter names of segmentation_models_pytorch, without importing it.

Source: Tan & Le (2019), EfficientNet, ICML, table 1, widths times 1.4 and depths times 1.8 ("B4"). Written out, because
importing a library of all encoders takes seconds and hundreds of MB; a test compares every stride with it and with the
ONNX graph that the published weights come from.

A block weights its channels by gates made of their means over the whole chip (squeeze and excitation; Hu et al. 2018).
So a pixel's features depend on the chip that it lies in. :func:`fix_gates` sets the gates to their means over given
chips; then the network is convolutions alone, and a map does not depend on its tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable

STEM_CHANNELS = 48
# Per stage: blocks, kernel, channels, factor by which a block widens. Each but the first halves the resolution.
STAGES = ((2, 3, 24, 1), (4, 3, 32, 6), (4, 5, 56, 6), (6, 3, 112, 6))
EPSILON = 1e-3
_SQUEEZE = 4
# Padding of the strided convolutions above and left, below and right, by kernel: those of the published graphs, which
# were made for images of 380 pixels (a 5 x 5 convolution then meets 95 rows). Stride 1 pads evenly.
_STRIDED_PADDING = {3: (0, 1), 5: (2, 2)}


class SameConv(nn.Conv2d):
    """A convolution that pads as the published graphs do: an input of even size gives half of it at stride 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        kernel = self.kernel_size[0]
        before, after = _STRIDED_PADDING[kernel] if self.stride[0] > 1 else (kernel // 2, kernel // 2)
        return super().forward(functional.pad(x, (before, after, before, after)) if after else x)


class Block(nn.Module):
    """Widen, convolve each channel, weight the channels, narrow; added to the input where the shape allows.

    Attributes:
        gates: Fixed gates float [1, channel, 1, 1]; empty while gates are made of the chip.
    """

    def __init__(self, channels_in: int, channels: int, *, kernel: int, stride: int, widen: int) -> None:
        super().__init__()
        inside, squeezed = channels_in * widen, max(1, channels_in // _SQUEEZE)
        if widen > 1:
            self._expand_conv = nn.Conv2d(channels_in, inside, 1, bias=False)
            self._bn0: nn.Module = nn.BatchNorm2d(inside, eps=EPSILON)
        self._depthwise_conv = SameConv(inside, inside, kernel, stride=stride, groups=inside, bias=False)
        self._bn1: nn.Module = nn.BatchNorm2d(inside, eps=EPSILON)
        self._se_reduce = nn.Conv2d(inside, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, inside, 1)
        self._project_conv = nn.Conv2d(inside, channels, 1, bias=False)
        self._bn2: nn.Module = nn.BatchNorm2d(channels, eps=EPSILON)
        self.widens, self.adds = widen > 1, stride == 1 and channels_in == channels
        self.gates = nn.Buffer(torch.empty(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        inside = self.inside(x)
        gates = self.gates if self.gates.numel() else self.gates_of(inside)
        out: torch.Tensor = self._bn2(self._project_conv(inside * gates))
        return out + x if self.adds else out

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        """What the gates weight: float [chip, channel, row, col]."""
        wide = functional.silu(self._bn0(self._expand_conv(x))) if self.widens else x
        return functional.silu(self._bn1(self._depthwise_conv(wide)))

    def gates_of(self, inside: torch.Tensor) -> torch.Tensor:
        """Gates 0..1 made of the chip: float [chip, channel, 1, 1]."""
        squeezed = self._se_reduce(inside.mean((2, 3), keepdim=True))
        return torch.sigmoid(cast("torch.Tensor", self._se_expand(functional.silu(squeezed))))


def efficientnet_stages(bands: int, *, depth: int) -> tuple[list[nn.Module], list[int], list[int]]:
    """Stages that end at strides 2, 4, 8, 16 (``depth`` 1 to 4 of them), the channels and the stride after each."""
    stages: list[nn.Module] = []
    width, number = STEM_CHANNELS, 0
    for index, (blocks, kernel, channels, widen) in enumerate(STAGES[:depth]):
        stage, group = nn.Sequential(), nn.Sequential()
        if not index:
            stage.add_module("_conv_stem", SameConv(bands, STEM_CHANNELS, 3, stride=2, bias=False))
            stage.add_module("_bn0", nn.BatchNorm2d(STEM_CHANNELS, eps=EPSILON))
            stage.add_module("_swish", nn.SiLU())
        for position in range(blocks):
            stride = 2 if index and not position else 1
            block = Block(width, channels, kernel=kernel, stride=stride, widen=widen)
            group.add_module(str(number), block)
            width, number = channels, number + 1
        stage.add_module("_blocks", group)
        stages.append(stage)
    return stages, [channels for _, _, channels, _ in STAGES[:depth]], [2 << i for i in range(depth)]


@torch.no_grad()
def fix_gates(stages: Iterable[nn.Module], chips: torch.Tensor) -> None:
    """Set all gates to their means over standardised chips float [chip, band, row, col], block after block."""
    x = chips
    for stage in stages:
        for part in stage.children():
            for block in part.children() if isinstance(part, nn.Sequential) else ():
                if isinstance(block, Block):
                    block.gates = nn.Buffer(block.gates_of(block.inside(x)).mean(0, keepdim=True))
                    x = block(x)
            if not isinstance(part, nn.Sequential):
                x = part(x)
