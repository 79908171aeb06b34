"""Engines: what runs the network. torch alone suffices; ONNX Runtime and OpenVINO are extras.

``auto`` measures: each engine that is installed maps the same piece of the scene, and the fastest whose classes agree
with torch in float32 is taken. What it picked, and the figures, are logged and travel with the map.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import torch

from pipeline.errors import ConfigError
from pipeline.inference.fast import StripEnsemble, speed_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

log = logging.getLogger(__name__)

EngineName = Literal["torch", "compiled", "onnxruntime", "openvino"]
Dtype = Literal["float32", "bfloat16"]
ENGINES: tuple[str, ...] = get_args(EngineName)
DTYPES: tuple[str, ...] = get_args(Dtype)
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
# An engine or type is taken only if so many pixels get the class that torch gives them in float32.
LEAST_AGREEMENT = {"float32": 0.9995, "bfloat16": 0.995}
# A challenger must be so much faster than torch: below it noise decides, and results would change by chance.
WORTH_CHANGING = 1.1


class Engine(Protocol):
    """Runs a network on the device it was made for."""

    @property
    def choice(self) -> Choice:
        """What it is."""

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """Logits [chip, class, row, col] of standardised chips float32 [chip, band, row, col] on the CPU."""


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
        moved = network.to(device=self.choice.device, dtype=self._dtype).eval()
        moved = moved.to(memory_format=torch.channels_last)
        self._in_strips = isinstance(moved, StripEnsemble)
        self._run = torch.compile(moved, dynamic=False) if self.choice.engine == "compiled" else moved

    @torch.inference_mode()
    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        if self._in_strips:
            in_strips: torch.Tensor = self._run(chips)
            return in_strips
        moved = chips.to(device=self.choice.device, dtype=self._dtype, non_blocking=True)
        logits: torch.Tensor = self._run(moved.contiguous(memory_format=torch.channels_last))
        return logits


@dataclass
class OnnxEngine:
    """ONNX Runtime on the CPU, float32."""

    network: nn.Module
    choice: Choice
    channels: int
    threads: int

    def __post_init__(self) -> None:
        """Export the network and load it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        model = to_onnx(self.network.float(), channels=self.channels)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        return torch.from_numpy(self._session.run(None, {"chips": chips.contiguous().numpy()})[0])


@dataclass
class OpenVinoEngine:
    """OpenVINO on the CPU; one compiled model per size of chip, as fixed sizes run faster."""

    network: nn.Module
    choice: Choice
    channels: int
    threads: int
    _compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Convert the network."""
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            example = torch.zeros(1, self.channels, 64, 64)
            self._model = openvino.convert_model(self.network.float(), example_input=example)
        self._core = openvino.Core()

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        """See Engine."""
        shape = tuple(chips.shape)
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(shape)
        return torch.from_numpy(self._compiled[shape](chips.contiguous().numpy())[0])

    def _compile(self, shape: tuple[int, ...]) -> Any:
        precision = {"float32": "f32", "bfloat16": "bf16"}[self.choice.dtype]
        model = self._model.clone()
        model.reshape(list(shape))
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        return self._core.compile_model(model, "CPU", hints)


def works_in_strips(choice: Choice) -> bool:
    """Whether an engine runs :func:`pipeline.inference.fast.speed_up`'s network: eager torch on a CPU."""
    return choice.engine == "torch" and choice.device == "cpu"


def make_engine(network: nn.Module, choice: Choice, *, channels: int, threads: int) -> Engine:
    """An engine of ``choice`` for a fused network in evaluation mode; torch engines take the module over.

    Raises:
        ConfigError: the engine's package is not installed, or it cannot do the type or device.
    """
    _check(choice)
    if choice.engine in {"torch", "compiled"}:
        return TorchEngine(network, choice)
    if choice.engine == "onnxruntime":
        return OnnxEngine(network, choice, channels, threads)
    return OpenVinoEngine(network, choice, channels, threads)


def _check(choice: Choice) -> None:
    if choice.engine not in ENGINES:
        raise ConfigError(f"engine {choice.engine!r}", expected="auto or one of " + ", ".join(ENGINES))
    if choice.dtype not in DTYPES:
        raise ConfigError(f"type {choice.dtype!r}", expected="auto or one of " + ", ".join(DTYPES))
    if choice.engine in EXTRAS:
        extra = EXTRAS[choice.engine]
        if find_spec(choice.engine) is None or (choice.engine == "onnxruntime" and find_spec("onnxscript") is None):
            raise ConfigError(
                f"engine {choice.engine} is not installed",
                fix=f"pip install 'landcover-pipeline[{extra}]' or use torch",
            )
        if choice.device != "cpu":
            raise ConfigError(f"engine {choice.engine} on {choice.device}", expected="cpu", fix="use engine torch")
        if choice.engine == "onnxruntime" and choice.dtype != "float32":
            raise ConfigError("engine onnxruntime in bfloat16", expected="float32", fix="use torch or openvino")
    if choice.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device cuda", got="no GPU that torch can use", fix="use device cpu")


def torch_dtype(name: Dtype) -> torch.dtype:
    """Torch's type of that name."""
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def best_device() -> str:
    """The GPU where torch has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


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


@dataclass(frozen=True)
class Trial:
    """One engine's result of the calibration: seconds per megapixel, and share of pixels with float32 torch's class."""

    choice: Choice
    s_per_mpx: float
    agreement: float


def candidates(*, engine: str, dtype: str, device: str) -> list[Choice]:
    """What ``auto`` tries, torch in float32 first; a single choice where nothing is left open.

    The compiled engine is tried only when asked for by name: compiling costs more than most scenes take to map.
    """
    where = best_device() if device == "auto" else device
    types: list[Any] = [dtype] if dtype != "auto" else ["float32", *(["bfloat16"] if fast_bfloat16(where) else [])]
    names: list[Any] = [engine]
    if engine == "auto":
        names = ["torch", *(name for name in EXTRAS if where == "cpu" and find_spec(name) is not None)]
    found = [Choice(name, kind, where) for name in names for kind in types]
    usable = [c for c in found if engine != "auto" or not (c.engine == "onnxruntime" and c.dtype != "float32")]
    for choice in usable:
        _check(choice)
    return usable


def calibrate(
    make: Any, choices: Sequence[Choice], sample: torch.Tensor, *, repeats: int = 2
) -> tuple[Choice, list[Trial]]:
    """The fastest choice that agrees with the first, and what was measured.

    Args:
        make: Gives an engine for a choice.
        choices: The first one is the reference.
        sample: A typical input, float32 [chip, band, row, col].
        repeats: Timed passes, of which the fastest counts; one untimed pass goes before.
    """
    if len(choices) == 1:
        return choices[0], []
    trials: list[Trial] = []
    reference: torch.Tensor | None = None
    for choice in choices:
        try:
            classes, seconds = _time(make(choice), sample, repeats=repeats)
        except (RuntimeError, ImportError, ValueError) as err:
            log.info("engine %s cannot run this network: %s", choice, str(err).split("\n", 1)[0])
            continue
        reference = classes if reference is None else reference
        agreement = float((classes == reference).float().mean())
        trials.append(Trial(choice, seconds / (sample.shape[0] * sample.shape[2] * sample.shape[3] / 1e6), agreement))
    first = trials[0]
    fitting = [t for t in trials if t.agreement >= LEAST_AGREEMENT[t.choice.dtype]]
    best = min(fitting, key=lambda t: t.s_per_mpx)
    if best.s_per_mpx * WORTH_CHANGING > first.s_per_mpx:
        best = first
    for trial in trials:
        log.info("engine %s: %.3f s per Mpx, agreement %.4f", trial.choice, trial.s_per_mpx, trial.agreement)
    log.info("engine picked: %s", best.choice)
    return best.choice, trials


def _time(engine: Engine, sample: torch.Tensor, *, repeats: int) -> tuple[torch.Tensor, float]:
    classes = engine(sample).argmax(1).cpu()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        engine(sample).argmax(1).cpu()
        seconds.append(time.perf_counter() - start)
    return classes, min(seconds)
