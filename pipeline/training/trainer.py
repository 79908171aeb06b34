"""What every training shares: Lightning's trainer without its chatter, progress and log, the time limit, Ctrl-C."""

from __future__ import annotations

import logging
import signal
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Timer

from pipeline.model.network import compute_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.experts.settings import Deadline

_EVERY = 10


def quiet_lightning() -> None:
    """Keep Lightning's remarks on devices and on its other products off the terminal."""
    for name in ("", ".utilities.rank_zero", ".accelerators.cuda"):
        logging.getLogger(f"lightning.pytorch{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def precision() -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the number type to train in: bfloat16 where the machine calculates in it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if compute_dtype(device) == torch.bfloat16 else "32-true"


def tenth(steps: int) -> int:
    """Steps from one validation, and from one checkpoint, to the next."""
    return max(steps // 10, 1)


class Watch(lightning.Callback):
    """Progress and the log of one training.

    Attributes:
        stage: Its name.
        steps: Batches in all.
        rows: Rows of the log; they travel in checkpoints, so that a resumed run has them all.
    """

    def __init__(
        self, stage: str,
        *, steps: int, column: str = "loss", progress: Callable[[str, int, int], None] | None = None, job: str = "",
    ) -> None:  # fmt: skip
        """Watch one training.

        Args:
            stage: Its name for ``progress``.
            steps: Batches in all.
            column: What the loss is called in the log.
            progress: Called with stage, step and steps.
            job: Key of what is trained, and on what; kept in checkpoints.
        """
        self.stage, self.steps = stage, steps
        self._column, self._progress, self._job = column, progress, job
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,  # noqa: ARG002 - Lightning's signature
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Count and note the loss."""
        step = trainer.global_step
        if step % _EVERY and step != self.steps:
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.rows.append({"step": step, self._column: float(loss.detach())})
        if self._progress is not None:
            self._progress(self.stage, step, self.steps)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's
        """Figures of the validation into the log."""
        figures = trainer.callback_metrics
        names = [name for name in ("val_loss", "val_accuracy") if name in figures]
        self.rows.append({"step": trainer.global_step, **{name: float(figures[name]) for name in names}})

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "job": self._job}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = list(state_dict["rows"])


class TimeLimit(Timer):
    """Lightning's timer, but a resumed run has all of the limit again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(timedelta(seconds=min(max(seconds, 1e-3), 1e8)), verbose=False)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: seconds of an earlier run do not count."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""


def run_trainer(
    learner: lightning.LightningModule, *loaders: Any, watch: Watch, deadline: Deadline,
    callbacks: tuple[lightning.Callback, ...] = (), resume: dict[str, Any] | None = None, **options: Any,
) -> lightning.Trainer:  # fmt: skip
    """Run ``trainer.fit`` until the last step or the deadline; an interruption leaves it as the one that it was.

    Lightning ignores SIGINT from then on and exits with status 1: callers could not tell it from a failure.

    Args:
        learner: What learns.
        loaders: Of training, and of validation.
        watch: Progress and log.
        deadline: No step is begun after it; noted where steps are missing then.
        callbacks: Further ones.
        resume: ``ckpt_path`` and the like, for ``fit``.
        options: Of the trainer.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came while it trained.
    """
    quiet_lightning()
    handler = signal.getsignal(signal.SIGINT)
    limit: tuple[lightning.Callback, ...] = (TimeLimit(deadline.left_s),) if deadline.left_s < float("inf") else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=watch.steps,
            accelerator="auto",
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch, *limit, *callbacks],
            **options,
        )
        try:
            trainer.fit(learner, *loaders, **(resume or {}))
        except SystemExit as err:
            if signal.getsignal(signal.SIGINT) is not handler:
                signal.signal(signal.SIGINT, handler)
            if trainer.interrupted:
                raise KeyboardInterrupt from err
            raise
    if trainer.global_step < watch.steps and limit:
        deadline.cuts(f"{watch.stage} at step {trainer.global_step} of {watch.steps}")
    return trainer
