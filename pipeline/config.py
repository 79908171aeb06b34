"""The configuration file: one model per stage, unknown keys are errors that name the nearest known one.

Nothing below the workflow imports this module: domain functions take domain values. Every key's description is written
once, here: ``landcover init`` shows it as a comment, ``configs/landcover.schema.json`` and ``docs/config.md`` repeat
it.
Relative paths are relative to the folder of the configuration file.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from datetime import datetime  # noqa: TC003 - pydantic needs it at run time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.documents import parse_json, read_yaml
from pipeline.errors import ConfigError
from pipeline.inference.settings import MapSettings
from pipeline.settings import Fraction, Settings, absolute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

COLOR = r"^#[0-9a-fA-F]{6}$"
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
# Files that training.weights may name; anything else is a record's name.
WEIGHT_SUFFIXES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar"})


class SceneItem(Settings):
    """One scene: any raster GDAL opens, a folder of band files, an agency's product, or a STAC item."""

    path: str = Field(description="File, folder, SAFE, zip, Landsat folder or tar, STAC item (file or URL).")
    id: str | None = Field(
        None, description="Name of the scene; outputs are called after it. Default: the file's name."
    )
    bands: tuple[str, ...] | None = Field(
        None, description="A name for every band in file order, where the file does not name them."
    )
    scale: float | None = Field(
        None, description="value = DN x scale + offset, where the file's own tags are missing or wrong."
    )
    offset: float | None = Field(None, description="See scale.")
    nodata: float | None = Field(None, description="DN that means 'no observation', where the file has no nodata tag.")
    sensor: str | None = Field(
        None, description="sentinel-2, landsat-oli, landsat-etm or landsat-tm: makes names such as B5 unambiguous."
    )
    acquired_utc: datetime | None = Field(
        None, description="Time of acquisition with time zone (2024-06-01T10:21:00Z)."
    )
    dates: tuple[datetime, ...] | None = Field(
        None,
        description="For a file whose bands are dates of one variable (an NDVI series): the date of every band, with "
        "time zone; bands then holds one name, that of the variable.",
    )
    mirror: Literal["earth-search", "planetary-computer", "copernicus"] | None = Field(
        None,
        description="Who serves a STAC item, where neither its addresses nor its properties tell: it decides whether "
        "the Sentinel-2 offset is still in the values.",
    )
    group: str | None = Field(
        None,
        description="With inputs.time other than separate: scenes of one group become one stack or composite, called "
        "after the group (another place, another year). Default: all scenes are one group.",
    )

    _path = field_validator("path")(absolute)


class LayerItem(Settings):
    """Another raster stacked on each scene's grid."""

    path: str = Field(description="Any raster GDAL opens, on any grid.")
    kind: Literal["raster", "dem", "sentinel1"] = Field(
        "raster", description="dem gives elevation, slope and northness; sentinel1 turns linear backscatter into dB."
    )
    bands: tuple[str, ...] | None = Field(
        None, description="Names of its bands; for a dem, which of elevation, slope, northness, eastness."
    )

    _path = field_validator("path")(absolute)


class StackSection(Settings):
    """How dates are joined: the bands of a stack, and pixels that are clouded on some dates."""

    naming: Literal["date", "order"] = Field(
        "date",
        description="Bands of a stack are called after the date (nir_2024-05-01) or its place in time (nir_t1). A "
        "model for other days or years needs order, or regular.",
    )
    regular: tuple[int, ...] | None = Field(
        None,
        description="Days of the year that every pixel is interpolated to (nir_doy121), so that stacks of different "
        "acquisition days mean the same. Default: the dates as they are.",
    )
    fill: Literal["linear", "nearest", "none"] = Field(
        "linear",
        description="A clouded date of a stack is interpolated between the pixel's clear dates, takes the nearest of "
        "them, or makes the pixel invalid (none).",
    )
    min_dates: int = Field(1, ge=1, description="Fewest clear dates of a valid pixel, of stacks and composites.")
    validity: bool = Field(
        default=False, description="Add a band per date of a stack: 1 where observed, 0 where filled."
    )


class Inputs(Settings):
    """What the network sees of a scene."""

    bands: tuple[str, ...] | None = Field(
        None, description="Bands used, by name. Default: all bands that all scenes share."
    )
    indices: tuple[str, ...] = Field(
        (), description="Spectral indices added as bands, by their spyndex name: NDVI, NDWI, NBR ..."
    )
    layers: tuple[LayerItem, ...] = Field(
        (), description="Other rasters stacked on the grid: a DEM, Sentinel-1, anything."
    )
    mask: tuple[str, ...] | None = Field(
        None,
        description="What is masked where the product says so: nodata, saturated, shadow, cloud, cloud_medium, cirrus, "
        "snow ... Default: all of these but snow and thin doubts.",
    )
    resolution_m: float | None = Field(
        None,
        gt=0,
        description="Pixel size in metres that products of several resolutions are read at. Default: finest.",
    )
    time: Literal["separate", "stack", "median", "medoid", "greenest"] = Field(
        "separate",
        description="How several scenes of one place meet: each mapped by itself, stacked as dates x bands, "
        "or merged into a cloud-masked composite (median, or the best pixel as medoid or greenest).",
    )
    stack: StackSection = Field(default_factory=lambda: StackSection.model_validate({}))
    allow_mixed: bool = Field(
        default=False, description="Accept scenes of different product level or offset treatment in one run."
    )


class LabelsSection(Settings):
    """Training labels."""

    path: str = Field(
        description="GeoPackage, Shapefile, GeoJSON, GeoParquet or FlatGeobuf of polygons or points, in any CRS; or a "
        "class raster (an existing map) whose values are codes of the classes."
    )
    field: str = Field("", description="Attribute that holds the class, as text or integer; not of a class raster.")
    layer: str | None = Field(None, description="Layer of a file that has several.")
    aliases: dict[str, str] = Field(
        default_factory=dict, description="Value in the file -> class name, to merge or rename classes."
    )
    all_touched: bool = Field(
        default=False, description="Label every pixel a polygon touches; default: pixels whose centre is inside."
    )
    class_all_touched: dict[str, bool] = Field(
        default_factory=dict, description="The same by class name: narrow classes such as rivers may need it."
    )
    erode_px: int = Field(
        0, ge=0, le=7, description="Pixels left out along the rim of every polygon; its innermost ones always stay."
    )
    class_erode_px: dict[str, int] = Field(default_factory=dict, description="The same by class name.")
    buffer_m: float = Field(0.0, description="Metres by which polygons are grown, or shrunk where negative.")
    class_buffer_m: dict[str, float] = Field(default_factory=dict, description="The same by class name.")
    point_radius_m: float | None = Field(
        None, ge=0, description="Points are labels too: circles of this radius in metres; 0 for the pixel alone."
    )
    point_window_px: int | None = Field(
        None, ge=1, le=63, description="Points are labels too: squares of so many pixels a side (odd) around each."
    )
    piece_px: int = Field(
        16, ge=1, description="Of a class raster: regions are cut into polygons of at most so many pixels a side."
    )
    pieces: int = Field(100, ge=1, description="Of a class raster: most polygons of a class, drawn at random.")
    groups: dict[str, str] = Field(
        default_factory=dict, description="Class -> class of the level above; what is not named is its own."
    )
    level: Literal[1, 2] = Field(2, description="1 maps the groups, 2 the classes as they are listed.")

    _path = field_validator("path")(absolute)

    @field_validator("aliases", "class_all_touched", "class_erode_px", "class_buffer_m", "groups", mode="before")
    @classmethod
    def _keys_as_text(cls, value: object) -> object:
        """Classes are numbers in many files, and YAML reads them as such; ``no`` is a truth value and stays one."""
        if not isinstance(value, dict):
            return value
        number = {key for key in value if type(key) in {int, float}}
        return {str(key).removesuffix(".0") if key in number else key: item for key, item in value.items()}

    @field_validator("point_window_px")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            msg = "an odd number, so that the point lies in the middle"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_kind_of_points(self) -> LabelsSection:
        if self.point_radius_m is not None and self.point_window_px is not None:
            msg = "point_radius_m and point_window_px exclude each other"
            raise ValueError(msg)
        return self


class ClassItem(Settings):
    """One class of the legend."""

    code: int = Field(ge=1, le=254, description="Value in the map.")
    name: str = Field(description="Name, as in the labels (after aliases).")
    color: str = Field(pattern=COLOR, description="Colour in the map, #rrggbb.")


class SplitSection(Settings):
    """Which polygons train, stop and test the model: whole polygons, by spatial blocks."""

    block_m: float | None = Field(
        None, gt=0, description="Side of a spatial block in metres. Default: from the label layout."
    )
    buffer_m: float | None = Field(
        None, ge=0, description="Distance kept free between the parts, in metres. Default: half a chip."
    )
    train: Fraction = Field(0.6, description="Share of the labels that trains.")
    validation: Fraction = Field(0.2, description="Share that chooses when to stop and calibrates the confidence.")
    test: Fraction = Field(0.2, description="Share that is only used for the figures at the end.")
    seed: int = Field(0, ge=0, description="Seed of the assignment.")

    @model_validator(mode="after")
    def _sum(self) -> SplitSection:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:  # noqa: PLR2004 - rounding of three decimals
            msg = f"train + validation + test is {total:g}; expected 1"
            raise ValueError(msg)
        return self


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that a misspelt one most likely meant."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


class Chips(Settings):
    """Training chips: windows around labelled pixels."""

    size_px: int = Field(64, ge=8, le=1024, description="Side of a chip in pixels.")


class Training(Settings):
    """How the network learns. Which defaults were measured, and on what, is in docs/learning.md."""

    head: Literal["unet", "chip"] = Field(
        "unet",
        description="unet gives every pixel a class; chip gives whole chips the class of the polygon in their middle, "
        "and maps cells of a quarter of a chip.",
    )

    encoder: str = Field(
        "resnet18",
        description="Of the network with context: resnet18, 34, 50, 101, 152, vgg11_bn ... vgg19_bn, or none. From "
        "random weights it is trained only where context_share asks for it: it made no set better (docs/learning.md).",
    )
    weights: str = Field("none", description="none, imagenet, a torchgeo record's name, or a file of encoder weights.")
    weights_bands: tuple[str, ...] = Field((), description="Bands of a weights file's first convolution, by name.")
    frozen: bool = Field(default=False, description="Keep a pretrained encoder as it is and train the rest.")
    steps: int = Field(300, ge=1, description="Batches of the network with context.")
    batch: int = Field(8, ge=1, description="Chips in a batch.")
    pixel_steps: int = Field(
        1500, ge=1, description="Batches of the network of single pixels, or of chips' statistics."
    )
    lr: float = Field(3e-3, gt=0, description="Peak learning rate (one cycle, AdamW).")
    weight_decay: float = Field(0.02, ge=0, description="L2 weight decay.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of feature channels dropped before the head.")
    smoothing: float = Field(0.05, ge=0, lt=1, description="Label smoothing.")
    soft_weight: float = Field(
        2.0, ge=0, description="Weight of what experts think of unlabelled pixels; 0 trains on labels alone."
    )
    teacher_trees: int = Field(100, ge=1, description="Trees of each of the experts that teach the networks.")
    patience: int = Field(0, ge=0, description="Validations without improvement before training stops; 0: never.")
    refit: bool = Field(
        default=True,
        description="Network and random forest learn from the validation polygons too; with patience neither does, as "
        "these then decide when to stop.",
    )
    context_share: Fraction | Literal["learned"] | None = Field(
        None,
        description="Share of the network with context in the average; 0: not trained; learned: what it earns on the "
        "validation polygons, 0 where it earns none, for twice the time; null: 0 without pretrained weights or with "
        "fewer than 100 polygons, else by their number.",
    )
    ensemble: int = Field(
        1, ge=1, le=20, description="Networks of each kind, from different seeds, averaged; maps take as much longer."
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights that the network with context ends as, such as 0.99; "
        "0: its last weights.",
    )
    devices: int = Field(
        1, ge=1, description="GPUs (without one: processes) of each machine that train together; they share each batch."
    )
    nodes: int = Field(1, ge=1, description="Machines that train together, the same command on each (docs/scale.md).")
    time_limit_s: float = Field(540.0, gt=0, description="Training stops after this many seconds.")
    seed: int = Field(0, ge=0, description="Same seed, same machine: same model.")

    @field_validator("weights")
    @classmethod
    def _weights(cls, value: str, info: ValidationInfo) -> str:
        """A file's path is relative to the configuration, a record's name is a name."""
        is_file = "/" in value or "\\" in value or Path(value).suffix.lower() in WEIGHT_SUFFIXES
        return absolute(value, info) if is_file else value


class Assessment(Settings):
    """Figures on the test blocks."""

    forest_trees: int = Field(500, ge=1, description="Trees of the random forest that the network is compared with.")
    features: bool = Field(
        default=True, description="PCA and t-SNE of the network's features: features.gpkg and a figure of the report."
    )
    umap: bool = Field(default=False, description="UMAP too, in features.gpkg; needs the package umap-learn.")


class Config(Settings):
    """Everything that ``landcover run`` needs."""

    version: Literal[1] = Field(1, description="Version of this file's schema.")
    name: str = Field("landcover", pattern=NAME, description="Name of the job.")
    output: str = Field("landcover-run", description="Folder that everything is written into.")
    scenes: tuple[SceneItem, ...] = Field(min_length=1, description="Scenes to learn from and to map.")
    inputs: Inputs = Field(default_factory=lambda: Inputs.model_validate({}))
    labels: LabelsSection
    classes: tuple[ClassItem, ...] = Field(min_length=1, max_length=254, description="The legend, in order.")
    split: SplitSection = Field(default_factory=lambda: SplitSection.model_validate({}))
    chips: Chips = Field(default_factory=lambda: Chips.model_validate({}))
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
    map: MapSettings = Field(default_factory=lambda: MapSettings.model_validate({}))
    assessment: Assessment = Field(default_factory=lambda: Assessment.model_validate({}))

    _output = field_validator("output")(absolute)


def load_config(path: Path | str, *, changes: Sequence[str] = ()) -> Config:
    """A checked configuration.

    Args:
        path: The file.
        changes: Keys that are set otherwise than in the file, as ``map.memory=1GB``.

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
    return checked(Config, _changed(data, changes), path=path)


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
    return checked(kind, _changed({}, changes))


def _changed(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
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
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    path = Path(text).expanduser()
    return str(path.resolve()) if path.suffix and path.exists() else text


def _explain(err: ValidationError, kind: type[Settings], path: Path | None) -> ConfigError:
    """The first thing wrong, in one sentence."""
    first = err.errors()[0]
    key = _key_of(first)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(kind, first["loc"]))
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
