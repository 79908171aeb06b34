"""A network's convolutions in 8-bit integers, for CPUs: half the time of float32 and less, for some pixels' classes.

Weights get a scale per channel; what flows between layers gets the range that it has on some pieces of the scene that
is mapped. Nothing of it depends on time: the same model and scene give the same network, also when a run is resumed.
ONNX Runtime and OpenVINO run the result; both merge the marked layers into their integer kernels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch


def to_int8(model: bytes, samples: Sequence[torch.Tensor]) -> bytes:
    """An ONNX network of float32 as one whose convolutions are marked to be done in 8 bits.

    Args:
        model: See :func:`pipeline.inference.engine.to_onnx`.
        samples: Typical inputs "chips" float32 [1, band, row, col], from which the ranges are taken.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as name:
        plain, prepared, made = (str(Path(name) / f"{part}.onnx") for part in ("plain", "prepared", "made"))
        Path(plain).write_bytes(model)
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


class _Samples:
    """What onnxruntime.quantization reads from: one input after the other, then None."""

    def __init__(self, samples: Sequence[torch.Tensor]) -> None:
        self._left: Iterator[torch.Tensor] = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        chips = next(self._left, None)
        return None if chips is None else {"chips": chips.contiguous().numpy()}
