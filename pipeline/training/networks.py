"""The networks that are trained: their architectures from the settings, their first weights from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipeline.model.network import NetworkSpec, build_network, freeze_encoder
from pipeline.model.weights import load_weights
from pipeline.training.chips import chip_stride_px
from pipeline.training.settings import NO_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.training.settings import TrainingSettings

# Of the network with context.
DEPTH, STEM_STRIDE = 4, 4
# Channels of the networks of pixels and of chips' statistics.
CHANNELS = 128


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks to train; what is off is None.

    Attributes:
        pixels: Of single pixels and their surroundings, or of chips' statistics.
        context: With an encoder.
        shares: Of each network that there is in the average, in this order.
    """

    pixels: Network | None
    context: Network | None
    shares: tuple[float, ...]

    @property
    def members(self) -> list[Network]:
        """Those that there are, in the order of the model's members."""
        return [network for network in (self.pixels, self.context) if network is not None]


def network_specs(
    settings: TrainingSettings, *, bands_in: int, classes: int, chip_px: int
) -> tuple[NetworkSpec | None, NetworkSpec | None]:
    """The network of pixels (head chip: of chips' statistics) and the one with context; None for what is off.

    Raises:
        ModelError: chips too small for statistics.
    """
    chip = settings.head == "chip"
    # Ignored by networks that give every pixel a class.
    chip_px, stride_px = (
        (chip_px, chip_stride_px(chip_px)) if chip else (NetworkSpec.chip_px, NetworkSpec.chip_stride_px)
    )
    pixels = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        head=settings.head,
        spectral_kernels=(1, 1),
        spectral_channels=CHANNELS,
        surroundings=not chip,
        statistics=chip,
        dropout=0.0,
        chip_px=chip_px,
        chip_stride_px=stride_px,
    )
    context = NetworkSpec(
        bands_in,
        classes,
        encoder=settings.context.encoder,
        head=settings.head,
        depth=DEPTH,
        stem_stride=STEM_STRIDE,
        spectral_kernels=(3, 1),
        dropout=settings.context.dropout,
        chip_px=chip_px,
        chip_stride_px=stride_px,
    )
    return pixels if settings.pixels.enabled else None, context if settings.context.enabled else None


def build_networks(
    settings: TrainingSettings,
    *,
    classes: int,
    chip_px: int,
    polygons: int,
    preprocess: Preprocess,
    units: Sequence[str] = (),
) -> Networks:
    """The networks of :func:`network_specs`, pretrained and frozen as the settings say; ``units`` of each band.

    Raises:
        ModelError: pretrained weights that do not fit.
    """
    pixels, context = network_specs(settings, bands_in=preprocess.channels, classes=classes, chip_px=chip_px)
    share = settings.context.share_for(polygons) if context is not None and pixels is not None else 1.0
    shares = (1.0,) if pixels is None or context is None else (1.0 - share, share)
    return Networks(
        _pixel_network(pixels, settings) if pixels is not None else None,
        _context_network(context, settings, preprocess=preprocess, units=units) if context is not None else None,
        shares,
    )


def _pixel_network(spec: NetworkSpec, settings: TrainingSettings) -> Network:
    torch.manual_seed(settings.seed * 101)
    return build_network(spec)


def _context_network(
    spec: NetworkSpec, settings: TrainingSettings, *, preprocess: Preprocess, units: Sequence[str]
) -> Network:
    torch.manual_seed(settings.seed * 101 + 1)
    context = settings.context
    if context.weights == NO_WEIGHTS:
        network = build_network(spec)
    else:
        loaded = load_weights(context.weights, architecture=spec.encoder, bands=context.weights_bands)
        network = build_network(spec, weights=loaded, preprocess=preprocess, units=units)
    if context.frozen:
        freeze_encoder(network)
    return network
