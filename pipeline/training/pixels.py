"""The network of pixels, or of chips' statistics: features once, then seconds of a Lightning trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch
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
