"""Watch: what is seen of a training while it runs: progress, the log, checkpoints, and the time limit."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import lightning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_EVERY = 10


def tenth(steps: int) -> int:
    """Steps from one validation, and from one checkpoint, to the next."""
    return max(steps // 10, 1)


class Watch(lightning.Callback):
    """Progress, the loss curve, the last checkpoint, and the time limit.

    Attributes:
        steps: Batches in all.
        rows: Rows of the log; they travel in checkpoints, so that a resumed run has them all.
    """

    def __init__(
        self,
        stage: str,
        *,
        steps: int,
        column: str = "loss",
        progress: Callable[[str, int, int], None] | None = None,
        time_limit_s: float = float("inf"),
        checkpoint: Path | None = None,
        job: str = "",
    ) -> None:
        """Watch one training.

        Args:
            stage: Its name for ``progress``.
            steps: Batches in all.
            column: What the loss is called in the log.
            progress: Called with stage, step and steps.
            time_limit_s: Training ends after the batch during which this many seconds have passed.
            checkpoint: Where the state is kept.
            job: Key of what is trained, and on what; kept there too.
        """
        self.steps = steps
        self._stage, self._column = stage, column
        self._progress, self._limit_s, self._checkpoint = progress, time_limit_s, checkpoint
        self._job = job
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
        """Count, keep the state, and stop when time is up."""
        step = trainer.global_step
        seconds = time.perf_counter() - self._start
        if step % _EVERY == 0 or step == self.steps:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            self.rows.append({"step": step, self._column: float(loss.detach()), "seconds": round(seconds, 2)})
            if self._progress is not None:
                self._progress(self._stage, step, self.steps)
        # One step after a validation, which belongs to the step before it, unless every step has one.
        if (step - 1) % tenth(self.steps) == 0 and step > 1:
            self._save(trainer)
        over = seconds > self._limit_s
        if trainer.world_size > 1:  # all stop after the same step, or none
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over and step < self.steps:
            _LOG.warning("training stopped after %.0f s at step %d of %d", seconds, step, self.steps)
            trainer.should_stop = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's
        """Figures of the validation into the log."""
        figures = trainer.callback_metrics
        names = [name for name in ("val_loss", "val_accuracy") if name in figures]
        self.rows.append({"step": trainer.global_step, **{name: float(figures[name]) for name in names}})

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's
        """Keep what there is."""
        self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "job": self._job}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = list(state_dict["rows"])

    def _save(self, trainer: lightning.Trainer) -> None:
        """Beside its place, then renamed: a checkpoint of that name is always whole."""
        if self._checkpoint is None:
            return
        beside = self._checkpoint.with_name(f".{self._checkpoint.name}.{os.getpid()}.part")
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:  # all take part, one writes
            beside.replace(self._checkpoint)
