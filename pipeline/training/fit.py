"""Fit: scenes, polygons and a split -> a trained model with all that must travel with it.

Experts learn from the labelled pixels first; networks learn from the labels and from what the experts think of the
unlabelled scene (``pipeline.training.teacher``). Two kinds are averaged: one sees single spectra, one their context.
With ``head: chip`` it is the same with whole chips in the place of pixels (``pipeline.training.chip_head``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np

from pipeline.model.preprocess import Preprocess
from pipeline.splits.split import Part
from pipeline.training import teacher as teaching
from pipeline.training.chip_head import teach_statistics, whole_chips
from pipeline.training.dataset import TrainingScene, read_chips
from pipeline.training.loop import train_context
from pipeline.training.material import check_learned, learn_from, lessons_of, unseen_of
from pipeline.training.members import build_members, member_shares, network_specs
from pipeline.training.pixel_loop import train_pixels
from pipeline.training.result import Clock, FitResult, HeldOut, assemble, provenance_of, training_statistics
from pipeline.training.settings import LEARNED, FitSettings, learned_polygons
from pipeline.training.trial import try_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split
    from pipeline.training.module import Lessons

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
        LabelError: nothing to learn from, or of several classes only one has pixels that can be used.
        SceneError: scenes with different bands.
    """
    clock = Clock()
    lightning.seed_everything(settings.seed, verbose=False)
    statistics = training_statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
    classes, units = len(scheme), scenes[0].source.units
    ids = learned_polygons(split, settings)
    # Weights that do not fit are found before anything is learned.
    members = build_members(
        settings, bands_in=preprocess.channels, classes=classes, polygons=len(ids), preprocess=preprocess, units=units
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
    check_learned(chips, scenes, scheme, ids=ids)
    clock.lap("chips")
    judged = split.polygons(Part.VALIDATION) if settings.patience else np.empty(0, dtype=np.int32)
    history: list[dict[str, float]] = []
    notes: dict[str, Any] = {"polygons": {part.name.lower(): len(split.polygons(part)) for part in Part}}
    if settings.context_share == LEARNED and len(members) > settings.ensemble:
        verdict = try_context(
            chips, split, preprocess=preprocess, units=units, classes=classes, settings=settings, folder=folder,
            resume=resume, progress=progress,
        )  # fmt: skip
        clock.lap("trial")
        notes["context"] = verdict.note()
        settings = replace(settings, context_share=verdict.share)
    shares = member_shares(settings, polygons=len(ids))
    members = members[: len(shares)]
    plain, wide = members[: settings.ensemble], members[settings.ensemble :]
    lessons: Lessons | None = None
    held: Lessons | None = None
    unseen: HeldOut | None
    if whole:
        own_chips = whole_chips(chips, ids)
        taught = teach_statistics(plain, own_chips, group_of=split.block_of, settings=settings, progress=progress)
        clock.lap("statistics")
        history, unseen, notes["teacher"] = taught.history, taught.held_out, taught.shares
        if wide:
            lessons, held = own_chips.lessons(), whole_chips(chips, judged).lessons()
    else:
        material = learn_from(chips, ids=ids, split=split, classes=classes, settings=settings, progress=progress)
        clock.lap("teacher")
        unseen = unseen_of(material)
        own = material.teacher.predict(material.table.features)
        history += train_pixels(plain, material.table, own, material.opinions, settings=settings, progress=progress)
        clock.lap("pixels")
        notes["teacher"] = material.teacher.names_and_shares()
        if wide:
            lessons = lessons_of(chips, material, classes=classes, settings=settings)
            if len(judged):
                held = lessons_of(
                    chips, replace(material, index=chips.only(judged)), classes=classes, settings=settings
                )
    if lessons is not None:
        history += train_context(
            wide, lessons, held, settings=settings, folder=folder, resume=resume, progress=progress
        )
        clock.lap("context")
    provenance = provenance_of(settings, clock, notes=notes)
    bundle = assemble(members, shares, scheme, preprocess, statistics, scenes=scenes, provenance=provenance)
    return FitResult(bundle, history, clock.seconds, unseen)
