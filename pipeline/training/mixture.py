"""The mixture: folds of polygons held out, what experts say of them, and the shares and classes that follow.

With few polygons every expert has the share that it is given, since what a handful of held-out polygons say of an
expert is mostly luck. With many, shares are those of the mixture with the least log-loss on polygons held out, drawn
towards equal shares the more the fewer polygons there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from pipeline.training.experts import Expert, PixelTable, fit_expert, seen, votes_of
from pipeline.training.loss import pixel_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

INNER_FOLDS = 3
# Polygons' worth of belief in equal shares.
PRIOR_POLYGONS = 20.0
_FLOOR = 0.01


def given_shares(experts: Sequence[Expert]) -> NDArray[np.float64]:
    """Shares that are not learned, float64 [expert], sum 1."""
    part = np.array([expert.part for expert in experts])
    return np.asarray(part / part.sum())


def class_lift(
    index: NDArray[np.uint8], polygon: NDArray[np.int32], *, classes: int, power: float
) -> NDArray[np.float64]:
    """What probabilities of each class are multiplied with, float64 [class]: rare classes are lifted.

    Experts that see as many polygons of a class as there are take the rare for rare. A class of n polygons counts as if
    it had ``n ** (1 - power)``; 0 leaves probabilities as they are.

    Args:
        index: Network index of the class of each pixel [pixel].
        polygon: Its polygon [pixel].
        classes: Number of classes; those without a polygon keep 1.
        power: 0..1.

    Source: Saerens et al. (2002), Adjusting the outputs of a classifier to new a priori probabilities, Neural
    Computation 14, 21-41, equation 4.
    """
    _, first = np.unique(polygon, return_index=True)
    count = np.bincount(index[first], minlength=classes).astype(np.float64)
    return np.asarray(np.where(count > 0, np.maximum(count, 1.0) ** -power, 1.0))


def lifted(votes: NDArray[np.float32], lift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities float32 [pixel, class] times ``lift`` [class], to the sum they had."""
    raised = votes * lift.astype(np.float32)
    return np.asarray(raised * (votes.sum(axis=1) / np.maximum(raised.sum(axis=1), 1e-12))[:, None])


def held_out_votes(
    experts: Sequence[Expert],
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    fitted: Callable[[], None],
) -> NDArray[np.float32]:
    """Votes float32 [expert, pixel, class] of experts that learned from the other folds.

    All 0 for pixels that nobody was asked about: those of a class that no other fold has. Experts could not know it
    there, and the model, which learns from all folds, does.
    """
    fold = inner_folds(table, group_of=group_of, folds=INNER_FOLDS, seed=seed)
    votes = np.zeros((len(experts), len(table.index), classes), dtype=np.float32)
    for held in range(INNER_FOLDS):
        part = table.rows(fold != held)
        out = (fold == held) & np.isin(table.index, part.index)
        if not out.any():
            continue
        for number, expert in enumerate(experts):
            model = fit_expert(expert, part, trees=trees, seed=seed)
            votes[number, out] = votes_of(model, seen(table.features[out], expert, table.channels), classes)
            fitted()
    return votes


def learned_shares(table: PixelTable, votes: NDArray[np.float32], *, strength: float) -> NDArray[np.float64]:
    """The best shares of experts whose votes float32 [expert, pixel, class] are of pixels they had not seen."""
    asked = votes.sum(axis=(0, 2)) > 0
    table, votes = table.rows(asked), votes[:, asked]
    weight = pixel_weights(table.index, table.polygon, classes=votes.shape[2], size_power=0.5, class_power=0.5)
    mine = votes[:, np.arange(len(table.index)), table.index].astype(np.float64)
    return best_shares(mine, weight, strength=strength)


def best_shares(mine: NDArray[np.float64], weight: NDArray[np.float64], *, strength: float) -> NDArray[np.float64]:
    """Shares of the mixture with the least log-loss, float64 [expert].

    Args:
        mine: Probability that each expert gives the true class, float64 [expert, pixel].
        weight: Weight of each pixel.
        strength: Weight of the divergence from equal shares beside the mean log-loss.
    """
    weight = weight / weight.sum()
    likelihood = _FLOOR + (1 - _FLOOR) * mine

    def cost(z: NDArray[np.float64]) -> float:
        share = np.exp(z - z.max())
        share /= share.sum()
        return float(-(weight @ np.log(share @ likelihood)) - strength * np.log(share + 1e-12).mean())

    found = minimize(cost, np.zeros(len(mine)), method="L-BFGS-B")
    share = np.exp(found.x - found.x.max())
    return np.asarray(share / share.sum())


def inner_folds(table: PixelTable, *, group_of: NDArray[np.int32], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each pixel int64 [pixel]: whole groups, classes dealt as evenly as groups allow.

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
        whole = np.isin(code, stuck) & (group != alone)
        if not whole.any():
            return np.asarray(fold_of[np.searchsorted(ids, table.polygon)])
        group[whole] = alone[whole]


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
