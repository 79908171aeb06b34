"""Trees that are each grown on a bootstrap of polygons, drawn within every class.

Pixels of one polygon are much alike. A random forest, whose trees each see a bootstrap of pixels, hears nearly every
polygon in every tree and learns them by heart; trees that miss a third of the polygons each must agree on what the
polygons of a class have in common.

Source: Field & Welsh (2007), Bootstrapping clustered data, Journal of the Royal Statistical Society B 69, 369-390, of
drawing clusters; Geurts et al. (2006), Extremely randomized trees, Machine Learning 63, 3-42, of splits at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed
from sklearn.tree import ExtraTreeClassifier

from pipeline.experts.forest import cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Pixels that a drawn polygon gives a tree: enough to know its spread, few enough that large ones do not drown others.
DRAWN_PIXELS = 50


@dataclass(frozen=True, eq=False)
class PolygonTrees:
    """Trees and the classes that each of them knows.

    Attributes:
        trees: Fitted trees.
        classes_: Network indices of the classes, in the order of the probabilities, uint8 [class].
    """

    trees: tuple[ExtraTreeClassifier, ...]
    classes_: NDArray[np.uint8]

    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of the trees' shares of classes, float64 [pixel, class], of features float32 [pixel, feature]."""
        jobs = min(cores(), len(self.trees))
        parts = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(sum_of_trees)(self.trees[first::jobs], features) for first in range(jobs)
        )
        return np.asarray(np.sum(parts, axis=0) / len(self.trees))


def fit_polygon_trees(
    features: NDArray[np.float32],
    index: NDArray[np.uint8],
    polygon: NDArray[np.int32],
    *,
    trees: int,
    seed: int,
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
