"""The configuration file: one model per stage, unknown keys are errors that name the nearest known one.

Nothing below the workflow imports this module: domain functions take domain values. Every key's description is written
once, beside what it steers: ``landcover init`` shows it as a comment, ``configs/landcover.schema.json`` and
``docs/config.md`` repeat it. Relative paths are relative to the folder of the configuration file.

Files of version 1 are read as version 2 by two tables: of keys that moved, and of keys that went. Version 2 has the
settings of training in sections by what they steer (``experts``, ``pixels``, ``context``).
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.documents import read_yaml
from pipeline.errors import ConfigError, ConfigWarning
from pipeline.experts.settings import FOREST_TREES
from pipeline.inference.settings import MapSettings
from pipeline.labels.settings import ClassItem, LabelSettings  # noqa: TC001 - pydantic needs them at run time
from pipeline.scenes.settings import InputSettings, SceneItem
from pipeline.settings import NAME, Settings, absolute, changed, checked
from pipeline.splits.settings import SplitSettings
from pipeline.training.settings import STEP_KEYS, ChipSettings, TrainingSettings

SCHEMA_VERSION: Final = 2
_OF_CONTEXT = (
    "encoder", "weights", "weights_bands", "frozen", "steps", "batch", "lr", "weight_decay", "dropout", "smoothing",
    "soft_weight", "patience", "devices", "nodes",
)  # fmt: skip
MOVED = {f"training.{key}": f"training.context.{key}" for key in _OF_CONTEXT} | {
    "training.context_share": "training.context.share",
    "training.pixel_steps": "training.pixels.steps",
    "training.teacher_trees": "training.experts.trees",
}
ENGINES_GONE = ("auto", "compiled", "onnxruntime")
GONE = {
    "training.ema": "averages of weights made no set better",
    "training.ensemble": "networks of several seeds made no set better by more than chance",
    "map.tta": "averaging over flips changed the figures by less than chance",
    "map.blend": "tiles are cropped to where the network's reach is inside them, which is exact",
    "map.seam_figure": "tiles leave no seams, which the project's tests prove",
}


def upgraded(data: dict[str, Any], *, path: Path) -> dict[str, Any]:
    """The mapping of keys as version 2 has it; a ConfigWarning for each key that moved or went.

    A file without ``version`` that has keys of version 1 is read as one; of other versions only keys that went go.
    """
    new = copy.deepcopy(data)
    for old, why in GONE.items():
        if _take(new, old) is not _ABSENT:
            _say(path, f"{old} went: {why}")
    if data.get("version", 1) != 1:
        return new
    training = new.get("training")
    implied = _implied(training) if isinstance(training, dict) else {}
    for old, place in MOVED.items():
        if (value := _take(new, old)) is not _ABSENT:
            went = implied.get(place) is _ABSENT and place.rpartition(".")[2] in STEP_KEYS
            _say(path, f"{old} went: it steers nothing here" if went else f"{old} is now {place}")
            if place not in implied:
                _put(new, place, value)
    mapping = new.get("map")
    if isinstance(mapping, dict):
        _upgrade_engine(mapping, path)
    for place, value in implied.items():
        if value is not _ABSENT:
            _put(new, place, value)
            _say(path, f"{place} is set to {str(value).lower()}, as the keys of version 1 mean it")
    return new | {"version": SCHEMA_VERSION}


def _upgrade_engine(mapping: dict[str, Any], path: Path) -> None:
    """Leave out engines that went; int8 has openvino, which is the one that computes in it."""
    if mapping.get("engine") in ENGINES_GONE:
        _say(path, f"map.engine {mapping.pop('engine')} went: torch maps, or openvino where it is named")
    if mapping.get("dtype") == "int8" and "engine" not in mapping:
        mapping["engine"] = "openvino"
        _say(path, "map.engine is set to openvino, as map.dtype int8 needs it")


def _implied(training: dict[str, Any]) -> dict[str, Any]:
    """Keys of version 2 that follow from several of version 1; _ABSENT for a key that is to be left out."""
    found: dict[str, Any] = {}
    share, weights = training.get("context_share"), training.get("weights", "none")
    trained = share != 0 and (share is not None or weights != "none") and training.get("encoder") != "none"
    if {"context_share", "weights", "encoder"} & set(training):
        found["training.context.enabled"] = trained
    if trained and weights == "none":
        found["training.context.weights"] = "none"
    if not trained:
        found |= dict.fromkeys(("training.context.encoder", "training.context.weights"), _ABSENT)
    if share in {"learned", None, 0}:
        found["training.context.share"] = _ABSENT
    if weights == "none":
        found["training.context.weights_bands"] = _ABSENT
    named = training.get("encoder") is not None or bool(training.get("weights_bands"))
    kept = training.get("frozen", training.get("head") == "chip")
    if kept and not named and found.get("training.context.weights") != "none":
        found |= {f"training.context.{key}": _ABSENT for key in STEP_KEYS}
    if training.get("soft_weight") == 0:
        found["training.experts.enabled"] = False
    if training.get("patience") and training.get("refit", True) and "training.context.patience" not in found:
        found["training.refit"] = False
    return found


_ABSENT: Any = object()


def _take(data: dict[str, Any], key: str) -> Any:
    """Remove a key; its value, or _ABSENT where there is none."""
    section, _, name = key.partition(".")
    inner = data.get(section)
    return inner.pop(name, _ABSENT) if isinstance(inner, dict) else _ABSENT


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    data[name] = value


def _say(path: Path, text: str) -> None:
    warnings.warn(f"{path.name}: {text}", ConfigWarning, stacklevel=4)


class AssessmentSettings(Settings):
    """Figures on the test blocks."""

    forest_trees: int = Field(
        FOREST_TREES, ge=1, description="Trees of the random forest that the network is compared with."
    )
    features: bool = Field(
        default=True, description="PCA and t-SNE of the network's features: features.gpkg and a figure of the report."
    )
    umap: bool = Field(default=False, description="UMAP too, in features.gpkg; needs the package umap-learn.")


class Config(Settings):
    """Everything that ``landcover run`` needs."""

    version: Literal[2] = Field(
        SCHEMA_VERSION, description="Version of this file's schema; files of version 1 are still read."
    )
    name: str = Field("landcover", pattern=NAME, max_length=100, description="Name of the job.")
    output: str = Field("landcover-run", description="Folder that everything is written into.")
    scenes: tuple[SceneItem, ...] = Field(description="Scenes to learn from and to map.")
    inputs: InputSettings = Field(default_factory=InputSettings)
    labels: LabelSettings
    classes: tuple[ClassItem, ...] = Field(
        max_length=254,
        description="The legend, in order; not of a continuous target, whose classes are made of its values.",
    )
    split: SplitSettings = Field(default_factory=SplitSettings)
    chips: ChipSettings = Field(default_factory=ChipSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    map: MapSettings = Field(default_factory=MapSettings)
    assessment: AssessmentSettings = Field(default_factory=lambda: AssessmentSettings.model_validate({}))

    _output = field_validator("output")(absolute)

    @property
    def mapping(self) -> MapSettings:
        """How scenes are mapped, with the classes that are marked objects: true among those of map.objects."""
        marked = [item.name for item in self.classes if item.objects]
        names = tuple(dict.fromkeys((*self.map.objects.classes, *marked)))
        objects = self.map.objects.model_copy(update={"classes": names})
        return self.map.model_copy(update={"objects": objects})

    @model_validator(mode="before")
    @classmethod
    def _not_needed(cls, data: Any) -> Any:
        """A continuous target has no legend, and stations with covariates can be cross-validated without a scene."""
        labels = data.get("labels") if isinstance(data, dict) else None
        if isinstance(labels, dict) and labels.get("kind") == "value":
            return {"scenes": (), "classes": ()} | data
        return data

    @field_validator("classes")
    @classmethod
    def _some_class(cls, value: tuple[ClassItem, ...], info: ValidationInfo) -> tuple[ClassItem, ...]:
        labels = info.data.get("labels")
        if not value and labels is not None and labels.kind == "class":
            raise ValueError("at least 1 item, not 0")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        known = {item.name for item in self.classes} | set(self.labels.groups.values())
        some, is_value = ", ".join(sorted(known)), self.labels.kind == "value"
        if not is_value and (strange := [name for name in self.mapping.objects.classes if name not in known]):
            raise ValueError(f"map.objects.classes: no class called {', '.join(strange)}; expected some of {some}")
        if self.labels.complete and self.labels.background not in known:
            what = f"no class called {self.labels.background!r} for the ground around the footprints"
            raise ValueError(f"labels.complete: {what}; add it to classes, or name one in labels.background: {some}")
        if is_value and (self.classes or self.map.objects.classes):
            what = "a continuous target (labels.kind: value) has neither classes nor objects"
            raise ValueError(f"{'classes' if self.classes else 'map.objects.classes'}: {what}; take them out")
        if is_value and self.map.of_classes:
            what = "a continuous target has no probabilities of classes; its map has bounds"
            raise ValueError(f"map.{self.map.of_classes[0]}: {what}")
        if is_value and self.training.of_classes:
            what = "a continuous target is learned by teachers, a network of pixels and a frozen encoder alone"
            raise ValueError(f"training.{self.training.of_classes[0]}: {what}; leave it as it is by default")
        if not self.scenes and not self.labels.value.covariates:
            raise ValueError("no scene: name one under scenes; only samples with labels.value.covariates do without")
        return self


def is_chip_job(path: Path) -> bool:
    """Whether a configuration is of whole chips."""
    data = read_yaml(path)
    return isinstance(data, dict) and "folder" in data


def is_forecast_job(path: Path) -> bool:
    """Whether a configuration is of a forecast."""
    data = read_yaml(path)
    return isinstance(data, dict) and "series" in data


def load_config(path: Path | str, *, changes: Sequence[str] = ()) -> Config:
    """A checked configuration.

    ``changes`` are keys set otherwise than in the file, as ``map.memory=1GB``.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one), or a value that does not fit.
    """
    path = Path(path)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(
            "configuration is not a mapping of keys", path=path, got=type(data).__name__,
            fix="write one with landcover init",
        )  # fmt: skip
    if "folder" in data and "scenes" not in data:
        fix = "landcover check or run it, and predict --model --chips"
        raise ConfigError("configuration of whole chips, which has no scene", path=path, fix=fix)
    if "series" in data and "scenes" not in data:
        fix = "landcover check or run it, or landcover forecast with -o"
        raise ConfigError("configuration of a forecast, which has no scene", path=path, fix=fix)
    return checked(Config, changed(upgraded(data, path=path), changes), path=path)


def schema_json() -> str:
    """The JSON Schema of the configuration file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"
