"""The networks that are trained: their architectures from the settings, their first weights from the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from pipeline.errors import ModelError
from pipeline.model.network import VIEWS, NetworkSpec, build_network, freeze_encoder
from pipeline.model.weights import load_weights
from pipeline.scenes.describe import is_embedding
from pipeline.training.chips import chip_stride_px
from pipeline.training.settings import NO_WEIGHTS, UNJUDGED_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.experts.mixture import Mixture
    from pipeline.experts.regressor_mixture import RegressorMixture
    from pipeline.model.decoder import Columns
    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.settings import TrainingSettings

# Of a network with context that is built from its encoder's name.
DEPTH, STEM_STRIDE = 4, 4
# From this share on a network of whole chips with a pretrained encoder classifies alone: it sees all that the other one
# sees, which is surer of itself than the experts that it learned from were on held-out chips.
ALONE = 0.5
# Channels of the networks of pixels and of chips' statistics.
CHANNELS = 128


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks to train; what is off is None.

    Attributes:
        pixels: Of single pixels and their surroundings, or of chips' statistics.
        context: With an encoder.
        share: Of the network with context in the average.
    """

    pixels: Network | None
    context: Network | None
    share: float

    @property
    def members(self) -> list[Network]:
        """Those that there are, in the order of the model's members."""
        return [network for network in (self.pixels, self.context) if network is not None]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the members in the average."""
        return (1.0 - self.share, self.share) if len(self.members) > 1 else (1.0,)

    def still_learning(self, settings: TrainingSettings) -> Network | None:
        """The network with context where it learns step by step: a frozen encoder under a discriminant is done."""
        done = self.context is not None and self.context.starts_as_probe and settings.keeps_encoder
        return None if done else self.context

    def judged(
        self, mixture: Mixture | RegressorMixture | None, settings: TrainingSettings, *, frozen: FrozenFeatures | None
    ) -> Networks:
        """With the share that the settings ask for or that held-out polygons found; without context where it is 0.

        Without experts nothing is held out: an encoder whose weights are named has the share of one that is not judged.
        """
        if self.context is None or self.pixels is None:
            return self
        share = settings.context.share
        if share is None and frozen is not None and not settings.unjudged:
            share = mixture.admission.share if mixture is not None and mixture.admission is not None else 0.0
        share = UNJUDGED_SHARE if share is None else share
        return replace(self, share=share) if share else replace(self, context=None, share=0.0)

    def alone_where_strong(self, settings: TrainingSettings) -> Networks:
        """Of chips: the network with context alone, where held-out polygons gave it a share of ALONE or more."""
        strong = self.context is not None and settings.context.share is None and self.share >= ALONE
        return replace(self, pixels=None, share=1.0) if strong else self


def start_columns(network: Network, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """The network gives scores that are linear in the surroundings and the encoder's columns: the linear probe.

    Args:
        network: With columns.
        weight: [class, feature], surroundings first; in the place of classes channels of a continuous target.
        bias: [class].
    """
    own = torch.from_numpy(weight).float()
    convs = [network.head, *(cast("torch.nn.Conv2d", conv) for conv in cast("Columns", network.columns).mix)]
    with torch.no_grad():
        for conv, part in zip(convs, torch.split(own, [conv.in_channels for conv in convs], dim=1), strict=True):
            conv.weight.copy_(part[:, :, None, None])
        cast("torch.Tensor", network.head.bias).copy_(torch.from_numpy(bias))


def lift_class(networks: Networks, index: int, lift: float) -> None:
    """Multiply the odds of a class by ``lift`` in all networks, in place."""
    with torch.no_grad():
        for network in networks.members:
            cast("torch.Tensor", network.head.bias)[index] += math.log(lift)


def network_specs(
    settings: TrainingSettings,
    *,
    bands_in: int,
    classes: int,
    chip_px: int,
    frozen: FrozenFeatures | None = None,
    around: bool = True,
) -> tuple[NetworkSpec | None, NetworkSpec | None]:
    """The network of pixels (head chip: of chips' statistics) and the one with context; None for what is off.

    Without ``around`` neither sees statistics of a pixel's surroundings.

    Raises:
        ModelError: chips too small for statistics.
    """
    chip = settings.head == "chip"
    # Ignored by networks that give every pixel a class.
    stride_px = chip_stride_px(chip_px) if chip else NetworkSpec.chip_stride_px
    common = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        head=settings.head,
        spectral_kernels=(1, 1),
        spectral_channels=CHANNELS,
        dropout=0.0,
        chip_px=chip_px if chip else NetworkSpec.chip_px,
        chip_stride_px=stride_px,
    )
    pixels = replace(common, surroundings=around and not chip, statistics=chip) if settings.pixels.enabled else None
    dropout = settings.context.dropout
    if not settings.context.enabled or (settings.context.frozen_first and frozen is None):
        return pixels, None
    if frozen is None:
        named: dict[str, Any] = {"encoder": settings.context.architecture, "depth": DEPTH, "stem_stride": STEM_STRIDE}
        spectral = NetworkSpec.spectral_channels
        return pixels, replace(common, **named, spectral_kernels=(3, 1), spectral_channels=spectral, dropout=dropout)
    own = replace(common, **frozen.spec_encoder, dropout=dropout)
    beside: dict[str, Any] = (
        {"spectral_channels": 0, "moments": VIEWS, "statistics": True}
        if chip
        else {"columns": True, "surroundings": around}
    )
    return pixels, replace(own, **beside)


def build_networks(
    settings: TrainingSettings,
    *,
    classes: int,
    chip_px: int,
    preprocess: Preprocess,
    frozen: FrozenFeatures | None = None,
    units: Sequence[str] = (),
) -> Networks:
    """The networks of :func:`network_specs`, pretrained and frozen as the settings say; ``units`` of each band.

    Raises:
        ModelError: pretrained weights that do not fit, or nothing to train.
    """
    pixels, context = network_specs(
        settings, bands_in=preprocess.channels, classes=classes, chip_px=chip_px, frozen=frozen,
        around=not any(map(is_embedding, units)),
    )  # fmt: skip
    if pixels is None and context is None:
        raise ModelError(
            "nothing to train: no pretrained weights fit the scene, and training.pixels is off",
            fix="see landcover weights list, or set training.context.weights to none",
        )
    return Networks(
        _pixel_network(pixels, settings) if pixels is not None else None,
        _context_network(context, settings, preprocess=preprocess, frozen=frozen, units=units) if context else None,
        1.0 if pixels is None else 0.0,
    )


def _pixel_network(spec: NetworkSpec, settings: TrainingSettings) -> Network:
    torch.manual_seed(settings.seed * 101)
    return build_network(spec)


def _context_network(
    spec: NetworkSpec,
    settings: TrainingSettings,
    *,
    preprocess: Preprocess,
    frozen: FrozenFeatures | None,
    units: Sequence[str],
) -> Network:
    torch.manual_seed(settings.seed * 101 + 1)
    context = settings.context
    if frozen is None and context.weights == NO_WEIGHTS:
        network = build_network(spec)
    else:
        loaded = (
            frozen.weights()
            if frozen is not None
            else load_weights(context.weights, architecture=spec.encoder, bands=context.weights_bands)
        )
        network = build_network(spec, weights=loaded, preprocess=preprocess, units=units)
    if frozen is not None or settings.keeps_encoder:
        freeze_encoder(network)
    return network
