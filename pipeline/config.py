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
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.documents import read_yaml
from pipeline.errors import ConfigError
from pipeline.labels.settings import COLOR, ClassItem, LabelSettings
from pipeline.scenes.settings import InputSettings, SceneItem
from pipeline.settings import Fraction, Settings, absolute

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
    inputs: InputSettings = Field(default_factory=InputSettings)
    labels: LabelSettings
    classes: tuple[ClassItem, ...] = Field(min_length=1, max_length=254, description="The legend, in order.")
    split: SplitSection = Field(default_factory=lambda: SplitSection.model_validate({}))
    chips: Chips = Field(default_factory=lambda: Chips.model_validate({}))
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
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
    try:
        return Config.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as err:
        raise _explain(err, path) from err


def _explain(err: ValidationError, path: Path) -> ConfigError:
    """The first thing wrong, in one sentence."""
    first = err.errors()[0]
    key = _key_of(first)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(first["loc"]))
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


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section of an unknown key has."""
    section: Any = Config
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
