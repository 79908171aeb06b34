"""Training set of the networks of pixels and with context: labels, features, soft labels.

The experts are fitted to the labelled pixels here; their mixture gives pixels all over the chips soft labels. Without
experts there are labels alone.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.errors import LabelError, LabelWarning
from pipeline.experts.experts import ENCODER_EXPERT, EXPERTS, PixelTable, fit_expert, soften_discriminant
from pipeline.experts.mixture import RARER, Mixture, fit_mixture
from pipeline.experts.settings import Deadline
from pipeline.experts.shares import held_out_temperature
from pipeline.experts.weights import pixel_weights, turns
from pipeline.legend import IGNORE_INDEX, MIN_CLASSES
from pipeline.model.surroundings import LEVELS, REACH_PX, surroundings
from pipeline.training.batches import ContextSet
from pipeline.training.encoder_features import FEATURES, FEATURES_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.experts.experts import Model
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.settings import TrainingSettings

# Chips carry this margin, so that every pixel of theirs has its whole surroundings.
MARGIN_PX = REACH_PX
# Most pixels of one polygon that experts learn from: more of them say little new and take longer.
PER_POLYGON = 100
_PREDICT = 65_536


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Probabilities that the mixture gives pixels spread over all chips."""

    features: torch.Tensor  # float32 [pixel, feature]
    target: torch.Tensor  # Probabilities, float32 [pixel, class]
    where: torch.Tensor  # Where the pixels lie, bool [chip, row, col] without margin; pixels in this order

    def dense(self) -> torch.Tensor:
        """Probabilities float16 [chip, class, row, col], 0 where there are none."""
        chips, rows, cols = self.where.shape
        out = torch.zeros((chips, rows, cols, self.target.shape[1]), dtype=torch.float16)
        out[self.where] = self.target.half()
        return out.permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training set of the networks: labels, features, soft labels."""

    index: torch.Tensor  # Network index of the class, uint8 [chip, row, col]; IGNORE_INDEX where unlabelled
    table: PixelTable  # The labelled pixels, with features
    # What the network of pixels learns of them: the mixture's probabilities, or without experts the labels, float32
    # [pixel, class]
    target: NDArray[np.float32]
    mixture: Mixture | None  # The experts; None where they are off
    soft: SoftLabels  # Soft labels; of no pixel where experts are off
    # Soft labels of the network with context: of the expert with a pretrained encoder where it has a share, else the
    # same
    context_soft: SoftLabels
    probe: Model | None = None  # The classifier of the encoder's columns and the surroundings; None without an encoder


def training_set(
    chips: ChipSet,
    *, ids: NDArray[np.int32], split: Split, classes: int, settings: TrainingSettings, deadline: Deadline,
    frozen: FrozenFeatures | None = None, judged: bool = True, progress: Callable[[str, int, int], None] | None = None,
) -> TrainingSet:  # fmt: skip
    """Labels of the polygons ``ids``; experts learn them and give soft labels to pixels all over the chips.

    Args:
        chips: What to learn from.
        ids: The polygons that are learned.
        split: Knows their blocks.
        classes: Number of classes.
        settings: How.
        deadline: Nothing new is begun after it. An encoder that is to be judged is left out where its columns take
            more than a part of the time; one that is asked for whatever held-out polygons say has its time.
        frozen: A pretrained encoder whose columns are learned.
        judged: An expert with the encoder is among the experts, and held-out polygons say whether it has a share; else
            it learns by itself.
        progress: Called with "experts", how many are fitted, and how many in all.

    Where an expert with a pretrained encoder (``frozen``) has a share, the network of pixels learns the other experts'
    mixture and the network with context that expert: averaged by their shares they are the whole mixture. A network
    with context that stands alone learns the whole mixture.
    """
    index = chips.only(ids)
    table = pixel_table(
        chips, index, per_polygon=PER_POLYGON, seed=settings.seed, frozen=frozen,
        deadline=deadline.share(FEATURES_TIME) if judged and settings.can_drop_encoder else None,
    )  # fmt: skip

    def alone() -> Model | None:
        return fit_probe(table, split.block_of, classes=classes, settings=settings) if table.encoder else None

    if not settings.experts.enabled:
        nowhere = torch.zeros(chips.core(chips.valid).shape, dtype=torch.bool)
        none = SoftLabels(torch.zeros((0, table.features.shape[1] - table.encoder)), torch.zeros((0, classes)), nowhere)
        return TrainingSet(index, table, np.eye(classes, dtype=np.float32)[table.index], None, none, none, alone())
    mixture = fit_mixture(
        table, classes=classes, group_of=split.block_of, trees=settings.experts.trees, seed=settings.seed,
        known=[expert for expert in EXPERTS if judged or not expert.encoder], rarer=RARER, deadline=deadline,
        progress=progress,
    )  # fmt: skip
    plain, encoder = mixture.parts()
    if encoder is not None and not settings.pixels.enabled:
        encoder = mixture
    given = soft_labels(
        [plain] if encoder is None else [plain, encoder], chips, pixels=settings.experts.soft_pixels,
        seed=settings.seed, deadline=deadline, frozen=frozen if encoder is not None else None,
    )  # fmt: skip
    # Without a share too: a network that stands alone starts from it. What held-out polygons were to judge and could
    # not (time is up, too few of them have pixels) has no share.
    if ENCODER_EXPERT in mixture.experts:
        probe: Model | None = mixture.models[mixture.experts.index(ENCODER_EXPERT)]
    else:
        probe = None if judged and settings.pixels.enabled else alone()
    return TrainingSet(index, table, plain.predict(table.features), mixture, given[0], given[-1], probe)


def fit_probe(table: PixelTable, group_of: NDArray[np.int32], *, classes: int, settings: TrainingSettings) -> Model:
    """The discriminant of a pretrained encoder's columns, as sure as held-out groups of polygons say."""
    probe = fit_expert(ENCODER_EXPERT, table, trees=1, seed=settings.seed)
    temperature = held_out_temperature(ENCODER_EXPERT, table, classes=classes, group_of=group_of, seed=settings.seed)
    soften_discriminant(probe, temperature)
    return probe


def pixel_table(
    chips: ChipSet, index: torch.Tensor, *, per_polygon: int, seed: int, frozen: FrozenFeatures | None = None,
    deadline: Deadline | None = None,
) -> PixelTable:  # fmt: skip
    """The labelled pixels of ``index`` uint8 [chip, row, col], at most ``per_polygon`` of each polygon.

    Columns of ``frozen`` that are not all there at the deadline are left out.
    """
    deadline = deadline or Deadline()
    rng = np.random.default_rng(seed)
    at, row, col = (part.numpy() for part in torch.nonzero(chips.core(index) != IGNORE_INDEX, as_tuple=True))
    keys = chips.core(chips.key).numpy()[at, row, col]
    _, once = np.unique(keys, return_index=True)
    once = rng.permutation(once)
    polygon = chips.core(chips.polygon).numpy()[at, row, col]
    once = np.sort(once[turns(polygon[once]) < per_polygon])
    at, row, col = at[once], row[once], col[once]
    features, plain = [], chips.x.shape[1] * (LEVELS if chips.around else 1)
    for chip in np.unique(at):
        mine = at == chip
        if frozen is not None and deadline.cuts(FEATURES):
            frozen = None
        layers = _layers(chips, int(chip), frozen)
        features.append(layers[:, row[mine], col[mine]].T.numpy())
    count = frozen.count if frozen is not None else 0
    table = np.concatenate([part[:, : plain + count] for part in features])
    return PixelTable(table, chips.core(index).numpy()[at, row, col], polygon[once], chips.x.shape[1], count)


def _layers(chips: ChipSet, chip: int, frozen: FrozenFeatures | None) -> torch.Tensor:
    """Surroundings of a chip's pixels, then features of the encoder: float32 [feature, row, col] without margin."""
    x = chips.x[chip : chip + 1]
    layers = [surroundings(x) if chips.around else x] + ([] if frozen is None else [frozen.of_pixels(x)])
    return chips.core(torch.cat(layers, dim=1))[0]


def soft_labels(
    mixtures: Sequence[Mixture], chips: ChipSet,
    *, pixels: int, seed: int, deadline: Deadline, frozen: FrozenFeatures | None = None,
) -> list[SoftLabels]:  # fmt: skip
    """Probabilities of each mixture for about ``pixels`` valid pixels, spread evenly over all chips, none twice.

    The first mixture sees the surroundings alone: after the deadline the chips that are left get none of it, once a
    batch is done. The second sees the columns of the encoder too, which take the time: it is asked chip by chip, in
    random order, so that what is there at the deadline is spread over the scenes.
    """
    generator = torch.Generator().manual_seed(seed)
    valid = chips.once()
    chance = min(pixels / max(int(valid.sum()), 1), 1.0)
    where = valid & (torch.rand(valid.shape, generator=generator) < chance)
    first, *others = mixtures
    found = [_labelled(first, chips, where.clone(), order=range(len(chips)), deadline=deadline, frozen=None)]
    order = torch.randperm(len(chips), generator=generator).tolist()
    return found + [_labelled(own, chips, where.clone(), order=order, deadline=deadline, frozen=frozen)
                    for own in others]  # fmt: skip


def _labelled(
    mixture: Mixture, chips: ChipSet, where: torch.Tensor,
    *, order: Sequence[int], deadline: Deadline, frozen: FrozenFeatures | None,
) -> SoftLabels:  # fmt: skip
    """Soft labels of the pixels ``where`` bool [chip, row, col], chips in an order; cleared where none came in time."""
    plain = chips.x.shape[1] * (LEVELS if chips.around else 1)
    columns: dict[int, torch.Tensor] = {}
    targets: dict[int, torch.Tensor] = {}
    waiting: list[tuple[int, torch.Tensor]] = []
    for number, chip in enumerate(order, 1):
        waiting.append((chip, _layers(chips, chip, frozen)[:, where[chip]].T))
        known = sum(len(rows) for _, rows in waiting)
        over = frozen is not None and not deadline.left_s
        if number < len(order) and (not known or (known < _PREDICT and not over)):
            continue
        probabilities = torch.from_numpy(mixture.predict(torch.cat([rows for _, rows in waiting]).numpy()))
        parts = torch.split(probabilities, [len(rows) for _, rows in waiting])
        for (done, rows), part in zip(waiting, parts, strict=True):
            columns[done], targets[done] = rows[:, :plain].clone(), part
        waiting = []
        if number < len(order) and deadline.cuts("soft labels"):
            break
    where[[chip for chip in range(len(chips)) if chip not in columns]] = False
    features, target = (torch.cat([part[chip] for chip in sorted(part)]) for part in (columns, targets))
    return SoftLabels(features, target, where)


def check_learned(
    chips: ChipSet, scenes: Sequence[TrainingScene], scheme: ClassScheme, *, ids: NDArray[np.int32]
) -> None:
    """LabelWarning for each class whose polygons among ``ids`` have no valid pixel in the chips.

    Raises:
        LabelError: that leaves one class of several.
    """
    codes = [scene.pixels.code[np.isin(scene.pixels.polygon, ids)] for scene in scenes]
    wanted = np.unique(scheme.code_to_index[np.concatenate(codes)])
    found = np.unique(chips.core(chips.only(ids)).numpy())
    lost = [scheme.names[i] for i in wanted if i not in found]
    if not lost:
        return
    named = ", ".join(lost)
    if len(wanted) - len(lost) < MIN_CLASSES:
        raise LabelError(
            "the training polygons of fewer than two classes have usable pixels",
            got=f"no data or masked under all of {named}",
            fix="check nodata and masks of the scenes, or draw labels where they have data",
        )
    text = f"no training pixel of class {named} has data and is not masked: it cannot be mapped"
    warnings.warn(text, LabelWarning, stacklevel=3)


def context_set(chips: ChipSet, index: torch.Tensor, soft: SoftLabels, *, classes: int) -> ContextSet:
    """Training set of the networks with context; ``index`` uint8 [chip, row, col] has the labels."""
    core = chips.core(index)
    weight = _weights(core, chips.core(chips.polygon), classes=classes)
    chance = weight.sum((1, 2)).double()
    bare = chance <= 0
    mean = float(chance[~bare].mean()) if bool((~bare).any()) else 1.0
    chance = chance.sqrt() / mean**0.5
    chance[bare] = 0.5
    x = chips.core(chips.x).contiguous()
    return ContextSet(x, core.contiguous(), weight, soft.dense(), soft.where, chance)


def _weights(index: torch.Tensor, polygon: torch.Tensor, *, classes: int) -> torch.Tensor:
    labelled = (index != IGNORE_INDEX).numpy()
    weight = torch.zeros(index.shape)
    own = pixel_weights(index.numpy()[labelled], polygon.numpy()[labelled], classes=classes)
    weight[torch.from_numpy(labelled)] = torch.from_numpy(own.astype(np.float32))
    return weight
