"""Channels that are computed, not learned: statistics of a pixel's surroundings, and of whole chips.

Surroundings are what analysts give a random forest. Statistics of chips are levels, spread, texture and how bands go
together: means, over the chip or its middle, of something that looks at a pixel and its near neighbours, with nothing
from beyond the chip. So a map gets them for all its cells at once, by pooling, and they are those of a chip that is cut
out. Turning or mirroring a chip does not change them: a scene from above has no up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.spec import SURROUNDINGS_PX, SURROUNDINGS_REACH_PX

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sides in pixels of the windows whose means are taken, then of the window of the deviation.
MEANS = SURROUNDINGS_PX
DEVIATION = 3
REACH_PX = max(SURROUNDINGS_REACH_PX, DEVIATION // 2)
# Surroundings per band: itself, a mean per window, the deviation.
LEVELS = 1 + len(MEANS) + 1
# Added to the variance of surroundings before its root is taken.
FLOOR = 1e-6
# Statistics of chips. Distances in pixels of the values whose differences are taken, up to a quarter of the chip.
STEPS = (1, 2, 4, 8)
# Levels in deviations of the band; the share of the chip below each is counted, softly so that a small change of all
# values is a small change of the share.
SHARE_LEVELS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
_STEEPNESS = 6.0
# Added under roots: squares of standardised values are rounded at about 1e-6.
_FLOOR = 1e-4


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


class ChipStatistics(nn.Module):
    """Standardised statistics of every chip; what they are standardised by travels with the weights.

    Args:
        bands: Channels of the input.
        chip_px: Side of a chip.
        stride_px: Distance of chips.
    """

    def __init__(self, bands: int, *, chip_px: int, stride_px: int) -> None:
        super().__init__()
        self.chip_px, self.stride_px = chip_px, stride_px
        self.channels = statistics_count(bands, chip_px=chip_px)
        self.mean = nn.Buffer(torch.zeros(self.channels, 1, 1))
        self.gain = nn.Buffer(torch.ones(self.channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, statistic, row, col], a cell for every chip, of standardised bands [chip, band, row, col]."""
        raw = chip_statistics(x.float(), chip_px=self.chip_px, stride_px=self.stride_px)
        return ((raw - self.mean) * self.gain).to(x.dtype)

    def standardise_by(self, raw: torch.Tensor) -> None:
        """Take means and deviations from the statistics float [chip, statistic, 1, 1] of chips to learn from."""
        self.mean.copy_(raw.mean(0))
        self.gain.copy_(1.0 / (raw.std(0, unbiased=False) + _FLOOR))


def chip_statistics(x: torch.Tensor, *, chip_px: int, stride_px: int) -> torch.Tensor:
    """Statistics float [chip, statistic, row, col] of all chips, ``stride_px`` apart, that ``x`` holds.

    Per band: means and logarithms of the deviations of the chip, of its middle half and of its middle quarter; the same
    of the deviation over 3 pixels (texture); logarithms of the mean difference of pixels 1, 2, 4 and 8 apart; shares of
    the chip below seven levels. Per pair of bands: their correlation. ``docs/learning.md`` says what each is worth.

    Args:
        x: Standardised bands float [chip, band, row, col].
        chip_px: Side of a chip; at least ``pipeline.model.spec.LEAST_CHIP_PX``.
        stride_px: Distance of chips.
    """
    return torch.cat(list(_statistics(x, chip_px, stride_px)), dim=1)


def statistics_count(bands: int, *, chip_px: int) -> int:
    """Number of statistics of chips of so many bands and pixels."""
    return chip_statistics(torch.zeros(1, bands, chip_px, chip_px), chip_px=chip_px, stride_px=chip_px).shape[1]


def _statistics(x: torch.Tensor, side: int, stride: int) -> Iterator[torch.Tensor]:
    for part in (1, 2, 4):
        size = side // part + (side - side // part) % 2  # as far from the chip's edge on every side
        edge = (side - size) // 2
        middle = x[..., edge : x.shape[-2] - edge, edge : x.shape[-1] - edge]
        yield functional.avg_pool2d(middle, size, stride)
        yield _deviation(middle, size, stride).log()
    texture = _deviation(x, DEVIATION, 1)
    yield functional.avg_pool2d(texture, side - DEVIATION + 1, stride)
    yield _deviation(texture, side - DEVIATION + 1, stride).log()
    for step in STEPS:
        if step <= side // 4:
            down = functional.avg_pool2d((x[..., step:, :] - x[..., :-step, :]).square(), (side - step, side), stride)
            along = functional.avg_pool2d((x[..., step:] - x[..., :-step]).square(), (side, side - step), stride)
            yield (down + along).add(_FLOOR).log()
    for level in SHARE_LEVELS:
        yield functional.avg_pool2d(((level - x) * _STEEPNESS).sigmoid(), side, stride)
    yield from _correlations(x, side, stride)


def _deviation(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Deviation of each window of ``size`` pixels."""
    mean = functional.avg_pool2d(x, size, stride)
    return (functional.avg_pool2d(x.square(), size, stride) - mean.square()).clamp_min(0).add(_FLOOR).sqrt()


def _correlations(x: torch.Tensor, side: int, stride: int) -> Iterator[torch.Tensor]:
    """Of each band with all that follow it."""
    mean, deviation = functional.avg_pool2d(x, side, stride), _deviation(x, side, stride)
    for band in range(x.shape[1] - 1):
        one, others = slice(band, band + 1), slice(band + 1, None)
        together = functional.avg_pool2d(x[:, one] * x[:, others], side, stride) - mean[:, one] * mean[:, others]
        yield together / (deviation[:, one] * deviation[:, others])
