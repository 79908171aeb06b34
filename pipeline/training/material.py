"""What networks learn from: labels, their pixels' features, the experts and what these think of unlabelled pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.errors import LabelError, LabelWarning
from pipeline.legend import IGNORE_INDEX, MIN_CLASSES
from pipeline.training import teacher as teaching
from pipeline.training.loss import pixel_weights
from pipeline.training.module import Lessons
from pipeline.training.result import HeldOut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split
    from pipeline.training.dataset import ChipSet, TrainingScene
    from pipeline.training.settings import FitSettings


@dataclass(frozen=True, eq=False)
class Material:
    """What the networks learn from: labels, their pixels' features, the teacher and its opinions."""

    index: torch.Tensor
    table: teaching.PixelTable
    teacher: teaching.Teacher
    opinions: teaching.Opinions


def learn_from(
    chips: ChipSet,
    *,
    ids: NDArray[np.int32],
    split: Split,
    classes: int,
    settings: FitSettings,
    progress: Callable[[str, int, int], None] | None,
) -> Material:
    """The experts learn from the polygons ``ids`` and are asked what they think of pixels all over the chips."""
    index = chips.only(ids)
    table = teaching.pixel_table(chips, index, per_polygon=settings.per_polygon, seed=settings.seed)
    teacher = teaching.fit_teacher(
        table,
        classes=classes,
        group_of=split.block_of,
        trees=settings.teacher_trees,
        seed=settings.seed,
        rarer=teaching.RARER,
        progress=progress,
    )
    opinions = teaching.ask(teacher, chips, pixels=settings.soft_pixels, seed=settings.seed)
    return Material(index, table, teacher, opinions)


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


def unseen_of(material: Material) -> HeldOut:
    """What experts that had not seen a pixel's block thought of it."""
    asked = material.teacher.held_out.sum(axis=1) > 0
    table = material.table.rows(asked)
    return HeldOut(material.teacher.held_out[asked], table.index, table.polygon)


def lessons_of(chips: ChipSet, material: Material, *, classes: int, settings: FitSettings) -> Lessons:
    """Batches' material for the networks with context."""
    core = chips.core(material.index)
    weight = _weights(core, chips.core(chips.polygon), classes=classes, settings=settings)
    chance = weight.sum((1, 2)).double()
    bare = chance <= 0
    mean = float(chance[~bare].mean()) if bool((~bare).any()) else 1.0
    chance = chance.sqrt() / mean**0.5
    chance[bare] = 0.5
    x = chips.core(chips.x).contiguous()
    return Lessons(x, core.contiguous(), weight, material.opinions.dense(), material.opinions.asked, chance)


def _weights(index: torch.Tensor, polygon: torch.Tensor, *, classes: int, settings: FitSettings) -> torch.Tensor:
    labelled = (index != IGNORE_INDEX).numpy()
    weight = torch.zeros(index.shape)
    weight[torch.from_numpy(labelled)] = torch.from_numpy(
        pixel_weights(
            index.numpy()[labelled],
            polygon.numpy()[labelled],
            classes=classes,
            size_power=settings.size_power,
            class_power=settings.class_power,
        ).astype(np.float32)
    )
    return weight
