"""Fit: scenes, a split and the chip index -> a trained model with all that must travel with it.

Experts learn from the labelled pixels first; networks learn from the labels and from the experts' soft labels
(``pipeline.training.training_set``). Two networks are averaged: one sees single spectra, one their context. With
``head: chip`` it is the same with whole chips in the place of pixels (``pipeline.training.chip_head``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import lightning
import numpy as np

from pipeline.experts.experts import linear_scores
from pipeline.experts.settings import ENOUGH_POLYGONS, EXPERTS_TIME, LEAST_TIME, Deadline
from pipeline.experts.weights import best_lift
from pipeline.model.preprocess import Preprocess
from pipeline.scenes.describe import is_embedding
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.training.chip_head import train_on_statistics, whole_chips
from pipeline.training.chip_set import read_chips
from pipeline.training.context import train_context
from pipeline.training.encoder_features import frozen_features
from pipeline.training.networks import build_networks, lift_class, start_columns
from pipeline.training.pixels import train_pixels
from pipeline.training.result import Clock, FitResult, assemble, context_note, provenance_of
from pipeline.training.settings import learned_polygons
from pipeline.training.statistics import band_statistics
from pipeline.training.training_set import MARGIN_PX, check_learned, context_set, training_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.experts.mixture import Mixture
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.batches import ContextSet
    from pipeline.training.chip_index import ChipIndex
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.networks import Networks
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics

Progress: TypeAlias = "Callable[[str, int, int], None] | None"
History: TypeAlias = list[dict[str, float]]
Sets: TypeAlias = "Callable[[], tuple[ContextSet, ContextSet | None]]"
# Of the time that experts leave: what the network of pixels may take, where one with context is to follow.
PIXELS_TIME = 0.5


def fit(
    scenes: Sequence[TrainingScene],
    split: Split,
    scheme: ClassScheme,
    *,
    index: ChipIndex,
    settings: TrainingSettings,
    folder: Path,
    objects: Sequence[int] = (),
    resume: bool = False,
    progress: Progress = None,
) -> FitResult:
    """Train a model.

    Args:
        scenes: Scenes with the same bands, and their labelled pixels.
        split: Which polygons train and validate; those of test and buffer are never looked at as labels.
        scheme: The classes.
        index: The chips to learn from (``pipeline.training.chips.choose_chips``).
        settings: How.
        folder: For the log and the checkpoints: ``last.ckpt``, and with ``patience`` ``best.ckpt``.
        objects: Network indices of classes that are mapped as objects: they are lifted to where held-out polygons find
            their pixels best (``pipeline.experts.weights.best_lift``).
        resume: Go on from ``last.ckpt`` in the folder, where there is one.
        progress: Called with stage ("experts", "pixel network", "network"), step and number of steps.

    Raises:
        ModelError: pretrained weights that do not fit, or a checkpoint of another job.
        LabelError: nothing to learn from, or of several classes only one has pixels that can be used.
        InputError: the index names a scene that is not among ``scenes``.
        SceneError: scenes with different bands.
    """
    clock, deadline = Clock(), Deadline.after(settings.time_limit_s)
    lightning.seed_everything(settings.seed, verbose=False)
    statistics = training_statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
    ids = learned_polygons(split, settings)
    first = scenes[0].source
    frozen, why_not = frozen_features(settings, preprocess, sensor=first.sensor, level=first.level, units=first.units)
    margin = 0 if settings.head == "chip" else MARGIN_PX
    chips = read_chips(scenes, index, split=split, preprocess=preprocess, margin=margin)
    chips = replace(chips, around=not any(map(is_embedding, first.units)))
    check_learned(chips, scenes, scheme, ids=ids)
    if frozen is not None:
        frozen = frozen.calibrated(chips.x, chips.valid)
    # Weights that do not fit are found before anything is learned.
    networks = build_networks(
        settings, classes=len(scheme), chip_px=index.chip_px, preprocess=preprocess, frozen=frozen, units=first.units
    )
    clock.lap("chips")
    work = _fit_chips if settings.head == "chip" else _fit_pixels
    given = _Given(chips, networks, split, ids, settings, deadline, frozen, clock, progress)
    networks, mixture, history, sets = work(given)
    tuned = networks.still_learning(settings)
    if tuned is not None:
        learned, judged = sets()
        history += train_context(
            tuned, learned, judged, settings=settings, folder=folder, deadline=deadline, resume=resume,
            progress=progress,
        )  # fmt: skip
        clock.lap("context")
    lifts = object_lifts(mixture, scenes, objects) if mixture is not None and objects else {}
    for number, lift in lifts.items():
        lift_class(networks, number, lift)
    notes: dict[str, Any] = {
        "lifted": {scheme.names[number]: round(lift, 2) for number, lift in lifts.items()},
        "polygons": {part.name.lower(): len(split.polygons(part)) for part in Part},
        "experts": mixture.names_and_shares() if mixture is not None else {},
        "context": context_note(
            networks, mixture, frozen, settings=settings, polygons=len(ids), why_not=why_not, cut=deadline.cut
        ),
    }
    provenance = provenance_of(settings, deadline=deadline, notes=notes)
    bundle = assemble(networks, scheme, preprocess, statistics, scenes=scenes, provenance=provenance)
    return FitResult(bundle, history, clock.seconds, mixture.out_of_fold if mixture is not None else None)


@dataclass(frozen=True, eq=False)
class _Given:
    """What pixels and whole chips are learned from, and how."""

    chips: ChipSet
    networks: Networks
    split: Split
    ids: NDArray[np.int32]  # Polygons that are learned
    settings: TrainingSettings
    deadline: Deadline
    frozen: FrozenFeatures | None
    clock: Clock
    progress: Progress


def _fit_pixels(given: _Given) -> tuple[Networks, Mixture | None, History, Sets]:
    """Experts and the network of pixels: networks with their shares, the mixture, the log, the sets for context."""
    settings, deadline, chips = given.settings, given.deadline, given.chips
    classes = given.networks.members[0].spec.classes
    judged = len(given.ids) >= ENOUGH_POLYGONS and settings.context.share is None and settings.experts.enabled
    frozen = given.frozen if settings.asks_encoder(len(given.ids)) else None
    found = training_set(
        chips, ids=given.ids, split=given.split, classes=classes, settings=settings,
        deadline=deadline.share(EXPERTS_TIME), frozen=frozen, judged=judged,
        progress=given.progress,
    )  # fmt: skip
    given.clock.lap("experts")
    networks = given.networks.judged(found.mixture, settings, frozen=given.frozen)
    if networks.context is not None and found.probe is not None:
        start_columns(networks.context, *linear_scores(found.probe, classes=classes))
    history: History = []
    if networks.pixels is not None:
        until = deadline if networks.context is None else deadline.share(PIXELS_TIME)
        # A network that hardly learned makes a map that is worse than none, whatever took the time before.
        until = until.at_least(LEAST_TIME * settings.time_limit_s)
        history = train_pixels(
            networks.pixels, found.table, found.target, found.soft, settings=settings.pixels, seed=settings.seed,
            deadline=until, progress=given.progress,
        )  # fmt: skip
        given.clock.lap("pixels")

    def sets() -> tuple[ContextSet, ContextSet | None]:
        learned = context_set(chips, found.index, found.context_soft, classes=classes)
        held = given.split.polygons(Part.VALIDATION)
        if not settings.context.patience or not len(held):
            return learned, None
        return learned, context_set(chips, chips.only(held), found.context_soft, classes=classes)

    return networks, found.mixture, history, sets


def object_lifts(mixture: Mixture, scenes: Sequence[TrainingScene], objects: Sequence[int]) -> dict[int, float]:
    """What the odds of each class of objects are multiplied with; out-of-fold pixels stand for their polygons'."""
    held = mixture.out_of_fold
    if not len(held.index):
        return {}
    pixels = np.bincount(np.concatenate([scene.pixels.polygon for scene in scenes]), minlength=held.polygon.max() + 1)
    looked = np.bincount(held.polygon, minlength=len(pixels))
    weight = (pixels / np.maximum(looked, 1))[held.polygon]
    return {number: best_lift(held.probabilities, held.index, weight, found=number) for number in objects}


def _fit_chips(given: _Given) -> tuple[Networks, Mixture | None, History, Sets]:
    """The same of whole chips."""
    chips, settings = given.chips, given.settings
    own = whole_chips(chips, given.ids)
    networks, experts, history = train_on_statistics(
        given.networks, own, classes=given.networks.members[0].spec.classes, group_of=given.split.block_of,
        settings=settings, deadline=given.deadline, frozen=given.frozen, progress=given.progress,
    )  # fmt: skip
    given.clock.lap("statistics")

    def sets() -> tuple[ContextSet, ContextSet | None]:
        held = whole_chips(chips, given.split.polygons(Part.VALIDATION)) if settings.context.patience else None
        return own.context_set(experts), None if held is None else held.context_set(experts)

    return networks, experts.mixture if experts is not None else None, history, sets


def training_statistics(scenes: Sequence[TrainingScene], split: Split) -> BandStatistics:
    """Statistics of the valid pixels of training polygons, and of nothing else."""
    readers = [open_reader(scene.source) for scene in scenes]
    try:
        return band_statistics(readers, [split.pixels(scene.pixels, Part.TRAIN) for scene in scenes])
    finally:
        for reader in readers:
            reader.close()
