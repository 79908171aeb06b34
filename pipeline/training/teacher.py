"""The teacher: a mixture of experts that look at a pixel and its surroundings, most of them grown on drawn polygons.

From tens of polygons trees learn more than a network does, and from hundreds less. So trees learn first; what they
think of the unlabelled scene is what the network learns from beside the labels (Hinton et al. 2015, Distilling the
knowledge in a neural network). With few polygons half of the mixture are trees of polygons
(``pipeline.training.polygon_trees``) at three levels of surroundings, half are trees along rotated axes
(``pipeline.training.rotated_trees``). With many, a forest of bands, extra trees and a logistic regression of
surroundings take the place of the latter, and shares are learned (``pipeline.training.mixture``). ``docs/learning.md``
has what was measured.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.model.surroundings import REACH_PX, surroundings
from pipeline.training.experts import (
    ENOUGH_POLYGONS,
    EXPERTS,
    Expert,
    Model,
    PixelTable,
    experts_for,
    fit_expert,
    pixel_table,
    seen,
    votes_of,
)
from pipeline.training.mixture import (
    INNER_FOLDS,
    PRIOR_POLYGONS,
    class_lift,
    given_shares,
    held_out_votes,
    learned_shares,
    lifted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.training.dataset import ChipSet

__all__ = ["MARGIN_PX", "RARER", "Opinions", "PixelTable", "Teacher", "ask", "fit_teacher", "pixel_table"]

# Chips carry this margin, so that every pixel of theirs has its whole surroundings.
MARGIN_PX = REACH_PX
# How far classes of few polygons are lifted where shares are not learned (``class_lift``); docs/learning.md.
RARER = 0.15
_PREDICT = 65_536


@dataclass(frozen=True, eq=False)
class Teacher:
    """Fitted experts and their shares.

    Attributes:
        experts: What they are.
        models: The experts.
        shares: float64 [expert].
        classes: Number of classes.
        channels: Features per level.
        lift: What probabilities of each class are multiplied with in the end, float64 [class].
        held_out: float32 [pixel, class]; what experts that had not seen a pixel's block thought of the pixels of the
            table, with these shares; 0 in all classes where nobody was asked.
    """

    experts: tuple[Expert, ...]
    models: tuple[Model, ...]
    shares: NDArray[np.float64]
    classes: int
    channels: int
    lift: NDArray[np.float64]
    held_out: NDArray[np.float32]

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 [pixel, class] of features float32 [pixel, feature]."""
        total = np.zeros((len(features), self.classes), dtype=np.float32)
        for expert, model, share in zip(self.experts, self.models, self.shares, strict=True):
            if share > 0:
                total += np.float32(share) * votes_of(model, seen(features, expert, self.channels), self.classes)
        return lifted(total, self.lift)

    def names_and_shares(self) -> dict[str, float]:
        """For the record: each expert's share."""
        return {expert.name: round(float(share), 4) for expert, share in zip(self.experts, self.shares, strict=True)}


def fit_teacher(
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    known: Sequence[Expert] = EXPERTS,
    rarer: float = 0.0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Teacher:
    """Experts on all pixels; shares, and what can be known of their confidence, from folds of groups of polygons.

    Args:
        table: The labelled pixels.
        classes: Number of classes.
        group_of: Group of each polygon id (its block), int32 [id]; -1 where the polygon is its own group.
        trees: Trees of each expert.
        seed: Of folds and trees.
        known: The experts to choose from.
        rarer: How far classes of few polygons are lifted, 0..1, where shares are not learned.
        progress: Called with "experts", how many are fitted, and how many in all, those of inner folds included.
    """
    polygons = len(np.unique(table.polygon))
    experts = experts_for(known, polygons=polygons)
    total, done = len(experts) * (1 + INNER_FOLDS), itertools.count(1)

    def fitted() -> None:
        if progress is not None:
            progress("experts", min(next(done), total), total)

    votes = held_out_votes(
        experts, table, classes=classes, group_of=group_of, trees=max(trees // 2, 10), seed=seed, fitted=fitted
    )
    learned = polygons >= ENOUGH_POLYGONS
    shares = learned_shares(table, votes, strength=PRIOR_POLYGONS / polygons) if learned else given_shares(experts)
    lift = class_lift(table.index, table.polygon, classes=classes, power=0.0 if learned else rarer)
    models = []
    for expert in experts:
        models.append(fit_expert(expert, table, trees=trees, seed=seed))
        fitted()
    held_out = lifted(np.tensordot(shares.astype(np.float32), votes, axes=1), lift)
    return Teacher(experts, tuple(models), shares, classes, table.channels, lift, held_out)


@dataclass(frozen=True, eq=False)
class Opinions:
    """What the teacher thinks of pixels spread over all chips.

    Attributes:
        features: float32 [pixel, feature].
        target: Probabilities, float32 [pixel, class].
        asked: Where the pixels lie, bool [chip, row, col] without margin; pixels in this order.
    """

    features: torch.Tensor
    target: torch.Tensor
    asked: torch.Tensor

    def dense(self) -> torch.Tensor:
        """Probabilities float16 [chip, class, row, col], 0 where not asked."""
        chips, rows, cols = self.asked.shape
        out = torch.zeros((chips, rows, cols, self.target.shape[1]), dtype=torch.float16)
        out[self.asked] = self.target.half()
        return out.permute(0, 3, 1, 2)


def ask(teacher: Teacher, chips: ChipSet, *, pixels: int, seed: int) -> Opinions:
    """What the teacher thinks of about ``pixels`` valid pixels, spread evenly over all chips, none twice."""
    generator = torch.Generator().manual_seed(seed)
    valid = chips.once()
    chance = min(pixels / max(int(valid.sum()), 1), 1.0)
    asked = valid & (torch.rand(valid.shape, generator=generator) < chance)
    rows = [chips.core(surroundings(chips.x[i : i + 1]))[0][:, asked[i]].T for i in range(len(chips))]
    features = torch.cat(rows)
    parts = [teacher.predict(features[i : i + _PREDICT].numpy()) for i in range(0, len(features), _PREDICT)]
    target = np.concatenate(parts) if parts else np.zeros((0, teacher.classes), dtype=np.float32)
    return Opinions(features, torch.from_numpy(target), asked)
