"""What a user can set about labels, the legend, and classes that become one polygon per object."""

from __future__ import annotations

import codecs
import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.quantity import Transform  # noqa: TC001 - pydantic needs it at run time
from pipeline.settings import COLOR, AbsolutePath, Settings, absolute, odd


def split_source(text: str) -> tuple[str, str | None]:
    """Path and layer of a vector source as QGIS spells it.

    >>> split_source("a.gpkg|layername=fields"), split_source("a.gpkg")
    (('a.gpkg', 'fields'), ('a.gpkg', None))
    """
    path, *options = text.split("|")
    named = dict(option.partition("=")[::2] for option in options)
    return path, named.get("layername")


class ValueSettings(Settings):
    """A continuous target (kind: value): what it measures, and which attributes go with it."""

    unit: str = Field("", description="Unit, as it is shown: t/ha, ug/m3; of shares none.")
    range: tuple[float | None, float | None] | None = Field(
        None, description="Smallest and largest value it can have, null for no limit; others are refused in samples, "
        "and maps keep within it."
    )  # fmt: skip
    transform: Transform = Field("none", description="What is learned: the value, or its log or sqrt.")
    group: str | None = Field(
        None, description="Attribute whose values stay together in split and folds: station, tile, plot. Groups stand "
        "in for blocks where they hold 1.5 samples or more on average."
    )  # fmt: skip
    date: str | None = Field(None, description="Attribute with the date of a sample; picks from layers with dates.")
    mapped: tuple[dt.date, ...] = Field(
        (), description="Days that are mapped, where layers have dates. Default: the last."
    )
    covariates: tuple[str, ...] = Field(
        (), description="Numeric attributes that teachers learn from beside the rasters, in crossval alone: no raster "
        "has them, so no map can."
    )  # fmt: skip
    raster_samples: int = Field(2000, ge=10, description="Of a raster of values: pixels that are drawn from it.")

    @model_validator(mode="after")
    def _rising(self) -> ValueSettings:
        low, high = self.range or (None, None)
        if low is not None and high is not None and low >= high:
            raise ValueError("range is smallest, then largest value")
        return self


class LabelSettings(Settings):
    """Training labels."""

    kind: Literal["class", "value"] = Field(
        "class", description="class: field holds a class; value: a number, see value (docs/continuous.md)."
    )
    path: AbsolutePath = Field(
        description="GeoPackage, Shapefile, GeoJSON, GeoParquet or FlatGeobuf of polygons or points, in any CRS; or a "
        "class raster (an existing map) whose values are codes of the classes."
    )
    field: str = Field(
        "",
        description="Attribute that holds the class, as text or integer; not of a class raster, nor where one class "
        "alone has objects: true and every polygon is one of its objects.",
    )
    layer: str | None = Field(
        None, description="Layer of a file that has several; path may also be QGIS's own, file.gpkg|layername=fields."
    )
    also: tuple[AbsolutePath, ...] = Field(
        (), description="Further files of polygons with the same field, such as those of landcover labels next."
    )
    encoding: str | None = Field(
        None, description="Encoding of text that is not UTF-8, where the file does not say it: cp1252, cp1251, gbk ..."
    )
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
    point_window_px: Annotated[int, Field(ge=1, le=63), AfterValidator(odd)] | None = Field(
        None, description="Points are labels too: squares of so many pixels a side (odd) around each."
    )
    piece_px: int = Field(
        16, ge=1, description="Of a class raster: regions are cut into polygons of at most so many pixels a side."
    )
    pieces: int = Field(100, ge=1, description="Of a class raster: most polygons of a class, drawn at random.")
    complete: bool | str = Field(
        default=False,
        description="Footprints are complete: every object is drawn, in all of the scenes (true) or within the "
        "polygons of this file. What lies there outside all polygons is of the class labels.background; elsewhere "
        "ground without a polygon stays unlabelled.",
    )
    background: str = Field("background", description="Class of the ground around complete footprints.")
    groups: dict[str, str] = Field(
        default_factory=dict, description="Class -> class of the level above; what is not named is its own."
    )
    value: ValueSettings = Field(default_factory=lambda: ValueSettings.model_validate({}))
    level: Literal[1, 2] = Field(2, description="1 maps the groups, 2 the classes as they are listed.")

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of labels, without the names of layers."""
        area = (self.complete,) if isinstance(self.complete, str) else ()
        return tuple(split_source(name)[0] for name in (self.path, *self.also, *area))

    @field_validator("complete", mode="before")
    @classmethod
    def _true_or_path(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return value.casefold() == "true" if value.casefold() in {"true", "false"} else absolute(value, info)
        return value

    @model_validator(mode="after")
    def _apart(self) -> LabelSettings:
        if self.kind == "value" and self.field in self.value.covariates:
            raise ValueError(f"covariates hold {self.field!r}, the target itself")
        if self.kind == "value" and self.complete:
            raise ValueError("complete is for classes")
        return self

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            return None if value is None else codecs.lookup(value).name
        except LookupError as err:
            raise ValueError("an encoding that Python knows, such as utf-8, cp1252, cp1251 or gbk") from err

    @model_validator(mode="before")
    @classmethod
    def _layer_of_path(cls, data: Any) -> Any:
        """A source as QGIS writes it into projects names its layer in the path."""
        if not isinstance(data, dict) or not isinstance(data.get("path"), str):
            return data
        path, layer = split_source(data["path"])
        return data | {"path": path} | ({"layer": layer} if layer is not None else {})

    @field_validator("aliases", "class_all_touched", "class_erode_px", "class_buffer_m", "groups", mode="before")
    @classmethod
    def _keys_as_text(cls, value: object) -> object:
        """Classes are numbers in many files, and YAML reads them as such; ``no`` is a truth value and stays one."""
        if not isinstance(value, dict):
            return value
        number = {key for key in value if type(key) in {int, float}}
        return {str(key).removesuffix(".0") if key in number else key: item for key, item in value.items()}

    @model_validator(mode="after")
    def _one_kind_of_points(self) -> LabelSettings:
        if self.point_radius_m is not None and self.point_window_px is not None:
            raise ValueError("point_radius_m and point_window_px exclude each other")
        return self


class ClassItem(Settings):
    """One class of the legend."""

    code: int = Field(ge=1, le=254, description="Value in the map.")
    name: str = Field(description="Name, as in the labels (after aliases).")
    color: str = Field(pattern=COLOR, description="Colour in the map, #rrggbb.")
    objects: bool = Field(
        default=False, description="Also map it as objects, one polygon each: buildings, ponds, trees (map.objects)."
    )
