"""The lessons: batches of chips, and the Lightning module that learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import nn
from torch.utils.data import IterableDataset

from pipeline.legend import IGNORE_INDEX
from pipeline.model.transfer import parameter_groups
from pipeline.training.augment import jitter, symmetry
from pipeline.training.loss import hard_loss, soft_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.model.network import Network

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How the networks learn.

    Attributes:
        steps: Batches in all.
        batch: Chips in a batch.
        lr: Peak learning rate of the one-cycle schedule (Smith & Topin 2018).
        layer_decay: Each encoder stage learns this much slower than the one after it.
        weight_decay: AdamW's.
        smoothing: Label smoothing.
        soft_weight: Weight of the teacher's opinion beside the labels'.
        gain: Jitter of brightness per chip.
        shift: Jitter per chip and band, in deviations.
        noise: Jitter per pixel and band, in deviations.
        seed: Of batches and augmentation.
    """

    steps: int
    batch: int
    lr: float
    layer_decay: float
    weight_decay: float
    smoothing: float
    soft_weight: float
    gain: float
    shift: float
    noise: float
    seed: int


@dataclass(frozen=True, eq=False)
class Lessons:
    """All that batches are made of; margins are cut off.

    Attributes:
        x: float32 [chip, channel, row, col].
        index: uint8 [chip, row, col], IGNORE_INDEX where unlabelled; of a chip classifier [chip, 1, 1], as are the
            layers that follow.
        weight: float32 [chip, row, col], of the labelled pixels.
        target: float16 [chip, class, row, col], the teacher's probabilities.
        asked: bool [chip, row, col], where the teacher was asked.
        chance: float64 [chip], how often a chip is drawn.
    """

    x: torch.Tensor
    index: torch.Tensor
    weight: torch.Tensor
    target: torch.Tensor
    asked: torch.Tensor
    chance: torch.Tensor


class Batches(IterableDataset[Batch]):
    """Augmented batches; batch ``n`` is the same whether or not those before it were drawn, so that a run resumes."""

    def __init__(self, lessons: Lessons, recipe: Recipe) -> None:
        self._lessons = lessons
        self._recipe = recipe
        self.start = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from ``start`` to the last step."""
        for step in range(self.start, self._recipe.steps):
            yield self.batch(step)

    def plain(self) -> Iterator[Batch]:
        """Every labelled chip once, as it is, for validation."""
        lessons = self._lessons
        labelled = torch.nonzero((lessons.index != IGNORE_INDEX).flatten(1).any(1)).flatten()
        for part in torch.split(labelled, self._recipe.batch) if len(labelled) else ():
            yield (
                lessons.x[part].contiguous(memory_format=torch.channels_last),
                lessons.index[part],
                lessons.weight[part],
                lessons.target[part],
                lessons.asked[part],
            )

    def batch(self, step: int) -> Batch:
        """x, index, weight, target, asked of batch ``step``."""
        generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + step)
        lessons, recipe = self._lessons, self._recipe
        chosen = torch.multinomial(lessons.chance, recipe.batch, replacement=True, generator=generator)
        turn, flip = (int(torch.randint(high, (), generator=generator)) for high in (4, 2))
        layers = [layer[chosen] for layer in (lessons.x, lessons.index, lessons.weight, lessons.target, lessons.asked)]
        x, index, weight, target, asked = symmetry(layers, turn=turn, flip=bool(flip))
        x = jitter(x, gain=recipe.gain, shift=recipe.shift, noise=recipe.noise, generator=generator)
        return x.contiguous(memory_format=torch.channels_last), index, weight, target, asked


class Learner(lightning.LightningModule):
    """Members that learn side by side from the same batches."""

    def __init__(self, members: Sequence[Network], recipe: Recipe) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.recipe = recipe

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Sum of the members' losses."""
        total = torch.zeros((), device=self.device)
        # What dropout drops follows from seed and step alone, so that a run that is resumed goes on as it would have.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.trainer.global_step)
        for member in self.members:
            total = total + member_loss(scores(member, batch[0]), batch, self.recipe)
        self.log("loss", total.detach() / len(self.members), prog_bar=True, logger=True)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's
        """Figures on validation blocks."""
        x, index, weight, _, _ = batch
        logits = (
            torch.stack([scores(member, x).float().softmax(1) for member in self.members]).mean(0).clamp_min(1e-8).log()
        )
        labelled = index != IGNORE_INDEX
        self.log("val_loss", hard_loss(logits, index, weight), batch_size=len(x))
        hit = (logits.argmax(1) == index) & labelled
        self.log("val_accuracy", hit.sum() / labelled.sum().clamp_min(1), batch_size=int(labelled.sum()))

    def configure_optimizers(self) -> Any:
        """AdamW with discriminative rates, warm-up and one cycle."""
        groups = [
            group
            for member in self.members
            for group in parameter_groups(
                member,  # type: ignore[arg-type]
                lr=self.recipe.lr,
                layer_decay=self.recipe.layer_decay,
                weight_decay=self.recipe.weight_decay,
            )
        ]
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=self.recipe.steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def scores(member: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits [chip, class, row, col] of standardised chips; of a chip classifier one row and column."""
    logits: torch.Tensor = member(x)
    return logits if logits.ndim == x.ndim else logits[:, :, None, None]


def member_loss(logits: torch.Tensor, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Labels where there are some, the teacher's opinion where it was asked."""
    _, index, weight, target, asked = batch
    loss = hard_loss(logits, index, weight, smoothing=recipe.smoothing)
    if recipe.soft_weight > 0:
        loss = loss + recipe.soft_weight * soft_loss(logits, target, asked)
    return loss


class PixelBatches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of pixels with the teacher's probabilities: half labelled, polygon by polygon, half from anywhere."""

    def __init__(
        self, features: torch.Tensor, target: torch.Tensor, chance: torch.Tensor, *, steps: int, batch: int, seed: int
    ) -> None:
        self._features = features
        self._target = target
        self._chance = chance
        self._shape = (steps, batch)
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features float32 [pixel, feature, 1, 1] and probabilities float32 [pixel, class]."""
        steps, batch = self._shape
        drawn = torch.multinomial(self._chance, steps * batch, replacement=True, generator=self._generator)
        for chosen in torch.split(drawn, batch):
            yield self._features[chosen][:, :, None, None], self._target[chosen]


class PixelLearner(lightning.LightningModule):
    """A network without encoder learns the teacher's probabilities from features that were computed once."""

    def __init__(self, network: Network, *, steps: int, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.network = network
        self._settings = (steps, lr, weight_decay)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Cross-entropy with the teacher."""
        layers = list(self.network.spectral or [])[1:]  # the first layer computes what the batch already holds
        out = batch[0]
        for layer in layers:
            out = layer(out)
        logits = self.network.head(out).flatten(1)
        loss: torch.Tensor = -(batch[1] * logits.log_softmax(1)).sum(1).mean()
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle."""
        steps, lr, decay = self._settings
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
