"""What a user can set about scenes: how their files are read, how dates meet, what is stacked on them, their names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.bands import TABLES
from pipeline.errors import ConfigError, SceneWarning
from pipeline.files import hash_bytes
from pipeline.settings import AbsolutePath, Settings

REASONS = (
    "nodata",
    "saturated",
    "cloud",
    "cloud_medium",
    "cirrus",
    "shadow",
    "dilated",
    "snow",
    "water",
    "dark",
    "unclassified",
)
"""What makes a pixel unusable: one vocabulary for the quality layers of all sensors (``pipeline.scenes.quality``)."""


# Bytes in UTF-8: file systems take 255 for the name of a file, which is the scene's and what is made of it.
MAX_BYTES = 100
EXPECTED = f"letters, digits, spaces and . _ - + ( ) after a letter or digit, {MAX_BYTES} bytes at most"
# Files of a run folder, which an item of the same name would replace.
TAKEN = frozenset({"accuracy", "areas", "collection", "ledger", "learning_curve", "run"})
_NAME = re.compile(r"[^\W_](?:[\w .+()-]*[\w+()-])?")
_OTHER = re.compile(r"[^\w .+()-]+")


def is_name(text: str) -> bool:
    """Whether a scene may be called so.

    >>> is_name("S2B_MSIL2A_20240601"), is_name("Zürich (2)"), is_name("../a"), is_name("-a"), is_name("a" * 300)
    (True, True, False, False, False)
    """
    return bool(_NAME.fullmatch(text)) and len(text.encode()) <= MAX_BYTES and text.lower() not in TAKEN


def name_of(text: str, *, path: Path | str) -> str:
    """A name that a scene may have, from that of its file or product; warns where it is another one.

    >>> name_of("field_7", path="field_7.tif")
    'field_7'
    """
    if is_name(text):
        return text
    name = _OTHER.sub("_", text).lstrip(" ._+()-").rstrip(" .")
    if len(name.encode()) > MAX_BYTES:
        digest = hash_bytes(text.encode())[:8]
        name = f"{name.encode()[: MAX_BYTES - 9].decode(errors='ignore').rstrip(' .')}_{digest}"
    if not is_name(name):
        name = f"scene_{name}".rstrip("_ .")
    shown = text if len(text) <= MAX_BYTES else f"{text[:MAX_BYTES]}..."
    warnings.warn(f"{path}: files are called after {name!r}, not {shown!r}; set id to choose a name", SceneWarning, 2)
    return name


# A list, or one text with commas as on a command line: red,green,blue.
Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: tuple(value.split(",")) if isinstance(value, str) else value)
]


class SceneOptions(Settings):
    """What the user knows better than the files of a scene; a key that is not set means "as the file says"."""

    bands: Names | None = Field(
        None, description="A name for every band in file order, where the file does not name them."
    )
    scale: float | None = Field(
        None, gt=0, description="value = DN x scale + offset, where the file's own tags are missing or wrong."
    )
    offset: float | None = Field(None, description="See scale.")
    nodata: Annotated[float, Field(allow_inf_nan=True)] | Literal["none"] | None = Field(
        None,
        description="DN that means 'no observation', where the file has no nodata tag; none: every value is one, "
        "however much of the scene has it.",
    )
    sensor: str | None = Field(
        None, description="sentinel-2, landsat-oli, landsat-etm, landsat-tm, hls-s30 or hls-l30: says what B5 is."
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

    embedding: Literal["alphaearth", "tessera"] | None = Field(
        None,
        description="The bands are annual embeddings, read by this rule; where names tell (A00, Tessera_Band_0), "
        "it is taken by itself.",
    )
    trust: bool = Field(
        default=False,
        description="A VRT may reach the network and raw pixels outside its folder: you know who wrote it.",
    )

    def nodata_or(self, found: float | None) -> float | None:
        """The DN that means no observation: the stated one, None for "none", else what the file or product says.

        >>> SceneOptions(nodata="none").nodata_or(0.0), SceneOptions(nodata=7).nodata_or(0.0), AS_FOUND.nodata_or(0.0)
        (None, 7.0, 0.0)
        """
        if self.nodata is None:
            return found
        return None if self.nodata == "none" else self.nodata

    @field_validator("sensor")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in TABLES:
            raise ValueError("one of " + ", ".join(TABLES))
        return value

    @model_validator(mode="after")
    def _one_variable(self) -> SceneOptions:
        if self.dates is not None and (self.bands is None or len(self.bands) != 1):
            raise ValueError("bands of a scene with dates; expected one name: [ndvi]")
        return self


AS_FOUND = SceneOptions()
"""Nothing is known better than the files say."""


class SceneRequest(SceneOptions):
    """What a user says of scenes to be mapped beside their files, with ``--set scene.KEY=VALUE``."""

    date: Names = Field(
        (), description="Days of the scenes that do not say them (2024-06-01): one each, in order; for a single file "
        "whose bands are dates one per band.",
    )  # fmt: skip
    layers: Names = Field((), description="Where further rasters of the model (DEM, Sentinel-1) are now; in its order.")
    resolution_m: float | None = Field(None, gt=0, description="Pixel size in metres to read each --scene at.")

    def of_one(self, position: int) -> SceneRequest:
        """What is said of the scene at a position alone."""
        return self.model_copy(update={"date": self.date[position : position + 1]})

    def check_number(self, paths: Sequence[str]) -> None:
        """Refuse another number of dates than scenes.

        Raises:
            ConfigError: dates that cannot be given to scenes one by one.
        """
        if self.date and len(paths) > 1 and len(self.date) != len(paths):
            raise ConfigError("option --date", got=len(self.date), expected=f"{len(paths)}, one for each --scene")


def _name(value: str | None) -> str | None:
    if value is not None and not is_name(value):
        raise ValueError(EXPECTED)
    return value


class ScenePath(Settings):
    """Where a scene is, and its name."""

    path: AbsolutePath = Field(description="File, folder, SAFE, zip, Landsat folder or tar, STAC item (file or URL).")
    id: str | None = Field(
        None, description="Name of the scene; outputs are called after it. Default: the file's name."
    )

    _id = field_validator("id")(_name)


class SceneItem(SceneOptions, ScenePath):
    """One scene: any raster GDAL opens, a folder of band files, an agency's product, or a STAC item."""

    group: str | None = Field(
        None,
        description="With inputs.time other than separate: scenes of one group become one stack or composite, called "
        "after the group (another place, another year). Default: all scenes are one group.",
    )

    _group = field_validator("group")(_name)


class LayerItem(Settings):
    """Another raster stacked on each scene's grid."""

    path: AbsolutePath = Field(description="Any raster GDAL opens, on any grid.")
    kind: Literal["raster", "dem", "sentinel1", "alphaearth", "tessera", "series"] = Field(
        "raster",
        description="dem gives elevation, slope and northness; sentinel1 turns linear backscatter into dB; alphaearth "
        "and tessera are annual embeddings; series is a raster whose bands are dates, of which a sample gets a mean.",
    )
    days: int = Field(
        1, ge=0, description="Of a series: mean over so many days before the date of a sample; 0: the day itself."
    )
    bands: tuple[str, ...] | None = Field(
        None, description="Names of its bands; for a dem, which of elevation, slope, northness, eastness."
    )


class StackSettings(Settings):
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


# A tile is read with half of it around; wider windows blur what they should tell apart.
LARGEST_TEXTURE_PX = 101


class InputSettings(Settings):
    """What the network sees of a scene."""

    bands: tuple[str, ...] | None = Field(
        None,
        description="Bands used, by name. Default: all that all scenes share but those that measure the air or "
        "temperature (Sentinel-2's B1, B9 and B10, Landsat's cirrus and thermal bands).",
    )
    indices: tuple[str, ...] = Field(
        (), description="Spectral indices added as bands, by their spyndex name: NDVI, NDWI, NBR ..."
    )
    layers: tuple[LayerItem, ...] = Field(
        (), description="Other rasters stacked on the grid: a DEM, Sentinel-1, anything."
    )
    place: bool = Field(
        default=False,
        description="Easting and northing as bands: a continuous target then learns what is interpolated from samples.",
    )
    textures: tuple[int, ...] = Field(
        (),
        description="Sides in pixels (odd) of windows whose mean, deviation, least and largest brightness become "
        "bands: for aerial images of few bands, whose objects are wider than the 9 pixels that the network sees.",
    )
    mask: tuple[str, ...] | None = Field(
        None,
        description="What is masked where the product says so: nodata, saturated, shadow, cloud, cloud_medium, cirrus, "
        "snow ... Default: all of these but snow and thin doubts.",
    )
    clouds: Literal["auto", "product", "network", "none"] = Field(
        "product",
        description="Where clouds and their shadows are known from: product, its own layers; network, that of "
        "ukis-csmask (extra clouds); auto, the product, and the network where it has no such layer; none, unmasked.",
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
    stack: StackSettings = Field(default_factory=StackSettings)
    allow_mixed: bool = Field(
        default=False, description="Accept scenes of different product level or offset treatment in one run."
    )

    @field_validator("textures")
    @classmethod
    def _windows(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        known = range(3, LARGEST_TEXTURE_PX + 1, 2)
        if len(set(value)) < len(value) or any(side not in known for side in value):
            raise ValueError(f"different odd numbers of pixels from 3 to {LARGEST_TEXTURE_PX}")
        return value

    @field_validator("mask")
    @classmethod
    def _reasons(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [reason for reason in value or () if reason not in REASONS]
        if unknown:
            raise ValueError(f"some of {', '.join(REASONS)}; {', '.join(unknown)} is unknown")
        return value
