"""The U-Net decoder and the full-resolution spectral path.

A step of a U-Net (Ronneberger et al. 2015) upsamples the coarse features, concatenates the finer ones and convolves. A
1x1 convolution of a concatenation is the sum of two 1x1 convolutions, and a 1x1 convolution commutes with nearest
upsampling; so each step here mixes channels on the coarse grid, where there are four times fewer pixels, then upsamples
and adds: the same function with less to do at the finer resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.surroundings import LEVELS, ChipStatistics, Surroundings

if TYPE_CHECKING:
    from pipeline.model.encoder import Encoder
    from pipeline.model.spec import NetworkSpec


def conv_norm_relu(channels_in: int, channels_out: int, *, kernel: int) -> nn.Sequential:
    """Convolution of the same size, batch norm, ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class SpectralPath(nn.Sequential):
    """Convolutions on the bands at full resolution, so that a pixel's own spectrum reaches the head undiluted."""

    def __init__(self, spec: NetworkSpec) -> None:
        first = fixed_layer(spec)
        channels = spec.bands_in
        if isinstance(first, ChipStatistics):
            channels = first.channels
        elif isinstance(first, Surroundings):
            channels = spec.bands_in * LEVELS
        widths = [channels, *(spec.spectral_channels for _ in spec.spectral_kernels)]
        pairs = zip(widths[:-1], widths[1:], spec.spectral_kernels, strict=True)
        layers = [conv_norm_relu(a, b, kernel=kernel) for a, b, kernel in pairs]
        super().__init__(*([first] if first is not None else []), *layers)


def fixed_layer(spec: NetworkSpec) -> ChipStatistics | Surroundings | None:
    """What stands before the convolutions of the spectral path and is not learned."""
    if spec.statistics:
        return ChipStatistics(spec.bands_in, chip_px=spec.chip_px, stride_px=spec.chip_stride_px)
    return Surroundings() if spec.surroundings else None


class Step(nn.Module):
    """One decoder step: coarse features and finer skips -> features at the finer resolution.

    Args:
        coarse: Channels of the coarse features.
        skips: Channels of each skip at the finer resolution.
        channels: Channels of the result.
        kernel: Kernel of the last convolution; 1 stands for none beyond the mixing of channels.
    """

    def __init__(self, *, coarse: int, skips: list[int], channels: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=False) for width in [coarse, *skips])
        for conv in self.mix:
            nn.init.kaiming_normal_(cast("nn.Conv2d", conv).weight, mode="fan_out", nonlinearity="relu")
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = conv_norm_relu(channels, channels, kernel=kernel) if kernel > 1 else nn.Identity()

    def forward(self, coarse: torch.Tensor, skips: list[torch.Tensor], scale: int) -> torch.Tensor:
        """Features float [chip, channel, row, col] at the skips' resolution, ``scale`` times the coarse one's."""
        x = self.mix[0](coarse)
        if scale > 1:
            x = functional.interpolate(x, scale_factor=float(scale), mode="nearest")
        for mix, skip in zip(list(self.mix)[1:], skips, strict=True):
            x = x + mix(skip)
        out: torch.Tensor = self.conv(self.relu(self.norm(x)))
        return out

    def fold_norm(self) -> None:
        """Move the batch norm after the sum into the convolutions before it, where it is a factor and one bias."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        norm, convs = self.norm, [cast("nn.Conv2d", conv) for conv in self.mix]
        mean, variance = cast("torch.Tensor", norm.running_mean), cast("torch.Tensor", norm.running_var)
        gain = norm.weight / torch.sqrt(variance + norm.eps)
        for conv in convs:
            conv.weight = nn.Parameter(conv.weight * gain[:, None, None, None])
        convs[0].bias = nn.Parameter(norm.bias - mean * gain)
        self.norm = nn.Identity()


class Decoder(nn.Module):
    """Steps from the encoder's coarsest features to full resolution, where the spectral path joins in."""

    def __init__(self, spec: NetworkSpec, encoder: Encoder) -> None:
        super().__init__()
        self.plan = decoder_plan(encoder.strides)
        wanted = len(self.plan)
        widths = (spec.decoder_channels[:1] * wanted + spec.decoder_channels)[-wanted:]
        coarse = encoder.channels[-1]
        steps = []
        for (stride, _, taken), width in zip(self.plan, widths, strict=True):
            skips = [encoder.channels[i] for i in taken]
            if stride == 1 and spec.has_spectral:
                skips.append(spec.spectral_channels)
            kernel = spec.fuse_kernel if stride == 1 else spec.decoder_kernel
            steps.append(Step(coarse=coarse, skips=skips, channels=width, kernel=kernel))
            coarse = width
        self.steps = nn.ModuleList(steps)
        self.channels = coarse

    def forward(self, features: list[torch.Tensor], spectral: torch.Tensor | None) -> torch.Tensor:
        """Features float [chip, channel, row, col] at full resolution."""
        x = features[-1]
        for step, (stride, scale, taken) in zip(self.steps, self.plan, strict=True):
            skips = [features[i] for i in taken]
            if stride == 1 and spectral is not None:
                skips.append(spectral)
            x = step(x, skips, scale)
        return x


class Columns(nn.Module):
    """Scores that are linear in an encoder's features at every stride, interpolated to the pixel.

    Interpolation commutes with a 1x1 convolution: so the features are mixed at their own stride, and as many channels
    are interpolated as there are classes.

    Source: Hariharan et al. (2015), Hypercolumns for object segmentation and fine-grained localization, CVPR.
    """

    def __init__(self, encoder: Encoder, *, classes: int) -> None:
        super().__init__()
        self.strides = encoder.strides
        self.mix = nn.ModuleList(nn.Conv2d(width, classes, 1, bias=False) for width in encoder.channels)
        for conv in self.mix:
            nn.init.normal_(cast("nn.Conv2d", conv).weight, std=0.01)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Float [chip, class, row, col] at full resolution, added up in float32."""
        parts = (
            functional.interpolate(mix(feature).float(), scale_factor=float(stride), mode="bilinear")
            for mix, feature, stride in zip(self.mix, features, self.strides, strict=True)
        )
        total = next(parts)
        for part in parts:
            total.add_(part)
        return total


def decoder_plan(strides: tuple[int, ...]) -> list[tuple[int, int, list[int]]]:
    """(stride, scale from the step before, encoder features that join in) for each step.

    >>> decoder_plan((2, 4, 8))
    [(4, 2, [1]), (2, 2, [0]), (1, 2, [])]
    >>> decoder_plan((1, 1, 2))
    [(1, 2, [1])]
    """
    plan = []
    last = strides[-1]
    stride = last // 2
    while stride >= 1:
        # Where two stages share a stride (stem and first layer without pooling) the deeper one stands for both.
        at_stride = [i for i, s in enumerate(strides[:-1]) if s == stride]
        plan.append((stride, last // stride, at_stride[-1:]))
        last, stride = stride, stride // 2
    return plan or [(1, 1, [])]
