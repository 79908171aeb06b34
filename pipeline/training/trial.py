"""A trial of the network with context: what share of the average it earns on polygons that nothing had learned from.

Experts, a network of pixels and one with context learn from the training polygons alone; on the validation polygons,
which lie in other blocks, the share with the least log-loss is found. It counts only where the gain is larger than its
standard error over polygons; else the network with context gets no share and is not trained again.

Source: Breiman et al. (1984), Classification and regression trees, section 3.4.3 (the rule of one standard error).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.legend import IGNORE_INDEX
from pipeline.splits.split import Part
from pipeline.training.loop import train_context
from pipeline.training.material import learn_from, lessons_of
from pipeline.training.members import build_members
from pipeline.training.pixel_loop import train_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.splits.split import Split
    from pipeline.training.dataset import ChipSet
    from pipeline.training.settings import FitSettings

FOLDER = "trial"
_SHARES = np.linspace(0.0, 1.0, 21)
# Part of the probability that is spread over all classes, as for the experts' shares: one odd pixel must not decide.
_FLOOR = 0.01


@dataclass(frozen=True)
class Verdict:
    """What the trial found.

    Attributes:
        share: Of the network with context in the average.
        gain: Log-loss per polygon that the share with the least log-loss saves.
        error: Standard error of the gain.
        polygons: How many judged.
    """

    share: float
    gain: float
    error: float
    polygons: int

    def note(self) -> dict[str, Any]:
        """For the record, JSON-ready."""
        return {"share": self.share, "gain": round(self.gain, 4), "error": round(self.error, 4), "of": self.polygons}


def try_context(
    chips: ChipSet,
    split: Split,
    *,
    preprocess: Preprocess,
    units: Sequence[str],
    classes: int,
    settings: FitSettings,
    folder: Path,
    resume: bool,
    progress: Callable[[str, int, int], None] | None,
) -> Verdict:
    """Train on TRAIN, judge on VALIDATION.

    Args:
        chips: Chips with the labels of both.
        split: Which polygons belong to which part.
        preprocess: Of the chips.
        units: Of its bands.
        classes: Number of classes.
        settings: As for the training that is to follow; one network of each kind is tried.
        folder: Of that training; the trial has a folder in it.
        resume: Go on from the trial's checkpoint, where there is one.
        progress: Called with stage, step and number of steps.

    Raises:
        ModelError: pretrained weights that do not fit, or a checkpoint of another job.
        LabelError: nothing to learn from.
    """
    settings = replace(settings, ensemble=1, patience=0)
    train, held = split.polygons(Part.TRAIN), split.polygons(Part.VALIDATION)
    index = chips.core(chips.only(held))
    asked = torch.nonzero((index != IGNORE_INDEX).flatten(1).any(1)).flatten()
    if not len(asked) or not len(train):
        return Verdict(0.0, 0.0, 0.0, 0)
    material = learn_from(chips, ids=train, split=split, classes=classes, settings=settings, progress=progress)
    first, second = build_members(
        settings, bands_in=preprocess.channels, classes=classes, polygons=len(train), preprocess=preprocess, units=units
    )
    own = material.teacher.predict(material.table.features)
    train_pixels([first], material.table, own, material.opinions, settings=settings, progress=progress)
    lessons = lessons_of(chips, material, classes=classes, settings=settings)
    where = folder / FOLDER
    train_context([second], lessons, None, settings=settings, folder=where, resume=resume, progress=progress)
    mine = [_of_the_true_class(network, chips, index, asked) for network in (first, second)]
    known = index[asked] != IGNORE_INDEX
    return earned_share(*mine, polygon=chips.core(chips.polygon)[asked][known].numpy())


def _of_the_true_class(
    network: Network, chips: ChipSet, index: torch.Tensor, asked: torch.Tensor
) -> NDArray[np.float64]:
    """Probability that the network gives the labelled class of the labelled pixels of some chips, float64 [pixel]."""
    network = network.cpu().eval()
    found = []
    with torch.inference_mode():
        for chip in asked.tolist():
            known = index[chip] != IGNORE_INDEX
            shares = chips.core(network(chips.x[chip : chip + 1]).softmax(1))[0]
            found.append(shares[:, known].gather(0, index[chip][known].long()[None])[0])
    return torch.cat(found).double().numpy()


def earned_share(first: NDArray[np.float64], second: NDArray[np.float64], *, polygon: NDArray[np.int32]) -> Verdict:
    """The share of the second of two members that held-out polygons speak for.

    Args:
        first: Probability that the first member gives the true class of each pixel, float64 [pixel].
        second: The same of the second.
        polygon: Polygon of each pixel; polygons count alike.
    """
    _, of, count = np.unique(polygon, return_inverse=True, return_counts=True)
    mixed = (1 - _SHARES)[:, None] * first + _SHARES[:, None] * second
    loss = -np.log(_FLOOR + (1 - _FLOOR) * mixed)
    by_polygon = np.stack([np.bincount(of, row) / count for row in loss])
    best = int(by_polygon.mean(axis=1).argmin())
    gain = by_polygon[0] - by_polygon[best]
    error = float(gain.std(ddof=1) / len(count) ** 0.5) if len(count) > 1 else float("inf")
    share = float(_SHARES[best]) if gain.mean() > error else 0.0
    return Verdict(round(share, 4), float(gain.mean()), error if np.isfinite(error) else 0.0, len(count))
