"""Engines: what runs the network. torch, or OpenVINO where it is asked for by name."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from pipeline.errors import ConfigError
from pipeline.inference.fast import BlockEnsemble, by_pixel, speed_up, tile_layout
from pipeline.inference.pixels import PLANES, TileLayout

if TYPE_CHECKING:
    from torch import nn

    from pipeline.inference.settings import EngineName, MapSettings

# Threads that map tiles side by side, each with its part of torch's threads: while one reads or decides, the other
# computes. Measured on two cores, two threads of one thread each instead of a reader beside a network with both:
# 4096 x 4096 pixels in 18 s instead of 28 s (default network), in 23 s instead of 32 s (ResNet-18 U-Net).
WORKERS = 2
# Threads that read for a GPU, each with files of its own, where there are so many cores: one core decodes and scales
# some 8 Mpx of ten bands a second, and a GPU should not wait for one. A guess: no GPU was at hand to measure with.
GPU_READERS = 8
# Sizes of tiles that OpenVINO keeps a compiled model for: tiles have one, halos are measured with others.
_SIZES_KEPT = 2


@dataclass(frozen=True)
class Choice:
    """An engine by name, type of its arithmetic, and device."""

    engine: EngineName = "torch"
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        """For people: "torch bfloat16 on cpu"."""
        return f"{self.engine} {self.dtype} on {self.device}"

    @property
    def side_by_side(self) -> bool:
        """Whether several threads call the engine at once, each with its share of the threads."""
        return self.device == "cpu"

    @property
    def one_size(self) -> bool:
        """Whether the engine compiles the network for each size of tile that it meets."""
        return self.engine == "openvino"

    @property
    def in_blocks(self) -> bool:
        """Whether the engine runs :func:`pipeline.inference.fast.speed_up`'s network."""
        return self.engine == "torch" and self.device == "cpu"

    @property
    def workers(self) -> int:
        """Threads that read tiles, call the engine (in turns where it does not run side by side) and decide."""
        if self.device == "cpu":
            return WORKERS
        return max(WORKERS, min(GPU_READERS, os.cpu_count() or 1))

    @property
    def readers(self) -> int:
        """Readers that they share: on a CPU one, whose decoded blocks serve the next tile too; a GPU needs several."""
        return 1 if self.device == "cpu" else self.workers

    @property
    def torch_dtype(self) -> torch.dtype:
        """Torch's type for the activations; those of "int8" are counted as float32, which some stay."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


@dataclass
class TorchEngine:
    """Eager torch; channels-last unless in blocks, inference mode."""

    network: nn.Module
    choice: Choice

    def __post_init__(self) -> None:
        """Move the network to its device and type."""
        self._dtype = self.choice.torch_dtype
        network = speed_up(self.network) if self.choice.in_blocks else self.network
        self._on_gpu = self.choice.device != "cpu"
        # On a GPU autocast chooses the type, layer by layer.
        moved = network.to(device=self.choice.device, dtype=None if self._on_gpu else self._dtype).eval()
        self._run = moved.to(memory_format=torch.channels_last)
        self._in_blocks = isinstance(moved, BlockEnsemble)
        self.layout = PLANES if self._on_gpu else tile_layout(moved, self._dtype)

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [tile, class, row, col] of standardised pixels [tile, band, row, col] on the CPU.

        They have the engine's layout, or are float32.
        """
        if self._in_blocks:
            in_blocks: torch.Tensor = self._run(x)
            return in_blocks
        if self._on_gpu:
            # Sums over neighbours stay in float32: the deviation is a small difference of large numbers.
            moved = x.to(self.choice.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", self._dtype, enabled=self._dtype != torch.float32):
                on_gpu: torch.Tensor = self._run(moved)
            return on_gpu
        logits: torch.Tensor = self._run(by_pixel(x, self._dtype))
        return logits


@dataclass
class OpenVinoEngine:
    """OpenVINO on the CPU; compiled for a size of tile, as fixed sizes run faster; calls may run side by side.

    Each call uses ``threads`` threads. The last sizes are kept: a compiled model holds weights and activations.
    """

    network: nn.Module
    choice: Choice
    channels: int
    threads: int
    samples: Sequence[torch.Tensor] = ()
    layout: TileLayout = PLANES
    _by_shape: dict[tuple[int, ...], queue.SimpleQueue[Any]] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Convert the network."""
        import openvino

        self._core = openvino.Core()
        network = self.network.float()
        if self.choice.dtype == "int8":
            self._model = self._core.read_model(io.BytesIO(_in_int8(network, self.samples, channels=self.channels)))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(1, self.channels, 64, 64)
            self._model = openvino.convert_model(network, example_input=example)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """As of :class:`TorchEngine`."""
        if len(x) > 1:  # nodata leaves tiles out of batches: their sizes would each be compiled
            return torch.cat([self(tile[None]) for tile in x])
        requests = self._requests(tuple(x.shape))
        request = requests.get()
        try:
            # Requests are used again and inputs not copied: measured, a fifth of the time of a ResNet-18 U-Net.
            found = request.infer([x.contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(found[0])
        finally:
            requests.put(request)

    def _requests(self, shape: tuple[int, ...]) -> queue.SimpleQueue[Any]:
        """What runs the network on tiles of a shape, one for each caller at a time."""
        with self._one:
            requests = self._by_shape.pop(shape, None)
            if requests is None:
                compiled, requests = self._compile(shape), queue.SimpleQueue()
                for _ in range(WORKERS):
                    requests.put(compiled.create_infer_request())
            self._by_shape[shape] = requests
            for old in list(self._by_shape)[:-_SIZES_KEPT]:
                del self._by_shape[old]
        return requests

    def _compile(self, shape: tuple[int, ...]) -> Any:
        precision = "bf16" if self.choice.dtype == "bfloat16" else "f32"
        model = self._model.clone()
        model.reshape(list(shape))
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": self.threads * WORKERS}
        return self._core.compile_model(model, "CPU", hints | {"NUM_STREAMS": WORKERS})


Engine: TypeAlias = TorchEngine | OpenVinoEngine


def choose_engine(settings: MapSettings) -> Choice:
    """The engine, type and device of the settings; "auto" is bfloat16 where the device computes in it.

    Raises:
        ConfigError: a package or a GPU that is not there.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if settings.engine == "torch" and torch.cuda.is_available() else "cpu"
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if fast_bfloat16(device) else "float32"
    choice = Choice(settings.engine, dtype, device)
    check_choice(choice)
    return choice


def check_choice(choice: Choice) -> None:
    """Refuse what is not installed.

    Raises:
        ConfigError: a package or a GPU that is not there.
    """
    if choice.engine == "openvino" and find_spec("openvino") is None:
        fix = "pip install 'landcover-pipeline[openvino]' or use engine torch"
        raise ConfigError("engine openvino is not installed", fix=fix)
    if choice.dtype == "int8" and (find_spec("onnxruntime") is None or find_spec("onnx") is None):
        raise ConfigError("dtype int8 needs onnxruntime to quantise", fix="pip install 'landcover-pipeline[onnx]'")
    if choice.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device cuda", got="no GPU that torch can use", fix="use device cpu")


def make_engine(
    network: nn.Module, choice: Choice, *, channels: int, threads: int, samples: Sequence[torch.Tensor] = ()
) -> Engine:
    """An engine of ``choice`` for a fused network in evaluation mode; torch takes the module over.

    ``channels`` are those of its input; of ``threads`` in all a call of OpenVINO takes its share, torch those of its
    caller. "int8" takes its ranges from ``samples``, inputs float32 [1, band, row, col] of the scene to be mapped.

    Raises:
        ConfigError: a package or a GPU that is not there.
    """
    check_choice(choice)
    if choice.engine == "torch":
        return TorchEngine(network, choice)
    return OpenVinoEngine(network, choice, channels, max(threads // WORKERS, 1), samples)


def free_gpu_bytes(device: str) -> int | None:
    """Free memory of a GPU; None for the CPU."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else None


def fast_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 (a CPU without the instructions emulates it, many times slower)."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - the public way only tells of AMX


def _in_int8(network: nn.Module, samples: Sequence[torch.Tensor], *, channels: int) -> bytes:
    """The network as ONNX whose convolutions are marked to be done in 8-bit integers.

    Weights get a scale per channel; what flows between layers gets the range that it has on ``samples``, inputs float32
    [1, band, row, col] of the scene. Nothing depends on time: a resumed run gets the same network.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as name:
        plain, prepared, made = (str(Path(name) / f"{part}.onnx") for part in ("plain", "prepared", "made"))
        _export(network, plain, channels=channels)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Weights of 7 bits: without VNNI, sums of pairs of products are held in 16 bits and would be cut off.
            # Source: ONNX Runtime, "Quantize ONNX models", when to use reduce-range and per-channel quantization.
            reduce_range=True,
        )
        return Path(made).read_bytes()


def _export(network: nn.Module, path: str, *, channels: int) -> None:
    """Write the network as ONNX: "chips" float32 [chip, band, row, col] -> "logits", sizes free."""
    free = {"chips": {0: "n", 2: "rows", 3: "cols"}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, channels, 64, 96),), path, input_names=["chips"], output_names=["logits"],
            dynamic_axes=free, dynamo=False, opset_version=18,
        )  # fmt: skip


class _Samples:
    """What onnxruntime.quantization reads from: one input after the other, then None."""

    def __init__(self, samples: Sequence[torch.Tensor]) -> None:
        self._left: Iterator[torch.Tensor] = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        x = next(self._left, None)
        return None if x is None else {"chips": x.contiguous().numpy()}
