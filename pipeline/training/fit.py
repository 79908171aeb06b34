"""Fit: scenes, polygons and a split -> a trained model with all that must travel with it.

Experts learn from the labelled pixels first; networks learn from the labels and from what the experts think of the
unlabelled scene (``pipeline.training.teacher``). Two networks are averaged: one sees single spectra, one their context.
With ``head: chip`` it is the same with whole chips in the place of pixels (``pipeline.training.chip_head``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from pipeline.chips.splits import Part
from pipeline.legend import IGNORE_INDEX
from pipeline.model.preprocess import Preprocess
from pipeline.training import teacher as teaching
from pipeline.training.chip_head import teach_statistics, whole_chips
from pipeline.training.dataset import ChipSet, TrainingScene, read_chips
from pipeline.training.loop import train_context, train_pixels
from pipeline.training.loss import pixel_weights
from pipeline.training.members import build_members, context_share, network_specs
from pipeline.training.module import Lessons
from pipeline.training.result import Clock, FitResult, HeldOut, assemble, provenance_of, training_statistics
from pipeline.training.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.chips.splits import Split
    from pipeline.legend import ClassScheme

__all__ = ["FitResult", "FitSettings", "TrainingScene", "fit", "network_specs"]


def fit(
    scenes: Sequence[TrainingScene],
    split: Split,
    scheme: ClassScheme,
    *,
    settings: FitSettings,
    folder: Path,
    resume: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> FitResult:
    """Train a model.

    Args:
        scenes: Scenes with the same bands, and their labelled pixels.
        split: Which polygons train and validate; those of test and buffer are never looked at as labels.
        scheme: The classes.
        settings: How.
        folder: For the log and the checkpoints: ``last.ckpt``, and with validation ``best.ckpt``.
        resume: Go on from ``last.ckpt`` in the folder, where there is one.
        progress: Called with stage ("experts", "pixel network", "network"), step and number of steps.

    Raises:
        ModelError: pretrained weights that do not fit, or a checkpoint of another job.
        LabelError: nothing to learn from.
        SceneError: scenes with different bands.
    """
    clock = Clock()
    lightning.seed_everything(settings.seed, verbose=False)
    statistics = training_statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
    classes = len(scheme)
    learned = (Part.TRAIN, Part.VALIDATION) if settings.refit and not settings.patience else (Part.TRAIN,)
    ids = np.flatnonzero(np.isin(split.part, [int(part) for part in learned])).astype(np.int32)
    # Weights that do not fit are found before anything is learned.
    members = build_members(
        settings, bands_in=preprocess.channels, classes=classes, polygons=len(ids), preprocess=preprocess
    )
    whole = settings.head == "chip"
    chips = read_chips(
        scenes,
        split=split,
        parts=(Part.TRAIN, Part.VALIDATION),
        scheme=scheme,
        preprocess=preprocess,
        chip_px=settings.chip_px,
        labelled=settings.labelled_chips,
        unlabelled=settings.unlabelled_chips,
        seed=settings.seed,
        margin=0 if whole else teaching.MARGIN_PX,
        spacing_px=members[0].spec.chip_stride_px if whole else None,
    )
    clock.lap("chips")
    judged = split.polygons(Part.VALIDATION) if settings.patience else np.empty(0, dtype=np.int32)
    history: list[dict[str, float]] = []
    shares: tuple[float, ...] = (1.0,)
    notes: dict[str, Any] = {"polygons": {part.name.lower(): len(split.polygons(part)) for part in Part}}
    lessons: Lessons | None = None
    held: Lessons | None = None
    unseen: HeldOut | None
    if len(members) > 1:
        context = context_share(settings, polygons=len(ids))
        shares = (1.0 - context, context)
    if whole:
        own_chips = whole_chips(chips, ids)
        taught = teach_statistics(members[0], own_chips, group_of=split.block_of, settings=settings, progress=progress)
        clock.lap("statistics")
        history, unseen, notes["teacher"] = taught.history, taught.held_out, taught.shares
        if len(members) > 1:
            lessons, held = own_chips.lessons(), whole_chips(chips, judged).lessons()
    else:
        material = _learn_from(chips, ids=ids, split=split, classes=classes, settings=settings, progress=progress)
        clock.lap("teacher")
        unseen = _unseen(material)
        own = material.teacher.predict(material.table.features)
        history += train_pixels(
            members[0], material.table, own, material.opinions, settings=settings, progress=progress
        )
        clock.lap("pixels")
        notes["teacher"] = material.teacher.names_and_shares()
        if len(members) > 1:
            lessons = _lessons(chips, material, classes=classes, settings=settings)
            if len(judged):
                held = _lessons(chips, replace(material, index=chips.only(judged)), classes=classes, settings=settings)
    if lessons is not None:
        history += train_context(
            members[-1:], lessons, held, settings=settings, folder=folder, resume=resume, progress=progress
        )
        clock.lap("context")
    provenance = provenance_of(settings, clock, notes=notes)
    bundle = assemble(members, shares, scheme, preprocess, statistics, scenes=scenes, provenance=provenance)
    return FitResult(bundle, history, clock.seconds, unseen)


@dataclass(frozen=True, eq=False)
class _Material:
    """What the networks learn from: labels, their pixels' features, the teacher and its opinions."""

    index: torch.Tensor
    table: teaching.PixelTable
    teacher: teaching.Teacher
    opinions: teaching.Opinions


def _learn_from(
    chips: ChipSet,
    *,
    ids: NDArray[np.int32],
    split: Split,
    classes: int,
    settings: FitSettings,
    progress: Callable[[str, int, int], None] | None,
) -> _Material:
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
    return _Material(index, table, teacher, opinions)


def _unseen(material: _Material) -> HeldOut:
    asked = material.teacher.held_out.sum(axis=1) > 0
    table = material.table.rows(asked)
    return HeldOut(material.teacher.held_out[asked], table.index, table.polygon)


def _lessons(chips: ChipSet, material: _Material, *, classes: int, settings: FitSettings) -> Lessons:
    """Batches' material for the network with context."""
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
