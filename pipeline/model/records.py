"""Encoder weights as records: names, bands in order, scaling, licence, where the file is or comes from.

Records are those of torchgeo (Landsat, Sentinel) and torchvision (ImageNet), of packages that ship weights
(ukis-csmask), and of the encoder that lies in this package (``pipeline/model/shipped``).
"""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import torch
from torch import nn

from pipeline.bands import common_name
from pipeline.documents import read_json
from pipeline.errors import ModelError, OutputError
from pipeline.files import hash_file, whole_file
from pipeline.model.spec import ENCODERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

log = logging.getLogger(__name__)
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


# A published file's name holds the beginning of its SHA-256, as torch.hub has it.
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
_BLOCK_BYTES = 1 << 20
# Where the weights that come with landcover lie, and their model card.
OWN_FOLDER = Path(__file__).with_name("shipped")
OWN_NAME = "landcover_resnet18"
# Source: ukis-csmask 1.0.0; Wieland et al. (2019), https://doi.org/10.1016/j.rse.2019.05.022, and (2022). Mean and
# deviation of the reflectance that its models were trained on are those of the JSON files beside them.
UKIS_PACKAGE = "ukis_csmask"
_OPTICAL = "sentinel-2 landsat-tm landsat-etm landsat-oli"
_UKIS_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
_UKIS_SCALING = {
    "TOA": (
        (0.275523, 0.255664, 0.269802, 0.334312, 0.208513, 0.158265),
        (0.244880, 0.227575, 0.253715, 0.232138, 0.148739, 0.126042),
    ),
    "SR": (
        (0.266818, 0.277991, 0.288120, 0.364947, 0.222571, 0.178590),
        (0.336376, 0.312546, 0.311148, 0.272607, 0.166537, 0.143290),
    ),
}


@dataclass(frozen=True)
class WeightRecord:
    """A published set of weights."""

    name: str  # As it is given in the setting ``weights``
    architecture: str  # "resnet18" ...
    bands: tuple[str, ...]  # Common names in order
    url: str  # Where it is downloaded from; the package's page for weights that a package ships
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None  # As in EncoderWeights
    about: str  # Data set and publication
    # "sentinel-2", "landsat-oli" ..., several apart by spaces; "" for photographs and what the record does not say
    sensor: str = ""
    # "TOA" (top of atmosphere), "SR" (surface reflectance), both ("TOA SR") or "" where the record does not say
    level: str = ""
    licence: str = ""  # Of the weights, "" where it is not known
    source: str = ""  # Where they come from
    file: Path | None = None  # Of weights that a package ships, the file; None where they are downloaded

    @property
    def cache(self) -> Path:
        """Where the file lies: in its package, or, once it is downloaded, in torch's hub folder."""
        return self.file or Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors it is for."""
        return tuple(self.sensor.split())

    def bands_on(self, sensor: str, given: Sequence[str] = ()) -> tuple[str, ...]:
        """Its bands by the names that a sensor has for them: a Landsat's near infrared is called nir08.

        Where the bands ``given`` call that of a Landsat nir, it is that.
        """
        narrow = sensor.startswith("landsat") and "nir08" not in self.bands and "nir" not in given
        return tuple("nir08" if narrow and band == "nir" else band for band in self.bands)


def weight_records() -> tuple[WeightRecord, ...]:
    """All weights of encoders we build: our own, those of packages, torchgeo's and torchvision's."""
    return (*shipped_records(), *libraries_records())


def shipped_records() -> tuple[WeightRecord, ...]:
    """Weights that come with pip: that of this package, and those of ukis-csmask, installed or not."""
    return (*_own_record(), *_ukis_records())


def _own_record() -> Iterator[WeightRecord]:
    card = OWN_FOLDER / f"{OWN_NAME}.json"
    if card.is_file():
        about = read_json(card, what="the model card", error=ModelError)
        yield WeightRecord(
            OWN_NAME, "resnet18", tuple(about["bands"]), about["url"], (tuple(about["mean"]), tuple(about["std"])),
            about["about"], sensor=_OPTICAL, level="TOA SR", licence=about["licence"], source=about["source"],
            file=card.with_suffix(".safetensors"),
        )  # fmt: skip


def _ukis_records() -> Iterator[WeightRecord]:
    found = find_spec(UKIS_PACKAGE)
    folder = Path(found.origin).parent if found is not None and found.origin else Path(UKIS_PACKAGE)
    for count in (len(_UKIS_BANDS), 4):
        for level, (mean, std) in _UKIS_SCALING.items():
            product = "l1c" if level == "TOA" else "l2a"
            yield WeightRecord(
                f"{UKIS_PACKAGE}_{count}b_{product}", "efficientnet_b4", _UKIS_BANDS[:count],
                "https://pypi.org/project/ukis-csmask/1.0.0/", (mean[:count], std[:count]),
                "clouds and shadows of CloudSEN12+ and SPARCS, after ImageNet; Wieland et al. (2019, 2022)",
                sensor=_OPTICAL, level=level, licence="Apache-2.0", source="pip install 'landcover-pipeline[weights]'",
                file=folder / f"model_{count}b_{product}.onnx",
            )  # fmt: skip


@cache
def libraries_records() -> tuple[WeightRecord, ...]:
    """Weights that torchgeo and torchvision know an address of."""
    import torchgeo.models
    import torchvision.models

    theirs: list[Any] = [getattr(torchgeo.models, f"ResNet{size}_Weights") for size in (18, 50, 152)]
    records = [_torchgeo_record(item) for enum in theirs for item in enum]
    for architecture in (name for name in ENCODERS if name.startswith("resnet")):
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
    # Band 10 of Sentinel-2 (cirrus) is in level 1C alone.
    level = next((word for word in ("TOA", "SR") if word in words), "TOA" if "cirrus" in bands else "")
    if sensor is None and item.name.startswith("SENTINEL1"):
        sensor = "sentinel-1"
    repo = str(item.meta.get("repo", ""))
    licence = _LICENCES.get(repo.removeprefix("https://github.com/"), "")
    return WeightRecord(
        str(item), architecture, bands, item.url, scaling, about, sensor=sensor or "", level=level,
        licence=licence, source=repo,
    )  # fmt: skip


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
    for record in shipped_records():  # without importing the libraries
        if record.name == name:
            return record
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


def fetch_weights(record: WeightRecord, *, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Path:
    """The file of a record, downloaded into torch's hub folder if it is not there, and checked by its hash.

    Args:
        record: What to download; weights of packages lie where they are.
        progress: Told of the bytes that are there, and of all of them (0 where the server does not say).

    Raises:
        ModelError: it cannot be downloaded, or is not what its name says.
        OutputError: the hub folder cannot be written.
    """
    if record.file is not None:
        return record.file
    target = record.cache
    if not target.is_file():
        log.info("downloading %s (licence %s) from %s", record.name, record.licence or "not known", record.url)
        try:
            with whole_file(target, what="the weights") as part, urlopen(record.url) as answer, part.open("wb") as file:  # noqa: S310 - addresses of the records alone
                total, done = int(answer.headers.get("Content-Length") or 0), 0
                while block := answer.read(_BLOCK_BYTES):
                    done += file.write(block)
                    progress(done, total)
                file.flush()
                _check_hash(part, target.name)
        except (URLError, OutputError) as err:
            raise ModelError(
                f"cannot download weights {record.name}", path=record.url, got=err,
                fix=f"download it where there is a network and put it at {target}, or set weights: none",
            ) from err  # fmt: skip
    _check_hash(target, target.name)
    return target


def _check_hash(path: Path, name: str) -> None:
    """Refuse a file whose SHA-256 does not begin as its published name says ("resnet18-f37072fd.pth")."""
    said = _HASH.search(name)
    if said is not None and not hash_file(path).startswith(said.group(1)):
        raise ModelError("weights file is not what its name says", path=path, fix="delete it and try again")
