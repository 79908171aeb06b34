"""Pretrained encoder weights: by name from torchgeo's and torchvision's records, or from a file; put in by band.

Nothing is ever unpickled but tensors (``weights_only``).
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.documents import parse_json
from pipeline.errors import ModelError
from pipeline.files import write_bytes
from pipeline.model import efficientnet
from pipeline.model.describe import KEY, read_header
from pipeline.model.encoder import DEPTHS
from pipeline.model.records import RGB, WeightRecord, fetch_weights, find_record
from pipeline.scenes.sources import REFLECTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# Key of a safetensors file's metadata that holds the bands and their scaling of an encoder pretrained by landcover.
ENCODER_KEY = "landcover_encoder"
_STEMS = ("conv1.weight", "_conv_stem.weight")
FILE_SUFFIXES = {".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar"}


@dataclass(frozen=True, eq=False)
class EncoderWeights:
    """Weights of an encoder and the bands they know."""

    name: str  # The record's name or the file
    architecture: str  # "resnet18" ...; "" where the tensors are of none we know
    # Under torchvision's names (conv1.weight, layer1.0.conv1.weight), without classifier
    tensors: Mapping[str, torch.Tensor]
    bands: tuple[str, ...]  # Common names in the order of the first convolution's input
    # (mean, std) per band that the weights were trained with; None where they expect standardised bands or the record
    # does not say what its values were
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    # Unit of each band's scaling: reflectance for published weights; () where it is not known
    units: tuple[str, ...] = ()
    # Of weights trained with bands left out at random: as many bands as the stem was scaled to, see :meth:`of_bands`; 0
    # for all others
    bands_at_once: float = 0.0

    @property
    def stem_name(self) -> str:
        """Name of the first convolution's weight."""
        return next((name for name in _STEMS if name in self.tensors), _STEMS[0])

    @property
    def inputs(self) -> int:
        """Bands of the first convolution."""
        return int(self.tensors[self.stem_name].shape[1])

    def of_bands(self, used: Sequence[str], *, given: Sequence[str]) -> EncoderWeights:
        """The same function of the bands ``used``, as weights for ``given`` bands; the others' filters are 0.

        Where bands were left out at random in training, filters are multiplied as they were then: by the number that
        the stem was scaled to over the number of those that are there.

        Args:
            used: Some of the weights' bands by their names among ``given``, in the weights' order of them.
            given: Bands of the network, in order.
        """
        stem = self.tensors[self.stem_name].float()
        factor = self.bands_at_once / len(used) if self.bands_at_once else 1.0
        out = stem.new_zeros((stem.shape[0], len(given), *stem.shape[2:]))
        mean, std = self.scaling or ((0.0,) * self.inputs, (1.0,) * self.inputs)
        means, stds, units = [0.0] * len(given), [1.0] * len(given), [""] * len(given)
        for name in used:
            own, at = self.bands.index(name), list(given).index(name)
            out[:, at] = stem[:, own] * factor
            means[at], stds[at], units[at] = mean[own], std[own], (self.units or ("",) * self.inputs)[own]
        scaling = (tuple(means), tuple(stds)) if self.scaling else None
        tensors = {**self.tensors, self.stem_name: out}
        return replace(self, tensors=tensors, bands=tuple(given), scaling=scaling, units=tuple(units), bands_at_once=0)


def load_weights(source: str | Path, *, architecture: str, bands: Sequence[str] = ()) -> EncoderWeights:
    """Weights of an encoder by name or from a file; nothing is downloaded.

    Args:
        source: A record's name ("ResNet18_Weights.SENTINEL2_ALL_MOCO", "imagenet") or a .pth or .safetensors file.
        architecture: The encoder they are for.
        bands: Names of the bands that a file's first convolution knows, in order. Not needed for a name, for a model
            of landcover, and for three bands, which are taken as red, green, blue.

    Raises:
        ModelError: no such name or file; its file is not here, or is not what its name says; it holds more than
            tensors; it is of another architecture.
    """
    path, what = Path(source), "weights"
    if path.suffix.lower() in FILE_SUFFIXES or path.is_file():
        weights = read_weights(path, bands=tuple(bands))
        found = weights.architecture
    else:
        record = find_record(str(source), architecture=architecture)
        path, what, found = record.cache, f"weights {record.name}", record.architecture
        weights = record_weights(record) if found == architecture else EncoderWeights(record.name, found, {}, ())
    if found != architecture:
        raise ModelError(
            f"{what} are of another architecture", path=path, got=found or "none that is known", expected=architecture,
            fix=f"set encoder: {found or 'another'}, or choose other weights",
        )  # fmt: skip
    _check_bands(weights, path=path)
    return weights


def record_weights(record: WeightRecord) -> EncoderWeights:
    """Weights of a record whose file is here; those of an EfficientNet with the layers that make its gates.

    Raises:
        ModelError: they are not here, or are not what their name says.
    """
    if record.architecture == efficientnet.NAME:
        tensors = _onnx_tensors(record)
        return EncoderWeights(
            record.name, record.architecture, tensors, record.bands, record.scaling, (REFLECTANCE,) * len(record.bands)
        )
    if record.file is not None:
        return replace(read_weights(record.file), name=record.name)
    if not record.cache.is_file():
        raise ModelError(
            f"weights {record.name} are not here",
            path=record.cache,
            fix=f"landcover weights get {record.name}, or set weights: auto",
        )
    tensors = _torchvision_names(_read_tensors(fetch_weights(record)), path=record.cache)
    units = (REFLECTANCE,) * len(record.bands) if record.scaling is not None else ()
    return EncoderWeights(record.name, record.architecture, tensors, record.bands, record.scaling, units)


def _onnx_tensors(record: WeightRecord) -> dict[str, torch.Tensor]:
    """Tensors of the encoder in the graph of a package, under segmentation_models_pytorch's names, as float32."""
    try:
        import onnx
    except ImportError as err:
        raise ModelError(f"weights {record.name} need the package onnx", fix=record.source) from err
    try:
        graph = onnx.load(str(record.cache)).graph
    except OSError as err:
        raise ModelError(f"weights {record.name} are not here", path=record.cache, fix=record.source) from err
    prefix = "model.encoder."
    return {
        item.name.removeprefix(prefix): torch.from_numpy(onnx.numpy_helper.to_array(item).copy()).float()
        for item in graph.initializer
        if item.name.startswith(prefix)
    }


def read_weights(path: Path, *, bands: tuple[str, ...] = ()) -> EncoderWeights:
    """A weights file as it is: its architecture and its bands, "" and () where it does not say.

    Args:
        path: A model or a pretrained encoder of landcover, or another .pth or .safetensors file.
        bands: Names of its bands; what the file says of bands and their scaling is then not used.

    Raises:
        ModelError: not a weights file of a ResNet, or one that holds more than tensors.
    """
    tensors = _torchvision_names(_read_tensors(path), path=path)
    weights = EncoderWeights(str(path), guess_architecture(tensors), tensors, bands)
    metadata = {} if bands else _metadata(path)
    if ENCODER_KEY in metadata:
        about = parse_json(metadata[ENCODER_KEY], what="the header of the weights", path=path, error=ModelError)
        scaling = (tuple(about["mean"]), tuple(about["std"]))
        return replace(
            weights, bands=tuple(about["bands"]), scaling=scaling, units=tuple(about.get("units", ())),
            bands_at_once=float(about.get("bands_at_once", 0)),
        )  # fmt: skip
    if KEY in metadata:
        return replace(weights, bands=tuple(read_header(path)["preprocess"]["bands"]))
    return replace(weights, bands=RGB) if not bands and weights.inputs == len(RGB) else weights


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def save_encoder(path: Path, tensors: Mapping[str, torch.Tensor], *, about: Mapping[str, object]) -> Path:
    """Write an encoder that :func:`load_weights` reads and matches by band name.

    Args:
        path: A .safetensors file; it appears under its name when whole.
        tensors: Under torchvision's names.
        about: JSON-ready, with ``bands``, and ``mean``, ``std`` and (if known) ``units`` of each.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save

    return write_bytes(path, save(dict(tensors), metadata={ENCODER_KEY: json.dumps(about)}), what="the encoder")


def _check_bands(weights: EncoderWeights, *, path: Path) -> None:
    if len(weights.bands) != weights.inputs:
        raise ModelError(
            "bands of the weights", path=path, got=", ".join(weights.bands) or "none",
            expected=f"{weights.inputs} names, as many as its first convolution has inputs",
            fix="name them in order in the setting weights_bands",
        )  # fmt: skip


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, nested dictionaries flattened."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of old pickle protocols, which it reads all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        if not _is_archive(path):
            raise ModelError("not a weights file", path=path, expected=".pth or .safetensors") from err
        raise ModelError(
            "weights file holds more than tensors and is not opened, as it could run code",
            path=path,
            fix="save its state_dict as safetensors where you trust it",
        ) from err
    except OSError as err:
        raise ModelError("cannot open the weights file", path=path, got=err.strerror or err) from err
    except (SafetensorError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError) as err:
        raise ModelError("not a weights file", path=path, got=err, expected=".pth or .safetensors") from err
    return dict(_flatten(content))


def _is_archive(path: Path) -> bool:
    """Whether a file starts as torch's archives (zip) or as pickles of protocol 2 and later do."""
    with path.open("rb") as file:
        return file.read(1) in {b"P", b"\x80"}


def _flatten(content: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield prefix, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))


def _torchvision_names(raw: Mapping[str, torch.Tensor], *, path: Path) -> dict[str, torch.Tensor]:
    """The encoder's tensors under torchvision's names, whatever wraps them (state_dict, encoder_q, backbone)."""
    plain, stem = {re.sub(r"encoder\.stages\.\d+\.", "", name): value for name, value in raw.items()}, "conv1.weight"
    stems = [name for name in plain if f".{name}".endswith(f".{stem}") and not re.search(r"layer\d", name)]
    if not stems:
        got = ", ".join(list(raw)[:3]) or "no tensor"
        raise ModelError("weights are of no ResNet", path=path, got=got, expected=f"a tensor {stem}")
    prefix = min(stems, key=lambda name: (len(name), name)).removesuffix(stem)
    ours = {name.removeprefix(prefix): value for name, value in plain.items() if name.startswith(prefix)}
    return {name: value for name, value in ours.items() if re.match(r"(conv1|bn1|layer[1-4])\.", name)}


def guess_architecture(tensors: Mapping[str, torch.Tensor]) -> str:
    """The encoder that tensors under torchvision's names belong to, "" where it is none of ours.

    ResNets are told apart by the blocks of the layers that are there; of those that agree the smallest is meant.
    """
    blocks = [len({name.split(".")[1] for name in tensors if name.startswith(f"layer{n}.")}) for n in range(1, 5)]
    there = tuple(count for count in blocks if count)
    deep = any(name.startswith("layer1.0.conv3") for name in tensors)
    fitting = (
        name for name, (depths, bottleneck) in DEPTHS.items() if bottleneck == deep and depths[: len(there)] == there
    )
    return next(fitting, "") if there else ""
