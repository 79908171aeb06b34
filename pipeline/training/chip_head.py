"""The chip classifier learns: experts first, from the statistics of whole chips; then a network from the experts.

Experts that know statistics of a chip (``pipeline.model.surroundings``) learn more from hundreds of chips than a
network that sees their pixels. A small network on the same statistics learns what they say of the labelled chips, of
unlabelled ones and of mixtures of two, which fill the space between them (Zhang et al. 2018, mixup: Beyond empirical
risk minimization; Hinton et al. 2015). The network travels in the model file, the experts do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from pipeline.errors import LabelError
from pipeline.legend import IGNORE_INDEX
from pipeline.model.surroundings import ChipStatistics, chip_statistics
from pipeline.training.experts import Expert, PixelTable
from pipeline.training.module import Lessons
from pipeline.training.pixel_loop import train_pixels
from pipeline.training.result import HeldOut
from pipeline.training.teacher import Opinions, Teacher, fit_teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.model.network import Network
    from pipeline.training.dataset import ChipSet
    from pipeline.training.settings import FitSettings

# docs/learning.md has what was measured. A chip of a folder is its own polygon.
EXPERTS = (
    Expert("trees of polygons, statistics", "polygons", 1),
    Expert("logistic regression of statistics", "logistic", 1),
    Expert("linear discriminant of statistics", "discriminant", 1),
)
MIXTURES = 20_000
# Of larger batches the network learns the same and takes longer.
CHIPS_AT_ONCE = 256
_BATCH = 64


@dataclass(frozen=True, eq=False)
class WholeChips:
    """Chips to learn from, labelled or not.

    Attributes:
        x: Standardised channels, float32 [chip, channel, row, col]; 0 where not valid.
        index: Network index of the class, uint8 [chip]; IGNORE_INDEX where unlabelled.
        group: Where each labelled one comes from (its polygon), int32 [chip].
    """

    x: torch.Tensor
    index: NDArray[np.uint8]
    group: NDArray[np.int32]

    def lessons(self) -> Lessons:
        """Of the labelled chips, for a network that sees pixels; drawn by class, then group, then place."""
        labelled = self.index != IGNORE_INDEX
        return lessons_of(self.x[torch.from_numpy(labelled)], self.index[labelled], self.group[labelled])


def whole_chips(chips: ChipSet, ids: NDArray[np.int32]) -> WholeChips:
    """Chips with the class of the valid pixel in their middle, where it is one of the polygons ``ids``."""
    middle = chips.x.shape[-1] // 2  # where ``read_chips`` puts the labelled pixel that it centres a chip on
    index, group = (layer[:, middle, middle].numpy() for layer in (chips.index, chips.polygon))
    index = np.where(np.isin(group, ids), index, np.uint8(IGNORE_INDEX))
    seen = chips.valid.flatten(1).any(1)
    return WholeChips(chips.x[seen], index[seen.numpy()], group[seen.numpy()])


@dataclass(frozen=True, eq=False)
class Taught:
    """What came of it beside the network.

    Attributes:
        history: Rows of the training log.
        shares: Each expert's share.
        held_out: What experts that had not seen a chip's group thought of it.
    """

    history: list[dict[str, float]]
    shares: dict[str, float]
    held_out: HeldOut


def teach_statistics(
    networks: Sequence[Network],
    chips: WholeChips,
    *,
    group_of: NDArray[np.int32],
    settings: FitSettings,
    progress: Callable[[str, int, int], None] | None = None,
) -> Taught:
    """Train networks of a chip's statistics, in place.

    Args:
        networks: With ``statistics`` in their spec.
        chips: What to learn from.
        group_of: Group of each polygon (its block), int32 [polygon]; -1 where the polygon is its own group.
        settings: How.
        progress: Called with stage ("experts", "pixel network"), step and number of steps.

    Raises:
        LabelError: nothing to learn from.
    """
    labelled = chips.index != IGNORE_INDEX
    if not labelled.any():
        raise LabelError("no chip with a valid labelled pixel to learn from", fix="check nodata under the polygons")
    features = _standardised(networks, chips.x)
    table = PixelTable(features[labelled], chips.index[labelled], chips.group[labelled], features.shape[1])
    teacher = fit_teacher(
        table,
        classes=networks[0].spec.classes,
        group_of=group_of,
        trees=settings.teacher_trees,
        seed=settings.seed,
        known=EXPERTS,
        progress=progress,
    )
    opinions = _opinions(teacher, features, labelled, settings=settings)
    own = teacher.predict(table.features)
    steps = replace(settings, pixel_batch=min(settings.pixel_batch, CHIPS_AT_ONCE))
    history = train_pixels(networks, table, own, opinions, settings=steps, progress=progress)
    asked = teacher.held_out.sum(axis=1) > 0
    held = table.rows(asked)
    return Taught(history, teacher.names_and_shares(), HeldOut(teacher.held_out[asked], held.index, held.polygon))


def _standardised(networks: Sequence[Network], x: torch.Tensor) -> NDArray[np.float32]:
    """What the networks' first layer makes of chips, float32 [chip, statistic]; the layers learn their scaling."""
    layers = [cast("ChipStatistics", next(iter(cast("torch.nn.Sequential", own.spectral)))) for own in networks]
    layer, side = layers[0], layers[0].chip_px
    with torch.inference_mode():
        raw = torch.cat([chip_statistics(part, chip_px=side, stride_px=side) for part in torch.split(x, _BATCH)])
    for own in layers:
        own.standardise_by(raw.clone())
    return np.asarray(((raw - layer.mean) * layer.gain).flatten(1).numpy(), dtype=np.float32)


def _opinions(
    teacher: Teacher, features: NDArray[np.float32], labelled: NDArray[np.bool_], *, settings: FitSettings
) -> Opinions:
    """What the experts think of unlabelled chips, and of mixtures of any two in proportions drawn at random."""
    rng = np.random.default_rng(settings.seed)
    first, second = rng.integers(0, len(features), (2, min(MIXTURES, settings.soft_pixels)))
    share = rng.random((len(first), 1), dtype=np.float32)
    mixed = np.concatenate([features[~labelled], share * features[first] + (1 - share) * features[second]])
    target = torch.from_numpy(teacher.predict(mixed))
    return Opinions(torch.from_numpy(mixed), target, torch.ones((len(mixed), 1, 1), dtype=torch.bool))


def lessons_of(x: torch.Tensor, index: NDArray[np.uint8], group: NDArray[np.integer]) -> Lessons:
    """Lessons of standardised chips float32 [chip, channel, row, col].

    Args:
        x: The chips.
        index: Network index of the class of each, uint8 [chip].
        group: Where each comes from (its polygon), integer [chip]: chips of one group share its chances.
    """
    cell = (len(x), 1, 1)
    return Lessons(
        x=x,
        index=torch.from_numpy(index).reshape(cell),
        weight=torch.ones(cell),
        target=torch.zeros((len(x), 1, 1, 1), dtype=torch.float16),
        asked=torch.zeros(cell, dtype=torch.bool),
        chance=torch.from_numpy(balanced_chance(index, group)),
    )


def balanced_chance(index: NDArray[np.uint8], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """How often each chip is drawn, sums to 1: classes alike, groups of a class alike, chips of a group alike.

    >>> balanced_chance(np.array([0, 0, 0, 1], np.uint8), np.array([1, 1, 2, 3])).tolist()
    [0.125, 0.125, 0.25, 0.5]
    """
    pairs, of, places = np.unique(np.stack([index, group], axis=1), axis=0, return_inverse=True, return_counts=True)
    groups = np.bincount(pairs[:, 0].astype(np.intp))
    chance = 1.0 / (places[of.ravel()] * groups[index])
    return np.asarray(chance / chance.sum())
