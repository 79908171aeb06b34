"""Fewer polygons to learn from, the same to be tested on: what a learning curve is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SplitError
from pipeline.splits.split import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.splits.split import Split


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
