"""Published encoder weights as records: names, bands in order, scaling, address; from torchgeo and torchvision."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.bands import common_name
from pipeline.errors import ModelError
from pipeline.model.spec import ENCODERS

RGB = ("red", "green", "blue")
# Sentinel-2 L1C and L2A store reflectance x 10000 (Sentinel-2 Products Specification Document, QUANTIFICATION_VALUE).
SENTINEL2_QUANTIFICATION = 10_000.0
# By the repository that published the weights, as torchgeo's own records do not say. Source: the tables
# docs/api/weights/{sentinel2,landsat,sentinel1}.csv of torchgeo's repository, 2026.
_LICENCES = {
    "zhu-xlab/SSL4EO-S12": "CC-BY-4.0",
    "zhu-xlab/softcon": "CC-BY-4.0",
    "zhu-xlab/DeCUR": "Apache-2.0",
    "ServiceNow/seasonal-contrast": "Apache-2.0",
    "PlekhanovaElena/ssl4eco": "MIT",
    "allenai/satlaspretrain_models": "ODC-BY",
    "torchgeo/torchgeo": "CC0-1.0",
    "DarthReca/closp": "OpenRAIL",
}
# Source: README of torchvision, section "Pre-trained Model License".
_IMAGENET_TERMS = "terms of the ImageNet data may apply"


@dataclass(frozen=True)
class WeightRecord:
    """A published set of weights.

    Attributes:
        name: As it is given in the setting ``weights``.
        architecture: "resnet18" ...
        bands: Common names in order.
        url: Where it is downloaded from.
        scaling: As in EncoderWeights.
        about: Data set and publication.
        sensor: "sentinel-2", "landsat-oli" ...; "" for photographs and what the record does not say.
        level: "TOA" (top of atmosphere), "SR" (surface reflectance) or "" where the record does not say.
        licence: Of the weights, "" where it is not known.
        source: Where they come from.
    """

    name: str
    architecture: str
    bands: tuple[str, ...]
    url: str
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None
    about: str
    sensor: str = ""
    level: str = ""
    licence: str = ""
    source: str = ""

    @property
    def cache(self) -> Path:
        """Where the file lies once it is downloaded: torch's hub folder."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]


def weight_records() -> tuple[WeightRecord, ...]:
    """All published weights of encoders we build: torchgeo's for Landsat and Sentinel, torchvision's for ImageNet."""
    import torchgeo.models
    import torchvision.models

    theirs: list[Any] = [getattr(torchgeo.models, f"ResNet{size}_Weights") for size in (18, 50, 152)]
    records = [_torchgeo_record(item) for enum in theirs for item in enum]
    for architecture in (name for name in ENCODERS if name != "none"):
        records += [
            WeightRecord(
                str(item), architecture, RGB, item.url, None, "ImageNet-1k, torchvision",
                licence=_IMAGENET_TERMS, source=item.meta["recipe"],
            )
            for item in torchvision.models.get_model_weights(architecture)
        ]  # fmt: skip
    return tuple(records)


def _torchgeo_record(item: Any) -> WeightRecord:
    sensors = {"SENTINEL2": "sentinel-2", "TM": "landsat-tm", "ETM": "landsat-etm", "OLI": "landsat-oli"}
    sensor = next((sensors[word] for word in item.name.split("_") if word in sensors), None)
    bands = tuple(common_name(str(band), sensor=sensor) for band in item.meta.get("bands", RGB))
    about = f"{item.meta['dataset']}, {item.meta['publication']}"
    scaling = _reflectance_scaling(item, len(bands)) if sensor == "sentinel-2" else None
    # The class names the architecture; meta["model"] says resnet50 for ResNet-152 and resnet18 for some ResNet-50.
    architecture = type(item).__name__.removesuffix("_Weights").lower()
    words = item.name.split("_")
    level = next((word for word in ("TOA", "SR") if word in words), "")
    repo = str(item.meta.get("repo", ""))
    licence = _LICENCES.get(repo.removeprefix("https://github.com/"), "")
    return WeightRecord(
        str(item), architecture, bands, item.url, scaling, about, sensor=sensor or _radar(item.name), level=level,
        licence=licence, source=repo,
    )  # fmt: skip


def _radar(name: str) -> str:
    return "sentinel-1" if name.startswith("SENTINEL1") else ""


def _reflectance_scaling(item: Any, count: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation in reflectance, where the record normalises Sentinel-2 DN once and nothing else.

    SatlasPretrain mixes 8-bit true colour with DN, SeCo stretches 8-bit true colour, and SSL4EO-L (Landsat) an 8-bit
    stretch of its own: those stems meet standardised bands instead.
    """
    from torchvision.transforms.v2 import Normalize

    chain = item.transforms if isinstance(item.transforms, nn.Sequential) else nn.Sequential()
    steps = [step for step in chain if isinstance(step, Normalize)]
    if len(steps) != 1 or max(steps[0].std) < SENTINEL2_QUANTIFICATION / 10 or min(steps[0].std) == 255:  # noqa: PLR2004
        return None
    mean, std = ([float(value) / SENTINEL2_QUANTIFICATION for value in part] for part in (steps[0].mean, steps[0].std))
    return tuple(mean * (count // len(mean))), tuple(std * (count // len(std)))


def find_record(name: str, *, architecture: str) -> WeightRecord:
    """The record called ``name``; "imagenet" is torchvision's default for the architecture.

    Raises:
        ModelError: there is none of that name.
    """
    records = weight_records()
    if name.lower() == "imagenet":
        fitting = [item for item in records if item.architecture == architecture and "IMAGENET" in item.name]
        name = fitting[-1].name if fitting else name
    for record in records:
        if name in {record.name, f"{record.architecture}:{record.name.partition('.')[2].lower()}"}:
            return record
    near = difflib.get_close_matches(name, [item.name for item in records], n=3, cutoff=0.3)
    raise ModelError(
        f"no weights called {name!r}",
        expected=f"a file or a name such as {', '.join(near)}" if near else "a file or a name of weights list",
        fix="see landcover weights list",
    )
