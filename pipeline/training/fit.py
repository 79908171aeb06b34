"""Fit: scenes, polygons and a split -> a trained model with all that must travel with it.

Forests learn from the labelled pixels first; networks learn from the labels and from what the forests think of the
unlabelled scene (``pipeline.training.teacher``). Two networks are averaged: one sees single spectra, one their context.
"""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from pipeline.chips.splits import Part
from pipeline.chips.statistics import band_statistics
from pipeline.errors import ModelError
from pipeline.legend import IGNORE_INDEX
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.transfer import freeze_encoder
from pipeline.model.weights import load_weights
from pipeline.scenes.reader import open_reader
from pipeline.training import teacher as teaching
from pipeline.training.dataset import ChipSet, TrainingScene, read_chips
from pipeline.training.loss import pixel_weights
from pipeline.training.module import Batches, Learner, Lessons, PixelBatches, PixelLearner, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.chips.splits import Split
    from pipeline.chips.statistics import BandStatistics
    from pipeline.legend import ClassScheme
    from pipeline.model.network import Network

_LOG = logging.getLogger(__name__)
# Polygons with which the network with context has half of its largest share.
ENOUGH_FOR_CONTEXT = 200


@dataclass(frozen=True)
class FitSettings:
    """How a model is trained; the defaults are what every published figure of the project was made with.

    Attributes:
        encoder: Encoder of the network with context ("resnet18" ..., "vgg11_bn" ..., or "none": spectra alone).
        weights: Pretrained weights of the encoder: "none", a record's name, "imagenet", or a file.
        weights_bands: Band names of a file's first convolution.
        frozen: Keep a pretrained encoder as it is and train the rest.
        chip_px: Side of a chip.
        steps: Batches.
        batch: Chips in a batch.
        lr: Peak learning rate.
        layer_decay: Encoder stages learn this much slower, stage by stage towards the input.
        weight_decay: AdamW's.
        dropout: Of feature channels before the head.
        smoothing: Label smoothing.
        soft_weight: Weight of the teacher's opinion on unlabelled pixels; 0 trains on labels alone.
        teacher_trees: Trees of each of the teacher's forests.
        soft_pixels: About how many pixels the teacher is asked about.
        pixel_steps: Batches of the network of single pixels and their surroundings.
        pixel_batch: Pixels in a batch.
        pixel_lr: Its peak learning rate.
        per_polygon: Most pixels of one polygon that the teacher learns from.
        labelled_chips: Most chips around labels that are held in memory.
        unlabelled_chips: Chips elsewhere in the scenes.
        size_power: 0 weighs pixels alike, 1 polygons alike.
        class_power: 0 weighs pixels alike, 1 classes alike.
        gain: Jitter of brightness per chip.
        shift: Jitter per chip and band, in deviations.
        noise: Jitter per pixel and band, in deviations.
        patience: Validations without a better loss after which training stops; 0 trains to the end.
        refit: Also learn from the validation polygons at the end, once they have told when to stop and how sure to be.
        stem_stride: Stride of the encoder's stem.
        depth: Stages of the encoder.
        time_limit_s: Training stops after this many seconds and keeps what it has.
        seed: Of everything that is drawn.
    """

    encoder: str = "resnet18"
    weights: str = "none"
    weights_bands: tuple[str, ...] = ()
    frozen: bool = False
    chip_px: int = 64
    steps: int = 300
    batch: int = 8
    lr: float = 3e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.02
    dropout: float = 0.1
    smoothing: float = 0.05
    soft_weight: float = 2.0
    teacher_trees: int = 100
    soft_pixels: int = 80_000
    pixel_steps: int = 1500
    pixel_batch: int = 1024
    pixel_lr: float = 5e-3
    per_polygon: int = 100
    labelled_chips: int = 400
    unlabelled_chips: int = 100
    size_power: float = 0.5
    class_power: float = 0.5
    gain: float = 0.05
    shift: float = 0.05
    noise: float = 0.02
    patience: int = 0
    refit: bool = True
    stem_stride: int = 4
    depth: int = 4
    time_limit_s: float = 540.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot train."""
        for name in ("chip_px", "steps", "batch", "teacher_trees", "per_polygon", "labelled_chips", "lr"):
            if not getattr(self, name) > 0:
                raise ModelError(f"training setting {name}", got=getattr(self, name), expected="more than 0")


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
    learned = (Part.TRAIN, Part.VALIDATION) if settings.refit else (Part.TRAIN,)
    ids = np.flatnonzero(np.isin(split.part, [int(part) for part in learned])).astype(np.int32)
    material = _learn_from(chips, ids=ids, split=split, classes=len(scheme), settings=settings)
    clock.lap("teacher")
    members = _members(settings, bands_in=preprocess.channels, classes=len(scheme), preprocess=preprocess)
    _train_pixels(members[0], material, settings=settings)
    clock.lap("pixels")
    history: list[dict[str, float]] = []
    if len(members) > 1:
        lessons = _lessons(chips, material, classes=len(scheme), settings=settings)
        history = _train(members[1:], lessons, settings=settings, folder=folder, resume=resume, progress=progress)
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


def _train_pixels(network: Network, material: _Material, *, settings: FitSettings) -> None:
    """The network of single pixels and their surroundings learns what the teacher says, in seconds."""
    table = material.table
    own = material.teacher.predict(table.features)
    weight = pixel_weights(
        table.index, table.polygon, classes=own.shape[1], size_power=settings.size_power, class_power=0.5
    )
    features = torch.cat([torch.from_numpy(table.features), material.opinions.features])
    target = torch.cat([torch.from_numpy(own), material.opinions.target])
    anywhere = len(material.opinions.features)
    chance = torch.cat([torch.from_numpy(weight / weight.sum()), torch.full((anywhere,), 1.0 / max(anywhere, 1))])
    batches = PixelBatches(
        features, target, chance, steps=settings.pixel_steps, batch=settings.pixel_batch, seed=settings.seed
    )
    learner = PixelLearner(network, steps=settings.pixel_steps, lr=settings.pixel_lr, weight_decay=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=settings.pixel_steps,
            max_epochs=1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner, DataLoader(batches, batch_size=None))
    network.eval()


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


def _members(settings: FitSettings, *, bands_in: int, classes: int, preprocess: Preprocess) -> list[Network]:
    spectral = NetworkSpec(
        bands_in,
        classes,
        encoder="none",
        spectral_kernels=(1, 1),
        spectral_channels=128,
        surroundings=True,
        dropout=0.0,
    )
    specs = [spectral]
    if settings.encoder != "none":
        specs.append(
            NetworkSpec(
                bands_in,
                classes,
                encoder=settings.encoder,  # type: ignore[arg-type]
                depth=settings.depth,
                stem_stride=settings.stem_stride,
                spectral_kernels=(3, 1),
                dropout=settings.dropout,
            )
        )
    members = []
    for number, spec in enumerate(specs):
        torch.manual_seed(settings.seed * 101 + number)
        loaded = None
        if spec.encoder != "none" and settings.weights != "none":
            loaded = load_weights(settings.weights, architecture=spec.encoder, bands=settings.weights_bands)
        network = build_network(spec, weights=loaded, preprocess=preprocess if loaded is not None else None)
        if settings.frozen and spec.encoder != "none":
            freeze_encoder(network)
        members.append(network)
    return members


def _train(
    members: list[Network],
    lessons: Lessons,
    *,
    settings: FitSettings,
    folder: Path,
    resume: bool,
    progress: Callable[[str, int, int], None] | None,
) -> list[dict[str, float]]:
    """Run the loop; the members are trained in place."""
    recipe = Recipe(
        steps=settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
        smoothing=settings.smoothing,
        soft_weight=settings.soft_weight,
        gain=settings.gain,
        shift=settings.shift,
        noise=settings.noise,
        seed=settings.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    learner = Learner(members, recipe)
    batches = Batches(lessons, recipe)
    watch = _Watch(settings=settings, progress=progress)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_steps=settings.steps,
            max_epochs=-1,
            accelerator="auto",
            devices=1,
            logger=CSVLogger(str(folder), name="", version="log", flush_logs_every_n_steps=50),
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            callbacks=[watch, ModelCheckpoint(dirpath=str(folder), save_last=True, save_top_k=0)],
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
        )
        last = folder / "last.ckpt"
        trainer.fit(
            learner,
            DataLoader(batches, batch_size=None),
            ckpt_path=str(last) if resume and last.is_file() else None,
            weights_only=False if resume and last.is_file() else None,
        )
    for member in members:
        member.eval()
    return watch.rows


class _Watch(lightning.Callback):
    """Progress, the loss curve, and the time limit."""

    def __init__(self, *, settings: FitSettings, progress: Callable[[str, int, int], None] | None) -> None:
        self._settings = settings
        self._progress = progress
        self._start = time.perf_counter()
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and stop when time is up."""
        step = trainer.global_step
        seconds = time.perf_counter() - self._start
        if step % 10 == 0 or step == self._settings.steps:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            self.rows.append({"step": step, "loss": float(loss.detach()), "seconds": round(seconds, 2)})
        if self._progress is not None:
            self._progress("network", step, self._settings.steps)
        if seconds > self._settings.time_limit_s:
            _LOG.warning("training stopped after %.0f s at step %d of %d", seconds, step, self._settings.steps)
            trainer.should_stop = True


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
