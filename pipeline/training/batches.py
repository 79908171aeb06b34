"""Batches of the networks with context: chips, drawn and augmented; and their loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn import functional
from torch.utils.data import IterableDataset

from pipeline.legend import IGNORE_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
# Jitter: of brightness per chip; per chip and band, and per pixel and band, in deviations of the band.
GAIN, SHIFT, NOISE = 0.05, 0.05, 0.02


@dataclass(frozen=True, eq=False)
class ContextSet:
    """Training set of the networks with context: chips without margins."""

    x: torch.Tensor  # float32 [chip, channel, row, col]
    # uint8 [chip, row, col], IGNORE_INDEX where unlabelled; of a chip classifier [chip, 1, 1], as are the layers that
    # follow
    index: torch.Tensor
    weight: torch.Tensor  # float32 [chip, row, col], of the labelled pixels
    target: torch.Tensor  # float16 [chip, class, row, col], soft labels
    soft: torch.Tensor  # bool [chip, row, col], where there are soft labels
    chance: torch.Tensor  # float64 [chip], how often a chip is drawn


class Batches(IterableDataset[Batch]):
    """Augmented batches; batch ``n`` is the same whether or not those before it were drawn, so that a run resumes.

    Of each batch every device takes its share: what is learned hardly depends on their number.
    """

    def __init__(self, chips: ContextSet, *, steps: int, batch: int, seed: int) -> None:
        super().__init__()
        self._chips = chips
        self._steps, self._batch, self._seed = steps, batch, seed
        self._jitter = {"gain": GAIN, "shift": SHIFT, "noise": NOISE}  # goes with the batches to other processes
        self.start = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from ``start`` to the last step, of each this device's share."""
        for step in range(self.start, self._steps):
            yield self.share(step)

    def plain(self) -> Iterator[Batch]:
        """Every labelled chip once, as it is, for validation."""
        chips = self._chips
        labelled = torch.nonzero((chips.index != IGNORE_INDEX).flatten(1).any(1)).flatten()
        for part in torch.split(labelled, self._batch) if len(labelled) else ():
            yield (
                chips.x[part].contiguous(memory_format=torch.channels_last),
                chips.index[part],
                chips.weight[part],
                chips.target[part],
                chips.soft[part],
            )

    def share(self, step: int) -> Batch:
        """Chips rank, rank + world, ... of batch ``step``; all of it on a single device."""
        batch = self.batch(step)
        if not distributed.is_initialized():
            return batch
        rank, world = distributed.get_rank(), distributed.get_world_size()
        x, index, weight, target, soft = (layer[rank::world] for layer in batch)
        return x.contiguous(memory_format=torch.channels_last), index, weight, target, soft

    def batch(self, step: int) -> Batch:
        """x, index, weight, target, soft of batch ``step``."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        chips = self._chips
        chosen = torch.multinomial(chips.chance, self._batch, replacement=True, generator=generator)
        turn, flip = (int(torch.randint(high, (), generator=generator)) for high in (4, 2))
        layers = [layer[chosen] for layer in (chips.x, chips.index, chips.weight, chips.target, chips.soft)]
        x, index, weight, target, soft = symmetry(layers, turn=turn, flip=bool(flip))
        x = jitter(x, generator=generator, **self._jitter)
        return x.contiguous(memory_format=torch.channels_last), index, weight, target, soft


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


def hard_loss(
    logits: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, *, smoothing: float = 0.0
) -> torch.Tensor:
    """Weighted cross-entropy over labelled pixels; 0 where a batch has none.

    Args:
        logits: float [chip, class, row, col].
        index: uint8 [chip, row, col], IGNORE_INDEX where unlabelled.
        weight: float [chip, row, col].
        smoothing: Share of the target spread over all classes (Szegedy et al. 2016).
    """
    loss = functional.cross_entropy(
        logits, index.long(), ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing
    )
    weight = torch.where(index == IGNORE_INDEX, torch.zeros_like(weight), weight)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def soft_loss(logits: torch.Tensor, target: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with soft labels over usable pixels (Hinton et al. 2015, temperature 1).

    Args:
        logits: float [chip, class, row, col].
        target: float [chip, class, row, col], sums to 1 over classes.
        usable: bool [chip, row, col].
    """
    loss = -(target.to(logits.dtype) * logits.log_softmax(1)).sum(1)
    return (loss * usable).sum() / usable.sum().clamp_min(1)
