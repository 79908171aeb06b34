"""Value and quantiles out of a network's last channels, quantiles that do not cross, and the loss they learn by.

A network of classes ends in one channel per class. A network of values ends in :data:`CHANNELS` raw channels per
quantity: value, median, and how far the outer quantiles lie below and above the median, before softplus. All are in
standardised units of the transformed quantity; who reads them undoes that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pipeline.quantity import CHANNELS, LEVELS, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHANNELS", "LEVELS", "OUTPUTS", "pinball", "quantile_loss", "values_and_quantiles"]
# Of the standardised target: beyond it an error counts by its size, not its square, so that one wrong label does not
# rule (Huber 1964).
_KNEE = 2.0


def values_and_quantiles(raw: torch.Tensor) -> torch.Tensor:
    """Value and quantiles 0.05, 0.5, 0.95 of one or more quantities; the quantiles never cross.

    Args:
        raw: Float [chip, CHANNELS * quantity, ...], the channels of a quantity side by side.

    Returns:
        Float [chip, quantity, OUTPUTS, ...] in the units of ``raw``.

    >>> found = values_and_quantiles(torch.tensor([[1.0, 2.0, -9.0, 0.0]]))
    >>> [round(float(part), 2) for part in found[0, 0]]
    [1.0, 2.0, 2.0, 2.69]
    """
    parts = raw.reshape(len(raw), -1, CHANNELS, *raw.shape[2:])
    value, median, below, above = parts.unbind(2)
    return torch.stack([value, median - functional.softplus(below), median, median + functional.softplus(above)], 2)


def pinball(
    quantiles: torch.Tensor, target: torch.Tensor, *, levels: Sequence[float] = LEVELS, dim: int = 1
) -> torch.Tensor:
    """Pinball loss of each quantile: least, on average, where so large a share of the targets lies below it.

    Args:
        quantiles: Float with the quantiles along ``dim``.
        target: Float of that shape, or one to broadcast, without ``dim``.
        levels: Probability of each quantile.
        dim: Where the quantiles lie.

    Returns:
        Float of the shape of ``target``: the mean over the quantiles.

    Source: Koenker & Bassett (1978), Regression Quantiles, Econometrica 46, 33-50.
    """
    level = torch.tensor(levels, dtype=quantiles.dtype, device=quantiles.device)
    error = target.unsqueeze(dim) - quantiles
    level = level.view(*(-1 if axis == dim % error.ndim else 1 for axis in range(error.ndim)))
    return torch.maximum(level * error, (level - 1.0) * error).mean(dim)


def quantile_loss(raw: torch.Tensor, draws: torch.Tensor, weight: torch.Tensor, *, value: torch.Tensor) -> torch.Tensor:
    """Loss of value and quantiles: Huber's of the value, pinball of the quantiles, their sum.

    A measured value is a single draw. A soft target is several draws, as many from each part of its distribution: the
    quantiles then learn that distribution, as class scores learn probabilities.

    Args:
        raw: Float [chip, CHANNELS * quantity, ...] of the network.
        draws: Targets in the same standardised units, float [chip, quantity, draw, ...].
        weight: Of each place, float [chip, quantity, ...], 0 where there is no target; draws there may be anything
            finite.
        value: What the value learns, float of the shape of ``weight``. Not always the mean of the draws.

    Returns:
        The weighted mean over all places, a scalar; 0 where all weights are.
    """
    found = values_and_quantiles(raw.float())
    centre, quantiles = found[:, :, 0], found[:, :, 1:]
    loss = functional.huber_loss(centre, value, reduction="none", delta=_KNEE)
    loss = loss + pinball(quantiles.unsqueeze(3), draws, dim=2).mean(2)
    return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)
