"""The configuration file: one model per stage, unknown keys are errors that name the nearest known one.

Nothing below the workflow imports this module: domain functions take domain values. Every key's description is written
once, here: ``landcover init`` shows it as a comment, ``configs/landcover.schema.json`` and ``docs/config.md`` repeat
it.
Relative paths are relative to the folder of the configuration file.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from pipeline.config_versions import upgraded
from pipeline.documents import read_yaml
from pipeline.errors import ConfigError
from pipeline.experts.settings import FOREST_TREES
from pipeline.labels.settings import COLOR, ClassItem, LabelSettings
from pipeline.scenes.settings import InputSettings, SceneItem
from pipeline.settings import Settings, absolute
from pipeline.splits.split import SplitSettings
from pipeline.training.settings import ChipSettings, TrainingSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=Settings)
NAME = r"^[A-Za-z0-9._-]+$"
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
    NAME: "letters, digits, '.', '_' and '-'",
}


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that a misspelt one most likely meant."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


class MapSection(Settings):
    """How scenes are mapped and what is written."""

    engine: str = Field("auto", description="torch, compiled, onnxruntime or openvino; auto measures and picks.")
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Number type of the network when mapping; int8 needs ONNX Runtime."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network runs.")
    memory: str = Field("1.5GB", description="Peak memory of mapping; tiles are as large as it allows.")
    tile_px: int | None = Field(None, ge=32, description="Side of a tile. Default: what is fastest in the memory.")
    batch: int = Field(1, ge=1, description="Tiles that go through the network together.")
    tta: bool = Field(default=False, description="Average over flips: slower, a little better.")
    blend: Literal["crop", "hann"] = Field("crop", description="How tiles meet: cropped, or averaged over their halos.")
    aoi: str | None = Field(None, description="Polygons: map only what they cover.")
    mask: str | None = Field(None, description="Polygons: leave out what they cover.")
    mosaic: Literal["confidence", "latest", "first"] | None = Field(
        None, description="Join the maps of several scenes into one; the rule says who wins where they overlap."
    )
    mosaic_crs: str | None = Field(None, description="CRS of the mosaic, as EPSG:code; needed across UTM zones.")
    mosaic_pixel: float | None = Field(
        None, gt=0, description="Pixel size of the mosaic in units of its CRS. Default: the finest of the maps."
    )
    probabilities: bool = Field(default=False, description="Also write a band per class.")
    entropy: bool = Field(default=False, description="Also write the entropy in per cent.")
    margin: bool = Field(default=False, description="Also write the margin of the best over the second class.")
    applicability: bool = Field(
        default=False,
        description="Also write how unlike the training data each pixel is, in per cent of the threshold: above 100 it "
        "lies outside the model's area of applicability.",
    )
    polygons: bool = Field(default=False, description="Also write the map as polygons (GeoPackage).")
    polygon_formats: tuple[Literal["parquet", "fgb"], ...] = Field((), description="Further formats of the polygons.")
    mmu_ha: float = Field(0.0, ge=0, description="Minimum mapping unit of the polygons in ha.")
    class_mmu_ha: dict[str, float] = Field(
        default_factory=dict, description="Other minimum mapping units, by class name."
    )
    smoothing: int = Field(0, ge=0, le=4, description="Rounds of corner cutting of the polygons; 2 looks smooth.")

    @field_validator("aoi", "mask")
    @classmethod
    def _paths(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else absolute(value, info)


class Assessment(Settings):
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

    version: Literal[2] = Field(2, description="Version of this file's schema; files of version 1 are still read.")
    name: str = Field("landcover", pattern=NAME, description="Name of the job.")
    output: str = Field("landcover-run", description="Folder that everything is written into.")
    scenes: tuple[SceneItem, ...] = Field(min_length=1, description="Scenes to learn from and to map.")
    inputs: InputSettings = Field(default_factory=InputSettings)
    labels: LabelSettings
    classes: tuple[ClassItem, ...] = Field(min_length=1, max_length=254, description="The legend, in order.")
    split: SplitSettings = Field(default_factory=SplitSettings)
    chips: ChipSettings = Field(default_factory=ChipSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    map: MapSection = Field(default_factory=lambda: MapSection.model_validate({}))
    assessment: Assessment = Field(default_factory=lambda: Assessment.model_validate({}))

    _output = field_validator("output")(absolute)


def load_config(path: Path | str) -> Config:
    """A checked configuration.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one), or a value that does not fit.
    """
    path = Path(path)
    data = read_yaml(path, what="the configuration", error=ConfigError)
    if not isinstance(data, dict):
        raise ConfigError(
            "configuration is not a mapping of keys", path=path, got=type(data).__name__,
            fix="write one with landcover init",
        )  # fmt: skip
    return checked(Config, upgraded(data, path=path), path=path)


def checked(model: type[Model], data: dict[str, Any], *, path: Path) -> Model:
    """The settings of a file's keys; paths in them are relative to its folder.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    try:
        return model.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as err:
        raise _explain(err, path, model) from err


def _explain(err: ValidationError, path: Path, model: type[Settings]) -> ConfigError:
    """The first thing wrong, in one sentence."""
    first = err.errors()[0]
    key = _key_of(first)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(first["loc"], model))
        near = nearest(str(first["loc"][-1]), known)
        fix = f"did you mean {near!r}?" if near else None
        return ConfigError(f"unknown key {key!r}", path=path, expected="one of " + ", ".join(known), fix=fix)
    if first["type"] == "missing":
        return ConfigError(f"key {key!r} is missing", path=path)
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


def _keys_beside(location: tuple[int | str, ...], model: type[Settings]) -> list[str]:
    """The keys that the section of an unknown key has."""
    section: Any = model
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
