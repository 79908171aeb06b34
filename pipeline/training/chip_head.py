"""Lessons of the chip classifier: whole chips, each with the class of the polygon in its middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.legend import IGNORE_INDEX
from pipeline.training.module import Lessons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.training.dataset import ChipSet


def chip_lessons(chips: ChipSet, ids: NDArray[np.int32]) -> Lessons:
    """Chips whose central pixel is a valid one of the polygons ``ids``; drawn by class, then polygon, then place."""
    middle = chips.x.shape[-1] // 2  # where ``read_chips`` puts the labelled pixel that it centres a chip on
    index, polygon = chips.index[:, middle, middle], chips.polygon[:, middle, middle]
    chosen = (index != IGNORE_INDEX) & torch.from_numpy(np.isin(polygon.numpy(), ids))
    return lessons_of(chips.x[chosen], index[chosen].numpy(), polygon[chosen].numpy())


def lessons_of(x: torch.Tensor, index: NDArray[np.uint8], group: NDArray[np.integer]) -> Lessons:
    """Lessons of standardised chips float32 [chip, channel, row, col].

    Args:
        x: The chips.
        index: Network index of the class of each, uint8 [chip].
        group: Where each comes from (its polygon), integer [chip]: chips of one group share its chances.
    """
    cell = (len(x), 1, 1)
    return Lessons(
        x=x,
        index=torch.from_numpy(index).reshape(cell),
        weight=torch.ones(cell),
        target=torch.zeros((len(x), 1, 1, 1), dtype=torch.float16),
        asked=torch.zeros(cell, dtype=torch.bool),
        chance=torch.from_numpy(balanced_chance(index, group)),
    )


def balanced_chance(index: NDArray[np.uint8], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """How often each chip is drawn, sums to 1: classes alike, groups of a class alike, chips of a group alike.

    >>> balanced_chance(np.array([0, 0, 0, 1], np.uint8), np.array([1, 1, 2, 3])).tolist()
    [0.125, 0.125, 0.25, 0.5]
    """
    pairs, of, places = np.unique(np.stack([index, group], axis=1), axis=0, return_inverse=True, return_counts=True)
    groups = np.bincount(pairs[:, 0].astype(np.intp))
    chance = 1.0 / (places[of.ravel()] * groups[index])
    return np.asarray(chance / chance.sum())
