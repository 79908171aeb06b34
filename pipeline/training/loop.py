"""The loop: Lightning trainers for the network of pixels and for the network with context."""

from __future__ import annotations

import logging
import time
import warnings
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from pipeline.training.loss import pixel_weights
from pipeline.training.module import Batches, Learner, Lessons, PixelBatches, PixelLearner, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.model.network import Network
    from pipeline.training.settings import FitSettings
    from pipeline.training.teacher import Opinions, PixelTable

_LOG = logging.getLogger(__name__)


def quiet_lightning() -> None:
    """Keep Lightning's remarks on devices and on its other products off the terminal."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def train_pixels(
    network: Network, table: PixelTable, own: NDArray[np.float32], opinions: Opinions, *, settings: FitSettings
) -> None:
    """The network of single pixels and their surroundings learns what the teacher says, in seconds."""
    weight = pixel_weights(
        table.index, table.polygon, classes=own.shape[1], size_power=settings.size_power, class_power=0.5
    )
    features = torch.cat([torch.from_numpy(table.features), opinions.features])
    target = torch.cat([torch.from_numpy(own), opinions.target])
    anywhere = len(opinions.features)
    chance = torch.cat([torch.from_numpy(weight / weight.sum()), torch.full((anywhere,), 1.0 / max(anywhere, 1))])
    batches = PixelBatches(
        features, target, chance, steps=settings.pixel_steps, batch=settings.pixel_batch, seed=settings.seed
    )
    quiet_lightning()
    learner = PixelLearner(network, steps=settings.pixel_steps, lr=settings.pixel_lr, weight_decay=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=settings.pixel_steps,
            max_epochs=1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner, DataLoader(batches, batch_size=None))
    network.eval()


def train_context(
    members: list[Network],
    lessons: Lessons,
    held: Lessons | None,
    *,
    settings: FitSettings,
    folder: Path,
    resume: bool,
    progress: Callable[[str, int, int], None] | None,
) -> list[dict[str, float]]:
    """Run the loop; the members are trained in place."""
    recipe = Recipe(
        steps=settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
        smoothing=settings.smoothing,
        soft_weight=settings.soft_weight,
        gain=settings.gain,
        shift=settings.shift,
        noise=settings.noise,
        seed=settings.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    learner = Learner(members, recipe)
    batches = Batches(lessons, recipe)
    watch = _Watch(settings=settings, progress=progress)
    quiet_lightning()
    keep = {"monitor": "val_loss", "save_top_k": 1} if held is not None else {"save_top_k": 0}
    best = ModelCheckpoint(dirpath=str(folder), filename="best", save_last=True, **keep)
    callbacks: list[lightning.Callback] = [watch, best]
    if held is not None:
        callbacks.append(EarlyStopping("val_loss", patience=settings.patience))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=settings.steps,
            max_epochs=-1,
            accelerator="auto",
            devices=1,
            logger=CSVLogger(str(folder), name="", version="log", flush_logs_every_n_steps=50),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            callbacks=callbacks,
            val_check_interval=max(settings.steps // 10, 1) if held is not None else None,
            limit_val_batches=1.0 if held is not None else 0,
            check_val_every_n_epoch=None if held is not None else 1,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
        )
        last = folder / "last.ckpt"
        trainer.fit(
            learner,
            DataLoader(batches, batch_size=None),
            DataLoader(cast("Any", list(Batches(held, recipe).plain())), batch_size=None) if held is not None else None,
            ckpt_path=str(last) if resume and last.is_file() else None,
            weights_only=False if resume and last.is_file() else None,
        )
    if best.best_model_path:
        learner.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    for member in members:
        member.eval()
    return watch.rows


class _Watch(lightning.Callback):
    """Progress, the loss curve, and the time limit."""

    def __init__(self, *, settings: FitSettings, progress: Callable[[str, int, int], None] | None) -> None:
        self._settings = settings
        self._progress = progress
        self._start = time.perf_counter()
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,  # noqa: ARG002 - Lightning's signature
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Count, and stop when time is up."""
        step = trainer.global_step
        seconds = time.perf_counter() - self._start
        if step % 10 == 0 or step == self._settings.steps:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            self.rows.append({"step": step, "loss": float(loss.detach()), "seconds": round(seconds, 2)})
        if self._progress is not None:
            self._progress("network", step, self._settings.steps)
        if seconds > self._settings.time_limit_s:
            _LOG.warning("training stopped after %.0f s at step %d of %d", seconds, step, self._settings.steps)
            trainer.should_stop = True
