"""Trees that are each grown on a bootstrap of polygons, and trees that cut along axes turned at random.

Pixels of one polygon are much alike. A random forest, whose trees each see a bootstrap of pixels, hears nearly every
polygon in every tree and learns them by heart; trees that miss a third of the polygons each must agree on what the
polygons of a class have in common.

Trees of bands cut across one band at a time, and the bands of a scene rise and fall together: what tells two classes
apart is often a small difference between bands, which cuts along bands meet in many small steps or, with few polygons,
not at all. Within a polygon the class is one, so that what varies there is of no use; divided by that, the differences
that are left are large. In that space no direction is better than another, and trees turn their axes at random.

Source: Field & Welsh (2007), Bootstrapping clustered data, Journal of the Royal Statistical Society B 69, 369-390, of
drawing clusters; Geurts et al. (2006), Extremely randomized trees, Machine Learning 63, 3-42, of splits at random;
Bar-Hillel et al. (2005), Learning a Mahalanobis metric from equivalence constraints, Journal of Machine Learning
Research 6, 937-965, of whitening by the spread within groups of one class; Blaser & Fryzlewicz (2016), Random rotation
ensembles, Journal of Machine Learning Research 17(4), 1-26.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.tree import ExtraTreeClassifier

from pipeline.experts.forest import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Pixels that a drawn polygon gives a tree: enough to know its spread, few enough that large ones do not drown others.
DRAWN_PIXELS = 50
# Share of the mean variance within polygons that is added to all: a band that hardly varies within polygons would
# otherwise count without bound.
RIDGE = 0.02
# Trees that share a rotation: turning many features takes longer than asking a tree.
TREES_PER_TURN = 10


@dataclass(frozen=True, eq=False)
class PolygonTrees:
    """Trees and the classes that each of them knows."""

    trees: tuple[ExtraTreeClassifier, ...]  # Fitted trees
    classes_: NDArray[np.uint8]  # Network indices of the classes, in the order of the probabilities, uint8 [class]

    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of the trees' shares of classes, float64 [pixel, class], of features float32 [pixel, feature]."""
        jobs = min(cores(), len(self.trees))
        parts = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(sum_of_trees)(self.trees[first::jobs], features) for first in range(jobs)
        )
        return np.asarray(np.sum(parts, axis=0) / len(self.trees))


def fit_polygon_trees(
    features: NDArray[np.float32], index: NDArray[np.uint8], polygon: NDArray[np.int32], *, trees: int, seed: int
) -> PolygonTrees:
    """Grow the trees, each on polygons drawn with replacement, as many of each class as there are.

    Args:
        features: float32 [pixel, feature].
        index: Network index of the class of each pixel [pixel].
        polygon: Its polygon [pixel].
        trees: Number of trees.
        seed: Of draws and trees.
    """
    seeds = np.random.SeedSequence(seed).generate_state(trees)
    grown = Parallel(n_jobs=cores(), prefer="threads")(
        delayed(_grow)(features, index, polygon, seed=int(own)) for own in seeds
    )
    return PolygonTrees(tuple(grown), np.unique(index))


def draw_polygons(
    index: NDArray[np.uint8], polygon: NDArray[np.int32], *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Rows of a bootstrap of polygons: pixels of each that is drawn, with replacement, at most DRAWN_PIXELS.

    Args:
        index: Network index of the class of each pixel [pixel].
        polygon: Its polygon [pixel]; a polygon has one class.
        rng: Of the draw.
    """
    order = np.argsort(polygon, kind="stable")
    _, start, count = np.unique(polygon[order], return_index=True, return_counts=True)
    code = index[order[start]]
    drawn = np.concatenate([rng.choice(own, len(own)) for own in (np.flatnonzero(code == c) for c in np.unique(code))])
    take = np.minimum(count[drawn], DRAWN_PIXELS)
    which = np.repeat(drawn, take)
    return np.asarray(order[start[which] + (rng.random(len(which)) * count[which]).astype(np.intp)])


def _grow(
    features: NDArray[np.float32], index: NDArray[np.uint8], polygon: NDArray[np.int32], *, seed: int
) -> ExtraTreeClassifier:
    rows = draw_polygons(index, polygon, rng=np.random.default_rng(seed))
    return ExtraTreeClassifier(max_features="sqrt", random_state=seed).fit(features[rows], index[rows])


def sum_of_trees(trees: Sequence[ExtraTreeClassifier], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of the trees' shares of classes, float64 [pixel, class]; one tree's after the other, never all at once.

    Held together, those of 100 trees of 65,536 pixels and seven classes took 650 MB, the peak of training on gray_s2.
    """
    total = np.asarray(trees[0].predict_proba(features, check_input=False), dtype=np.float64)
    for tree in trees[1:]:
        total += tree.predict_proba(features, check_input=False)
    return total


@dataclass(frozen=True, eq=False)
class RotatedTrees:
    """Trees and the axes along which they cut."""

    trees: tuple[tuple[ExtraTreeClassifier, ...], ...]  # Fitted trees of each rotation
    # What features are multiplied with, float32 [feature, axis], for each rotation
    turns: tuple[NDArray[np.float32], ...]
    classes_: NDArray[np.uint8]  # Network indices of the classes, in the order of the probabilities, uint8 [class]

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
        delayed(_grow_turned)(features @ turn, index, weight, seeds=own)
        for turn, own in zip(turns, groups, strict=True)
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


def _grow_turned(
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
