"""Memory as a setting: what mapping takes with tiles of a size, and the largest tiles that fit.

A network's peak is found by running it on two small tiles and adding up what is alive; what engines hold beside it is
measured; the rest is counted from the sizes of buffers.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pipeline.errors import ConfigError
from pipeline.inference.engine import WORKERS, Choice, free_gpu_bytes
from pipeline.inference.fast import speed_up, tile_layout
from pipeline.inference.pixels import PLANES, READ_PX, TileLayout
from pipeline.inference.tiles import GDAL_CACHE_BYTES, round_up
from pipeline.model.encoder import Encoder

if TYPE_CHECKING:
    from torch import nn

    from pipeline.model.bundle import ModelBundle

# The process without its tiles. Measured (VmRSS of fresh processes, Linux, torch 2.14.1 built for CUDA 13): 534 MB with
# torch imported, 605 MB with what ``landcover predict`` needs, 690 to 750 MB with a model loaded and a scene looked at;
# a CPU build of torch maps smaller libraries and stays below it.
BASE_BYTES = 750_000_000
# Share of a GPU's free memory that a pass may take: its convolutions want room to work in too.
GPU_SHARE = 0.5
# Largest tile that is tried: beyond it the halo costs less than one per cent and nothing is gained.
LARGEST_TILE_PX = 4096
# Sides of two probes: what grows with the pixels is told from what does not (a strip's channels).
_PROBES_PX = (256, 512)
# Side of the piece of the scene that the halo and the agreement of types are measured on.
SAMPLE_PX = 512


@dataclass(frozen=True)
class Held:
    """What an engine holds beside what is alive in torch, by measurement."""

    times: float = 1.0  # Multiple of the bytes that a pass has alive in torch
    fixed: int = 0  # Bytes, whatever the network
    weights: float = 2.0  # Copies of the weights in float32
    making: int = 0  # Bytes that are needed while it is made, and given back before the first tile


# What oneDNN's convolutions and the C library hold beside the tensors that are alive, for a network with an encoder: a
# multiple of these, and a sum that the hundreds of tiles of a large scene reach. Measured on ``landcover predict`` of
# 10980 x 10980 pixels with a ResNet-18 U-Net, one heap (pipeline.process): 213 MB beside 92 MB alive in bfloat16, 129
# MB beside 96 MB in float32.
_ENCODER = Held(times=2.0, fixed=125_000_000)
# OpenVINO plans its memory itself. Measured with two callers on tiles of 256 and 896 pixels, a ResNet-18 U-Net (57 MB
# of weights, 286 bytes per pixel alive in float32, 143 in bfloat16) and the default network (1024 and 512): 262 and
# 1365 bytes per pixel in float32, 189 and 753 in bfloat16, 155 and 470 in int8; of fixed size 130 to 140 MB for the
# default network, up to 316 MB for the other. Quantising, on samples of 256 pixels, took 470 MB, of which a third is
# in ``fixed``. Whole runs of 4096 x 4096 pixels that were planned so peaked at 92 to 106 % of what was expected.
_OPENVINO = {
    "float32": Held(times=1.35, fixed=150_000_000, weights=3.5),
    "bfloat16": Held(times=1.5, fixed=150_000_000, weights=3.5),
    "int8": Held(times=0.55, fixed=150_000_000, weights=3.5, making=300_000_000),
}


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the parameters in float32."""
    return 4 * sum(item.numel() for item in network.parameters())


@dataclass(frozen=True)
class Needs:
    """What mapping with one network and engine needs."""

    network: nn.Module  # The network that the engine runs
    choice: Choice  # The engine
    bands_read: int  # Bands read per window
    channels: int  # Channels of the network's input
    stride_px: int  # Total stride of the network
    batch: int = 1  # Tiles that go through the network together

    @classmethod
    def of(cls, bundle: ModelBundle, choice: Choice, *, stride_px: int, batch: int = 1) -> Needs:
        """Of a model."""
        fused = bundle.network(fused=True)
        network = speed_up(fused) if choice.in_blocks else fused
        return cls(network, choice, len(bundle.bands), bundle.preprocess.channels, stride_px, batch)

    @cached_property
    def layout(self) -> TileLayout:
        """Of the tiles that the engine takes."""
        return tile_layout(self.network, self.choice.torch_dtype) if self.choice.in_blocks else PLANES

    @cached_property
    def held(self) -> Held:
        """What the engine holds."""
        if self.choice.engine == "openvino":
            return _OPENVINO[self.choice.dtype]
        return _ENCODER if any(isinstance(module, Encoder) for module in self.network.modules()) else Held()

    def peak_bytes(self, tile_px: int, *, halo_px: int, cache_bytes: int = GDAL_CACHE_BYTES) -> int:
        """Peak bytes of the process with write windows of ``tile_px`` squared."""
        side = round_up(tile_px, self.stride_px) + 2 * halo_px
        pixels = self.batch * side * side
        # Read in strips: digital numbers, their values and the network's input; the whole input and the mask.
        strip = READ_PX * (self.bands_read * 4 * 2 + self.channels * 4)
        # Tiles that go together are copied into one tensor.
        inputs = pixels * (self.channels * self.layout.dtype.itemsize * (1 + (self.batch > 1)) + 1)
        windows = self.choice.workers * (strip + inputs)
        # Measuring is over before the first tile, whose windows and blocks are not there yet: the larger counts.
        measuring = self.pass_bytes(SAMPLE_PX**2) + self.channels * 4 * SAMPLE_PX**2
        measuring = max(measuring, self.held.making) - windows - cache_bytes
        passes = (WORKERS if self.choice.side_by_side else 1) * self.pass_bytes(pixels)
        on_gpu = self.choice.device != "cpu"
        weights = int(self.held.weights * weight_bytes(self.network))
        return (
            BASE_BYTES + self.held.fixed + weights + windows + cache_bytes + (0 if on_gpu else max(passes, measuring))
        )

    def pass_bytes(self, pixels: int) -> int:
        """Bytes that the network takes for a pass over so many pixels."""
        fixed, per_px = self._activations
        return int(fixed + self.held.times * per_px * pixels)

    @cached_property
    def _activations(self) -> tuple[float, float]:
        """Bytes of activations that any tile needs, and bytes per pixel."""
        sides = [round_up(side, self.stride_px) for side in _PROBES_PX]
        dtype = self.choice.torch_dtype
        small, large = (
            activation_bytes(self.network, bands=self.channels, side_px=side, dtype=dtype) for side in sides
        )
        slope = (large - small) / (sides[1] ** 2 - sides[0] ** 2)
        return max(small - slope * sides[0] ** 2, 0.0), slope

    def largest_tile_px(self, *, halo_px: int, memory_bytes: int, longest_px: int) -> int:
        """The largest tile, in whole strides, that fits the memory, and whose pass fits the GPU.

        ``longest_px`` is the longer side of the scene.

        Raises:
            ConfigError: not even the smallest sensible tile fits.
        """
        if self.choice.side_by_side and longest_px > SAMPLE_PX:
            longest_px = -(-longest_px // WORKERS)  # a tile for each worker
        step = max(self.stride_px, 32)
        smallest = round_up(min(128, longest_px), step)
        largest = max(smallest, round_up(min(longest_px, LARGEST_TILE_PX), step))
        sizes = range(smallest, largest + 1, step)
        fitting = [size for size in sizes if self.peak_bytes(size, halo_px=halo_px) <= memory_bytes]
        gpu_bytes = free_gpu_bytes(self.choice.device)
        if gpu_bytes is not None:
            share = GPU_SHARE * gpu_bytes / self.batch
            fitting = [size for size in fitting if self.pass_bytes((size + 2 * halo_px) ** 2) <= share] or fitting[:1]
        if not fitting:
            need = f"at least {self.peak_bytes(smallest, halo_px=halo_px) / 1e6:.0f} MB"
            what = f"memory of {memory_bytes / 1e6:.0f} MB is too little for the smallest tile ({smallest} pixels)"
            raise ConfigError(what, expected=need, fix="raise map.memory (--memory of predict)")
        return fitting[-1]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up the storages that are alive, and remembers the peak.

    Tensors without data would do, but torch's meta device takes 100 MB and a second to import.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def ignore(self, tensor: torch.Tensor) -> None:
        """Do not count a tensor's storage."""
        self._seen.add(tensor.untyped_storage()._cdata)  # noqa: SLF001 - as in _count

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's compiler, which it would import here to be kept away, is not used."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in tree_flatten(out)[0]:
            if isinstance(item, torch.Tensor):
                self._count(item.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # noqa: SLF001 - the storage's identity; data_ptr is 0 for an empty one
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += storage.nbytes()
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def activation_bytes(network: nn.Module, *, bands: int, side_px: int, dtype: torch.dtype) -> int:
    """Peak bytes of activations of one forward pass on [1, bands, side_px, side_px], weights not counted.

    The input, as the network takes it, does not count: it is a window's.
    """
    short = copy.deepcopy(network).to(dtype).eval()
    with torch.inference_mode():
        x = tile_layout(short, dtype).empty(bands, side_px, side_px).zero_()[None]
        live = _LiveBytes()
        live.ignore(x)
        with live:
            short(x)
    return live.peak
