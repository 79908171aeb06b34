"""A pixel's surroundings as channels: what analysts give a random forest, fixed, without anything to learn."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# Sides in pixels of the windows whose means are taken, then of the window of the deviation.
MEANS = (3, 5, 9)
DEVIATION = 3
REACH_PX = max((*MEANS, DEVIATION)) // 2
# Levels of channels: the bands themselves, a mean per window, the deviation.
LEVELS = 1 + len(MEANS) + 1
# Added to the variance before its root is taken.
FLOOR = 1e-6


def surroundings(x: torch.Tensor) -> torch.Tensor:
    """Bands, their means over 3, 5 and 9 pixels, their deviation over 3: float [chip, 5 * band, row, col].

    Standardised values beyond the chip and of pixels that are not valid count as 0, the band's mean, as everywhere in
    the network; so a pixel gets the same channels from every window that holds its surroundings.
    """
    means = [functional.avg_pool2d(x, size, 1, size // 2) for size in MEANS]
    square = functional.avg_pool2d(x * x, DEVIATION, 1, DEVIATION // 2)
    spread = (square - functional.avg_pool2d(x, DEVIATION, 1, DEVIATION // 2).square()).clamp_min(0).add(FLOOR).sqrt()
    return torch.cat([x, *means, spread], dim=1)


class Surroundings(nn.Module):
    """:func:`surroundings` as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels of ``x`` float [chip, band, row, col]."""
        return surroundings(x)
