"""Memory as a setting: how much a tile costs, how large a tile may be, how long a scene will take.

A network's peak is found by running it on small chips and adding up what is alive (``pipeline.inference.live``), what
engines hold beside it is measured, and the rest of a run is counted from the sizes of its buffers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipeline.errors import ConfigError
from pipeline.inference.chips import PLANES, READ_PX, Layout
from pipeline.inference.live import activation_bytes
from pipeline.inference.tiles import round_up

if TYPE_CHECKING:
    from torch import nn

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)

DEFAULT_MEMORY = 1_500_000_000
# Blocks that GDAL keeps decoded; more where tiles leave room for it and decoding is saved (pipeline.inference.order).
GDAL_CACHE_BYTES = 128_000_000
# The process without its tiles. Measured (VmRSS of fresh processes, Linux, torch 2.14.1 built for CUDA 13): 534 MB with
# torch imported, 605 MB with what ``landcover predict`` needs, 690 to 750 MB with a model loaded and a scene looked at;
# a CPU build of torch maps smaller libraries and stays below it.
BASE_BYTES = 750_000_000
# Threads that map tiles side by side, each with its part of torch's threads: while one reads or decides, the other
# computes. Measured on two cores, two threads of one thread each instead of a reader beside a network with both:
# 4096 x 4096 pixels in 18 s instead of 28 s (default network), in 23 s instead of 32 s (ResNet-18 U-Net), without the
# calibration and the journal that bench_mapping counts too.
WORKERS = 2
# Threads that read for a GPU, each with files of its own, where there are so many cores: one core decodes and scales
# some 8 Mpx of ten bands a second, and a GPU should not wait for one. A guess: no GPU was at hand to measure with.
GPU_READERS = 8
# Share of a GPU's free memory that a pass may take: its convolutions want room to work in too.
GPU_SHARE = 0.5
# Largest tile that is tried: beyond it the halo costs less than one per cent and nothing is gained.
LARGEST_TILE_PX = 4096


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run needs at its peak, by cause."""

    base: int
    weights: int
    activations: int
    windows: int
    blending: int
    gdal_cache: int

    @property
    def total(self) -> int:
        """Sum in bytes."""
        return self.base + self.weights + self.activations + self.windows + self.blending + self.gdal_cache


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as "2GB", "1.5 GiB", "800M" or a plain number.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB"), parse_bytes(1000)
    (2000000000, 1610612736, 1000)

    Raises:
        ConfigError: no such size.
    """
    match = _SIZE.fullmatch(str(text))
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else 0
    if size <= 0:
        raise ConfigError("amount of memory", got=repr(text), expected="a size such as 2GB, 1.5GiB or 800MB")
    return size


def weight_bytes(network: nn.Module, *, dtype: torch.dtype) -> int:
    """Bytes of the parameters in ``dtype``."""
    size = torch.empty(0, dtype=dtype).element_size()
    return size * sum(item.numel() for item in network.parameters())


@dataclass(frozen=True)
class Held:
    """What an engine holds, by measurement.

    Attributes:
        times: Multiple of the bytes that a pass has alive in torch.
        fixed: Bytes, whatever the network.
        weights: Copies of the weights in float32.
        making: Bytes that are needed while it is made, and given back before the first tile.
    """

    times: float = 1.0
    fixed: int = 0
    weights: float = 2.0
    making: int = 0


@dataclass(frozen=True)
class Demand:
    """What a run will do, as far as memory is concerned.

    Attributes:
        network: The largest network that is run.
        bands: Channels of its input.
        bands_read: Bands read per window.
        classes: Number of classes.
        dtype: Type of the activations.
        halo_px: Halo on each side, in whole strides.
        stride_px: Total stride of the network.
        width_px: Width of the scene; row bands of blended probabilities are that wide.
        batch: Chips that go through the network together.
        flipped: Whether probabilities are averaged over flips.
        blended: Whether probabilities are blended over row bands.
        sample_px: Side of the piece of the scene that engine and halo are calibrated on; 0 where nothing is.
        side_by_side: Whether the network runs in several threads at once.
        workers: Threads that read tiles and decide.
        held: What the engine holds.
        layout: Of the chips that the engine takes.
    """

    network: nn.Module
    bands: int
    bands_read: int
    classes: int
    dtype: torch.dtype
    halo_px: int
    stride_px: int
    width_px: int
    batch: int = 1
    flipped: bool = False
    blended: bool = False
    sample_px: int = 0
    side_by_side: bool = False
    workers: int = WORKERS
    held: Held = Held()
    layout: Layout = PLANES


def footprint(demand: Demand, *, tile_px: int, on_gpu: bool = False, cache_bytes: int = GDAL_CACHE_BYTES) -> Footprint:
    """Peak bytes of a run with write windows of ``tile_px`` squared."""
    side = round_up(tile_px, demand.stride_px) + 2 * demand.halo_px
    pixels = demand.batch * side * side
    # Read in strips: digital numbers, their values and the network's input; the whole input and the mask.
    strip = READ_PX * (demand.bands_read * 4 * 2 + demand.bands * 4)
    chip_bytes = demand.bands * demand.layout.dtype.itemsize
    # Chips that go together are copied into one tensor.
    chips = pixels * (chip_bytes * (1 + (demand.batch > 1)) + 1)
    # Probabilities that wait to be blended; logits are the network's own, and decided on a few rows at a time.
    scores = pixels * demand.classes * 4 * 2 if demand.blended else 0
    # A flipped chip, its probabilities, the flip of these, and the mean.
    scores += pixels * (chip_bytes + demand.classes * 4 * 3) if demand.flipped else 0
    windows = demand.workers * (strip + chips)
    passes = WORKERS if demand.side_by_side else 1
    activations = passes * _one_pass(demand, pixels) + demand.workers * scores
    # Calibration is over before the first tile, whose windows and blocks are not there yet: the larger of both counts.
    calibration = _one_pass(demand, demand.sample_px**2)
    calibration += (demand.bands * 4 + demand.classes * 4 * 2) * demand.sample_px**2
    calibration = max(calibration, demand.held.making) - windows - cache_bytes
    band_rows = side if demand.blended else 0
    return Footprint(
        base=BASE_BYTES + demand.held.fixed,
        weights=int(demand.held.weights * weight_bytes(demand.network, dtype=torch.float32)),
        activations=0 if on_gpu else max(activations, calibration),
        windows=windows,
        blending=band_rows * demand.width_px * (demand.classes + 1) * 4,
        gdal_cache=cache_bytes,
    )


def _one_pass(demand: Demand, pixels: int) -> int:
    """Bytes that the network takes for a pass over so many pixels."""
    fixed, per_px = _activations(demand)
    return int(fixed + demand.held.times * per_px * pixels)


def choose_tile(demand: Demand, *, memory_bytes: int, longest_px: int, gpu_bytes: int | None = None) -> int:
    """The largest tile, in whole strides, whose footprint fits ``memory_bytes``, and whose pass fits the GPU.

    Args:
        demand: What the run will do.
        memory_bytes: Memory that the process may take.
        longest_px: The longer side of the scene, or of a worker's share of it.
        gpu_bytes: Free memory of the GPU that the network runs on; None on a CPU.

    Raises:
        ConfigError: not even the smallest sensible tile fits.
    """
    step = max(demand.stride_px, 32)
    smallest = round_up(min(128, longest_px), step)
    largest = max(smallest, round_up(min(longest_px, LARGEST_TILE_PX), step))
    on_gpu = gpu_bytes is not None
    fitting = [
        size
        for size in range(smallest, largest + 1, step)
        if footprint(demand, tile_px=size, on_gpu=on_gpu).total <= memory_bytes
    ]
    if gpu_bytes is not None:
        sides = {size: size + 2 * demand.halo_px for size in fitting}
        share = GPU_SHARE * gpu_bytes / demand.batch
        small_enough = [size for size in fitting if _one_pass(demand, sides[size] ** 2) <= share]
        fitting = small_enough or fitting[:1]
    if not fitting:
        need = footprint(demand, tile_px=smallest, on_gpu=on_gpu).total
        raise ConfigError(
            f"memory of {memory_bytes / 1e6:.0f} MB is too little for the smallest tile ({smallest} pixels)",
            expected=f"at least {need / 1e6:.0f} MB",
            fix="raise --memory",
        )
    return fitting[-1]


# Sides of two probes: what grows with the pixels is told from what does not (a strip's channels).
_PROBES_PX = (256, 512)
# Attribute of a network that keeps its probes: they live and die with it, and no other network can be taken for it.
_KEPT = "_landcover_activations"


def _activations(demand: Demand) -> tuple[float, float]:
    """Bytes of activations that any tile needs, and bytes per pixel, of one chip or of several."""
    known: dict[str, tuple[float, float]] = demand.network.__dict__.setdefault(_KEPT, {})
    key = f"{demand.bands} {demand.dtype}"
    if key not in known:
        sides = [round_up(side, demand.stride_px) for side in _PROBES_PX]
        small, large = (
            activation_bytes(demand.network, bands=demand.bands, side_px=side, dtype=demand.dtype) for side in sides
        )
        slope = (large - small) / (sides[1] ** 2 - sides[0] ** 2)
        known[key] = (max(small - slope * sides[0] ** 2, 0.0), slope)
    return known[key]
