"""The loop of the networks of pixels, or of chips' statistics: features once, then seconds of a Lightning trainer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import lightning
import torch
from torch.utils.data import DataLoader

from pipeline.training.loop import quiet_lightning
from pipeline.training.loss import pixel_weights
from pipeline.training.module import PixelBatches, PixelLearner
from pipeline.training.running import run_trainer
from pipeline.training.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.model.network import Network
    from pipeline.training.settings import FitSettings
    from pipeline.training.teacher import Opinions, PixelTable

# Networks of an ensemble draw their batches with seeds that users are unlikely to have asked for beside each other.
SEEDS_APART = 7919


def train_pixels(
    networks: Sequence[Network],
    table: PixelTable,
    own: NDArray[np.float32],
    opinions: Opinions,
    *,
    settings: FitSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Networks of single pixels and their surroundings learn what the teacher says, in seconds, one after the other.

    Each draws batches of its own; steps of the log and of ``progress`` count on from network to network.

    Returns:
        Rows of the log: step, ``pixel_loss``, seconds.
    """
    weight = pixel_weights(
        table.index, table.polygon, classes=own.shape[1], size_power=settings.size_power, class_power=0.5
    )
    features = torch.cat([torch.from_numpy(table.features), opinions.features])
    target = torch.cat([torch.from_numpy(own), opinions.target])
    anywhere = len(opinions.features)
    chance = torch.cat([torch.from_numpy(weight / weight.sum()), torch.full((anywhere,), 1.0 / max(anywhere, 1))])
    steps, rows = settings.pixel_steps, []
    for number, network in enumerate(networks):
        batches = PixelBatches(
            features, target, chance, steps=steps, batch=settings.pixel_batch, seed=settings.seed + number * SEEDS_APART
        )
        told = _counted_on(progress, before=number * steps, total=len(networks) * steps)
        watch = Watch("pixel network", steps=steps, column="pixel_loss", progress=told)
        _run_pixels(PixelLearner(network, steps=steps, lr=settings.pixel_lr, weight_decay=1e-4), batches, watch)
        network.eval()
        rows += [{**row, "step": row["step"] + number * steps} for row in watch.rows]
    return rows


def _counted_on(
    progress: Callable[[str, int, int], None] | None, *, before: int, total: int
) -> Callable[[str, int, int], None] | None:
    """The same, of one training among several."""
    return None if progress is None else lambda stage, step, _: progress(stage, before + step, total)


def _run_pixels(learner: PixelLearner, batches: PixelBatches, watch: Watch) -> None:
    quiet_lightning()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=watch.steps,
            max_epochs=1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        run_trainer(trainer, learner, DataLoader(batches, batch_size=None))
