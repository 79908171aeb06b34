"""Encoders: ResNets, named as in torchvision, and an EfficientNet, as stages that give features at a known stride.

ResNets are written out: importing torchvision takes a second and, with what it imports, 270 MB, a sixth of what mapping
may take in all; and a block says what it consists of, so that it can be computed faster (``pipeline.inference.fused``).
torchvision's weights, and all that are named like them (torchgeo's), load into them; a test compares the outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.model import efficientnet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.model.spec import NetworkSpec

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


class Branches(nn.Module):
    """A stage of several encoders side by side, each on its own channels; those of the first all see the bands."""

    def __init__(self, parts: Iterable[nn.Module], *, first: bool) -> None:
        super().__init__()
        self.parts, self._first = nn.ModuleList(parts), first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col], channels of one encoder after those of the other."""
        count = len(self.parts)
        given = [x] * count if self._first else x.chunk(count, dim=1)
        return torch.cat([part(own) for part, own in zip(self.parts, given, strict=True)], dim=1)


class Encoder(nn.Module):
    """Stages in a row; forward gives the features after each.

    Attributes:
        stages: One module per stage; names of the parameters inside are torchvision's.
        channels: Channels of the features after each stage.
        strides: Stride of the features after each stage, in input pixels.
        frozen: Batch norms keep their statistics while the rest is trained.
    """

    def __init__(self, stages: list[nn.Module], *, channels: list[int], strides: list[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.frozen = False

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features after each stage: float [chip, channel, row / stride, col / stride]."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """As torch's, but a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    @property
    def stem(self) -> nn.Conv2d:
        """The convolution on the bands."""
        for module in self.stages[0].modules():
            if isinstance(module, nn.Conv2d):
                return module
        raise ModelError("encoder without convolution")


def build_encoder(spec: NetworkSpec) -> Encoder:
    """An encoder with random weights (He et al. 2015 fan-out, as torchvision does); branches side by side."""
    if spec.branches > 1:
        parts = [build_encoder(replace(spec, branches=1)) for _ in range(spec.branches)]
        rows = enumerate(zip(*(part.stages for part in parts), strict=True))
        stages: list[nn.Module] = [Branches(row, first=not number) for number, row in rows]
        channels = [width * spec.branches for width in parts[0].channels]
        return Encoder(stages, channels=channels, strides=list(parts[0].strides))
    if spec.encoder == efficientnet.NAME:
        stages = efficientnet.efficientnet_stages(spec.bands_in, depth=spec.depth)
        channels = [width for _, _, width, _ in efficientnet.STAGES[: spec.depth]]
        return Encoder(stages, channels=channels, strides=[2 << i for i in range(spec.depth)])
    return _resnet(spec)


def _resnet(spec: NetworkSpec) -> Encoder:
    layers, widths = resnet_layers(spec.encoder)
    stride = 1 if spec.stem_stride == 1 else 2
    conv = nn.Conv2d(spec.bands_in, STEM_CHANNELS, 7, stride=stride, padding=3, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    stem = nn.Sequential()
    stem.add_module("conv1", conv)
    stem.add_module("bn1", nn.BatchNorm2d(STEM_CHANNELS))
    stem.add_module("relu", nn.ReLU(inplace=True))
    layers, widths = layers[: spec.depth - 1], widths[: spec.depth - 1]
    # torchvision's pooling moves into the first layer group, so that the stem's own features stay in reach as a skip.
    first = nn.Sequential()
    if spec.stem_stride == 4:  # noqa: PLR2004 - torchvision's own stride
        first.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    first.add_module("layer1", layers[0])
    stages: list[nn.Module] = [stem, first]
    for number, layer in enumerate(layers[1:], 2):
        stages.append(nn.Sequential())
        stages[-1].add_module(f"layer{number}", layer)
    strides = [stride, *(spec.stem_stride * 2**i for i in range(len(layers)))]
    return Encoder(stages, channels=[STEM_CHANNELS, *widths], strides=strides)


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
