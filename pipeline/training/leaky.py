"""The split that flatters: labelled pixels at random, neighbours on both sides. For comparison only, never to judge by.

A pixel beside one that was learned from is nearly the same pixel, so figures of such a split are close to those of the
training data; how far they lie above those of spatial blocks is the optimism that papers with random splits carry.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.splits.split import ABSENT, Part, Split
from pipeline.training.dataset import TrainingScene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VALIDATION_EVERY = 5


def random_pixel_fold(
    scenes: Sequence[TrainingScene], *, folds: int, fold: int, seed: int
) -> tuple[list[TrainingScene], Split]:
    """Scenes and split of one fold in which every ``folds``-th labelled pixel is tested, whatever its polygon.

    The tested pixels of polygon p get the id p + n, n being the highest id, so that forest and network take them for
    polygons of their own; the rest of p keeps its id. Every fifth polygon validates. Over all folds, every pixel is
    tested once.
    """
    rng = np.random.default_rng(seed)
    highest = max(int(scene.pixels.polygon.max()) for scene in scenes)
    told = []
    for scene in scenes:
        hand = _deal(scene.pixels.polygon, folds=folds, rng=rng)
        polygon = np.where(hand == fold, scene.pixels.polygon + highest, scene.pixels.polygon).astype(np.int32)
        told.append(TrainingScene(scene.source, replace(scene.pixels, polygon=polygon)))
    ids = np.unique(np.concatenate([scene.pixels.polygon for scene in told]))
    part = np.full(2 * highest + 1, ABSENT, dtype=np.int8)
    part[ids] = np.where(ids > highest, Part.TEST, Part.TRAIN)
    learned = ids[ids <= highest]
    part[rng.permutation(learned)[: len(learned) // VALIDATION_EVERY]] = Part.VALIDATION
    return told, Split(part, np.full(len(part), -1, dtype=np.int32), 0.0, 0.0)


def _deal(polygon: NDArray[np.int32], *, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of every pixel: each polygon's pixels dealt in turn, in random order."""
    order = rng.permutation(len(polygon))
    order = order[np.argsort(polygon[order], kind="stable")]
    hand = np.empty(len(polygon), dtype=np.int64)
    hand[order] = (np.arange(len(order)) + rng.integers(folds)) % folds
    return hand
