"""Weights of labelled pixels and of classes: large polygons and frequent classes must not drown the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Largest number that probabilities of a rare class are multiplied with.
MOST_LIFT = 20.0


def pixel_weights(
    index: NDArray[np.uint8],
    polygon: NDArray[np.int32],
    *,
    classes: int,
    size_power: float = 0.5,
    class_power: float = 0.5,
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


def best_lift(
    probabilities: NDArray[np.float32], index: NDArray[np.uint8], weight: NDArray[np.float64], *, found: int
) -> float:
    """What probabilities of one class are multiplied with so that it is found best: the largest F1 of its pixels.

    A rare class is seldom the most probable one. Times between 1 and MOST_LIFT are looked at; ties take the smallest.

    Args:
        probabilities: Out-of-fold, float32 [pixel, class].
        index: Network index of the class of each pixel [pixel].
        weight: Pixels that each stands for [pixel].
        found: Network index of the class.

    Source: Lipton, Elkan & Naryanaswamy (2014), Optimal thresholding of classifiers to maximize F1 measure, ECML PKDD.
    """
    others = np.delete(probabilities, found, axis=1).max(axis=1).astype(np.float64)
    needed = np.maximum(others / np.maximum(probabilities[:, found], 1e-9), 1.0)
    order = np.argsort(needed, kind="stable")
    true = np.where(index[order] == found, weight[order], 0.0)
    hit, taken = np.cumsum(true), np.cumsum(weight[order])
    f1 = 2 * hit / (taken + hit[-1])
    if not hit[-1]:
        return 1.0  # no held-out pixel of the class says anything
    last = np.r_[needed[order][1:] != needed[order][:-1], True] & (needed[order] <= MOST_LIFT)
    if not last.any():  # beyond MOST_LIFT everywhere
        return 1.0
    best = np.flatnonzero(last)[f1[last].argmax()]
    # Between the last pixel that is taken and the first that is not.
    after = needed[order][min(best + 1, len(order) - 1)]
    return float(min(np.sqrt(needed[order][best] * max(after, needed[order][best])), MOST_LIFT))


def lifted(probabilities: NDArray[np.float32], lift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities float32 [pixel, class] times ``lift`` [class], to the sum they had."""
    raised = probabilities * lift.astype(np.float32)
    return np.asarray(raised * (probabilities.sum(axis=1) / np.maximum(raised.sum(axis=1), 1e-12))[:, None])


def turns(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """For each item, how many equal ones come before it.

    >>> turns(np.array([7, 7, 3, 7])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(labels)), 0))
    out = np.empty(len(labels), dtype=np.int64)
    out[order] = np.arange(len(labels)) - start
    return out
