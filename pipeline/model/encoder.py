"""Encoders: torchvision's ResNets and VGGs as a list of stages, each giving features at a known stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import nn

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from pipeline.model.spec import NetworkSpec

STEM_CHANNELS = 64
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
    """An encoder with random weights (He et al. 2015 fan-out, as torchvision does).

    torchvision is imported here, not with the module: it takes 170 MB and a second, and a network of pixels and their
    surroundings does without.
    """
    if spec.encoder.startswith("resnet"):
        return _resnet(spec)
    return _vgg(spec)


def _resnet(spec: NetworkSpec) -> Encoder:
    import torchvision

    net = torchvision.models.get_model(spec.encoder, weights=None)
    stride = 1 if spec.stem_stride == 1 else 2
    conv = nn.Conv2d(spec.bands_in, STEM_CHANNELS, 7, stride=stride, padding=3, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    stem = nn.Sequential()
    stem.add_module("conv1", conv)
    stem.add_module("bn1", net.bn1)
    stem.add_module("relu", net.relu)
    layers = [net.layer1, net.layer2, net.layer3, net.layer4][: spec.depth - 1]
    # torchvision's pooling moves into the first layer group, so that the stem's own features stay in reach as a skip.
    first = nn.Sequential()
    if spec.stem_stride == 4:  # noqa: PLR2004 - torchvision's own stride
        first.add_module("maxpool", net.maxpool)
    first.add_module("layer1", layers[0])
    stages: list[nn.Module] = [stem, first]
    for number, layer in enumerate(layers[1:], 2):
        stages.append(nn.Sequential())
        stages[-1].add_module(f"layer{number}", layer)
    expansion = net.fc.in_features // 512
    channels = [STEM_CHANNELS, *(64 * 2**i * expansion for i in range(len(layers)))]
    strides = [stride, *(spec.stem_stride * 2**i for i in range(len(layers)))]
    return Encoder(stages, channels=channels, strides=strides)


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


@dataclass(frozen=True, eq=False)
class Residual:
    """A ResNet's block, batch norms folded: convolutions in a row with ReLUs between them, a shortcut, a sum, a ReLU.

    Attributes:
        convs: In order.
        shortcut: The convolution of the shortcut; None where the input itself is added.
    """

    convs: tuple[nn.Conv2d, ...]
    shortcut: nn.Conv2d | None


def residual(module: nn.Module) -> Residual | None:
    """A block of torchvision's ResNets whose batch norms are folded, by its parts; None for anything else."""
    if type(module).__name__ not in {"BasicBlock", "Bottleneck"}:
        return None
    norms = [child for name, child in module.named_children() if name.startswith("bn")]
    shortcut = cast("nn.Sequential | None", module.downsample)
    norms += list(shortcut)[1:] if shortcut is not None else []
    if not all(isinstance(norm, nn.Identity) for norm in norms):
        return None
    convs = tuple(cast("nn.Conv2d", child) for name, child in module.named_children() if name.startswith("conv"))
    return Residual(convs, cast("nn.Conv2d", shortcut[0]) if shortcut is not None else None)
