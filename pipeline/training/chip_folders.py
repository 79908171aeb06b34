"""Chips that others cut: a folder per class, a raster file per chip (EuroSAT and its like); a model learned from them.

The model is a chip classifier like that of ``head: chip``: it maps scenes with the bands and the scaling of its chips.
Nothing is known of where the chips lie; each counts as a polygon of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning
import numpy as np
import torch

from pipeline.errors import LabelError
from pipeline.experts.deadline import Deadline
from pipeline.legend import ClassScheme, scheme_for
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.preprocess import Preprocess
from pipeline.scenes.opening import open_scene
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import AS_FOUND, SceneOptions
from pipeline.training.chip_head import WholeChips, train_on_statistics
from pipeline.training.context import train_context
from pipeline.training.encoder_features import frozen_features
from pipeline.training.networks import build_networks
from pipeline.training.result import Clock, FitResult, context_note, provenance_of
from pipeline.training.statistics import Accumulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics

SUFFIXES = {".tif", ".tiff", ".vrt", ".jp2", ".img"}
# Share of each class's chips that decides when to stop, with ``context.patience``.
HELD_SHARE = 0.2
_BATCH = 64


@dataclass(frozen=True, eq=False)
class FolderChips:
    """Whole chips with a class each.

    Attributes:
        values: float32 [chip, band, row, col], physical values; 0 where not valid.
        valid: bool [chip, row, col].
        index: Network index of the class, uint8 [chip].
        scheme: The classes, called after their folders.
        bands: Names.
        units: One per band.
        gsd_m: Pixel size in metres; the median over chips.
        source: The folder.
        sensor: As the chips say, or "".
        level: Of the product, as the chips say, or "".
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    index: NDArray[np.uint8]
    scheme: ClassScheme
    bands: tuple[str, ...]
    units: tuple[str, ...]
    gsd_m: float
    source: Path
    sensor: str = ""
    level: str = ""

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.values)

    def standardised(self, preprocess: Preprocess) -> torch.Tensor:
        """The network's input, float32 [chip, channel, row, col]."""
        return preprocess.apply(torch.from_numpy(self.values), torch.from_numpy(self.valid))


def chips_from_folders(path: Path | str, *, options: SceneOptions = AS_FOUND) -> FolderChips:
    """All chips below ``path``, whose subfolders are the classes; folders without a raster are none.

    Args:
        path: The folder.
        options: Band names, scaling, nodata where the files do not say; for all chips alike.

    Raises:
        LabelError: fewer than two classes, or chips that differ in size or bands.
        SceneError: a file that is no georeferenced raster.
    """
    path = Path(path)
    found = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        for folder in (sorted(path.iterdir()) if path.is_dir() else ())
        if folder.is_dir()
    }
    found = {name: files for name, files in found.items() if files}
    if len(found) < 2:  # noqa: PLR2004 - one class needs no classifier
        raise LabelError(
            "no folders of chips",
            path=path,
            got=f"{len(found)} folders with raster files",
            expected="one per class, two or more",
        )
    scheme, _ = scheme_for(list(found))
    values: list[NDArray[np.float32]] = []
    valid, index, pixel_m = [], [], []
    for number, name in enumerate(scheme.names):
        for file in found[name]:
            scene = open_scene(file, options=options)
            kind = (scene.band_names, scene.grid.shape)
            if not values:
                first, about = kind, (scene.units, scene.sensor, scene.level)
            if kind != first or scene.grid.height != scene.grid.width:
                raise LabelError(
                    "chip of another size or with other bands",
                    path=file,
                    got=f"{kind[1][0]} x {kind[1][1]} pixels, {', '.join(kind[0])}",
                    expected=f"{first[1][0]} x {first[1][0]} pixels, {', '.join(first[0])}",
                )
            with open_reader(scene) as reader:
                raster = reader.read(scene.grid.window)
            values.append(raster.values)
            valid.append(raster.valid)
            index.append(number)
            pixel_m.append(float(np.sqrt(np.prod(scene.grid.pixel_size_m))))
    return FolderChips(
        np.stack(values),
        np.stack(valid),
        np.array(index, dtype=np.uint8),
        scheme,
        first[0],
        about[0],
        float(np.median(pixel_m)),
        path,
        *about[1:],
    )


def fit_chips(
    chips: FolderChips,
    *,
    settings: TrainingSettings,
    folder: Path,
    resume: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> FitResult:
    """Train a chip classifier on whole chips; the classes are drawn alike.

    Args:
        chips: What to learn from; all of it, or with ``context.patience`` four fifths of each class.
        settings: How; ``head`` is chip.
        folder: For the log and the checkpoints.
        resume: Go on from ``last.ckpt`` in the folder, where there is one.
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
    statistics = _statistics(chips, ~held)
    preprocess = Preprocess.from_statistics(bands=chips.bands, mean=statistics.mean, std=statistics.std)
    learned, judged = (_whole(chips, part, preprocess) for part in (~held, held))
    frozen = frozen_features(settings, preprocess, sensor=chips.sensor, level=chips.level, units=chips.units)
    if frozen is not None:
        frozen = frozen.calibrated(learned.x, learned.valid)
    networks = build_networks(
        settings, classes=len(chips.scheme), chip_px=chips.values.shape[-1], preprocess=preprocess, frozen=frozen,
        units=chips.units,
    )  # fmt: skip
    clock.lap("chips")
    apart = np.full(len(chips), -1, dtype=np.int32)
    networks, experts, history = train_on_statistics(
        networks, learned, classes=len(chips.scheme), group_of=apart, settings=settings, deadline=deadline,
        frozen=frozen, progress=progress,
    )  # fmt: skip
    clock.lap("statistics")
    if networks.context is not None:
        history += train_context(
            networks.context, learned.context_set(experts), judged.context_set(experts) if stops else None,
            settings=settings, folder=folder, deadline=deadline, resume=resume, progress=progress,
        )  # fmt: skip
        clock.lap("context")
    notes = {
        "chips": len(chips),
        "held": int(held.sum()),
        "experts": experts.mixture.names_and_shares() if experts is not None else {},
        "cut_short": list(deadline.cut),
        "context": context_note(
            networks, experts.mixture if experts is not None else None, frozen, settings=settings,
            polygons=len(learned.index),
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
        provenance=provenance_of(settings, clock, notes=notes),
    )
    return FitResult(bundle, history, clock.seconds, experts.mixture.out_of_fold if experts is not None else None)


def classify_chips(bundle: ModelBundle, chips: FolderChips) -> NDArray[np.uint8]:
    """Class codes uint8 [chip] that a chip classifier gives to whole chips.

    Raises:
        LabelError: chips of another size or with other bands than those it learned from.
    """
    expected = bundle.bands, bundle.specs[0].chip_px
    if (chips.bands, chips.values.shape[-1]) != expected:
        raise LabelError(
            "chips of another size or with other bands than those the model learned from",
            path=chips.source,
            got=f"{chips.values.shape[-1]} pixels, {', '.join(chips.bands)}",
            expected=f"{expected[1]} pixels, {', '.join(expected[0])}",
        )
    parts = torch.split(chips.standardised(bundle.preprocess), _BATCH)
    with torch.inference_mode():
        index = torch.cat([_shares(bundle, part).argmax(1) for part in parts]).numpy()
    return np.asarray(bundle.scheme.index_to_code[index], dtype=np.uint8)


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


def _statistics(chips: FolderChips, which: NDArray[np.bool_]) -> BandStatistics:
    total = Accumulator(chips.bands)
    for values, valid in zip(chips.values[which], chips.valid[which], strict=True):
        total.add(values[:, valid])
    return total.result()
