"""How scenes are mapped: the settings of ``landcover predict``, declared once and checked when they are loaded.

No torch: the configuration is read before anything is trained.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.maps.settings import ObjectSettings
from pipeline.settings import AbsolutePath, Odd, Settings

EngineName = Literal["torch", "openvino"]
Dtype = Literal["auto", "float32", "bfloat16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
MosaicRule = Literal["confidence", "latest", "first"]
DEFAULT_MEMORY = "1.5GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as "2GB", "1.5 GiB", "800M" or a plain number.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB"), parse_bytes(1000)
    (2000000000, 1610612736, 1000)

    Raises:
        ConfigError: no such size.
    """
    match = _SIZE.fullmatch(str(text))
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else 0
    if size <= 0:
        raise ConfigError("amount of memory", got=repr(text), expected="a size such as 2GB, 1.5GiB or 800MB")
    return size


def memory_for(bands: int) -> str:
    """Memory that is enough to map so many bands: DEFAULT_MEMORY, for a hundred and more of them what they take.

    The smallest tiles of the network of pixels take 0.9 GB and 4.8 MB a band; tests hold this to the figures.

    >>> memory_for(10), memory_for(218)
    ('1.5GB', '2.5GB')
    """
    halves = math.ceil((0.95 + 0.006 * bands) / 0.5)
    return f"{halves / 2:g}GB" if 5e8 * halves > parse_bytes(DEFAULT_MEMORY) else DEFAULT_MEMORY


@dataclass(frozen=True)
class Products:
    """Which layers are made besides codes and confidence."""

    probabilities: bool = False
    entropy: bool = False
    margin: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers that are made."""
        extra = [name for name in ("probabilities", "entropy", "margin") if getattr(self, name)]
        return ("codes", "confidence", *extra)


class MapSettings(Settings):
    """How scenes are mapped and what is written."""

    engine: EngineName = Field("torch", description="torch, or openvino where it is installed (extra openvino).")
    dtype: Dtype = Field(
        "auto",
        description="Number type of the network when mapping. auto: bfloat16 where the processor computes in it and "
        "99 % of a piece of the scene keep their class, else float32. int8 needs openvino.",
    )
    device: Device = Field("auto", description="Where the network runs; auto: the GPU where torch has one.")
    memory: str = Field(
        DEFAULT_MEMORY, description="Peak memory of mapping, such as 2GB; tiles are as large as it allows."
    )
    threads: int | None = Field(None, ge=1, description="Threads that compute, in all. Default: one per core.")
    tile_px: int | None = Field(None, ge=1, description="Side of a tile. Default: what is fastest in the memory.")
    halo_px: int | None = Field(
        None, ge=0, description="Context read on each side of a tile. Default: measured on a piece of the scene."
    )
    batch: int = Field(1, ge=1, description="Tiles that go through the network together.")
    aoi: AbsolutePath | None = Field(None, description="Polygons: map only what they cover.")
    mask: AbsolutePath | None = Field(None, description="Polygons: leave out what they cover.")
    mosaic: MosaicRule | None = Field(
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
    sets: float | None = Field(
        None,
        ge=0.5,
        le=0.99,
        description="Also write the classes that each pixel may have, so that the true one is among them with this "
        "chance in new places (0.9: nine of ten); needs a model with 9 held-out blocks for 0.9, 19 for 0.95.",
    )
    majority_px: Odd = Field(
        0,
        ge=0,
        le=15,
        description="Side of the window (odd) whose most frequent class a pixel takes; 0: none. The map as it was is "
        "kept beside it (_unfiltered.tif).",
    )
    segments_px: int = Field(
        0,
        ge=0,
        le=1000,
        description="Pixels, about, of the segments of the scene whose most frequent class a pixel takes; 0: none. "
        "Needs scikit-image (extra segments). The map as it was is kept beside it (_unfiltered.tif).",
    )
    sieve_ha: float = Field(
        0.0,
        ge=0,
        description="Patches of the map below this size take the class that is nearest around them. The map as it was "
        "is kept beside it (_unfiltered.tif).",
    )
    polygons: bool = Field(default=False, description="Also write the map as polygons (GeoPackage).")
    polygon_formats: tuple[Literal["parquet", "fgb"], ...] = Field((), description="Further formats of the polygons.")
    mmu_ha: float = Field(0.0, ge=0, description="Minimum mapping unit of the polygons in ha.")
    class_mmu_ha: dict[str, float] = Field(
        default_factory=dict, description="Other minimum mapping units, by class name."
    )
    smoothing: int = Field(0, ge=0, le=4, description="Rounds of corner cutting of the polygons; 2 looks smooth.")
    objects: ObjectSettings = Field(default_factory=lambda: ObjectSettings.model_validate({}))

    @property
    def of_classes(self) -> tuple[str, ...]:
        """Keys that were asked for and that a map of values has nothing for."""
        asked = {name: getattr(self, name) for name in ("probabilities", "entropy", "margin", "sets")}
        return tuple(name for name, value in {**asked, "objects": self.objects.classes}.items() if value)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return parse_bytes(self.memory)

    @property
    def products(self) -> Products:
        """Which layers are made."""
        return Products(self.probabilities or self.sets is not None, self.entropy, self.margin)

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return value
        try:
            parse_bytes(value)
        except ConfigError as err:
            raise ValueError("a size such as 2GB, 1.5GiB or 800MB") from err
        return str(value)

    @property
    def filtered(self) -> bool:
        """Whether the map is cleaned before it is written."""
        return self.majority_px > 1 or self.sieve_ha > 0 or self.segments_px > 0

    @field_validator("mosaic_crs")
    @classmethod
    def _crs(cls, value: str | None) -> str | None:
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        if value is not None:
            try:
                CRS.from_user_input(value)
            except CRSError as err:
                raise ValueError("a CRS that PROJ knows, such as EPSG:3035") from err
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> MapSettings:
        if self.dtype == "int8" and self.engine != "openvino":
            raise ValueError("dtype int8 needs engine openvino")
        if self.engine == "openvino" and self.device == "cuda":
            raise ValueError("engine openvino runs on device cpu")
        return self
