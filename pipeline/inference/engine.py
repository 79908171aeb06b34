"""Engines: what runs the network. torch alone suffices; ONNX Runtime and OpenVINO are extras."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch

from pipeline.errors import ConfigError
from pipeline.inference.chips import PLANES, Layout
from pipeline.inference.fast import StripEnsemble, by_pixel, layout_of, speed_up
from pipeline.inference.memory import GPU_READERS, WORKERS
from pipeline.inference.quantise import to_int8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

EngineName = Literal["torch", "compiled", "onnxruntime", "openvino"]
Dtype = Literal["float32", "bfloat16", "int8"]
ENGINES: tuple[str, ...] = get_args(EngineName)
DTYPES: tuple[str, ...] = get_args(Dtype)
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",)}
TYPES: dict[str, tuple[str, ...]] = {
    "torch": ("float32", "bfloat16"),
    "compiled": ("float32", "bfloat16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}
# Sizes of chips that OpenVINO keeps a compiled model for: tiles have one, halos are tried with others.
_SIZES_KEPT = 2


class Engine(Protocol):
    """Runs a network on the device it was made for."""

    @property
    def choice(self) -> Choice:
        """What it is."""

    @property
    def layout(self) -> Layout:
        """Of chips that it takes without copying them."""

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """Logits [chip, class, row, col] of standardised chips [chip, band, row, col] on the CPU.

        Chips have the engine's layout, or are float32.
        """


@dataclass(frozen=True)
class Choice:
    """An engine by name, type of its arithmetic, and device."""

    engine: EngineName = "torch"
    dtype: Dtype = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        """For people: "torch bfloat16 on cpu"."""
        return f"{self.engine} {self.dtype} on {self.device}"


@dataclass
class TorchEngine:
    """torch, eager or compiled; channels-last unless in strips, inference mode."""

    network: nn.Module
    choice: Choice

    def __post_init__(self) -> None:
        """Move the network to its device and type."""
        self._dtype = torch_dtype(self.choice.dtype)
        network = speed_up(self.network) if works_in_strips(self.choice) else self.network
        self._on_gpu = self.choice.device != "cpu"
        # On a GPU autocast chooses the type, layer by layer.
        moved = network.to(device=self.choice.device, dtype=None if self._on_gpu else self._dtype).eval()
        moved = moved.to(memory_format=torch.channels_last)
        self._in_strips = isinstance(moved, StripEnsemble)
        self.layout = PLANES if self._on_gpu else layout_of(moved, self._dtype)
        self._run = torch.compile(moved, dynamic=False) if self.choice.engine == "compiled" else moved

    @torch.inference_mode()
    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        if self._in_strips:
            in_strips: torch.Tensor = self._run(chips)
            return in_strips
        if self._on_gpu:
            # Sums over neighbours stay in float32: the deviation is a small difference of large numbers.
            moved = chips.to(self.choice.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", self._dtype, enabled=self._dtype != torch.float32):
                on_gpu: torch.Tensor = self._run(moved)
            return on_gpu
        logits: torch.Tensor = self._run(by_pixel(chips, self._dtype))
        return logits


@dataclass
class OnnxEngine:
    """ONNX Runtime on the CPU; each call uses ``threads`` threads, and calls may run side by side."""

    network: nn.Module
    choice: Choice
    channels: int
    threads: int
    samples: Sequence[torch.Tensor] = ()
    layout: Layout = PLANES

    def __post_init__(self) -> None:
        """Export the network and load it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        model = to_onnx(self.network.float(), channels=self.channels)
        if self.choice.dtype == "int8":
            model = to_int8(model, self.samples)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        return torch.from_numpy(self._session.run(None, {"chips": chips.contiguous().numpy()})[0])


@dataclass
class OpenVinoEngine:
    """OpenVINO on the CPU; compiled for a size of chip, as fixed sizes run faster; calls may run side by side.

    Each call uses ``threads`` threads. The last sizes are kept: a compiled model holds weights and activations.
    """

    network: nn.Module
    choice: Choice
    channels: int
    threads: int
    samples: Sequence[torch.Tensor] = ()
    layout: Layout = PLANES
    _by_shape: dict[tuple[int, ...], queue.SimpleQueue[Any]] = field(default_factory=dict)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Convert the network."""
        import openvino

        self._core = openvino.Core()
        network = self.network.float()
        if self.choice.dtype == "int8":
            model = to_int8(to_onnx(network, channels=self.channels), self.samples)
            self._model = self._core.read_model(io.BytesIO(model))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(1, self.channels, 64, 64)
            self._model = openvino.convert_model(network, example_input=example)

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        if len(chips) > 1:  # nodata leaves tiles out of batches: their sizes would each be compiled
            return torch.cat([self(chip[None]) for chip in chips])
        requests = self._requests(tuple(chips.shape))
        request = requests.get()
        try:
            # Requests are used again and inputs not copied: measured, a fifth of the time of a ResNet-18 U-Net.
            found = request.infer([chips.contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(found[0])
        finally:
            requests.put(request)

    def _requests(self, shape: tuple[int, ...]) -> queue.SimpleQueue[Any]:
        """What runs the network on chips of a shape, one for each caller at a time."""
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


def works_in_strips(choice: Choice) -> bool:
    """Whether an engine runs :func:`pipeline.inference.fast.speed_up`'s network: eager torch on a CPU."""
    return choice.engine == "torch" and choice.device == "cpu"


def runs_side_by_side(choice: Choice) -> bool:
    """Whether several threads call the engine at once, each with its share of the threads."""
    return choice.device == "cpu" and choice.engine != "compiled"


def wants_one_size(choice: Choice) -> bool:
    """Whether an engine compiles the network for each size of chip that it meets."""
    return choice.engine in {"compiled", "openvino"}


def workers_of(choice: Choice) -> int:
    """Threads that read tiles, call the engine (in turns where it does not run side by side) and decide."""
    if choice.device == "cpu":
        return WORKERS
    return max(WORKERS, min(GPU_READERS, os.cpu_count() or 1))


def readers_of(choice: Choice) -> int:
    """Readers that they share: on a CPU one, whose decoded blocks serve the next tile too; a GPU is fed by several."""
    return 1 if choice.device == "cpu" else workers_of(choice)


def make_engine(
    network: nn.Module, choice: Choice, *, channels: int, threads: int, samples: Sequence[torch.Tensor] = ()
) -> Engine:
    """An engine of ``choice`` for a fused network in evaluation mode; torch engines take the module over.

    Args:
        network: The network.
        choice: Engine, type and device.
        channels: Channels of its input.
        threads: Threads in all; a call of ONNX Runtime or OpenVINO takes its share of them, torch those of its caller.
        samples: Inputs float32 [1, band, row, col] of the scene that will be mapped; "int8" takes its ranges from them.

    Raises:
        ConfigError: the engine's package is not installed, or it cannot do the type or device.
    """
    check_choice(choice)
    if choice.engine in {"torch", "compiled"}:
        return TorchEngine(network, choice)
    share = max(threads // WORKERS, 1)
    if choice.engine == "onnxruntime":
        return OnnxEngine(network, choice, channels, share, samples)
    return OpenVinoEngine(network, choice, channels, share, samples)


def check_choice(choice: Choice) -> None:
    """Refuse what does not exist or is not installed.

    Raises:
        ConfigError: the engine's package is not installed, or it cannot do the type or device.
    """
    if choice.engine not in ENGINES:
        raise ConfigError(f"engine {choice.engine!r}", expected="auto or one of " + ", ".join(ENGINES))
    if choice.dtype not in DTYPES:
        raise ConfigError(f"type {choice.dtype!r}", expected="auto or one of " + ", ".join(DTYPES))
    if choice.dtype not in TYPES[choice.engine]:
        able = " or ".join(name for name, types in TYPES.items() if choice.dtype in types)
        raise ConfigError(
            f"engine {choice.engine} in {choice.dtype}", expected=" or ".join(TYPES[choice.engine]), fix=f"use {able}"
        )
    if choice.engine in EXTRAS:
        if not installed(choice.engine):
            raise ConfigError(
                f"engine {choice.engine} is not installed",
                fix=f"pip install 'landcover-pipeline[{EXTRAS[choice.engine]}]' or use torch",
            )
        if choice.device != "cpu":
            raise ConfigError(f"engine {choice.engine} on {choice.device}", expected="cpu", fix="use engine torch")
    if choice.dtype == "int8" and not installed("onnxruntime"):
        raise ConfigError("int8 needs ONNX Runtime", fix="pip install 'landcover-pipeline[onnx]'")
    if choice.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device cuda", got="no GPU that torch can use", fix="use device cpu")


def installed(engine: str) -> bool:
    """Whether the packages of an engine are there; those of ONNX Runtime also make "int8" for others."""
    return all(find_spec(name) is not None for name in _PACKAGES.get(engine, ()))


def torch_dtype(name: Dtype) -> torch.dtype:
    """Torch's type for the activations of that type; those of "int8" are counted as float32, which some stay."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def best_device() -> str:
    """The GPU where torch has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def free_gpu_bytes(device: str) -> int | None:
    """Free memory of a GPU; None for the CPU."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else None


def fast_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 (a CPU without the instructions emulates it, many times slower)."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - the public way only tells of AMX


def to_onnx(network: nn.Module, *, channels: int) -> bytes:
    """The network as ONNX (opset 18): "chips" float32 [chip, band, row, col] -> "logits", sizes free."""
    buffer = io.BytesIO()
    free = {"chips": {0: "n", 2: "rows", 3: "cols"}}
    example = torch.zeros(2, channels, 64, 96)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=["chips"],
            output_names=["logits"],
            dynamic_axes=free,
            dynamo=False,
            opset_version=18,
        )
    return buffer.getvalue()
