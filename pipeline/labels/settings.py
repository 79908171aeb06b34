"""What a user can set about labels and the legend."""

from __future__ import annotations

import codecs
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.settings import Settings, absolute

COLOR = r"^#[0-9a-fA-F]{6}$"


def split_source(text: str) -> tuple[str, str | None]:
    """Path and layer of a vector source as QGIS spells it.

    >>> split_source("a.gpkg|layername=fields"), split_source("a.gpkg")
    (('a.gpkg', 'fields'), ('a.gpkg', None))
    """
    path, *options = text.split("|")
    named = dict(option.partition("=")[::2] for option in options)
    return path, named.get("layername")


class LabelSettings(Settings):
    """Training labels."""

    path: str = Field(
        description="GeoPackage, Shapefile, GeoJSON, GeoParquet or FlatGeobuf of polygons or points, in any CRS; or a "
        "class raster (an existing map) whose values are codes of the classes."
    )
    field: str = Field("", description="Attribute that holds the class, as text or integer; not of a class raster.")
    layer: str | None = Field(
        None, description="Layer of a file that has several; path may also be QGIS's own, file.gpkg|layername=fields."
    )
    also: tuple[str, ...] = Field(
        (), description="Further files of polygons with the same field, such as those of landcover labels next."
    )
    encoding: str | None = Field(
        None,
        description="Encoding of text that is not UTF-8, where the file does not say it: cp1252, cp1251, gbk ...",
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

    @field_validator("also")
    @classmethod
    def _paths(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(absolute(item, info) for item in value)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        try:
            return None if value is None else codecs.lookup(value).name
        except LookupError as err:
            msg = "an encoding that Python knows, such as utf-8, cp1252, cp1251 or gbk"
            raise ValueError(msg) from err

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

    @field_validator("point_window_px")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            msg = "an odd number, so that the point lies in the middle"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_kind_of_points(self) -> LabelSettings:
        if self.point_radius_m is not None and self.point_window_px is not None:
            msg = "point_radius_m and point_window_px exclude each other"
            raise ValueError(msg)
        return self


class ClassItem(Settings):
    """One class of the legend."""

    code: int = Field(ge=1, le=254, description="Value in the map.")
    name: str = Field(description="Name, as in the labels (after aliases).")
    color: str = Field(pattern=COLOR, description="Colour in the map, #rrggbb.")
