"""A model learned from whole chips that others cut: a raster file each, in a folder per class.

The model is a chip classifier like that of ``head: chip``: it maps scenes with the bands and the scaling of its chips.
Nothing is known of where the chips lie; each counts as a polygon of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import numpy as np
import torch

from pipeline.errors import LabelError, ModelError
from pipeline.experts.settings import Deadline
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.preprocess import Preprocess
from pipeline.training.chip_head import WholeChips, train_on_statistics
from pipeline.training.context import train_context
from pipeline.training.encoder_features import frozen_features
from pipeline.training.networks import build_networks
from pipeline.training.result import Clock, FitResult, context_note, provenance_of
from pipeline.training.statistics import Accumulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.training.chip_files import FolderChips
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics

# Share of each class's chips that decides when to stop, with ``context.patience``.
HELD_SHARE = 0.2
_BATCH = 64


def fit_chips(
    chips: FolderChips,
    *, settings: TrainingSettings, folder: Path, block: NDArray[np.int32] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> FitResult:  # fmt: skip
    """Train a chip classifier on whole chips; the classes are drawn alike.

    Args:
        chips: What to learn from; all of it, or with ``context.patience`` four fifths of each class.
        settings: How; ``head`` is chip.
        folder: For the log and the checkpoints.
        block: Block of each chip, int32 [chip]: experts are judged on whole blocks. None: each chip is its own.
        progress: Called with stage ("experts", "pixel network", "network"), step and number of steps.

    Raises:
        LabelError: no valid pixel.
        ModelError: pretrained weights that do not fit.
    """
    settings = settings.model_copy(update={"head": "chip"})
    clock, deadline = Clock(), Deadline.after(settings.time_limit_s)
    lightning.seed_everything(settings.seed, verbose=False)
    stops = settings.context.enabled and settings.context.patience
    held = _held(chips.index, seed=settings.seed) if stops else np.zeros(len(chips), dtype=np.bool_)
    statistics, preprocess = scaling_of(chips.only(~held))
    learned, judged = (_whole(chips, part, preprocess) for part in (~held, held))
    frozen, why_not = frozen_features(settings, preprocess, sensor=chips.sensor, level=chips.level, units=chips.units)
    if frozen is not None:
        frozen = frozen.calibrated(learned.x, learned.valid)
    networks = build_networks(
        settings, classes=len(chips.scheme), chip_px=chips.values.shape[-1], preprocess=preprocess, frozen=frozen,
        units=chips.units,
    )  # fmt: skip
    clock.lap("chips")
    apart = np.full(len(chips), -1, dtype=np.int32) if block is None else block
    networks, experts, history = train_on_statistics(
        networks, learned, classes=len(chips.scheme), group_of=apart, settings=settings, deadline=deadline,
        frozen=frozen, progress=progress,
    )  # fmt: skip
    clock.lap("statistics")
    tuned = networks.still_learning(settings)
    if tuned is not None:
        history += train_context(
            tuned, learned.context_set(experts), judged.context_set(experts) if stops else None,
            settings=settings, folder=folder, deadline=deadline, progress=progress,
        )  # fmt: skip
        clock.lap("context")
    notes = {
        "chips": len(chips),
        "held": int(held.sum()),
        "experts": experts.mixture.names_and_shares() if experts is not None else {},
        "context": context_note(
            networks, experts.mixture if experts is not None else None, frozen, settings=settings,
            polygons=len(learned.index),
            what="chips", why_not=why_not, cut=deadline.cut,
        ),
    }  # fmt: skip
    bundle = ModelBundle(
        members=tuple(member.cpu().eval() for member in networks.members),
        shares=networks.shares,
        scheme=chips.scheme,
        preprocess=preprocess,
        value_range=tuple(zip(statistics.min.tolist(), statistics.max.tolist(), strict=True)),
        units=chips.units,
        gsd_m=chips.gsd_m,
        sources=(TrainedOn(sensor=chips.sensor, level=chips.level, scene=chips.source.name),),
        provenance=provenance_of(settings, deadline=deadline, notes=notes),
    )
    return FitResult(bundle, history, clock.seconds, experts.mixture.out_of_fold if experts is not None else None)


def classify_chips(bundle: ModelBundle, chips: FolderChips) -> NDArray[np.uint8]:
    """Class codes uint8 [chip] that a chip classifier gives to whole chips.

    Raises:
        LabelError: chips of another size or with other bands than those it learned from.
    """
    index = chip_probabilities(bundle, chips).argmax(axis=1)
    return np.asarray(bundle.scheme.index_to_code[index], dtype=np.uint8)


def chip_probabilities(bundle: ModelBundle, chips: FolderChips) -> NDArray[np.float32]:
    """Probabilities float32 [chip, class], with the model's temperature; they sum to 1.

    Raises:
        LabelError: chips of another size or with other bands than those it learned from.
        ModelError: a model of pixels.
    """
    if bundle.head != "chip":
        raise ModelError("the model gives classes to pixels, not to chips", fix="take one of landcover init --chips")
    expected = bundle.bands, bundle.specs[0].chip_px
    if (chips.bands, chips.chip_px) != expected:
        raise LabelError(
            "chips of another size or with other bands than those the model learned from",
            path=chips.source,
            got=f"{chips.chip_px} pixels, {', '.join(chips.bands)}",
            expected=f"{expected[1]} pixels, {', '.join(expected[0])}",
        )
    parts = torch.split(chips.standardised(bundle.preprocess), _BATCH)
    with torch.inference_mode():
        shares = torch.cat([_shares(bundle, part) for part in parts])
        calibrated = (shares.clamp_min(1e-8).log() / bundle.temperature).softmax(1)
    return np.asarray(calibrated.numpy(), dtype=np.float32)


def _shares(bundle: ModelBundle, x: torch.Tensor) -> torch.Tensor:
    """Probabilities float [chip, class] of standardised chips, averaged as in a map."""
    pairs = zip(bundle.members, bundle.shares, strict=True)
    total: torch.Tensor = sum(share * member.eval()(x).softmax(1) for member, share in pairs)
    return total


def _whole(chips: FolderChips, which: NDArray[np.bool_], preprocess: Preprocess) -> WholeChips:
    own = np.flatnonzero(which)
    valid = torch.from_numpy(chips.valid[own])
    x = preprocess.apply(torch.from_numpy(chips.values[own]), valid)
    return WholeChips(x, valid, chips.index[own], own.astype(np.int32))


def _held(index: NDArray[np.uint8], *, seed: int) -> NDArray[np.bool_]:
    """Which chips judge: a fifth of each class, none of a class with fewer than two, drawn at random."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(index), dtype=np.bool_)
    for number in np.unique(index):
        own = rng.permutation(np.flatnonzero(index == number))
        held[own[: max(round(HELD_SHARE * len(own)), 1) if len(own) > 1 else 0]] = True
    return held


def scaling_of(chips: FolderChips) -> tuple[BandStatistics, Preprocess]:
    """Statistics of the valid pixels of chips, and how chips are standardised by them."""
    total = Accumulator(chips.bands)
    for values, valid in zip(chips.values, chips.valid, strict=True):
        total.add(values[:, valid])
    found = total.result()
    return found, Preprocess.from_statistics(bands=chips.bands, mean=found.mean, std=found.std)
