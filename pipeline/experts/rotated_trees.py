"""Trees that cut along axes turned at random, in a space where every polygon is as wide as it is long.

Trees of bands cut across one band at a time, and the bands of a scene rise and fall together: what tells two classes
apart is often a small difference between bands, which cuts along bands meet in many small steps or, with few polygons,
not at all. Within a polygon the class is one, so that what varies there is of no use; divided by that, the differences
that are left are large. In that space no direction is better than another, and trees turn their axes at random.

Source: Bar-Hillel et al. (2005), Learning a Mahalanobis metric from equivalence constraints, Journal of Machine
Learning Research 6, 937-965, of whitening by the spread within groups of one class; Blaser & Fryzlewicz (2016), Random
rotation ensembles, Journal of Machine Learning Research 17(4), 1-26.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.tree import ExtraTreeClassifier

from pipeline.experts.forest import cores
from pipeline.experts.trees import sum_of_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Share of the mean variance within polygons that is added to all: a band that hardly varies within polygons would
# otherwise count without bound.
RIDGE = 0.02
# Trees that share a rotation: turning many features takes longer than asking a tree.
TREES_PER_TURN = 10


@dataclass(frozen=True, eq=False)
class RotatedTrees:
    """Trees and the axes along which they cut.

    Attributes:
        trees: Fitted trees of each rotation.
        turns: What features are multiplied with, float32 [feature, axis], for each rotation.
        classes_: Network indices of the classes, in the order of the probabilities, uint8 [class].
    """

    trees: tuple[tuple[ExtraTreeClassifier, ...], ...]
    turns: tuple[NDArray[np.float32], ...]
    classes_: NDArray[np.uint8]

    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of the trees' shares of classes, float64 [pixel, class], of features float32 [pixel, feature]."""
        parts = Parallel(n_jobs=cores(), prefer="threads")(
            delayed(_total)(trees, turn, features) for trees, turn in zip(self.trees, self.turns, strict=True)
        )
        return np.asarray(np.sum(parts, axis=0) / sum(map(len, self.trees)))


def fit_rotated_trees(
    features: NDArray[np.float32],
    index: NDArray[np.uint8],
    polygon: NDArray[np.int32],
    *,
    weight: NDArray[np.float64],
    trees: int,
    seed: int,
) -> RotatedTrees:
    """Grow the trees, with splits at random, in leaves of two pixels or more, each on all pixels.

    Args:
        features: float32 [pixel, feature].
        index: Network index of the class of each pixel [pixel].
        polygon: Its polygon [pixel].
        weight: Of each pixel [pixel].
        trees: Number of trees.
        seed: Of rotations and trees.
    """
    whiten = whitening(features, index, polygon)
    rng = np.random.default_rng(seed)
    turns = [
        (whiten @ random_rotation(len(whiten), rng=rng)).astype(np.float32) for _ in range(0, trees, TREES_PER_TURN)
    ]
    seeds = np.random.SeedSequence(seed).generate_state(trees)
    groups = [seeds[first : first + TREES_PER_TURN] for first in range(0, trees, TREES_PER_TURN)]
    grown = Parallel(n_jobs=cores(), prefer="threads")(
        delayed(_grow)(features @ turn, index, weight, seeds=own) for turn, own in zip(turns, groups, strict=True)
    )
    return RotatedTrees(tuple(grown), tuple(turns), np.unique(index))


def whitening(
    features: NDArray[np.float32], index: NDArray[np.uint8], polygon: NDArray[np.int32]
) -> NDArray[np.float64]:
    """What makes the mean covariance within polygons the identity but for the ridge, float64 [feature, axis].

    Polygons count alike. Where none has two pixels, classes take their place.

    Args:
        features: float32 [pixel, feature].
        index: Network index of the class of each pixel [pixel].
        polygon: Its polygon [pixel].
    """
    wide = features.astype(np.float64)
    within = _within(wide, polygon)
    if not within.any():
        within = _within(wide, index)
    scale = np.trace(within) / len(within) or 1.0
    value, vector = np.linalg.eigh(within + RIDGE * scale * np.eye(len(within)))
    return np.asarray(vector / np.sqrt(value))


def random_rotation(size: int, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """An orthogonal matrix, any as likely as another but for signs, which trees ignore: float64 [size, size].

    Source: Stewart (1980), The efficient generation of random orthogonal matrices, SIAM J. Numer. Anal. 17, 403-409.
    """
    return np.asarray(np.linalg.qr(rng.standard_normal((size, size)))[0])


def _within(features: NDArray[np.float64], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean over the groups of two pixels and more of their covariance, float64 [feature, feature]; 0 without any."""
    _, of, count = np.unique(group, return_inverse=True, return_counts=True)
    mean = np.zeros((len(count), features.shape[1]))
    np.add.at(mean, of, features)
    apart = features - (mean / count[:, None])[of]
    weight = np.where(count > 1, 1.0 / np.maximum(count - 1, 1), 0.0) / max(int((count > 1).sum()), 1)
    return np.asarray((apart * weight[of][:, None]).T @ apart)


def _grow(
    turned: NDArray[np.float32],
    index: NDArray[np.uint8],
    weight: NDArray[np.float64],
    *,
    seeds: NDArray[np.unsignedinteger[Any]],
) -> tuple[ExtraTreeClassifier, ...]:
    trees = [ExtraTreeClassifier(max_features="sqrt", min_samples_leaf=2, random_state=int(seed)) for seed in seeds]
    return tuple(tree.fit(turned, index, sample_weight=weight) for tree in trees)


def _total(
    trees: tuple[ExtraTreeClassifier, ...], turn: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    return sum_of_trees(trees, np.ascontiguousarray(features @ turn))
