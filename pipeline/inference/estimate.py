"""What mapping a scene will cost, before it is begun: memory, time, disk."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.grid import Window
from pipeline.inference.chips import READ_PX, read_chip
from pipeline.inference.demand import demand, exact_halo_px, total_stride_px
from pipeline.inference.engine import workers_of
from pipeline.inference.engines import engine_of
from pipeline.inference.memory import footprint
from pipeline.inference.order import order_of
from pipeline.inference.plan import PredictSettings, make_plan
from pipeline.inference.samples import sample_of
from pipeline.inference.trials import candidates, time_passes
from pipeline.scenes.blocks import blocks_of, whole_blocks

if TYPE_CHECKING:
    from pipeline.inference.plan import Plan
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

# What deciding, writing and waiting add to reading and the network. Measured on two cores, 10980 x 10980 pixels of ten
# bands (uint16, deflate), bfloat16: 34 s and 32 s for a ResNet-18 U-Net and the default network, 31 s and 29 s of them
# for reading and the network, wall-clock time of both workers halved.
BESIDE = 1.1
_FLIPS = 4
# Pixels along a side that are read for the estimate, more where blocks are larger.
_READ_PX = 512
# An untrained network says nothing of how far a trained one will look: the halo that is taken for its estimate, in
# strides; trained default networks were found to need 2 to 6 (pipeline.inference.reach).
_STRIDES = 4


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Attributes:
        memory_bytes: Peak memory of the process.
        seconds: Time of the run.
        disk_bytes: Rows that are kept until the maps are written.
        plan: Tiles and engine that this holds for.
    """

    memory_bytes: int
    seconds: float
    disk_bytes: int
    plan: Plan


def estimate_memory(
    bundle: ModelBundle, source: Source, plan: Plan, *, blended: bool = False, tta: bool = False
) -> int:
    """Peak bytes of mapping ``source`` by ``plan``."""
    wanted = demand(bundle, source, choice=plan.choice, halo=plan.halo_px, batch=plan.batch, tta=tta, blended=blended)
    side = min(plan.tile_px, max(source.grid.shape))
    on_gpu = plan.choice.device != "cpu"
    return footprint(wanted, tile_px=side, on_gpu=on_gpu, cache_bytes=plan.cache_bytes).total


def estimate_time(bundle: ModelBundle, source: Source, plan: Plan, *, tta: bool = False) -> float:
    """Seconds of mapping ``source`` by ``plan``, from whole blocks that are read and a piece of the scene that is run.

    Reading counts by the file itself: JPEG 2000 takes many times what an uncompressed GeoTIFF does.
    """
    stride = total_stride_px(bundle)
    chips = sample_of(bundle, source, stride)
    engine = engine_of(bundle, plan.choice, threads=plan.threads, source=source)
    _, seconds = time_passes(engine, plan.choice, chips, threads=plan.threads, stride_px=stride, repeats=1)
    running = seconds / (chips.shape[2] * chips.shape[3]) * (_FLIPS if tta else 1)
    tiles = plan.tiles(source.grid)
    reading = _reading_s(bundle, source, plan) / workers_of(plan.choice)
    read_px = sum(tile.read.height * tile.read.width for tile in tiles)
    return (running + reading) * read_px * BESIDE


def _reading_s(bundle: ModelBundle, source: Source, plan: Plan) -> float:
    """Seconds of a core per pixel to read the network's input, in the order of the plan."""
    source = source.select(bundle.bands)
    files = blocks_of(source)
    window = whole_blocks(files, source.grid, least_px=min(plan.tile_px, _READ_PX))
    step = max(READ_PX // window.width, 1)
    with source.open() as reader:
        start, busy = time.perf_counter(), time.process_time()
        for row in range(window.row, window.row_stop, step):
            strip = Window(row, window.col, min(step, window.row_stop - row), window.width)
            read_chip(reader, strip, bundle.preprocess)
        # JPEG 2000 is decoded on all cores; a remote file keeps none busy.
        seconds = max(time.perf_counter() - start, time.process_time() - busy)
    sizes = {"tile_px": plan.tile_px, "halo_px": plan.halo_px, "width_px": source.grid.width}
    again = order_of(files, cache_bytes=plan.cache_bytes, **sizes).decode_again
    return seconds * again / (window.height * window.width)


def estimate(bundle: ModelBundle, source: Source, settings: PredictSettings) -> Estimate:
    """What ``predict_scene`` will need with these settings; an untrained bundle of the same networks serves as well.

    Neither engine nor halo are measured for it: "auto" is estimated as torch, the halo as usual.

    Raises:
        ConfigError: the settings cannot be met.
    """
    source = source.select(bundle.bands)
    first = candidates(engine=settings.engine, dtype=settings.dtype, device=settings.device)[0]
    halo = settings.halo_px
    if halo is None and exact_halo_px(bundle) is None:
        halo = _STRIDES * total_stride_px(bundle)
    settings = replace(settings, engine=first.engine, dtype=first.dtype, device=first.device, halo_px=halo)
    plan = make_plan(bundle, source, settings)
    layers = len(settings.products.layers) + (len(bundle.scheme) - 1 if settings.probabilities else 0)
    return Estimate(
        memory_bytes=estimate_memory(bundle, source, plan, blended=settings.blend == "hann", tta=settings.tta),
        seconds=estimate_time(bundle, source, plan, tta=settings.tta),
        disk_bytes=layers * source.grid.height * source.grid.width,
        plan=plan,
    )
