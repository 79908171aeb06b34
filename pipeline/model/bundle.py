"""ModelBundle: a trained network and all that must travel with it, in one safetensors file; never pickle.

The same bundle gives the same bytes: tensors are sorted by the safetensors library, the header is one JSON text with
sorted keys, and no time of writing is added. The file carries a SHA-256 of its header and tensors, which is checked
when it is read: one flipped bit of a weight can change most of a map and say nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import LegendError, ModelError
from pipeline.files import hash_bytes, write_bytes
from pipeline.legend import ClassScheme
from pipeline.model.describe import FORMAT, KEY, read_header
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.quantity import CHANNELS, Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from pipeline.model.network import Ensemble, Network


@dataclass(frozen=True)
class TrainedOn:
    """A scene the model learned from, as far as other scenes must resemble it.

    Attributes:
        sensor: A key of ``pipeline.bands.TABLES``, or "".
        level: Product level ("L1C", "L2A", "L2SP"), or "".
        baseline: Processing baseline or collection, or "".
        scene: The scene's id.
    """

    sensor: str = ""
    level: str = ""
    baseline: str = ""
    scene: str = ""


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """What ``landcover predict`` needs to map a scene it has never seen.

    Attributes:
        members: One or more networks whose probabilities are averaged.
        scheme: Classes in index order.
        preprocess: Bands by name, in order, and their scaling.
        value_range: (smallest, largest) valid training value of each band.
        units: Unit of each band ("reflectance", "DN", ...).
        gsd_m: Pixel size of the training scenes in metres.
        shares: Weight of each member in the average; equal where empty.
        temperature: Divides the logits, fitted on validation pixels; 1 for none.
        sources: The scenes it learned from.
        footprint: GeoJSON geometry in WGS84 of the training scenes, or None.
        provenance: JSON-ready: settings, seeds, versions, input hashes, time of training, splits.
        extra: Further tensors that travel with the model (a forest's tables, training features of the area of
            applicability).
        histograms: How the values of the training scenes are spread, per band, as ``pipeline.model.checks`` keeps
            them; empty where that is not known.
        quantity: What a model of values gives; its networks have the channels of ``pipeline.model.quantiles`` and its
            scheme the value classes. None for a model of classes.
    """

    members: tuple[Network, ...]
    scheme: ClassScheme
    preprocess: Preprocess
    value_range: tuple[tuple[float, float], ...]
    units: tuple[str, ...]
    gsd_m: float
    shares: tuple[float, ...] = ()
    temperature: float = 1.0
    sources: tuple[TrainedOn, ...] = ()
    footprint: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    histograms: tuple[tuple[float, ...], ...] = ()
    quantity: Quantity | None = None

    def __post_init__(self) -> None:
        """Refuse members that do not fit the classes or bands."""
        if not self.members:
            raise ModelError("model without a network")
        object.__setattr__(self, "shares", self.shares or (1.0 / len(self.members),) * len(self.members))
        if len(self.shares) != len(self.members) or min(self.shares) < 0 or sum(self.shares) <= 0:
            raise ModelError("shares of the members", got=self.shares, expected=f"{len(self.members)} not negative")
        if len(self.value_range) != len(self.bands) or len(self.units) != len(self.bands):
            raise ModelError("value ranges or units do not fit the bands", expected=f"{len(self.bands)} each")
        if self.histograms and (len(self.histograms) != len(self.bands) or len(set(map(len, self.histograms))) != 1):
            raise ModelError("histograms do not fit the bands", expected=f"{len(self.bands)}, all of as many bins")
        if not self.temperature > 0 or not self.gsd_m > 0:
            raise ModelError("temperature and pixel size", got=(self.temperature, self.gsd_m), expected="positive")
        for spec in self.specs:
            outputs = len(self.scheme) if self.quantity is None else CHANNELS
            if (spec.bands_in, spec.classes) != (self.preprocess.channels, outputs):
                raise ModelError(
                    "network does not fit bands and classes",
                    got=f"{spec.bands_in} channels, {spec.classes} classes",
                    expected=f"{self.preprocess.channels} and {outputs}",
                )

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands in order."""
        return self.preprocess.bands

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """One spec per member."""
        return tuple(member.spec for member in self.members)

    @property
    def averaged(self) -> tuple[tuple[Network, float], ...]:
        """Members with their shares, without those whose share is 0: a map is the average of these alone."""
        pairs = zip(self.members, self.shares, strict=True)
        return tuple((member, share) for member, share in pairs if share > 0)

    @property
    def head(self) -> str:
        """Head of the (first) member."""
        return self.specs[0].head

    def network(self, *, fused: bool = False) -> Ensemble:
        """One module for all members, in evaluation mode: standardised float32 [chip, band, row, col] -> logits.

        Args:
            fused: With batch norms folded into the convolutions (a copy; same output to rounding).
        """
        from pipeline.model.network import Ensemble, fuse_for_inference

        members, shares = zip(*self.averaged, strict=True)
        members = tuple(fuse_for_inference(member) if fused else member.eval() for member in members)
        values = self.quantity is not None
        return Ensemble(members, shares=shares, temperature=self.temperature, values=values).eval()

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the file's content."""
        return hash_bytes(to_bytes(self))

    def header(self) -> dict[str, Any]:
        """What the file says about itself, JSON-ready."""
        return {
            "format": FORMAT,
            "specs": [spec.to_json() for spec in self.specs],
            "shares": [float(share) for share in self.shares],
            "classes": self.scheme.to_json(),
            "legend_hash": self.scheme.hash,
            "preprocess": self.preprocess.to_json(),
            "value_range": [[float(low), float(high)] for low, high in self.value_range],
            "units": list(self.units),
            "gsd_m": float(self.gsd_m),
            "temperature": float(self.temperature),
            "sources": [vars(item) for item in self.sources],
            "footprint": self.footprint,
            "provenance": dict(self.provenance),
            "histograms": [list(edges) for edges in self.histograms],
        } | ({} if self.quantity is None else {"quantity": self.quantity.to_json()})


def to_bytes(bundle: ModelBundle) -> bytes:
    """The model file's content; equal bundles give equal bytes.

    Raises:
        ModelError: weights that are not finite, or provenance that is not JSON.
    """
    from safetensors.torch import save

    tensors = {
        f"member{number}.{name}": value.detach().cpu().contiguous()
        for number, member in enumerate(bundle.members)
        for name, value in member.state_dict().items()
    }
    refuse_not_finite(tensors)
    tensors |= {f"extra.{name}": value.detach().cpu().contiguous() for name, value in bundle.extra.items()}
    about = bundle.header()
    try:
        header = json.dumps(about | {"sha256": digest_of(about, tensors)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise ModelError("provenance of the model is not JSON", got=err) from err
    return bytes(save(tensors, metadata={KEY: header}))


def digest_of(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the header and of each tensor's name, type, shape and bytes, 64 hexadecimal digits."""
    import torch

    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def refuse_changed() -> NoReturn:
    """Refuse a file whose digest is not that of its content.

    Raises:
        ModelError: always.
    """
    raise ModelError("the file has changed since it was written", fix="copy it again from where it was made")


def refuse_not_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        ModelError: NaN or infinity in one of them.
    """
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ModelError(
            "weights of the model are not finite numbers",
            got=f"NaN or infinity in {bad[0]}" + (f" and {len(bad) - 1} more tensors" if bad[1:] else ""),
            fix="train it again, with a smaller learning rate",
        )


def save_bundle(path: str | Path, bundle: ModelBundle) -> Path:
    """Write a model file, whole or not at all.

    Raises:
        ModelError: as :func:`to_bytes`.
        OutputError: the folder cannot be written.
    """
    return write_bytes(Path(path), to_bytes(bundle), what="the model")


def load_bundle(path: str | Path) -> ModelBundle:
    """Read a model file.

    Raises:
        ModelError: not one of ours, cut in half, changed since it was written, of a newer version, or with weights
            that are not finite or do not fit its own header.
    """
    from safetensors import SafetensorError, safe_open

    about = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        written = about.pop("sha256", None)
        if about["format"] > 1 and written != digest_of(about, tensors):  # format 1 had none
            refuse_changed()
        refuse_not_finite({name: value for name, value in tensors.items() if name.startswith("member")})
        return _from_parts(about, tensors)
    except SafetensorError as err:
        raise ModelError("weights of the model cannot be read", path=path, got=err) from err
    except ModelError as err:
        raise ModelError(f"model cannot be used: {err}", path=path) from err
    except (KeyError, TypeError, ValueError, RuntimeError, LegendError) as err:
        raise ModelError("weights or header of the model do not fit together", path=path, got=err) from err


def _from_parts(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> ModelBundle:
    specs = [NetworkSpec.from_json(item) for item in about["specs"]]
    return ModelBundle(
        members=tuple(_member(spec, tensors, prefix=f"member{i}.") for i, spec in enumerate(specs)),
        scheme=ClassScheme.from_json(about["classes"]),
        preprocess=Preprocess.from_json(about["preprocess"]),
        value_range=tuple((float(low), float(high)) for low, high in about["value_range"]),
        units=tuple(about["units"]),
        gsd_m=float(about["gsd_m"]),
        shares=tuple(map(float, about["shares"])),
        temperature=float(about["temperature"]),
        sources=tuple(TrainedOn(**item) for item in about["sources"]),
        footprint=about["footprint"],
        provenance=about["provenance"],
        extra=_under(tensors, "extra."),
        histograms=tuple(tuple(map(float, edges)) for edges in about.get("histograms", ())),
        quantity=Quantity.from_json(about["quantity"]) if "quantity" in about else None,
    )


def _member(spec: NetworkSpec, tensors: Mapping[str, torch.Tensor], *, prefix: str) -> Network:
    import torch

    from pipeline.model.network import Network

    # Random weights that are replaced: cheaper than torch's "meta" device, which imports 100 MB to describe shapes.
    with torch.random.fork_rng(devices=[]):
        network = Network(spec)
    network.load_state_dict(_under(tensors, prefix), assign=True)
    return network.to(memory_format=torch.channels_last).eval()


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
