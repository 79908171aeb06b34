"""Mixture: experts with shares; its probabilities of unlabelled pixels are the soft labels that networks learn.

From tens of polygons trees learn more than a network does, and from hundreds less. So the experts learn first, and the
network learns their soft labels (Hinton et al. 2015, Distilling the knowledge in a neural network). With few polygons
half of the mixture are trees of polygons at three levels of surroundings, half are trees along rotated axes
(``pipeline.experts.trees``). With many, a kernel discriminant of surroundings takes the place of the latter, and shares
are learned (``pipeline.experts.shares``).
``docs/learning.md`` has what was measured.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import f1_score

from pipeline.experts.experts import (
    DISCRIMINANTS,
    EXPERTS,
    Expert,
    Model,
    PixelTable,
    experts_for,
    fit_expert,
    probabilities_of,
    seen,
    soften_discriminant,
)
from pipeline.experts.settings import ENOUGH_POLYGONS, Deadline
from pipeline.experts.shares import (
    FLOOR,
    INNER_FOLDS,
    PRIOR_POLYGONS,
    best_temperature,
    given_shares,
    learned_shares,
    out_of_fold_probabilities,
    softened,
)
from pipeline.experts.weights import class_lift, lifted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

# How far classes of few polygons are lifted where shares are fixed (``class_lift``); docs/learning.md.
RARER = 0.15


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold probabilities of labelled pixels: of models that had not seen the pixel's block."""

    probabilities: NDArray[np.float32]  # [pixel, class]
    index: NDArray[np.uint8]  # [pixel] network index of the labelled class
    polygon: NDArray[np.int32]  # [pixel]


@dataclass(frozen=True)
class Admission:
    """What held-out polygons say of the expert with a pretrained encoder."""

    share: float  # Of the expert in the mixture; 0 where it is not admitted
    gain: float  # Macro-F1 of out-of-fold probabilities with it, less without it
    saved: float  # Log-loss per polygon that it saves
    error: float  # Standard error of ``saved`` over polygons
    polygons: int  # How many judged

    def note(self) -> dict[str, float]:
        """For the record, JSON-ready."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Mixture:
    """Fitted experts and their shares."""

    experts: tuple[Expert, ...]  # What they are
    models: tuple[Model, ...]  # The fitted classifiers
    shares: NDArray[np.float64]  # [expert]
    classes: int  # Number of classes
    channels: int  # Features per level
    lift: NDArray[np.float64]  # What probabilities of each class are multiplied with in the end, float64 [class]
    out_of_fold: OutOfFold  # Of the labelled pixels that have such probabilities
    temperatures: tuple[float, ...]  # What each expert's scores were divided by; 1 but for discriminants
    admission: Admission | None = None  # Of the expert with a pretrained encoder; None where there is none

    def parts(self) -> tuple[Mixture, Mixture | None]:
        """The mixture of the experts without an encoder, and of those with; None where these have no share.

        Weighted by their shares they add up to the mixture.
        """
        with_encoder = np.array([expert.encoder for expert in self.experts])
        share = float(self.shares[with_encoder].sum())
        if not share:
            return self, None
        plain = replace(self, shares=np.where(with_encoder, 0.0, self.shares) / (1.0 - share))
        return plain, replace(self, shares=np.where(with_encoder, self.shares, 0.0) / share)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 [pixel, class] of features float32 [pixel, feature]."""
        total = np.zeros((len(features), self.classes), dtype=np.float32)
        for expert, model, share in zip(self.experts, self.models, self.shares, strict=True):
            if share > 0:
                own = probabilities_of(model, seen(features, expert, self.channels), classes=self.classes)
                total += np.float32(share) * own
        return lifted(total, self.lift)

    def names_and_shares(self) -> dict[str, float]:
        """For the record: each expert's share."""
        return {expert.name: round(float(share), 4) for expert, share in zip(self.experts, self.shares, strict=True)}


def fit_mixture(
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    known: Sequence[Expert] = EXPERTS,
    rarer: float = 0.0,
    deadline: Deadline | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Mixture:
    """Experts on all pixels; shares and out-of-fold probabilities from folds of groups of polygons.

    Args:
        table: The labelled pixels.
        classes: Number of classes.
        group_of: Group of each polygon id (its block), int32 [id]; -1 where the polygon is its own group.
        trees: Trees of each expert.
        seed: Of folds and trees.
        known: The experts to choose from.
        rarer: How far classes of few polygons are lifted, 0..1, where shares are fixed.
        deadline: No expert but the first is begun after it.
        progress: Called with "experts", how many are fitted, and how many in all, those of inner folds included.
    """
    deadline = deadline or Deadline()
    polygons = len(np.unique(table.polygon))
    experts = experts_for(known, polygons=polygons, encoder=table.encoder > 0, levels=table.levels)
    total, done = len(experts) * (1 + INNER_FOLDS), itertools.count(1)

    def fitted() -> None:
        if progress is not None:
            progress("experts", min(next(done), total), total)

    models: list[Model] = []
    for expert in experts:
        if models and deadline.cuts("experts"):
            break
        models.append(fit_expert(expert, table, trees=trees, seed=seed))
        fitted()
    experts = experts[: len(models)]
    held = out_of_fold_probabilities(
        experts, table, classes=classes, group_of=group_of, trees=max(trees // 2, 10), seed=seed, deadline=deadline,
        fitted=fitted,
    )  # fmt: skip
    many = polygons >= ENOUGH_POLYGONS
    learned = many and bool(held.any())
    shares, admission = given_shares(experts), None
    temperatures = (1.0,) * len(experts)
    if learned:
        temperatures = _softened(experts, models, table, held)
        shares, admission = _learned(experts, table, held, strength=PRIOR_POLYGONS / polygons)
    lift = class_lift(table.index, table.polygon, classes=classes, power=0.0 if many else rarer)
    mixed = lifted(np.tensordot(shares.astype(np.float32), held, axes=1), lift)
    known_rows = mixed.sum(axis=1) > 0
    kept = table.rows(known_rows)
    out_of_fold = OutOfFold(mixed[known_rows], kept.index, kept.polygon)
    return Mixture(experts, tuple(models), shares, classes, table.channels, lift, out_of_fold, temperatures, admission)


def _softened(
    experts: Sequence[Expert], models: Sequence[Model], table: PixelTable, held: NDArray[np.float32]
) -> tuple[float, ...]:
    """Soften discriminants and what they gave to held-out pixels, in place: of many features they are too sure."""
    found = [1.0] * len(experts)
    for number, expert in enumerate(experts):
        if expert.kind in DISCRIMINANTS:
            found[number] = best_temperature(table, held[number])
            held[number] = softened(held[number], found[number])
            soften_discriminant(models[number], found[number])
    return tuple(found)


def _learned(
    experts: Sequence[Expert], table: PixelTable, held: NDArray[np.float32], *, strength: float
) -> tuple[NDArray[np.float64], Admission | None]:
    """Learned shares; an expert with an encoder has one only where it saves more log-loss than its standard error.

    Source: Breiman et al. (1984), Classification and regression trees, section 3.4.3 (the rule of one standard error).
    """
    shares = learned_shares(table, held, strength=strength)
    encoder = np.array([expert.encoder for expert in experts])
    if not encoder.any():
        return shares, None
    without = np.zeros_like(shares)
    without[~encoder] = learned_shares(table, held[~encoder], strength=strength)
    known = held.sum(axis=(0, 2)) > 0
    rows, held = table.rows(known), held[:, known]
    plain, mixed = (np.tensordot(own.astype(np.float32), held, axes=1) for own in (without, shares))
    saved = _loss_by_polygon(rows, plain) - _loss_by_polygon(rows, mixed)
    error = float(saved.std(ddof=1) / len(saved) ** 0.5) if len(saved) > 1 else float("inf")
    gain = _macro_f1(rows.index, mixed) - _macro_f1(rows.index, plain)
    admitted = bool(saved.mean() > error) and gain > 0
    share = float(shares[encoder].sum()) if admitted else 0.0
    return shares if admitted else without, Admission(share, gain, float(saved.mean()), error, len(saved))


def _loss_by_polygon(table: PixelTable, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean log-loss of each polygon at the best temperature, float64 [polygon]: to be less sure alone is no gain."""
    probabilities = softened(probabilities, best_temperature(table, probabilities))
    _, of, count = np.unique(table.polygon, return_inverse=True, return_counts=True)
    true_class = probabilities[np.arange(len(table.index)), table.index].astype(np.float64)
    return np.asarray(np.bincount(of, -np.log(FLOOR + (1 - FLOOR) * true_class)) / count)


def _macro_f1(index: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> float:
    return float(f1_score(index, probabilities.argmax(axis=1), labels=np.unique(index), average="macro"))
