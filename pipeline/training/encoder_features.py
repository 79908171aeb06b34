"""Features of a frozen pretrained encoder: columns of a pixel, and of a whole chip.

A pixel's column has the encoder's features at all strides, interpolated to the pixel.
Source: Hariharan et al. (2015), Hypercolumns for object segmentation and fine-grained localization, CVPR.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from pipeline.model.encoder import build_encoder
from pipeline.model.network import VIEWS, pad_to, view_moments
from pipeline.model.pretrained import Found, PretrainedEncoder, SceneBands, search_encoders
from pipeline.model.spec import NetworkSpec
from pipeline.model.transfer import put_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.experts.settings import Deadline
    from pipeline.model.encoder import Encoder
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.weights import EncoderWeights
    from pipeline.training.settings import TrainingSettings

# What the time limit leaves out, and what part of the experts' time they may take: soft labels take about as much.
FEATURES, FEATURES_TIME = "features of the pretrained encoder", 0.4
# Chips that fix an EfficientNet's gates, at most; and chips that go through an encoder together.
_CALIBRATE, _BATCH = 64, 16


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """A frozen encoder that sees standardised chips."""

    encoders: tuple[PretrainedEncoder, ...]  # The pretrained encoders: side by side where there are several
    preprocess: Preprocess  # How the chips are standardised
    factor: float = 1.0  # What the scene's values are multiplied with to be in the unit of the weights

    @property
    def count(self) -> int:
        """Features of a pixel."""
        return sum(sum(encoder.channels) for encoder in self.encoders)

    @property
    def spec_encoder(self) -> dict[str, Any]:
        """What makes these encoders in a NetworkSpec."""
        return {**self.encoders[0].spec_encoder, "branches": len(self.encoders)}

    def describe(self) -> str:
        """One line: what they are, what they were trained on, their bands and licence."""
        return Found(self.encoders).describe()

    def calibrated(self, x: torch.Tensor, valid: torch.Tensor) -> FrozenFeatures:
        """The same with gates fixed by some of the chips; see ``PretrainedEncoder.calibrated``."""
        step = max(len(x) // _CALIBRATE, 1)
        values, usable = self._values(x[::step]), valid[::step]
        return replace(self, encoders=tuple(encoder.calibrated(values, usable) for encoder in self.encoders))

    @cached_property
    def network(self) -> Encoder:
        """The encoders side by side, of the scene's standardised channels: those of the network that maps.

        So pixels without a value and what lies beyond a chip are 0, the mean of the scene, here as there.
        """
        with torch.random.fork_rng(devices=[]):
            encoder = build_encoder(NetworkSpec(self.preprocess.channels, 1, **self.spec_encoder))
        for branch, own in enumerate(self.weights()):
            put_weights(encoder, own, preprocess=self.preprocess, branch=branch)
        return encoder.requires_grad_(requires_grad=False).to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def of_pixels(self, x: torch.Tensor) -> torch.Tensor:
        """Columns float32 [chip, feature, row, col] of standardised chips [chip, channel, row, col]."""
        rows, cols = x.shape[-2:]
        parts = []
        for feature, stride in zip(self._features(x), self.network.strides, strict=True):
            large = functional.interpolate(feature, scale_factor=stride, mode="bilinear", align_corners=False)
            parts.append(large[..., :rows, :cols])
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def of_chips(self, x: torch.Tensor, *, deadline: Deadline | None = None) -> torch.Tensor:
        """Moments of each feature over the chip (``pipeline.model.network.view_moments``), float32 [chip, moment].

        None of any chip, [chip, 0], where not all are there at the ``deadline``.
        """
        parts = []
        for part in torch.split(x, _BATCH):
            if deadline is not None and deadline.cuts(FEATURES):
                return x.new_empty((len(x), 0))
            parts.append(view_moments(self._features, part, views=VIEWS))
        return torch.cat(parts).flatten(1)

    def _features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features at each stride, those of one encoder after those of the other."""
        return self.network(pad_to(x, self.network.strides[-1]))  # type: ignore[no-any-return]

    def weights(self) -> list[EncoderWeights]:
        """Weights of each for a network of the scene's bands, their scaling in the unit of the scene."""
        return [self._in_unit(encoder.weights()) for encoder in self.encoders]

    def _in_unit(self, found: EncoderWeights) -> EncoderWeights:
        if found.scaling is None or self.factor == 1:
            return found
        mean, std = (tuple(value / self.factor for value in part) for part in found.scaling)
        return replace(found, scaling=(mean, std), units=())

    def _values(self, x: torch.Tensor) -> torch.Tensor:
        """The scene's values of standardised channels."""
        mean, std = (x.new_tensor(part)[:, None, None] for part in (self.preprocess.mean, self.preprocess.std))
        return (x * std + mean) * self.factor


def frozen_features(
    settings: TrainingSettings, preprocess: Preprocess, *, sensor: str, level: str, units: Sequence[str]
) -> tuple[FrozenFeatures | None, str]:
    """The encoders that the settings ask for and that fit the scene; None where there is none, and why.

    Args:
        settings: ``context.weights`` names it, or leaves the choice to the search.
        preprocess: Bands of the scene and their scaling.
        sensor: Of the scene.
        level: Of the product, "" where it is not known.
        units: Of each band.

    Raises:
        ModelError: weights that are asked for by name and do not fit.
    """
    if not settings.context.frozen_first:
        return None, ""
    scene = SceneBands(preprocess.bands, sensor, level, tuple(units), (preprocess.mean, preprocess.std))
    found = search_encoders(scene, weights=settings.context.weights)
    return FrozenFeatures(found.encoders, preprocess, found.factor) if found.encoders else None, found.why_not
