"""The network with context: the Lightning module that learns from chips, its loop, and how it resumes."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from typing import TYPE_CHECKING, Any, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from pipeline.errors import LabelError, ModelError
from pipeline.legend import IGNORE_INDEX
from pipeline.model.network import parameter_groups
from pipeline.training.batches import Batches, hard_loss, soft_loss
from pipeline.training.trainer import Watch, precision, run_trainer, tenth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.experts.settings import Deadline
    from pipeline.model.network import Network
    from pipeline.training.batches import Batch, ContextSet
    from pipeline.training.settings import ContextSettings, TrainingSettings

LAST, BEST = "last.ckpt", "best.ckpt"
# What its training is called, for progress and where the time limit ends it.
STAGE = "network"
# Layers that start as the probe, by the names of their tensors.
_FOLLOWS = ("network.head.", "network.columns.", "network.moment_", "network.beside.")
# A pretrained encoder is fine-tuned from the linear probe on (LP-FT; ``chip_head.start_head``,
# ``networks.start_columns``): its stages learn this much slower than the rest, each stage as much slower again than the
# one after it.
# Source: Kumar et al. (2022), Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR;
# the rates of a first look at EuroSAT: encoder 2e-4, head 1e-3.
RATE, DECAY = 0.2, 0.7
# Of a network that starts as the probe and must not leave it at once: all rates; of whole chips: no decay.
PROBED_RATE, CHIP_DECAY = 1 / 3, 1.0


class Learner(lightning.LightningModule):
    """The network learns labels where there are some, soft labels where there are some."""

    def __init__(self, network: Network, settings: ContextSettings, *, seed: int) -> None:
        super().__init__()
        self.network = network
        self._settings, self._seed = settings, seed
        # Batch norms of a frozen encoder keep their statistics in fine-tuning too.
        self._tuned = network.encoder is not None and network.encoder.frozen and not settings.frozen

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Loss of one batch."""
        # What dropout drops follows from seed and step alone, so that a run that is resumed goes on as it would have.
        torch.manual_seed(self._seed * 1_000_003 + self.trainer.global_step)
        loss = network_loss(scores(self.network, batch[0]), batch, self._settings)
        self.log("loss", loss.detach(), prog_bar=True, logger=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's
        """Figures on validation blocks."""
        x, index, weight, _, _ = batch
        logits = scores(self.network, x).float()
        labelled = index != IGNORE_INDEX
        self.log("val_loss", hard_loss(logits, index, weight), batch_size=len(x))
        hit = (logits.argmax(1) == index) & labelled
        self.log("val_accuracy", hit.sum() / labelled.sum().clamp_min(1), batch_size=int(labelled.sum()))

    def configure_optimizers(self) -> Any:
        """AdamW, warm-up and one cycle (Smith & Topin 2018)."""
        settings = self._settings
        if self._tuned and self.network.encoder is not None:
            self.network.encoder.requires_grad_(requires_grad=True)
        probed = self.network.starts_as_probe
        decay = (CHIP_DECAY if self.network.spec.moments else DECAY) if self._tuned else 1.0
        groups = parameter_groups(self.network, lr=settings.lr, layer_decay=decay, weight_decay=settings.weight_decay)
        for group in groups:
            group["lr"] *= PROBED_RATE if probed else 1.0
            if self._tuned and group["name"].startswith("encoder"):
                group["lr"] *= RATE
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], total_steps=self._settings.steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class KeepLast(lightning.Callback):
    """Writes the checkpoint that a run resumes from: after every tenth of the steps and at the end.

    One step after a validation, which belongs to the step before it; Lightning's ModelCheckpoint would write between
    the two, and a resumed run would lack the validation. The file appears when it is whole (Lightning renames it).
    """

    def __init__(self, path: Path, *, steps: int) -> None:
        self._path, self._steps = path, steps

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """After every tenth of the steps."""
        step = trainer.global_step
        if (step - 1) % tenth(self._steps) == 0 and step > 1:
            trainer.save_checkpoint(self._path)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's signature
        """At the end."""
        trainer.save_checkpoint(self._path)


def scores(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits [chip, class, row, col] of standardised chips; of a chip classifier one row and column."""
    logits: torch.Tensor = network(x)
    return logits if logits.ndim == x.ndim else logits[:, :, None, None]


def network_loss(logits: torch.Tensor, batch: Batch, settings: ContextSettings) -> torch.Tensor:
    """Labels where there are some, soft labels where there are some."""
    _, index, weight, target, soft = batch
    loss = hard_loss(logits, index, weight, smoothing=settings.smoothing)
    if settings.soft_weight > 0:
        loss = loss + settings.soft_weight * soft_loss(logits, target, soft)
    return loss


def train_context(
    network: Network, learned: ContextSet, judged: ContextSet | None,
    *, settings: TrainingSettings, folder: Path, deadline: Deadline, resume: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train the network in place.

    ``last.ckpt`` is written after every tenth of the steps and at the end, ``best.ckpt`` where ``judged`` decides when
    to stop.

    Returns:
        Rows of the log: step, ``loss``; step, ``val_loss``, ``val_accuracy``.

    Raises:
        LabelError: nothing to learn from.
        ModelError: a checkpoint to resume from that does not fit or is of another job, or none on one of several
            machines.
    """
    context = settings.context
    if not len(learned.x):
        raise LabelError("no chip with a valid labelled pixel to learn from", fix="check nodata under the polygons")
    judges = list(_batches(judged, settings).plain()) if judged is not None else []
    folder.mkdir(parents=True, exist_ok=True)
    last, best = folder / LAST, folder / BEST
    several = context.devices * context.nodes > 1
    learner, batches = Learner(network, context, seed=settings.seed), _batches(learned, settings)
    job = job_key(learner, learned, judged=judged, settings=settings)
    goes_on = _goes_on(last, resume=resume, nodes=context.nodes)
    if goes_on:
        batches.start = fitting_checkpoint(last, learner, job=job)["global_step"]
    else:
        for stale in (last, best):
            stale.unlink(missing_ok=True)
    # Other processes cannot draw on this one's terminal.
    watch = Watch(STAGE, steps=context.steps, progress=None if several else progress, job=job)
    keeper = ModelCheckpoint(
        dirpath=str(folder), filename=best.stem, monitor="val_loss", save_top_k=1, enable_version_counter=False
    )
    stoppers = (EarlyStopping("val_loss", patience=context.patience), keeper) if judges else ()
    run_trainer(
        learner,
        DataLoader(batches, batch_size=None),
        DataLoader(cast("Any", judges), batch_size=None) if judges else None,
        watch=watch,
        deadline=deadline,
        callbacks=(KeepLast(last, steps=context.steps), *stoppers),
        resume={"ckpt_path": str(last), "weights_only": True} if goes_on else None,
        max_epochs=-1,
        precision=precision(),
        devices=context.devices,
        num_nodes=context.nodes,
        # Processes of their own, from this one: the command line is not run again on every device.
        strategy="ddp_spawn" if several else "auto",
        use_distributed_sampler=False,
        sync_batchnorm=several and torch.cuda.is_available(),
        logger=CSVLogger(str(folder), name="", version="log", flush_logs_every_n_steps=50),
        log_every_n_steps=10,
        enable_checkpointing=bool(judges),
        val_check_interval=tenth(context.steps) if judges else None,
        limit_val_batches=1.0 if judges else 0,
        check_val_every_n_epoch=None if judges else 1,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
    )
    if judges and not best.is_file() and last.is_file():  # time was up before the first validation
        shutil.copyfile(last, best)
    if judges and best.is_file():
        learner.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    network.eval()
    return _rows_of(last) if several else watch.rows


def _batches(chips: ContextSet, settings: TrainingSettings) -> Batches:
    return Batches(chips, steps=settings.context.steps, batch=settings.context.batch, seed=settings.seed)


def _goes_on(last: Path, *, resume: bool, nodes: int) -> bool:
    """Whether there is a checkpoint to go on from.

    Raises:
        ModelError: not on this one of several machines: the others would begin elsewhere and wait for ever.
    """
    if resume and nodes > 1 and not last.is_file():
        raise ModelError(
            "no checkpoint on this machine to resume from", path=last,
            fix="copy the first machine's here, or train without resume on all",
        )  # fmt: skip
    return resume and last.is_file()


def job_key(learner: Learner, learned: ContextSet, *, judged: ContextSet | None, settings: TrainingSettings) -> str:
    """16 hexadecimal digits of what the network starts as and learns from: settings, chips, labels of either part.

    Soft labels, and the layers that start as a discriminant, are left out: they follow from these, but several cores
    add up in any order, and which pixels have soft labels may hang on the time limit. Pretrained weights count as
    tensors, not by their path.
    """
    plain = settings.resumable
    cast("dict[str, Any]", plain["context"]).pop("weights")
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    follows = _FOLLOWS if learner.network.starts_as_probe else ()
    tensors = [value for name, value in learner.state_dict().items() if not name.startswith(follows)]
    for part in (learned, judged):
        tensors += [] if part is None else [part.x, part.index, part.weight]
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def fitting_checkpoint(path: Path, learner: Learner, *, job: str) -> dict[str, Any]:
    """A checkpoint that training can go on from; nothing but tensors and plain values is unpickled.

    Raises:
        ModelError: not a checkpoint, one of another network, or one whose job has another key.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(value.shape) for name, value in found["state_dict"].items()}
        of_job = found["callbacks"].get(Watch.__qualname__, {}).get("job")
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, AttributeError) as err:
        raise ModelError("not a checkpoint to resume from", path=path, got=err, fix="train without resume") from err
    if shapes != {name: tuple(value.shape) for name, value in learner.state_dict().items()}:
        raise ModelError(
            "checkpoint is of another network than the one asked for", path=path, fix="train without resume"
        )
    if of_job != job:
        raise ModelError(
            "checkpoint of another job", path=path, got="other settings, scenes, labels or split than now",
            fix="put them back, or train without resume",
        )  # fmt: skip
    return found


def _rows_of(checkpoint: Path) -> list[dict[str, float]]:
    """The log's rows as the first device kept them; none on machines other than its own."""
    if not checkpoint.is_file():
        return []
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    rows: list[dict[str, float]] = next(state["rows"] for name, state in states.items() if name.startswith("Watch"))
    return rows
