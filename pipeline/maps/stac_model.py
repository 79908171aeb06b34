"""The STAC item of a model: what it takes, what it gives, where it came from (MLM extension 1.5.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import shapely

from pipeline.bands import centre_um
from pipeline.maps.stac import class_objects, file_facts, item, machine_name, stamp, time_span
from pipeline.maps.vrt import relative

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from pipeline.legend import ClassScheme

_ARTIFACTS = {
    "safetensors": ("application/octet-stream; application=safetensors", "safetensors.torch.save_file"),
    "onnx": ("application/octet-stream; framework=onnx", "onnx"),
    "pt2": ("application/zip; application=pytorch", "torch.export.save"),
}
WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class ModelRecord:
    """What a catalogue says about one model.

    Attributes:
        id: Name of the item.
        path: The model file.
        artifact: Kind of file.
        architecture: Name as in the literature ("U-Net, ResNet-18 encoder").
        scheme: Classes, in the order of the output's channels.
        bands: Input bands by common name, in order.
        mean: Mean per band in the unit of the input.
        std: Standard deviation per band.
        units: Unit per band, such as "reflectance" (0..1) or "DN" as stored.
        tile_px: Side of the input the model is run on; -1 for any.
        created: When it was trained.
        acquired: When its training scenes were taken; None where unknown.
        bbox: West, south, east, north of its training area in degrees; the world where unknown.
        framework_version: PyTorch's version.
        parameters: Number of weights.
        pretrained_source: Data its encoder was pretrained on; None for none.
        hyperparameters: Settings of its training.
    """

    id: str
    path: Path
    architecture: str
    scheme: ClassScheme
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    units: tuple[str, ...]
    created: datetime
    artifact: Literal["safetensors", "onnx", "pt2"] = "safetensors"
    tile_px: int = -1
    acquired: datetime | tuple[datetime, datetime] | None = None
    bbox: tuple[float, float, float, float] = WORLD
    framework_version: str | None = None
    parameters: int | None = None
    pretrained_source: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def model_item(record: ModelRecord, *, folder: Path) -> dict[str, Any]:
    """The STAC item of a model that will lie in ``folder``; hrefs are relative to it."""
    media, artifact = _ARTIFACTS[record.artifact]
    asset = {
        "href": relative(record.path, folder),
        "title": record.architecture,
        "type": media,
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": artifact,
        # STAC 1.1 allows bands in the properties, where MLM looks for them, only if an asset has bands as well.
        "bands": [_band(name) for name in record.bands],
        **file_facts(record.path),
    }
    name = re.sub(r"^[^a-zA-Z]+", "", machine_name(record.id)) or "model"
    optional = {
        "mlm:framework_version": _semantic(record.framework_version),
        "mlm:total_parameters": record.parameters,
        "mlm:hyperparameters": dict(record.hyperparameters) or None,
    }
    properties = {
        **time_span(record.acquired, record.created),
        "created": stamp(record.created),
        "title": f"Land-cover model {record.id}",
        "mlm:name": f"{name} landcover",
        "mlm:architecture": record.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if record.artifact == "onnx" else "PyTorch",
        "mlm:pretrained": record.pretrained_source is not None,
        "mlm:pretrained_source": record.pretrained_source,
        "mlm:input": [_input(record)],
        "mlm:output": [_output(record)],
        "bands": [_band(name) for name in record.bands],
        **{key: value for key, value in optional.items() if value is not None},
    }
    outline = shapely.geometry.mapping(shapely.box(*record.bbox))
    return item(
        record.id,
        geometry={
            "type": outline["type"],
            "coordinates": [[list(xy) for xy in ring] for ring in outline["coordinates"]],
        },
        bbox=record.bbox,
        properties=properties,
        links=[],
        assets={"model": asset},
        extensions=["mlm/v1.5.2", "classification/v1.1.0", "file/v2.1.0"],
    )


def _input(record: ModelRecord) -> dict[str, Any]:
    scaling = [
        {"type": "z-score", "mean": float(mean), "stddev": float(std)}
        for mean, std in zip(record.mean, record.std, strict=True)
    ]
    return {
        "name": "values of the bands",
        "description": "in " + " and ".join(dict.fromkeys(record.units)),
        "bands": list(record.bands),
        "input": {
            "shape": [-1, len(record.bands), record.tile_px, record.tile_px],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(record: ModelRecord) -> dict[str, Any]:
    return {
        "name": "logits" if record.artifact != "onnx" else "probabilities",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(record.scheme), record.tile_px, record.tile_px],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": class_objects(record.scheme),
    }


def _band(name: str) -> dict[str, Any]:
    centre = centre_um(name)
    return {"name": name} | ({"eo:center_wavelength": centre} if centre is not None else {})


def _semantic(version: str | None) -> str | None:
    """``2.4.0`` of ``2.4.0+cpu``; None where that is no semantic version."""
    found = re.match(r"\d+\.\d+\.\d+", version or "")
    return found.group() if found else None
