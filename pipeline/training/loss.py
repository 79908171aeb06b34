"""Losses for labels that are few and far between: hard labels where there are some, a teacher's opinion elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from pipeline.legend import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pixel_weights(
    index: NDArray[np.uint8], polygon: NDArray[np.int32], *, classes: int, size_power: float, class_power: float
) -> NDArray[np.float64]:
    """Weight of every labelled pixel, mean 1: one large lake must not drown ten small fields.

    A polygon of n pixels weighs ``n ** (1 - size_power)`` within its class, a class of n pixels
    ``n ** (1 - class_power)`` beside the others: powers of 0 leave pixels equal, powers of 1 make polygons and classes
    equal.

    Args:
        index: Network index of the class of each pixel [n].
        polygon: Its polygon [n].
        classes: Number of classes.
        size_power: 0..1, see above.
        class_power: 0..1, see above.
    """
    _, inverse, count = np.unique(polygon, return_inverse=True, return_counts=True)
    weight = 1.0 / count[inverse].astype(np.float64) ** size_power
    within = np.bincount(index, weight, minlength=classes)
    sizes = np.bincount(index, minlength=classes).astype(np.float64)
    weight *= sizes[index] ** (1.0 - class_power) / within[index]
    return np.asarray(weight * (len(weight) / weight.sum()))


def hard_loss(
    logits: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, *, smoothing: float = 0.0
) -> torch.Tensor:
    """Weighted cross-entropy over labelled pixels; 0 where a batch has none.

    Args:
        logits: float [chip, class, row, col].
        index: uint8 [chip, row, col], IGNORE_INDEX where unlabelled.
        weight: float [chip, row, col].
        smoothing: Share of the target spread over all classes (Szegedy et al. 2016).
    """
    loss = functional.cross_entropy(
        logits, index.long(), ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing
    )
    weight = torch.where(index == IGNORE_INDEX, torch.zeros_like(weight), weight)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def soft_loss(logits: torch.Tensor, target: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with a teacher's probabilities over usable pixels (Hinton et al. 2015, temperature 1).

    Args:
        logits: float [chip, class, row, col].
        target: float [chip, class, row, col], sums to 1 over classes.
        usable: bool [chip, row, col].
    """
    loss = -(target.to(logits.dtype) * logits.log_softmax(1)).sum(1)
    return (loss * usable).sum() / usable.sum().clamp_min(1)
