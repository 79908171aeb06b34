"""Encoders: ResNets and VGGs, named as in torchvision, as a list of stages that give features at a known stride."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.model.resnet import STEM_CHANNELS, resnet_layers

if TYPE_CHECKING:
    from pipeline.model.spec import NetworkSpec

_VGG_CONFIGS = {"vgg11_bn": "A", "vgg13_bn": "B", "vgg16_bn": "D", "vgg19_bn": "E"}


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
    """An encoder with random weights (He et al. 2015 fan-out, as torchvision does)."""
    if spec.encoder.startswith("resnet"):
        return _resnet(spec)
    return _vgg(spec)


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


def _vgg(spec: NetworkSpec) -> Encoder:
    from torchvision.models import vgg

    # Without torchvision's classifier, whose 120 million random numbers would be drawn and thrown away.
    config = vgg.cfgs[_VGG_CONFIGS[spec.encoder]]
    layers = vgg.make_layers(config, batch_norm=True)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast("torch.Tensor", layer.bias))
    stages: list[nn.Module] = []
    channels: list[int] = []
    current = nn.Sequential()
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            stages.append(current)
            if len(stages) == spec.depth:
                break
            current = nn.Sequential()
        if isinstance(layer, nn.Conv2d):
            if len(stages) == len(channels):
                channels.append(layer.out_channels)
            channels[-1] = layer.out_channels
            if number == 0:
                layer = nn.Conv2d(spec.bands_in, layer.out_channels, 3, padding=1)  # noqa: PLW2901 - bands differ
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        current.add_module(str(number), layer)
    return Encoder(stages, channels=channels, strides=[2**i for i in range(len(stages))])
