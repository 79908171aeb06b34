"""Shares of experts in their mixture, from out-of-fold probabilities of held-out groups of polygons.

With few polygons every expert has a fixed share: figures of a handful of held-out polygons are mostly luck. With many,
shares are those of the mixture with the least log-loss on held-out polygons, drawn towards equal shares, the more so
the fewer polygons there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from pipeline.experts.experts import Expert, PixelTable, fit_expert, probabilities_of, seen
from pipeline.experts.settings import Deadline
from pipeline.experts.weights import pixel_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

INNER_FOLDS = 3
# What a time limit leaves out, in the model's record.
HELD_FOLDS = "experts of held-out folds"
# Strength of the pull towards equal shares, as a number of polygons.
PRIOR_POLYGONS = 20.0
# Temperatures that are looked at: of 1000 features and 200 chips a discriminant asks for 3 to 5.
TEMPERATURES = (0.5, 20.0)
# Part of the probability that is spread over all classes: one odd pixel must not decide.
FLOOR = 0.01


def given_shares(experts: Sequence[Expert]) -> NDArray[np.float64]:
    """Fixed shares, float64 [expert], sum 1; 0 for an expert with an encoder, which held-out polygons must admit."""
    part = np.array([0.0 if expert.encoder else expert.part for expert in experts])
    return np.asarray(part / part.sum())


def out_of_fold_probabilities(
    experts: Sequence[Expert],
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    deadline: Deadline,
    fitted: Callable[[], None],
) -> NDArray[np.float32]:
    """Out-of-fold probabilities float32 [expert, pixel, class]: each expert learned from the other folds.

    All 0 for pixels without any: those of a class that no other fold has, which experts could not know there and the
    model, which learns from all folds, does; and those of folds that the deadline left out.
    """
    fold = inner_folds(table, group_of=group_of, folds=INNER_FOLDS, seed=seed)
    found = np.zeros((len(experts), len(table.index), classes), dtype=np.float32)
    for held in range(INNER_FOLDS):
        part = table.rows(fold != held)
        out = (fold == held) & np.isin(table.index, part.index)
        if not out.any():
            continue
        for number, expert in enumerate(experts):
            if deadline.cuts(HELD_FOLDS):
                found[:, out] = 0.0
                return found
            model = fit_expert(expert, part, trees=trees, seed=seed)
            found[number, out] = probabilities_of(
                model, seen(table.features[out], expert, table.channels), classes=classes
            )
            fitted()
    return found


def softened(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities float32 [..., class] to the power of 1 / temperature, to the sum of 1; all 0 stay."""
    raised = probabilities ** np.float32(1 / temperature)
    return np.asarray(raised / np.maximum(raised.sum(axis=-1, keepdims=True), np.float32(1e-12)))


def best_temperature(table: PixelTable, out_of_fold: NDArray[np.float32]) -> float:
    """The temperature at which out-of-fold probabilities float32 [pixel, class] of one expert have the least log-loss.

    Source: Guo et al. (2017), On calibration of modern neural networks, ICML (temperature scaling).
    """
    known = out_of_fold.sum(axis=1) > 0
    if not known.any():
        return 1.0
    rows, found = table.rows(known), out_of_fold[known]
    weight = pixel_weights(rows.index, rows.polygon, classes=found.shape[1])
    pixel = np.arange(len(found))

    def cost(log_temperature: float) -> float:
        true_class = softened(found, float(np.exp(log_temperature)))[pixel, rows.index]
        return float(-(weight @ np.log(FLOOR + (1 - FLOOR) * true_class.astype(np.float64))))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(cost, bounds=(low, high), method="bounded").x))


def held_out_temperature(
    expert: Expert, table: PixelTable, *, classes: int, group_of: NDArray[np.int32], seed: int
) -> float:
    """The temperature of an expert that no mixture judges, from its own out-of-fold probabilities."""
    held = out_of_fold_probabilities(
        (expert,), table, classes=classes, group_of=group_of, trees=1, seed=seed, deadline=Deadline(),
        fitted=lambda: None,
    )  # fmt: skip
    return best_temperature(table, held[0])


def learned_shares(table: PixelTable, out_of_fold: NDArray[np.float32], *, strength: float) -> NDArray[np.float64]:
    """The best shares of experts by their out-of-fold probabilities float32 [expert, pixel, class]."""
    known = out_of_fold.sum(axis=(0, 2)) > 0
    table, out_of_fold = table.rows(known), out_of_fold[:, known]
    weight = pixel_weights(table.index, table.polygon, classes=out_of_fold.shape[2])
    true_class = out_of_fold[:, np.arange(len(table.index)), table.index].astype(np.float64)
    return best_shares(true_class, weight, strength=strength)


def best_shares(
    true_class: NDArray[np.float64], weight: NDArray[np.float64], *, strength: float
) -> NDArray[np.float64]:
    """Shares of the mixture with the least log-loss, float64 [expert].

    Args:
        true_class: Probability that each expert gives the true class, float64 [expert, pixel].
        weight: Weight of each pixel.
        strength: Weight of the divergence from equal shares beside the mean log-loss.
    """
    weight = weight / weight.sum()
    likelihood = FLOOR + (1 - FLOOR) * true_class

    def cost(z: NDArray[np.float64]) -> float:
        share = np.exp(z - z.max())
        share /= share.sum()
        return float(-(weight @ np.log(share @ likelihood)) - strength * np.log(share + 1e-12).mean())

    found = minimize(cost, np.zeros(len(true_class)), method="L-BFGS-B")
    share = np.exp(found.x - found.x.max())
    return np.asarray(share / share.sum())


def inner_folds(table: PixelTable, *, group_of: NDArray[np.int32], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each pixel int64 [pixel]: groups are never cut, classes dealt as evenly as groups allow.

    A class whose polygons all come into one fold would be unknown where it is tested: its polygons, and no others, are
    dealt one by one then.
    """
    ids, first = np.unique(table.polygon, return_index=True)
    group = np.where(group_of[ids] >= 0, group_of[ids], len(group_of) + ids).astype(np.int64)
    code = table.index[first].astype(np.int64)
    alone = len(group_of) + int(ids.max()) + 1 + np.arange(len(ids))
    while True:
        fold_of = _deal(group, code, folds=folds, rng=np.random.default_rng(seed))
        stuck = [c for c in np.unique(code) if (code == c).sum() > 1 and len(np.unique(fold_of[code == c])) == 1]
        grouped = np.isin(code, stuck) & (group != alone)
        if not grouped.any():
            return np.asarray(fold_of[np.searchsorted(ids, table.polygon)])
        group[grouped] = alone[grouped]


def _deal(
    group: NDArray[np.int64], code: NDArray[np.int64], *, folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fold of each polygon: groups, largest first, to the fold that has least of their classes."""
    names, of = np.unique(group, return_inverse=True)
    counts = np.zeros((len(names), int(code.max()) + 1))
    np.add.at(counts, (of, code), 1.0)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    have = np.zeros((folds, share.shape[1]))
    fold = np.zeros(len(names), dtype=np.int64)
    for number in sorted(rng.permutation(len(names)), key=lambda n: -share[n].sum()):
        fold[number] = int(np.argmin((have * share[number]).sum(axis=1) + 1e-3 * have.sum(axis=1)))
        have[fold[number]] += share[number]
    return fold[of]
