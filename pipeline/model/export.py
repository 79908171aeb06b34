"""A model for other programs: ONNX (onnxruntime, the QGIS plugin Deepness) and torch.export.

The graph holds everything from stored values to class probabilities: standardisation, clipping, the network
with its batch norms folded, temperature, softmax. Two feeds, as programs differ in what they put in:

* ``values``: what the file stores (DN); the graph applies ``scale`` and ``offset``, then the model's own scaling.
* ``deepness``: the plugin always divides by 255, then standardises: x = (DN / 255 - m) / s. With m and s the model's
  mean and deviation in DN over 255 (written into the metadata) x is the standardised band, so the graph takes
  value = x * std + mean and goes on as before; scale and offset cancel but for m and s.

Source of the metadata keys: github.com/PUTvision/qgis-plugin-deepness, src/deepness/processing/models/model_base.py
(v0.6.5): values are JSON text; resolution in cm; overlap in percent; class_names keyed "0".."K-1"; a threshold of 0
keeps every pixel's best class. The plugin pins onnxruntime <= 1.17, which reads opset <= 20 and IR <= 9.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.files import whole_file, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model.bundle import ModelBundle

Feed = Literal["values", "deepness"]
OPSET = 17
IR_VERSION = 8
DEEPNESS_DIVISOR = 255.0
CM_PER_M = 100.0
OVERLAP_PERCENT = 15  # of tiles, as Deepness suggests


class Exportable(nn.Module):
    """Stored values -> probabilities, as one graph.

    Args:
        bundle: The model.
        gain: Factor per band to the model's unit.
        bias: Added after it.
    """

    def __init__(self, bundle: ModelBundle, *, gain: Sequence[float], bias: Sequence[float]) -> None:
        super().__init__()
        self.network = bundle.network(fused=True)
        self.preprocess = bundle.preprocess
        # Its constants are made at first use; made while torch.export traces, they would be traced ones for ever.
        self.preprocess.standardise(torch.zeros((len(bundle.bands), 1, 1)))
        self.gain = nn.Buffer(torch.tensor(gain, dtype=torch.float32)[:, None, None])
        self.bias = nn.Buffer(torch.tensor(bias, dtype=torch.float32)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities float32 [chip, class, row, col] of ``x`` float32 [chip, band, row, col]."""
        logits: torch.Tensor = self.network(self.preprocess.standardise(x * self.gain + self.bias))
        return logits.softmax(dim=1)


def exportable(
    bundle: ModelBundle,
    *, feed: Feed = "values", scale: Sequence[float] | None = None, offset: Sequence[float] | None = None,
) -> Exportable:  # fmt: skip
    """The graph as a module; ``scale`` and ``offset`` per band turn stored values into the model's unit.

    Raises:
        ModelError: scale or offset do not fit the bands.
    """
    scales, offsets = _per_band(bundle, scale, 1.0, "scale"), _per_band(bundle, offset, 0.0, "offset")
    if feed == "values":
        return Exportable(bundle, gain=scales, bias=offsets)
    return Exportable(bundle, gain=bundle.preprocess.std, bias=bundle.preprocess.mean)


def _per_band(bundle: ModelBundle, given: Sequence[float] | None, default: float, name: str) -> list[float]:
    values = [default] * len(bundle.bands) if given is None else [float(value) for value in given]
    if len(values) != len(bundle.bands) or (name == "scale" and min(values) <= 0):
        raise ModelError(f"{name} per band", got=values, expected=f"{len(bundle.bands)} numbers, scales above 0")
    return values


def deepness_metadata(
    bundle: ModelBundle, *, tile_px: int, scale: Sequence[float] | None = None, offset: Sequence[float] | None = None
) -> dict[str, str]:
    """The metadata that Deepness reads, each value as JSON text; mean and deviation are those of DN over 255."""
    scales, offsets = _per_band(bundle, scale, 1.0, "scale"), _per_band(bundle, offset, 0.0, "offset")
    bands = list(zip(bundle.preprocess.mean, bundle.preprocess.std, scales, offsets, strict=True))
    metadata = {
        "model_type": "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(bundle.scheme.names)},
        "resolution": float(bundle.gsd_m * CM_PER_M),
        "tile_size": tile_px,
        "tiles_overlap": OVERLAP_PERCENT,
        "standardization_mean": [(mean - add) / factor / DEEPNESS_DIVISOR for mean, _, factor, add in bands],
        "standardization_std": [std / factor / DEEPNESS_DIVISOR for _, std, factor, _ in bands],
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    return {key: json.dumps(value) for key, value in metadata.items()}


def export_onnx(
    path: str | Path, bundle: ModelBundle,
    *, tile_px: int = 512, feed: Feed = "deepness", scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> Path:  # fmt: skip
    """Write the model as ONNX: float32 [1, band, tile, tile] -> probabilities float32 [1, class, tile, tile].

    Args:
        path: The file to write.
        bundle: The model.
        tile_px: Side of the tiles, fixed in the graph.
        feed: What the graph is fed with (see the module's text).
        scale: Factor per band from stored values (DN) to the model's unit; 1 where the file stores that unit.
        offset: Added after it.

    Raises:
        ModelError: the package onnx is missing, or scale and offset do not fit.
        OutputError: the file cannot be written.
    """
    try:
        import onnx
    except ImportError as err:
        raise ModelError("ONNX needs the package onnx", fix="pip install 'landcover-pipeline[onnx]'") from err
    module = exportable(bundle, feed=feed, scale=scale, offset=offset).eval()
    x = torch.zeros((1, len(bundle.bands), tile_px, tile_px))

    with whole_file(Path(path), what="the model") as beside:
        with torch.inference_mode(), warnings.catch_warnings():
            # The exporter that reaches opset 17 directly announces its successor, which starts at opset 18.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (x,), str(beside), input_names=["input"], output_names=["probabilities"], opset_version=OPSET,
                dynamo=False,
            )  # fmt: skip
        graph = onnx.load(str(beside))
        graph.ir_version = IR_VERSION
        metadata = {"landcover": json.dumps(bundle.header(), sort_keys=True), "feed": json.dumps(feed)}
        metadata |= {"bands": json.dumps(list(bundle.bands))}
        scales, offsets = _per_band(bundle, scale, 1.0, "scale"), _per_band(bundle, offset, 0.0, "offset")
        metadata |= {"scale": json.dumps(scales), "offset": json.dumps(offsets)}
        graph.doc_string = "bands in order, value = number x scale + offset: " + ", ".join(
            f"{n} ({s:g}, {o:g})" for n, s, o in zip(bundle.bands, scales, offsets, strict=True)
        )
        if feed == "deepness":
            metadata |= deepness_metadata(bundle, tile_px=tile_px, scale=scale, offset=offset)
        onnx.helper.set_model_props(graph, metadata)
        onnx.checker.check_model(graph)
        onnx.save(graph, str(beside))
    return Path(path)


def export_torch(
    path: str | Path, bundle: ModelBundle,
    *, tile_px: int = 512, scale: Sequence[float] | None = None, offset: Sequence[float] | None = None,
) -> Path:  # fmt: skip
    """Write the model as a torch.export program (.pt2) with feed "values" and a fixed tile size.

    Raises:
        ModelError: scale and offset do not fit.
        OutputError: the file cannot be written.
    """
    # Channels-last weights look like views of something larger to torch.export's writer.
    module = exportable(bundle, scale=scale, offset=offset).eval().to(memory_format=torch.contiguous_format)
    x = torch.zeros((1, len(bundle.bands), tile_px, tile_px))
    with torch.no_grad():
        program = torch.export.export(module, (x,))
    held = io.BytesIO()  # torch's own writer of files ends the process where the disk is full
    torch.export.save(program, held)
    return write_bytes(Path(path), held.getvalue(), what="the model")
