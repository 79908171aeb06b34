"""The STAC item of a model: what it takes, what it gives, where it came from (MLM extension 1.5.2).

pystac's own MLM extension ends at 1.4.0: the properties are written by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pystac
import shapely

from pipeline.bands import centre_um
from pipeline.maps.stac import SCHEMA, Acquired, add_asset, class_objects, machine_name, time_span
from pipeline.maps.vrt import relative

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from pipeline.legend import ClassScheme

_MEDIA = "application/octet-stream; application=safetensors"
_ARTIFACT = "safetensors.torch.save_file"
WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class ModelItem:
    """What a catalogue says about one model file.

    Attributes:
        id: Name of the item.
        path: The model file.
        architecture: Name as in the literature ("U-Net, ResNet-18 encoder").
        scheme: Classes, in the order of the output's channels.
        bands: Input bands by common name, in order.
        mean: Mean per band in the unit of the input.
        std: Standard deviation per band.
        units: Unit per band, such as "reflectance" (0..1) or "DN" as stored.
        until: End of the time span where it is not known when they were.
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
    until: datetime
    acquired: Acquired = None
    bbox: tuple[float, float, float, float] = WORLD
    framework_version: str | None = None
    parameters: int | None = None
    pretrained_source: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def model_item(given: ModelItem, *, folder: Path) -> pystac.Item:
    """The STAC item of a model that will lie in ``folder``; hrefs are relative to it."""
    bands = [_band(name) for name in given.bands]
    outline = shapely.geometry.mapping(shapely.box(*given.bbox))
    name = re.sub(r"^[^a-zA-Z]+", "", machine_name(given.id)) or "model"
    optional = {
        "mlm:framework_version": _semantic(given.framework_version),
        "mlm:total_parameters": given.parameters,
        "mlm:hyperparameters": dict(given.hyperparameters) or None,
    }
    item = pystac.Item(
        given.id,
        geometry={**outline, "coordinates": [[list(xy) for xy in ring] for ring in outline["coordinates"]]},
        bbox=list(given.bbox),
        **time_span(given.acquired, given.until),
        stac_extensions=[SCHEMA.format(extension) for extension in ("mlm/v1.5.2", "classification/v1.1.0")],
        properties={
            "title": f"Land-cover model {given.id}",
            "mlm:name": f"{name} landcover",
            "mlm:architecture": given.architecture,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "PyTorch",
            "mlm:pretrained": given.pretrained_source is not None,
            "mlm:pretrained_source": given.pretrained_source,
            "mlm:input": [_input(given)],
            "mlm:output": [_output(given)],
            "bands": bands,
            **{key: value for key, value in optional.items() if value is not None},
        },
    )
    # STAC 1.1 allows bands in the properties, where MLM looks for them, only if an asset has bands as well.
    asset = pystac.Asset(
        relative(given.path, folder),
        title=given.architecture,
        media_type=_MEDIA,
        roles=["mlm:model", "mlm:weights"],
        extra_fields={"mlm:artifact_type": _ARTIFACT, "bands": bands},
    )
    add_asset(item, "model", given.path, asset)
    return item


def _input(given: ModelItem) -> dict[str, Any]:
    scaling = [
        {"type": "z-score", "mean": float(mean), "stddev": float(std)}
        for mean, std in zip(given.mean, given.std, strict=True)
    ]
    return {
        "name": "values of the bands",
        "description": "in " + " and ".join(dict.fromkeys(given.units)),
        "bands": list(given.bands),
        "input": _structure(len(given.bands), "bands"),
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(given: ModelItem) -> dict[str, Any]:
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "result": _structure(len(given.scheme), "class"),
        "classification:classes": class_objects(given.scheme),
    }


def _structure(channels: int, axis: str) -> dict[str, Any]:
    """A tensor of any number of pixels (-1)."""
    dims = ["batch", axis, "height", "width"]
    return {"shape": [-1, channels, -1, -1], "dim_order": dims, "data_type": "float32"}


def _band(name: str) -> dict[str, Any]:
    centre = centre_um(name)
    return {"name": name} | ({"eo:center_wavelength": centre} if centre is not None else {})


def _semantic(version: str | None) -> str | None:
    """``2.4.0`` of ``2.4.0+cpu``; None where that is no semantic version."""
    found = re.match(r"\d+\.\d+\.\d+", version or "")
    return found.group() if found else None
