"""The layers of a ResNet, with torchvision's names and arithmetic, without importing torchvision.

torchvision's weights, and all that are named like them (torchgeo's), load into these modules; a test compares the
outputs of all depths. Why not torchvision's own: importing it takes a second and, with what it imports, 270 MB, a sixth
of what mapping may take in all; and here a block says what it consists of, so that it can be computed faster
(``pipeline.inference.fused``).

Source: He et al. (2016), Deep residual learning for image recognition; the stride of a bottleneck is at its 3x3
convolution, as in torchvision ("ResNet v1.5").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Blocks of the four layers by architecture, and whether these are bottlenecks.
DEPTHS: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
STEM_CHANNELS = 64
BOTTLENECK_EXPANSION = 4


class Block(nn.Module):
    """Convolutions with batch norms and ReLUs between them, added to their input.

    Args:
        channels_in: Channels of the input.
        channels: Channels inside; of the output too, or four times as many for a bottleneck.
        stride: Of the first 3x3 convolution, and of the shortcut.
        bottleneck: 1x1, 3x3, 1x1 instead of two 3x3 convolutions.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = channels * BOTTLENECK_EXPANSION if bottleneck else channels
        plan = [(1, channels, 1), (3, channels, stride), (1, out, 1)] if bottleneck else [(3, out, stride), (3, out, 1)]
        width = channels_in
        for number, (kernel, channels_out, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", _conv(width, channels_out, kernel=kernel, stride=step))
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels_out))
            width = channels_out
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(_conv(channels_in, out, kernel=1, stride=stride), nn.BatchNorm2d(out))

    def pairs(self) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """Each convolution and its batch norm (the identity once that is folded), in order."""
        number = 1
        while hasattr(self, f"conv{number}"):
            yield cast("nn.Conv2d", getattr(self, f"conv{number}")), cast("nn.Module", getattr(self, f"bn{number}"))
            number += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        *before, (last, last_norm) = self.pairs()
        for conv, norm in before:
            x = self.relu(norm(conv(x)))
        out: torch.Tensor = self.relu(last_norm(last(x)) + shortcut)
        return out


def resnet_layers(architecture: str) -> tuple[list[nn.Sequential], list[int]]:
    """The four layers of an architecture, and the channels after each; random weights as torchvision draws them."""
    depths, bottleneck = DEPTHS[architecture]
    layers, widths, width = [], [], STEM_CHANNELS
    for number, blocks in enumerate(depths):
        channels = STEM_CHANNELS << number
        layer = nn.Sequential()
        for block in range(blocks):
            stride = 2 if number and not block else 1
            layer.add_module(str(block), Block(width, channels, stride=stride, bottleneck=bottleneck))
            width = channels * BOTTLENECK_EXPANSION if bottleneck else channels
        layers.append(layer)
        widths.append(width)
    return layers, widths


def _conv(channels_in: int, channels_out: int, *, kernel: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
