"""What mapping a scene with a model asks of the machine: context around tiles, and memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.inference.chips import PLANES
from pipeline.inference.engine import (
    Choice,
    free_gpu_bytes,
    runs_side_by_side,
    torch_dtype,
    workers_of,
    works_in_strips,
)
from pipeline.inference.fast import layout_of, speed_up
from pipeline.inference.memory import WORKERS, Demand, Held, choose_tile
from pipeline.inference.samples import SAMPLE_PX
from pipeline.model.encoder import Encoder
from pipeline.model.reach import reach_px

if TYPE_CHECKING:
    from torch import nn

    from pipeline.inference.plan import PredictSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.model.spec import NetworkSpec
    from pipeline.scenes.scene import Source

# What oneDNN's convolutions and the C library hold beside the tensors that are alive, for a network with an encoder: a
# multiple of these, and a sum that the hundreds of tiles of a large scene reach. Measured on ``landcover predict`` of
# 10980 x 10980 pixels with a ResNet-18 U-Net, one heap (pipeline.heap): 213 MB beside 92 MB alive in bfloat16, 129 MB
# beside 96 MB in float32.
_ENCODER = Held(times=2.0, fixed=125_000_000)
# The extras plan their memory themselves. Measured with two callers on chips of 256 and 896 pixels, a ResNet-18 U-Net
# (57 MB of weights, 286 bytes per pixel alive in float32, 143 in bfloat16) and the default network (1024 and 512):
# OpenVINO took 262 and 1365 bytes per pixel in float32, 189 and 753 in bfloat16, 155 and 470 in int8, ONNX Runtime 440
# and 2163 in float32, 419 and 1891 in int8; of fixed size 130 to 140 MB for the default network, up to 316 MB for the
# other. Making int8 (quantising, on samples of 256 pixels) took 470 and 430 MB, of which a third is in ``fixed``.
# Whole runs of 4096 x 4096 pixels that were planned so peaked at 92 to 106 % of what was expected.
_OPENVINO = {
    "float32": Held(times=1.35, fixed=150_000_000, weights=3.5),
    "bfloat16": Held(times=1.5, fixed=150_000_000, weights=3.5),
    "int8": Held(times=0.55, fixed=150_000_000, weights=3.5, making=300_000_000),
}
_ONNXRUNTIME = {
    "float32": Held(times=2.1, fixed=60_000_000, weights=3.5),
    "int8": Held(times=1.9, fixed=100_000_000, weights=3.5, making=300_000_000),
}


def total_stride_px(bundle: ModelBundle) -> int:
    """The smallest step at which the poolings of all members agree."""
    from pipeline.model.network import stride_px

    return math.lcm(*(stride_px(spec) for spec in bundle.specs))


def exact_halo_px(bundle: ModelBundle) -> int | None:
    """All the context that the members can see on each side of a pixel; None where it is too large to be read."""
    reaches = [_reach_px(spec) for spec in bundle.specs]
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def _reach_px(spec: NetworkSpec) -> int | None:
    if spec.head == "chip":
        return (spec.chip_px - spec.chip_stride_px) // 2
    return reach_px(spec) if spec.encoder == "none" else None


def network_of(bundle: ModelBundle, choice: Choice) -> nn.Module:
    """What the memory of a choice is counted on."""
    fused = bundle.network(fused=True)
    return speed_up(fused) if works_in_strips(choice) else fused


def demand(
    bundle: ModelBundle,
    source: Source,
    *,
    choice: Choice,
    halo: int,
    network: nn.Module | None = None,
    batch: int = 1,
    tta: bool = False,
    blended: bool = False,
) -> Demand:
    """What mapping a scene asks of the memory; ``network`` is that of :func:`network_of`, where it is there already."""
    dtype = torch_dtype(choice.dtype)
    network = network_of(bundle, choice) if network is None else network
    return Demand(
        network=network,
        layout=layout_of(network, dtype) if works_in_strips(choice) else PLANES,
        bands=bundle.preprocess.channels,
        bands_read=len(bundle.bands),
        classes=len(bundle.scheme),
        dtype=dtype,
        halo_px=halo,
        stride_px=total_stride_px(bundle),
        width_px=source.grid.width,
        batch=batch,
        flipped=tta,
        blended=blended,
        sample_px=min(SAMPLE_PX, max(source.grid.shape)),
        side_by_side=runs_side_by_side(choice),
        workers=workers_of(choice),
        held=_held(choice, network),
    )


def largest_tile(wanted: Demand, source: Source, settings: PredictSettings, choice: Choice) -> int:
    """The largest tile that the memory allows; of a scene that is more than a moment's work, a tile for each worker.

    Raises:
        ConfigError: not even the smallest sensible tile fits.
    """
    longest = max(source.grid.shape)
    return choose_tile(
        wanted,
        memory_bytes=settings.memory_bytes,
        longest_px=-(-longest // WORKERS) if wanted.side_by_side and longest > SAMPLE_PX else longest,
        gpu_bytes=free_gpu_bytes(choice.device),
    )


def _held(choice: Choice, network: nn.Module) -> Held:
    if choice.engine == "openvino":
        return _OPENVINO[choice.dtype]
    if choice.engine == "onnxruntime":
        return _ONNXRUNTIME[choice.dtype]
    has_encoder = any(isinstance(module, Encoder) for module in network.modules())
    return _ENCODER if has_encoder else Held()
