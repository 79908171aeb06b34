"""Pretrained multispectral encoders for a scene: found by sensor, level and exact bands, truncated, frozen.

Nothing is downloaded here, and no band is filled: a record takes part where the scene has all of its bands by name, at
its level, in its unit. The encoder that ships with landcover was trained with bands left out at random and takes those
of a scene that it knows.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from pipeline.errors import ModelError, ModelWarning
from pipeline.model import efficientnet
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.records import OWN_NAME, WeightRecord, find_record, libraries_records, shipped_records
from pipeline.model.spec import NetworkSpec
from pipeline.model.transfer import load_into
from pipeline.model.weights import FILE_SUFFIXES, EncoderWeights, read_weights, record_weights
from pipeline.scenes.opening import LEVELS
from pipeline.scenes.sources import REFLECTANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)
# Encoders are cut where their features cease to know land cover. On EuroSAT (tests.benchmarks.bench_encoders) single
# strides of the cloud models gave 0.80, 0.84, 0.83, 0.81 at 2, 4, 8, 16.
STRIDES = (2, 4, 8)
_DEPTH = len(STRIDES)
LEAST_BANDS = 3
# Size of a scene's values (mean and deviation) over that of the weights, in the median band: lakes have a tenth of the
# reflectance that models of clouds were trained on; bytes and counts are larger than reflectance by 100 and more.
FAR = (1 / 20, 5.0)
# Reflectance of a count of Sentinel-2. Source: ESA, Sentinel-2 Products Specification Document, QUANTIFICATION_VALUE.
# Scenes that do not say their scaling have counts; values of another size are refused by their statistics.
COUNTS = 1e-4
_LEVELS = {"top-of-atmosphere": "TOA", "surface": "SR"}
SEARCH_ORDER = (
    "a file or a name in training.context.weights",
    "torch's hub folder: published weights that are there already, of the scene's sensor and level, all bands in it",
    "ukis-csmask, where it is installed (pip install 'landcover-pipeline[weights]'): 6 bands and 4, side by side",
    f"{OWN_NAME}, which comes with landcover: the optical bands of the scene that it knows, 3 at least",
)


@dataclass(frozen=True, eq=False)
class PretrainedEncoder:
    """An encoder whose weights are given, and the bands it takes."""

    record: WeightRecord  # What is known of the weights
    loaded: EncoderWeights  # The weights as they were read
    given: tuple[str, ...]  # Bands of the values that :meth:`features` gets, in order
    bands: tuple[str, ...]  # Those that it takes, in the order of the weights
    network: Encoder  # The encoder, in evaluation mode, without gradients

    @property
    def name(self) -> str:
        """The record's name, or the file."""
        return self.record.name

    @property
    def band_index(self) -> tuple[int, ...]:
        """Where its bands lie among those given."""
        return tuple(self.given.index(name) for name in self.bands)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each of the features in pixels."""
        return self.network.strides

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each of the features."""
        return self.network.channels

    @property
    def spec_encoder(self) -> dict[str, Any]:
        """What makes this encoder in a NetworkSpec."""
        return {"encoder": self.record.architecture, "depth": _DEPTH, "stem_stride": 4}

    def describe(self, *, beside: str = "") -> str:
        """One line: what it is, what it was trained on, its bands (and what to say ``beside`` them) and licence."""
        about = self.record.about or "an unknown data set"
        licence = f", licence {self.record.licence}" if self.record.licence else ""
        return f"{self.record.architecture} pretrained on {about} (bands {', '.join(self.bands)}{beside}{licence})"

    def weights(self) -> EncoderWeights:
        """Weights for a network of the given bands that computes the same; filters of bands it does not take are 0.

        Raises:
            ModelError: an EfficientNet whose gates are not yet fixed, see :meth:`calibrated`.
        """
        if self._is_gated:
            raise ModelError(f"gates of {self.name} are not fixed", fix="call calibrated() with pixels of the scene")
        return self.loaded.of_bands(self.bands, given=self.given)

    def standardise(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Input of the network float32 [chip, its band, row, col]: 0 where not valid, sides a multiple of 8.

        Args:
            values: Float [chip, given band, row, col] in the unit of the weights.
            valid: Bool [chip, row, col]; all where None.
        """
        mean, std = (values.new_tensor(part)[:, None, None] for part in self._scaling())
        x = (values[:, list(self.band_index)].float() - mean) / std
        usable = x.isfinite().all(1, keepdim=True)
        usable = usable if valid is None else usable & valid[:, None]
        x = torch.where(usable, x, 0.0)
        last = self.strides[-1]
        return functional.pad(x, (0, -x.shape[-1] % last, 0, -x.shape[-2] % last))

    @torch.no_grad()
    def features(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Features float32 [chip, channel, row / stride, col / stride], rounded up, at strides 2, 4, 8.

        Args:
            values: Float [chip, given band, row, col] in the unit of the weights.
            valid: Bool [chip, row, col]; all where None.
        """
        rows, cols = values.shape[-2:]
        found = self.network(self.standardise(values, valid))
        return [f[..., : -(-rows // s), : -(-cols // s)] for f, s in zip(found, self.strides, strict=True)]

    def calibrated(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> PretrainedEncoder:
        """The same with an EfficientNet's gates fixed to their means over chips of the scene; see ``efficientnet``.

        Args:
            values: Float [chip, given band, row, col]: some windows of the scene.
            valid: Bool [chip, row, col]; all where None.
        """
        if not self._is_gated:
            return self
        tensors = efficientnet.fold_gates(self.network.stages, self.standardise(values, valid))
        loaded = replace(self.loaded, tensors=tensors)
        return replace(self, loaded=loaded, network=_frozen(_plain_encoder(loaded), loaded))

    @property
    def _is_gated(self) -> bool:
        return any("_se_" in name for name in self.loaded.tensors)

    def _scaling(self) -> tuple[list[float], list[float]]:
        count = len(self.loaded.bands)
        mean, std = self.loaded.scaling or ((0.0,) * count, (1.0,) * count)
        at = [self.loaded.bands.index(name) for name in self.bands]
        return [mean[i] for i in at], [std[i] for i in at]


@dataclass(frozen=True, eq=False)
class Found:
    """What a scene gets."""

    encoders: tuple[PretrainedEncoder, ...]  # Side by side where there are several; none where none fits
    factor: float = 1.0  # What the scene's values are multiplied with to be in the unit of the weights
    why_not: str = ""  # Why not even the encoder that asks least fits, where none does

    def describe(self) -> str:
        """One line: what they are, what they were trained on, their bands and licence; "" where there are none."""
        if not self.encoders:
            return ""
        first, *others = self.encoders
        return first.describe(beside="".join(f" and {', '.join(other.bands)}" for other in others))


@dataclass(frozen=True)
class SceneBands:
    """What decides which encoders fit a scene."""

    bands: tuple[str, ...]  # By common name, in order
    sensor: str = ""  # A key of ``pipeline.bands.TABLES``, or ""
    level: str = ""  # Of the product ("L1C", "L2A", "L2SP"), or ""
    units: tuple[str, ...] = ()  # Of each band; () where they are not known
    statistics: tuple[Sequence[float], Sequence[float]] | None = None  # Mean and deviation per band; None: not known

    @property
    def tries(self) -> tuple[SceneBands, ...]:
        """As they are, and counts of Sentinel-2 whose scaling is not known also as reflectance."""
        if self.sensor != "sentinel-2" or "DN" not in self.units or REFLECTANCE in self.units:
            return (self,)
        known = self.statistics
        scaled = ([value * COUNTS for value in known[0]], [value * COUNTS for value in known[1]]) if known else None
        # An encoder that was pretrained on such scenes has seen counts.
        return self, replace(self, units=(REFLECTANCE,) * len(self.bands), statistics=scaled)

    def why_not(self, record: WeightRecord) -> str:
        """Why ``weights: auto`` does not take a record, "" where it may."""
        whys = [_misfit(record, one) for one in self.tries]
        text = f", taken as counts x {COUNTS:g}" if len(whys) > 1 and whys[-1] == _far(record, self.tries[-1]) else ""
        return "" if "" in whys else f"{whys[-1]}{text}"


def search_encoders(scene: SceneBands, *, weights: str = "auto") -> Found:
    """The pretrained encoders for a scene; none where none fits.

    Args:
        scene: What is known of it; values far from the unit of weights are refused.
        weights: "auto": the first that fits in :data:`SEARCH_ORDER`, and the others of its package that fit;
            "none"; a record's name; or a weights file.

    Raises:
        ModelError: weights named that do not exist, are not here, or do not fit the scene.
    """
    if weights == "none":
        return Found(())
    *others, last = scene.tries
    if weights != "auto":
        for one in others:
            with contextlib.suppress(ModelError):
                return Found((_named(weights, one),))
        return Found((_named(weights, last),), COUNTS if others else 1.0)
    for one in scene.tries:
        fitting: list[WeightRecord] = []
        for record in _candidates(one.sensor):
            if fitting and (record.file is None or record.source != fitting[0].source):
                break
            if why := _misfit(record, one):
                log.info("weights %s are not used: %s", record.name, why)
            else:
                fitting.append(record)
        if fitting:
            return Found(tuple(_opened(record, one) for record in fitting), 1.0 if one is scene else COUNTS)
    own = next(record for record in shipped_records() if record.name == OWN_NAME)
    return Found((), why_not=f"{OWN_NAME}: {scene.why_not(own)}")


def _candidates(sensor: str) -> Iterator[WeightRecord]:
    """Records whose files are here, in the order of the search."""
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    if any(hub.glob("*.pth")):  # importing the libraries takes seconds
        theirs = [item for item in libraries_records() if sensor in item.sensors and item.scaling is not None]
        yield from (item for item in theirs if item.cache.is_file())
    own, *packages = sorted(shipped_records(), key=lambda item: item.name != OWN_NAME)
    readable = find_spec("onnx") is not None
    yield from (item for item in packages if item.cache.is_file() and readable)
    yield own


def _misfit(record: WeightRecord, scene: SceneBands) -> str:
    """Why a record does not fit a scene as it is, "" where it does."""
    if why := _other_product(record, scene) or _lacks(record, scene):
        return why
    named = dict(zip(scene.bands, scene.units or ("",) * len(scene.bands), strict=True))
    other = [name for name in _taken(record, scene) if named[name] != REFLECTANCE]
    if other:
        return f"it takes reflectance, and {', '.join(other)} are in {named[other[0]] or 'an unknown unit'}"
    return _far(record, scene)


def _other_product(record: WeightRecord, scene: SceneBands) -> str:
    """Why a record is for another sensor or level than a scene's, "" where it is not."""
    if record.name == OWN_NAME:
        return ""
    if scene.sensor not in record.sensors:
        return f"it is for {record.sensor or 'photographs'}"
    # Surface reflectance has no band for cirrus: it shows no surface.
    level = scene.level or ("L1C" if "cirrus" in scene.bands else "")
    if _LEVELS.get(LEVELS.get(level, "")) in record.level.split():
        return ""
    return f"it is for level {record.level or 'unknown'}, the scene is of level {level or 'unknown'}"


def _lacks(record: WeightRecord, scene: SceneBands) -> str:
    """What a scene lacks of a record's bands, "" where it has enough: all of them, or three that ours knows."""
    taken, wanted = _taken(record, scene), record.bands_on(scene.sensor, scene.bands)
    if record.name == OWN_NAME:
        return "" if len(taken) >= LEAST_BANDS else f"the scene has {len(taken)} of its bands, not {LEAST_BANDS}"
    absent = [name for name in wanted if name not in scene.bands]
    return f"the scene lacks {', '.join(absent)}" if absent else "" if wanted else "its bands are not known"


def _taken(record: WeightRecord, scene: SceneBands) -> tuple[str, ...]:
    """Bands of the scene that the record's encoder takes, in the record's order."""
    return tuple(name for name in record.bands_on(scene.sensor, scene.bands) if name in scene.bands)


def _far(record: WeightRecord, scene: SceneBands) -> str:
    """Why values are not in the unit of a record, "" where they are or nothing is known of them."""
    if scene.statistics is None or record.scaling is None:
        return ""
    means, stds = (dict(zip(scene.bands, part, strict=True)) for part in scene.statistics)
    ratios = {
        name: (abs(means[name]) + stds[name]) / (abs(mean) + std)
        for name, mean, std in zip(record.bands_on(scene.sensor, scene.bands), *record.scaling, strict=True)
        if name in means
    }
    ratio = float(np.median(list(ratios.values())))
    if FAR[0] <= ratio <= FAR[1]:
        return ""
    name = next(iter(ratios))
    return f"values are {ratio:.3g} times those it was trained on (mean of {name} {means[name]:.4g})"


def _named(weights: str, scene: SceneBands) -> PretrainedEncoder:
    """The encoder of a file or a record that was asked for; ModelWarning where it is for another sensor or level.

    Raises:
        ModelError: see :func:`search_encoders`.
    """
    path, loaded = Path(weights), None
    if path.is_file() or path.suffix.lower() in FILE_SUFFIXES:
        loaded = read_weights(path)
        record = WeightRecord(str(path), loaded.architecture, loaded.bands, "", loaded.scaling, f"file {path.name}")
    else:
        record = find_record(weights, architecture="resnet18")
    wanted, lacks, far = record.bands_on(scene.sensor, scene.bands), _lacks(record, scene), _far(record, scene)
    if lacks or far:
        unit = "set scale and offset of the scene, or "
        named = "name them in inputs.bands where the scene's files have them, or " if wanted else ""
        raise ModelError(
            f"weights {record.name} do not fit the scene: {lacks or far}",
            got=", ".join(scene.bands),
            expected=", ".join(wanted) or "a file that names its bands",
            fix=f"{named if lacks else unit}choose others (landcover weights list), or weights: auto",
        )
    # Of a file, and of a scene without sensor or level, nothing is known that could be other.
    known = record.sensor and scene.sensor and (scene.level or scene.sensor not in record.sensors)
    if known and (other := _other_product(record, scene)):
        warnings.warn(f"weights {record.name} are used as they are named: {other}", ModelWarning, stacklevel=3)
    if record.scaling is None and scene.statistics is not None:
        # Weights that do not say what their values were meet standardised bands.
        at = [scene.bands.index(name) for name in wanted]
        mean, std = (tuple(float(part[i]) for i in at) for part in scene.statistics)
        loaded = replace(loaded or record_weights(record), scaling=(mean, std))
    return _opened(record, scene, loaded=loaded)


def _opened(record: WeightRecord, scene: SceneBands, *, loaded: EncoderWeights | None = None) -> PretrainedEncoder:
    loaded = loaded or record_weights(record)
    loaded, taken = replace(loaded, bands=record.bands_on(scene.sensor, scene.bands)), _taken(record, scene)
    if record.architecture == efficientnet.NAME:
        stages = efficientnet.efficientnet_stages(len(taken), depth=_DEPTH, gated=True)
        widths = [width for _, _, width, _ in efficientnet.STAGES[:_DEPTH]]
        network = Encoder(stages, channels=widths, strides=list(STRIDES))
        return PretrainedEncoder(record, loaded, scene.bands, taken, _frozen(network, loaded))
    chosen = loaded.of_bands(taken, given=taken)
    return PretrainedEncoder(record, loaded, scene.bands, taken, _frozen(_plain_encoder(chosen), chosen))


def _plain_encoder(weights: EncoderWeights) -> Encoder:
    """The truncated encoder of an architecture, with random weights; the random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        return build_encoder(
            NetworkSpec(weights.inputs, 2, encoder=weights.architecture, depth=_DEPTH, stem_stride=4)  # type: ignore[arg-type]
        )


def _frozen(encoder: Encoder, weights: EncoderWeights) -> Encoder:
    load_into(encoder, weights.tensors, name=weights.name)
    encoder.frozen = True
    encoder.eval().requires_grad_(requires_grad=False)
    return encoder.to(memory_format=torch.channels_last)
