"""The loop: a Lightning trainer for the networks with context."""

from __future__ import annotations

import logging
import shutil
import warnings
from typing import TYPE_CHECKING, Any, Literal, cast

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import distributed
from torch.utils.data import DataLoader

from pipeline.errors import LabelError, ModelError
from pipeline.model.network import compute_dtype
from pipeline.training.averaging import MovingAverage
from pipeline.training.module import Batch, Batches, Learner, Lessons, Recipe
from pipeline.training.resuming import fitting_checkpoint, job_key
from pipeline.training.running import run_trainer
from pipeline.training.watch import Watch, tenth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.model.network import Network
    from pipeline.training.settings import FitSettings

LAST, BEST = "last.ckpt", "best.ckpt"


def quiet_lightning() -> None:
    """Keep Lightning's remarks on devices and on its other products off the terminal."""
    for name in ("", ".utilities.rank_zero", ".accelerators.cuda"):
        logging.getLogger(f"lightning.pytorch{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def precision() -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the number type to train in: bfloat16 where the machine calculates in it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if compute_dtype(device) == torch.bfloat16 else "32-true"


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
    """Run the loop; the members are trained in place.

    ``last.ckpt`` is written after every tenth of the steps and at the end, ``best.ckpt`` where ``held`` judges.

    Returns:
        Rows of the log: step, ``loss``, seconds; step, ``val_loss``, ``val_accuracy``.

    Raises:
        LabelError: nothing to learn from.
        ModelError: a checkpoint to resume from that does not fit or is of another job, or none on one of several
            machines.
    """
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
    if not len(lessons.x):
        raise LabelError("no chip with a valid labelled pixel to learn from", fix="check nodata under the polygons")
    judges = list(Batches(held, recipe).plain()) if held is not None else []
    folder.mkdir(parents=True, exist_ok=True)
    last, best = folder / LAST, folder / BEST
    several = settings.devices * settings.nodes > 1
    learner, batches = Learner(members, recipe), (SharedBatches if several else Batches)(lessons, recipe)
    goes_on = resume and last.is_file()
    if resume and settings.nodes > 1 and not goes_on:  # others would begin elsewhere and wait for this one for ever
        raise ModelError(
            "no checkpoint on this machine to resume from", path=last,
            fix="copy the first machine's here, or train without resume on all",
        )  # fmt: skip
    job = job_key(learner, lessons, held=held, settings=settings)
    if goes_on:
        batches.start = fitting_checkpoint(last, learner, job=job, averaged=settings.ema > 0)["global_step"]
    else:
        for stale in (last, best):
            stale.unlink(missing_ok=True)
    watch = Watch(
        "network",
        steps=settings.steps,
        # Other processes cannot draw on this one's terminal.
        progress=None if several else progress,
        time_limit_s=settings.time_limit_s,
        checkpoint=last,
        job=job,
    )
    quiet_lightning()
    # The average first: what watch saves after a batch must hold the batch's part of it.
    callbacks: list[lightning.Callback] = [*([MovingAverage(settings.ema)] if settings.ema else []), watch]
    keeper = None
    if judges:
        stop = EarlyStopping("val_loss", patience=settings.patience)
        keeper = ModelCheckpoint(
            dirpath=str(folder), filename=best.stem, monitor="val_loss", save_top_k=1, enable_version_counter=False
        )
        callbacks += [stop, keeper]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=settings.steps,
            max_epochs=-1,
            accelerator="auto",
            precision=precision(),
            devices=settings.devices,
            num_nodes=settings.nodes,
            # Processes of their own, from this one: the command line is not run again on every device.
            strategy="ddp_spawn" if several else "auto",
            use_distributed_sampler=False,
            sync_batchnorm=several and torch.cuda.is_available(),
            logger=CSVLogger(str(folder), name="", version="log", flush_logs_every_n_steps=50),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=keeper is not None,
            callbacks=callbacks,
            val_check_interval=tenth(settings.steps) if judges else None,
            limit_val_batches=1.0 if judges else 0,
            check_val_every_n_epoch=None if judges else 1,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
        )
        run_trainer(
            trainer,
            learner,
            DataLoader(batches, batch_size=None),
            DataLoader(cast("Any", judges), batch_size=None) if judges else None,
            ckpt_path=str(last) if goes_on else None,
            weights_only=True if goes_on else None,
        )
    if keeper is not None and not best.is_file() and last.is_file():  # time was up before the first validation
        shutil.copyfile(last, best)
    if keeper is not None and best.is_file():
        learner.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    for member in members:
        member.eval()
    return _rows_of(last) if several else watch.rows


class SharedBatches(Batches):
    """Of each batch, every device takes its share: what is learned hardly depends on their number."""

    def batch(self, step: int) -> Batch:
        """Chips rank, rank + world, ... of batch ``step``."""
        whole = super().batch(step)
        if not distributed.is_initialized():
            return whole
        rank, world = distributed.get_rank(), distributed.get_world_size()
        x, index, weight, target, asked = (layer[rank::world] for layer in whole)
        return x.contiguous(memory_format=torch.channels_last), index, weight, target, asked


def _rows_of(checkpoint: Path) -> list[dict[str, float]]:
    """The log's rows as the first device kept them; none on machines other than its own."""
    if not checkpoint.is_file():
        return []
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    rows: list[dict[str, float]] = next(state["rows"] for name, state in states.items() if name.startswith("Watch"))
    return rows
