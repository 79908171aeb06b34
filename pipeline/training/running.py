"""Run a Lightning trainer so that Ctrl-C stops the program as it does everywhere else."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning


def run_trainer(trainer: lightning.Trainer, learner: lightning.LightningModule, *loaders: Any, **options: Any) -> None:
    """``trainer.fit``, but an interruption leaves it as the interruption that it was.

    Lightning ignores SIGINT from then on and exits with status 1: callers could not tell it from a failure.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came while it trained.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(learner, *loaders, **options)
    except SystemExit as err:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
        if trainer.interrupted:
            raise KeyboardInterrupt from err
        raise
