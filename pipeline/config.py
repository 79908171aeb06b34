"""The configuration file: one model per stage, unknown keys are errors that name the nearest known one.

Nothing below the workflow imports this module: domain functions take domain values. Every key's description is written
once, beside what it steers: ``landcover init`` shows it as a comment, ``configs/landcover.schema.json`` and
``docs/config.md`` repeat it. Relative paths are relative to the folder of the configuration file.

Files of version 1 are read as version 2 by two tables: of keys that moved, and of keys that went. Version 2 has the
settings of training in sections by what they steer (``experts``, ``pixels``, ``context``).
"""

from __future__ import annotations

import copy
import csv
import difflib
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, create_model, field_validator, model_validator

from pipeline.documents import parse_json, read_yaml
from pipeline.errors import ConfigError, ConfigWarning
from pipeline.experts.settings import FOREST_TREES
from pipeline.inference.settings import MapSettings
from pipeline.labels.settings import COLOR, ClassItem, LabelSettings
from pipeline.scenes.settings import InputSettings, SceneItem
from pipeline.settings import Settings, absolute
from pipeline.splits.settings import SplitSettings
from pipeline.training.settings import ChipSettings, TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

NOW = 2
MOVED = {
    "training.encoder": "training.context.encoder",
    "training.weights": "training.context.weights",
    "training.weights_bands": "training.context.weights_bands",
    "training.frozen": "training.context.frozen",
    "training.steps": "training.context.steps",
    "training.batch": "training.context.batch",
    "training.lr": "training.context.lr",
    "training.weight_decay": "training.context.weight_decay",
    "training.dropout": "training.context.dropout",
    "training.smoothing": "training.context.smoothing",
    "training.soft_weight": "training.context.soft_weight",
    "training.context_share": "training.context.share",
    "training.patience": "training.context.patience",
    "training.devices": "training.context.devices",
    "training.nodes": "training.context.nodes",
    "training.pixel_steps": "training.pixels.steps",
    "training.teacher_trees": "training.experts.trees",
}
ENGINES_GONE = ("auto", "compiled", "onnxruntime")
GONE = {
    "training.ema": "averages of weights made no set better",
    "training.ensemble": "networks of several seeds made no set better by more than chance",
    "map.tta": "averaging over flips changed the figures by less than chance",
    "map.blend": "tiles are cropped to where the network's reach is inside them, which is exact",
}


def upgraded(data: dict[str, Any], *, path: Path) -> dict[str, Any]:
    """The mapping of keys as version 2 has it; a ConfigWarning for each key that moved or went.

    A file without ``version`` that has keys of version 1 is read as one; other versions are left as they are.
    """
    if data.get("version", 1) != 1:
        return data
    new = copy.deepcopy(data)
    training = new.get("training")
    implied = _implied(training) if isinstance(training, dict) else {}
    for old, place in MOVED.items():
        if (value := _take(new, old)) is not _ABSENT:
            _say(path, f"{old} is now {place}")
            if place not in implied:
                _put(new, place, value)
    for old, why in GONE.items():
        if _take(new, old) is not _ABSENT:
            _say(path, f"{old} went: {why}")
    mapping = new.get("map")
    if isinstance(mapping, dict):
        _upgrade_engine(mapping, path)
    for place, value in implied.items():
        if value is not _ABSENT:
            _put(new, place, value)
            _say(path, f"{place} is set to {str(value).lower()}, as the keys of version 1 mean it")
    return new | {"version": NOW}


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
    if training.get("soft_weight") == 0:
        found["training.experts.enabled"] = False
    if training.get("patience") and training.get("refit", True):
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


SCHEMA_VERSION: Final = 2
NAME = r"^\w[\w.-]*( [\w.-]+)*$"
# What pydantic says of a value, by its kind of error, in the words of who writes the file.
_EXPECTED = {
    "string_type": "text, in quotes where it looks like something else",
    "model_type": "keys with values",
    "dict_type": "keys with values",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "datetime_type": "a time such as 2024-06-01T10:21:00Z",
    "datetime_parsing": "a time such as 2024-06-01T10:21:00Z",
    "datetime_from_date_parsing": "a time such as 2024-06-01T10:21:00Z",
    COLOR: "#rrggbb in hexadecimal, in quotes, such as '#0072b2'",
    NAME: "letters, digits, '.', '_', '-' and single blanks after a letter or digit, 100 at most",
}


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that a misspelt one most likely meant."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


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

    @model_validator(mode="after")
    def _known_classes(self) -> Config:
        known = {item.name for item in self.classes} | set(self.labels.groups.values())
        strange = [name for name in self.mapping.objects.classes if name not in known]
        if strange:
            some = ", ".join(sorted(known))
            msg = f"map.objects.classes: no class called {', '.join(strange)}; expected some of {some}"
            raise ValueError(msg)
        if self.labels.complete and self.labels.background not in known:
            msg = f"labels.complete: no class called {self.labels.background!r} for the ground around the footprints; "
            msg += f"add it to classes, or name one in labels.background: {', '.join(sorted(known))}"
            raise ValueError(msg)
        return self

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
            msg = "at least 1 item, not 0"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _layers_of_classes(self) -> Config:
        if self.labels.kind == "value" and self.map.of_classes:
            msg = (
                f"map.{self.map.of_classes[0]}: a continuous target has no probabilities of classes; its map has bounds"
            )
            raise ValueError(msg)
        if self.labels.kind == "value" and self.training.of_classes:
            msg = (
                f"training.{self.training.of_classes[0]}: a continuous target is learned by teachers and a network of "
                "pixels alone; leave it as it is by default"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _some_scene(self) -> Config:
        if not self.scenes and not self.labels.value.covariates:
            msg = "no scene: name one under scenes; only samples with labels.value.covariates do without"
            raise ValueError(msg)
        return self


def is_chip_job(path: Path) -> bool:
    """Whether a configuration is of whole chips."""
    data = read_yaml(path)
    return isinstance(data, dict) and "folder" in data


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
    return checked(Config, changed(upgraded(data, path=path), changes), path=path)


Checked = TypeVar("Checked", bound=Settings)


def checked(kind: type[Checked], data: Mapping[str, Any], *, path: Path | None = None) -> Checked:
    """Settings of a kind from nested keys; relative paths are relative to the folder of ``path``.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a value that does not fit.
    """
    context = {"folder": path.resolve().parent} if path is not None else None
    try:
        return kind.model_validate(data, context=context)
    except ValidationError as err:
        raise _explain(err, kind, path) from err


def from_changes(kind: type[Checked], changes: Sequence[str]) -> Checked:
    """Settings of a kind from defaults and keys as ``map.memory=1GB``.

    Raises:
        ConfigError: see :func:`checked`; or a text that sets nothing.
    """
    return checked(kind, changed({}, changes))


def section_of(
    section: str, kind: type[Checked], changes: Sequence[str] | None, given: Mapping[str, object] | None = None
) -> Checked:
    """Settings of one section, from options that were given (None: not given) and keys as ``design.size=400``.

    Raises:
        ConfigError: see :func:`from_changes`.
    """
    around = create_model("_Section", __base__=Settings, **{section: (kind, ...)})  # type: ignore[call-overload]  # the name is the section's
    known = {section: {key: value for key, value in (given or {}).items() if value is not None}}
    found: Checked = getattr(checked(around, changed(known, changes or ())), section)
    return found


def changed(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Nested keys with those set that ``changes`` name; their paths are relative to the working folder.

    Raises:
        ConfigError: a text that is not KEY=VALUE.
    """
    made: dict[str, Any] = copy.deepcopy(dict(data))
    for text in changes:
        key, equals, value = text.partition("=")
        *sections, last = key.strip().split(".")
        if not equals or not last:
            raise ConfigError("option --set", got=repr(text), expected="KEY=VALUE, such as map.memory=1GB")
        section = made
        for name in sections:
            inner = section.get(name)
            section[name] = inner if isinstance(inner, dict) else {}
            section = section[name]
        section[last] = _value(value.strip())
    return made


def _value(text: str) -> Any:
    """A list, an object of JSON's, None for null, else the text, which each key reads as its own type.

    >>> _value("[red, nir]"), _value('{"water": 0.5}'), _value("1GB")
    (['red', 'nir'], {'water': 0.5}, '1GB')
    """
    if text in {"", "null"}:
        return None
    if text.startswith("{"):
        return parse_json(text, what="option --set", error=ConfigError)
    if text.startswith("[") and text.endswith("]"):
        parts = next(csv.reader([text[1:-1]], skipinitialspace=True), [])
        return [part.strip().strip("'") for part in parts if part.strip()]
    path = Path(text).expanduser()
    return str(path.resolve()) if path.suffix and path.exists() else text


def _explain(err: ValidationError, kind: type[Settings], path: Path | None) -> ConfigError:
    """The first thing wrong, in one sentence."""
    errors = err.errors()
    first = errors[0]
    if first["type"] == "missing":  # because another key is misspelt, if one is
        first = next((item for item in errors if item["type"] == "extra_forbidden"), first)
    key = _key_of(first)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(kind, first["loc"]))
        near = nearest(str(first["loc"][-1]), known)
        fix = f"did you mean {near!r}?" if near else None
        return ConfigError(f"unknown key {key!r}", path=path, expected="one of " + ", ".join(known), fix=fix)
    if first["type"] == "missing":
        return ConfigError(f"key {key!r} is missing", path=path)
    if first["type"] == "value_error" and not key:
        return ConfigError(_words(first), path=path)
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return ConfigError(f"key {key!r}: {_words(first)}", path=path)
    # A key with several types has an error for each.
    expected = dict.fromkeys(_words(error) for error in err.errors() if _key_of(error) == key)
    return ConfigError(f"key {key!r}", path=path, got=repr(first["input"])[:80], expected=" or ".join(expected))


def _key_of(error: ErrorDetails) -> str:
    """The key as it is in the file: pydantic adds the type it tried, and whether it means a key of a mapping."""
    added = re.compile(r"\[key\]|constrained-\w+|(literal|tuple|function-\w+)\[.*\]")
    return ".".join(str(part) for part in error["loc"] if not added.fullmatch(str(part)))


def _words(error: ErrorDetails) -> str:
    """What was expected, without the words of the library that checks."""
    kind = error["ctx"]["pattern"] if error["type"] == "string_pattern_mismatch" else error["type"]
    stripped = re.sub(r"^(Value error, |[A-Z]\w+ should (be |have )?)", "", error["msg"])
    return _EXPECTED.get(kind, stripped.replace(" after validation", ""))


def _keys_beside(kind: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section of an unknown key has."""
    section: Any = kind
    for part in location[:-1]:
        if isinstance(part, str):
            section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    """The Settings inside ``Settings``, ``Settings | None`` or ``tuple[Settings, ...]``."""
    if isinstance(annotation, type):
        return annotation
    return next(
        (found for arg in getattr(annotation, "__args__", ()) if arg is not Ellipsis and (found := _section_of(arg))),
        None,
    )


def schema_json() -> str:
    """The JSON Schema of the configuration file, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"
