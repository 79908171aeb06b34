"""An exponential moving average of a network's weights: what a training ends with is a mean of its last steps.

Batch norm's statistics are averaged with the weights, not taken anew from a pass over the chips at the end: they are
running means themselves, an average of theirs belongs to the average of the weights as nearly, and validation, a stop
when time is up and a resumed run need no further pass.

Source: Polyak & Juditsky (1992), Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 30,
838-855; Tarvainen & Valpola (2017), Mean teachers are better role models, NeurIPS.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    import lightning
    import torch


class MovingAverage(WeightAveraging):
    """Keeps the average beside the weights; validation, checkpoints and the end of the fit see the average.

    It must come before whatever saves checkpoints after a batch, or these lack the batch's part. A checkpoint holds the
    average as its ``state_dict`` and the weights that training goes on from beside it.
    """

    def __init__(self, decay: float) -> None:
        """Average with ``decay``, 0 to below 1: the weights of 1 / (1 - decay) steps count."""
        super().__init__(multi_avg_fn=partial(_average, decay=decay))

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's signature
        """To the device that the weights are on by now."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Nothing yet: the last checkpoint must still find the weights that training could go on from."""

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """The network is the average."""
        super().on_train_end(trainer, pl_module)


def warmed_up(decay: float, *, updates: int) -> float:
    """The decay after ``updates`` steps: less at first, so that the random start is forgotten.

    Source: the schedule min(decay, (1 + n) / (10 + n)) of TensorFlow's ExponentialMovingAverage (``num_updates``);
    Tarvainen & Valpola (2017) start with a smaller decay for the same reason.

    >>> [round(warmed_up(0.99, updates=n), 2) for n in (1, 90, 900)]
    [0.18, 0.91, 0.99]
    """
    return min(decay, (1 + updates) / (10 + updates))


def _average(averaged: Any, current: Any, updates: torch.Tensor | int, *, decay: float) -> None:
    """Tensors ``averaged`` towards ``current``, in place, as ``AveragedModel`` wants it."""
    step = get_ema_multi_avg_fn(warmed_up(decay, updates=int(updates)))  # type: ignore[no-untyped-call]
    step(averaged, current, updates)
