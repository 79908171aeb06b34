"""Augmentation: the eight symmetries of the square, and radiometric jitter, on whole batches of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def symmetry(layers: Sequence[torch.Tensor], *, turn: int, flip: bool) -> list[torch.Tensor]:
    """All layers [..., row, col] turned by ``turn`` quarter turns and mirrored, alike; views, no copies.

    A scene from above has no up: the eight symmetries of the square are as likely as the original.
    """
    out = [torch.rot90(layer, turn, (-2, -1)) if turn else layer for layer in layers]
    return [layer.flip(-1) if flip else layer for layer in out]


def jitter(x: torch.Tensor, *, gain: float, shift: float, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Standardised chips [chip, channel, row, col] as another day might have seen them.

    Args:
        x: The chips.
        gain: Deviation of one factor per chip: brightness, haze, sun height.
        shift: Deviation of an offset per chip and channel, in deviations of the channel.
        noise: Deviation of noise per pixel and channel.
        generator: Source of randomness.
    """
    count, channels = x.shape[:2]
    out = x
    if gain:
        out = out * (1.0 + gain * torch.randn((count, 1, 1, 1), generator=generator))
    if shift:
        out = out + shift * torch.randn((count, channels, 1, 1), generator=generator)
    if noise:
        out = out + noise * torch.randn(x.shape, generator=generator)
    return out
