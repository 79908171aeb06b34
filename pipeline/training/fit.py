"""Fit: scenes, a split and the chip index -> a trained model with all that must travel with it.

Experts learn from the labelled pixels first; networks learn from the labels and from the experts' soft labels
(``pipeline.training.training_set``). Two networks are averaged: one sees single spectra, one their context. With
``head: chip`` it is the same with whole chips in the place of pixels (``pipeline.training.chip_head``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import lightning

from pipeline.experts.deadline import Deadline
from pipeline.model.preprocess import Preprocess
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.training.chip_head import train_on_statistics, whole_chips
from pipeline.training.chip_set import read_chips
from pipeline.training.context import train_context
from pipeline.training.networks import build_networks
from pipeline.training.pixels import train_pixels
from pipeline.training.result import Clock, FitResult, assemble, provenance_of
from pipeline.training.settings import learned_polygons
from pipeline.training.statistics import band_statistics
from pipeline.training.training_set import MARGIN_PX, check_learned, context_set, training_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.experts.mixture import Mixture
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.batches import ContextSet
    from pipeline.training.chip_index import ChipIndex
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.networks import Networks
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics

Progress: TypeAlias = "Callable[[str, int, int], None] | None"
History: TypeAlias = list[dict[str, float]]
# Of the time limit: what experts and their soft labels may take; of the rest the network of pixels, where one with
# context is to follow.
EXPERTS_TIME, PIXELS_TIME = 0.6, 0.5


def fit(
    scenes: Sequence[TrainingScene],
    split: Split,
    scheme: ClassScheme,
    *,
    index: ChipIndex,
    settings: TrainingSettings,
    folder: Path,
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
    # Weights that do not fit are found before anything is learned.
    networks = build_networks(
        settings, classes=len(scheme), chip_px=index.chip_px, polygons=len(ids), preprocess=preprocess,
        units=scenes[0].source.units,
    )  # fmt: skip
    margin = 0 if settings.head == "chip" else MARGIN_PX
    chips = read_chips(scenes, index, split=split, preprocess=preprocess, margin=margin)
    check_learned(chips, scenes, scheme, ids=ids)
    clock.lap("chips")
    work = _fit_chips if settings.head == "chip" else _fit_pixels
    mixture, history, learned, judged = work(
        chips, networks, split=split, ids=ids, settings=settings, deadline=deadline, clock=clock, progress=progress
    )
    if networks.context is not None:
        history += train_context(
            networks.context, learned, judged, settings=settings, folder=folder, deadline=deadline, resume=resume,
            progress=progress,
        )  # fmt: skip
        clock.lap("context")
    notes: dict[str, Any] = {
        "polygons": {part.name.lower(): len(split.polygons(part)) for part in Part},
        "experts": mixture.names_and_shares() if mixture is not None else {},
        "cut_short": list(deadline.cut),
    }
    provenance = provenance_of(settings, notes=notes)
    bundle = assemble(networks, scheme, preprocess, statistics, scenes=scenes, provenance=provenance)
    return FitResult(bundle, history, clock.seconds, mixture.out_of_fold if mixture is not None else None)


def _fit_pixels(
    chips: ChipSet,
    networks: Networks,
    *,
    split: Split,
    ids: NDArray[np.int32],
    settings: TrainingSettings,
    deadline: Deadline,
    clock: Clock,
    progress: Progress,
) -> tuple[Mixture | None, History, ContextSet, ContextSet | None]:
    """Experts and the network of pixels: the mixture, the log, and the sets that one with context learns from."""
    classes = networks.members[0].spec.classes
    found = training_set(
        chips, ids=ids, split=split, classes=classes, settings=settings, deadline=deadline.share(EXPERTS_TIME),
        progress=progress,
    )  # fmt: skip
    clock.lap("experts")
    history: History = []
    if networks.pixels is not None:
        until = deadline if networks.context is None else deadline.share(PIXELS_TIME)
        history = train_pixels(
            networks.pixels, found.table, found.target, found.soft, settings=settings.pixels, seed=settings.seed,
            deadline=until, progress=progress,
        )  # fmt: skip
        clock.lap("pixels")
    learned = context_set(chips, found.index, found.soft, classes=classes)
    judged = None
    if settings.context.patience and len(split.polygons(Part.VALIDATION)):
        judged = context_set(chips, chips.only(split.polygons(Part.VALIDATION)), found.soft, classes=classes)
    return found.mixture, history, learned, judged


def _fit_chips(
    chips: ChipSet,
    networks: Networks,
    *,
    split: Split,
    ids: NDArray[np.int32],
    settings: TrainingSettings,
    deadline: Deadline,
    clock: Clock,
    progress: Progress,
) -> tuple[Mixture | None, History, ContextSet, ContextSet | None]:
    """The same of whole chips."""
    own = whole_chips(chips, ids)
    experts, history = train_on_statistics(
        networks, own, classes=networks.members[0].spec.classes, group_of=split.block_of, settings=settings,
        deadline=deadline, progress=progress,
    )  # fmt: skip
    clock.lap("statistics")
    judged = None
    if settings.context.patience:
        judged = whole_chips(chips, split.polygons(Part.VALIDATION)).context_set(experts)
    return experts.mixture if experts is not None else None, history, own.context_set(experts), judged


def training_statistics(scenes: Sequence[TrainingScene], split: Split) -> BandStatistics:
    """Statistics of the valid pixels of training polygons, and of nothing else."""
    readers = [open_reader(scene.source) for scene in scenes]
    try:
        return band_statistics(readers, [split.pixels(scene.pixels, Part.TRAIN) for scene in scenes])
    finally:
        for reader in readers:
            reader.close()
