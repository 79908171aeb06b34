"""A pixel's surroundings as sums, computed quickly: those of pipeline.model.surroundings up to known factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.surroundings import DEVIATION, FLOOR, LEVELS, MEANS, REACH_PX

if TYPE_CHECKING:
    from collections.abc import Iterable

# Values of a buffer, 1 MB: a few of them stay in a processor's cache. Smaller ones are quicker for one thread and
# slower for two side by side, which then wait for each other between calls that take some microseconds each.
_GROUP_VALUES = 262_144


def scales(channels: int) -> torch.Tensor:
    """What the channels of :class:`SurroundingSums` are to be multiplied with, float32 [channel]."""
    areas = (1, *(size * size for size in MEANS), DEVIATION * DEVIATION)
    return torch.tensor([1.0 / area for area in areas]).repeat_interleave(channels // LEVELS)


class SurroundingSums(nn.Module):
    """The surroundings of :func:`pipeline.model.surroundings.surroundings`, times window sizes: see :func:`scales`.

    Sums along columns, then along rows; what several windows share is added once. A few bands at a time, so that
    what is added to is still in the cache.
    """

    def forward(self, x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Channels in channels-last memory, float [chip, 5 * band, row, col] of ``dtype``, by default that of ``x``."""
        chips, bands, rows, cols = x.shape
        dtype = dtype or x.dtype
        out = torch.empty(
            (chips, LEVELS * bands, rows, cols), dtype=dtype, device=x.device, memory_format=torch.channels_last
        )
        group = max(_GROUP_VALUES // ((rows + 2 * REACH_PX) * (cols + 2 * REACH_PX)), 1)
        planes = torch.empty((LEVELS, bands, rows, cols), dtype=dtype, device=x.device)
        for chip, made in zip(x, out, strict=True):
            for first in range(0, bands, group):
                some = slice(first, first + group)
                _levels(chip[some].float(), planes[:, some])
            # A plain transposition, which torch does block by block.
            made.permute(1, 2, 0).view(rows * cols, -1).copy_(planes.view(LEVELS * bands, -1).T)
        return out


def _levels(x: torch.Tensor, out: torch.Tensor) -> None:
    """Levels [level, band, row, col] of a few bands float32 [band, row, col]."""
    rows, cols = x.shape[-2:]
    padded = functional.pad(x, (REACH_PX,) * 4)
    three = _sum(padded, range(3), size=rows + 6, axis=-2)  # centred on the rows from the fourth before to ...
    middle = three[:, 3 : 3 + rows]
    five = middle + padded[:, 2 : 2 + rows]
    five.add_(padded[:, 6 : 6 + rows])
    nine = _sum(three, (0, 3, 6), size=rows, axis=-2)
    out[0].copy_(x)
    sums = _sum(middle, range(3, 6), size=cols)
    out[1].copy_(sums)
    out[2].copy_(_sum(five, range(2, 7), size=cols))
    out[3].copy_(_sum(_sum(nine, range(3), size=cols + 6), (0, 3, 6), size=cols))
    squares = _sum(padded[:, 3 : 5 + rows].square(), range(3), size=rows, axis=-2)
    # The deviation is the root of the mean square less the squared mean: here times 9, under the root times 81.
    spread = _sum(squares, range(3, 6), size=cols).mul_(9.0).addcmul_(sums, sums, value=-1.0)
    out[4].copy_(spread.clamp_min_(0.0).add_(81.0 * FLOOR).sqrt_())


def _sum(x: torch.Tensor, starts: Iterable[int], *, size: int, axis: int = -1) -> torch.Tensor:
    """The sum of the pieces of ``size`` along an axis that start there."""
    first, second, *more = (x.narrow(axis, start, size) for start in starts)
    total = first + second
    for part in more:
        total.add_(part)
    return total
