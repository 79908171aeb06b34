"""The network of pixels, or of chips' statistics: features once, then seconds of a Lightning trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from pipeline.experts.weights import pixel_weights
from pipeline.training.trainer import Watch, run_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.experts.experts import PixelTable
    from pipeline.experts.settings import Deadline
    from pipeline.model.network import Network
    from pipeline.training.settings import PixelSettings
    from pipeline.training.training_set import SoftLabels

# Components that a network of many narrow bands learns from, and the least variance that one is scaled by, of the
# first's: 218 bands of EnMAP and their surroundings have 99.99 % of theirs in fewer.
COMPONENTS, LEAST_SPREAD = 64, 1e-5


class PixelBatches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of features and probabilities: half labelled, polygon by polygon, half from anywhere."""

    def __init__(
        self, features: torch.Tensor, target: torch.Tensor, chance: torch.Tensor, *, steps: int, batch: int, seed: int
    ) -> None:
        super().__init__()
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


class Components:
    """Principal components in the place of a network's features while it learns, each of deviation 1.

    Hundreds of narrow bands are nearly one: what tells a target apart is a small part of their variance, which a
    network of standardised bands hardly finds in some hundred steps, and linear models find at once. Afterwards the
    components are multiplied into its first convolution, which is of features again.

    Source: LeCun et al. (1998), Efficient BackProp, section 4.3 (decorrelated inputs).
    """

    def __init__(self, network: Network, features: torch.Tensor) -> None:
        """Put a convolution of components into the network.

        Args:
            network: Of pixels, with surroundings; its first convolution has no bias and a batch norm after it.
            features: Float32 [pixel, feature].
        """
        spread, axes = torch.linalg.eigh(torch.cov(features.double().T))
        kept = spread.flip(0)[:COMPONENTS].clamp_min(LEAST_SPREAD * float(spread[-1])).sqrt()
        self._axes = (axes.flip(1)[:, : len(kept)] / kept).T  # [component, feature]
        self._centre = features.double().mean(0)
        self._block = cast("nn.Sequential", list(cast("nn.Sequential", network.spectral))[1])
        self._conv = cast("nn.Conv2d", self._block[0])
        learned = nn.Conv2d(len(kept), self._conv.out_channels, 1, bias=False)
        nn.init.kaiming_normal_(learned.weight, mode="fan_out", nonlinearity="relu")
        self._block[0] = learned

    def of(self, features: torch.Tensor) -> torch.Tensor:
        """Float32 [pixel, component] of float32 [pixel, feature]."""
        found: torch.Tensor = (features.double() - self._centre) @ self._axes.T
        return found.float()

    def fold(self) -> None:
        """Give the network back its convolution of features, which does what that of components has learned."""
        learned = cast("nn.Conv2d", self._block[0]).weight[:, :, 0, 0].double()
        weight, norm = learned @ self._axes, cast("nn.BatchNorm2d", self._block[1])
        with torch.no_grad():
            self._conv.weight.copy_(weight.float()[:, :, None, None])
            cast("torch.Tensor", norm.running_mean).add_((weight @ self._centre).float())
        self._block[0] = self._conv


class PixelLearner(lightning.LightningModule):
    """A network without encoder learns probabilities from features that were computed once."""

    def __init__(self, network: Network, *, steps: int, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.network = network
        self._settings = (steps, lr, weight_decay)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Cross-entropy with the probabilities."""
        fixed = self.network.spec.surroundings or self.network.spec.statistics
        # A fixed first layer computes what the batch already holds.
        layers = list(self.network.spectral or [])[int(fixed) :]
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


def train_pixels(
    network: Network,
    table: PixelTable,
    target: NDArray[np.float32],
    soft: SoftLabels,
    *,
    settings: PixelSettings,
    seed: int,
    deadline: Deadline,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, float]]:
    """The network learns the probabilities of labelled pixels and the soft labels, in place.

    Args:
        network: Without encoder.
        table: The labelled pixels.
        target: Their probabilities, float32 [pixel, class].
        soft: Further pixels with probabilities; may be of none.
        settings: How.
        seed: Of the batches.
        deadline: No step is begun after it.
        progress: Called with "pixel network", step and number of steps.

    Returns:
        Rows of the log: step, ``pixel_loss``.
    """
    weight = pixel_weights(table.index, table.polygon, classes=target.shape[1])
    anywhere = len(soft.features)
    batches = PixelBatches(
        torch.cat([torch.from_numpy(table.features[:, : soft.features.shape[1]]), soft.features]),
        torch.cat([torch.from_numpy(target), soft.target]),
        torch.cat([torch.from_numpy(weight / weight.sum()), torch.full((anywhere,), 1.0 / max(anywhere, 1))]),
        steps=settings.steps,
        batch=settings.batch,
        seed=seed,
    )
    watch = Watch("pixel network", steps=settings.steps, column="pixel_loss", progress=progress)
    learner = PixelLearner(network, steps=settings.steps, lr=settings.lr, weight_decay=settings.weight_decay)
    run_trainer(
        learner, DataLoader(batches, batch_size=None), watch=watch, deadline=deadline, max_epochs=1, devices=1,
        logger=False, enable_checkpointing=False,
    )  # fmt: skip
    network.eval()
    return watch.rows
