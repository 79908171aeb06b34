"""Fit: scenes, polygons and a split -> a trained model with all that must travel with it.

Forests learn from the labelled pixels first; networks learn from the labels and from what the forests think of the
unlabelled scene (``pipeline.training.teacher``). Two networks are averaged: one sees single spectra, one their context.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from pipeline.chips.splits import Part
from pipeline.chips.statistics import band_statistics
from pipeline.legend import IGNORE_INDEX
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.transfer import freeze_encoder
from pipeline.model.weights import load_weights
from pipeline.scenes.reader import open_reader
from pipeline.training import teacher as teaching
from pipeline.training.dataset import ChipSet, TrainingScene, read_chips
from pipeline.training.loop import train_context, train_pixels
from pipeline.training.loss import pixel_weights
from pipeline.training.module import Lessons
from pipeline.training.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.chips.splits import Split
    from pipeline.chips.statistics import BandStatistics
    from pipeline.legend import ClassScheme
    from pipeline.model.network import Network

__all__ = ["FitResult", "FitSettings", "TrainingScene", "fit"]
_LOG = logging.getLogger(__name__)
# Polygons with which the network with context has half of its largest share.
ENOUGH_FOR_CONTEXT = 200


@dataclass(frozen=True, eq=False)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        bundle: The model.
        history: Rows of the training log.
        seconds: Seconds of each stage: chips, teacher, network.
    """

    bundle: ModelBundle
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


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
        folder: For the log (``training.csv``) and the checkpoints.
        resume: Go on from ``last.ckpt`` in the folder, where there is one.
        progress: Called with stage, step and number of steps.

    Raises:
        ModelError: pretrained weights that do not fit.
        LabelError: nothing to learn from.
        SceneError: scenes with different bands.
    """
    clock = _Clock()
    lightning.seed_everything(settings.seed, verbose=False)
    statistics = _statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
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
        margin=teaching.MARGIN_PX,
    )
    clock.lap("chips")
    learned = (Part.TRAIN, Part.VALIDATION) if settings.refit and not settings.patience else (Part.TRAIN,)
    ids = np.flatnonzero(np.isin(split.part, [int(part) for part in learned])).astype(np.int32)
    material = _learn_from(chips, ids=ids, split=split, classes=len(scheme), settings=settings)
    clock.lap("teacher")
    members = _members(settings, bands_in=preprocess.channels, classes=len(scheme), preprocess=preprocess)
    own = material.teacher.predict(material.table.features)
    train_pixels(members[0], material.table, own, material.opinions, settings=settings)
    clock.lap("pixels")
    history: list[dict[str, float]] = []
    if len(members) > 1:
        lessons = _lessons(chips, material, classes=len(scheme), settings=settings)
        held = None
        if settings.patience and len(split.polygons(Part.VALIDATION)):
            judged = replace(material, index=chips.only(split.polygons(Part.VALIDATION)))
            held = _lessons(chips, judged, classes=len(scheme), settings=settings)
        history = train_context(
            members[1:], lessons, held, settings=settings, folder=folder, resume=resume, progress=progress
        )
        clock.lap("context")
    context = _context_share(len(ids)) if len(members) > 1 else 0.0
    provenance: dict[str, Any] = {
        "settings": _jsonable(asdict(settings)),
        "teacher": teaching.names_and_shares(material.teacher.shares.tolist()),
        "polygons": {part.name.lower(): len(split.polygons(part)) for part in Part},
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        "versions": {"torch": str(torch.__version__), "lightning": lightning.__version__},
    }
    shares = (1.0 - context, context)[: len(members)]
    bundle = _bundle(members, shares, scheme, preprocess, statistics, scenes=scenes, provenance=provenance)
    return FitResult(bundle, history, clock.seconds)


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
        _LOG.info("%s: %.1f s", name, self.seconds[name])


def _statistics(scenes: Sequence[TrainingScene], split: Split) -> BandStatistics:
    readers = [open_reader(scene.source) for scene in scenes]
    try:
        return band_statistics(readers, [split.pixels(scene.pixels, Part.TRAIN) for scene in scenes])
    finally:
        for reader in readers:
            reader.close()


@dataclass(frozen=True, eq=False)
class _Material:
    """What the networks learn from: labels, their pixels' features, the teacher and its opinions."""

    index: torch.Tensor
    table: teaching.PixelTable
    teacher: teaching.Teacher
    opinions: teaching.Opinions


def _learn_from(
    chips: ChipSet, *, ids: NDArray[np.int32], split: Split, classes: int, settings: FitSettings
) -> _Material:
    index = chips.only(ids)
    table = teaching.pixel_table(chips, index, per_polygon=settings.per_polygon, seed=settings.seed)
    teacher = teaching.fit_teacher(
        table, classes=classes, group_of=split.block_of, trees=settings.teacher_trees, seed=settings.seed
    )
    opinions = teaching.ask(teacher, chips, pixels=settings.soft_pixels, seed=settings.seed)
    return _Material(index, table, teacher, opinions)


def _context_share(polygons: int) -> float:
    """Share of the network with context: none with few polygons, half with very many."""
    return 0.5 * polygons / (polygons + ENOUGH_FOR_CONTEXT)


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


def network_specs(settings: FitSettings, *, bands_in: int, classes: int) -> list[NetworkSpec]:
    """The networks that are trained: one of single pixels and their surroundings, and one with context."""
    spectral = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        spectral_kernels=(1, 1),
        spectral_channels=128,
        surroundings=True,
        dropout=0.0,
    )
    if settings.encoder == "none":
        return [spectral]
    context = NetworkSpec(
        bands_in,
        classes,
        encoder=settings.encoder,  # type: ignore[arg-type]
        depth=settings.depth,
        stem_stride=settings.stem_stride,
        spectral_kernels=(3, 1),
        dropout=settings.dropout,
    )
    return [spectral, context]


def _members(settings: FitSettings, *, bands_in: int, classes: int, preprocess: Preprocess) -> list[Network]:
    members = []
    for number, spec in enumerate(network_specs(settings, bands_in=bands_in, classes=classes)):
        torch.manual_seed(settings.seed * 101 + number)
        loaded = None
        if spec.encoder != "none" and settings.weights != "none":
            loaded = load_weights(settings.weights, architecture=spec.encoder, bands=settings.weights_bands)
        network = build_network(spec, weights=loaded, preprocess=preprocess if loaded is not None else None)
        if settings.frozen and spec.encoder != "none":
            freeze_encoder(network)
        members.append(network)
    return members


def _bundle(
    members: list[Network],
    shares: tuple[float, ...],
    scheme: ClassScheme,
    preprocess: Preprocess,
    statistics: BandStatistics,
    *,
    scenes: Sequence[TrainingScene],
    provenance: dict[str, Any],
) -> ModelBundle:
    grid = scenes[0].source.grid
    return ModelBundle(
        members=tuple(member.cpu().eval() for member in members),
        scheme=scheme,
        preprocess=preprocess,
        value_range=tuple(zip(statistics.min.tolist(), statistics.max.tolist(), strict=True)),
        units=_units(scenes[0]),
        shares=shares,
        gsd_m=float(np.sqrt(np.prod(grid.pixel_size_m))),
        sources=tuple(TrainedOn(s.source.sensor, s.source.level, s.source.baseline, s.source.id) for s in scenes),
        footprint=_footprint(scenes),
        provenance=provenance,
    )


def _units(scene: TrainingScene) -> tuple[str, ...]:
    bands = getattr(scene.source, "bands", None)
    if bands is None or len(bands) != len(scene.source.band_names):
        return ("",) * len(scene.source.band_names)
    return tuple(str(getattr(band, "unit", "")) for band in bands)


def _footprint(scenes: Sequence[TrainingScene]) -> dict[str, Any]:
    """GeoJSON geometry of the scenes' extents in WGS84."""
    from rasterio.warp import transform_geom
    from shapely.geometry import box, mapping

    shapes = [
        transform_geom(scene.source.grid.crs, "EPSG:4326", mapping(box(*scene.source.grid.bounds))) for scene in scenes
    ]
    if len(shapes) == 1:
        return dict(shapes[0])
    return {"type": "MultiPolygon", "coordinates": [shape["coordinates"] for shape in shapes]}


def _jsonable(items: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in items.items()}
