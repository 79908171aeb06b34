"""Splits for comparison: fewer polygons to learn from, and labelled pixels at random.

A pixel beside one that was learned from is nearly the same pixel, so figures of random pixels are close to those of the
training data; how far they lie above those of spatial blocks is the optimism of papers with random splits.

Source: Roberts et al. (2017), Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure, Ecography 40, 913-929.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SplitError
from pipeline.splits.split import ABSENT, Part, Split, TrainingScene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels

VALIDATION_EVERY = 5


def fewer_polygons(split: Split, pixels: Sequence[LabelledPixels], *, share: float, seed: int) -> Split:
    """The split with a random share of its train and validation polygons, of every class; the others are BUFFER.

    Shares are nested: what a smaller one holds, a larger one of the same seed holds too. At least one polygon of each
    class and part stays. The test polygons stay what they are.

    Raises:
        SplitError: a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise SplitError("share of the polygons", got=share, expected="above 0, at most 1")
    polygon = np.concatenate([scene.polygon for scene in pixels])
    code = np.concatenate([scene.code for scene in pixels])
    ids, first = np.unique(polygon, return_index=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids))
    part = split.part.copy()
    for which in (Part.TRAIN, Part.VALIDATION):
        for value in np.unique(code):
            own = [int(ids[i]) for i in order if code[first[i]] == value and split.part[ids[i]] == which]
            part[own[int(np.ceil(share * len(own))) :]] = Part.BUFFER
    return replace(split, part=part)


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
    dealt = []
    for scene in scenes:
        hand = _deal_pixels(scene.pixels.polygon, folds=folds, rng=rng)
        polygon = np.where(hand == fold, scene.pixels.polygon + highest, scene.pixels.polygon).astype(np.int32)
        dealt.append(TrainingScene(scene.source, replace(scene.pixels, polygon=polygon)))
    ids = np.unique(np.concatenate([scene.pixels.polygon for scene in dealt]))
    part = np.full(2 * highest + 1, ABSENT, dtype=np.int8)
    part[ids] = np.where(ids > highest, Part.TEST, Part.TRAIN)
    learned = ids[ids <= highest]
    part[rng.permutation(learned)[: len(learned) // VALIDATION_EVERY]] = Part.VALIDATION
    return dealt, Split(part, np.full(len(part), -1, dtype=np.int32), 0.0, 0.0)


def _deal_pixels(polygon: NDArray[np.int32], *, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of every pixel: each polygon's pixels dealt in turn, in random order."""
    order = rng.permutation(len(polygon))
    order = order[np.argsort(polygon[order], kind="stable")]
    hand = np.empty(len(polygon), dtype=np.int64)
    hand[order] = (np.arange(len(order)) + rng.integers(folds)) % folds
    return hand
