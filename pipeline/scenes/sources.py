"""Where the pixels of bands and masks lie in files, and what a DN means: what a Scene is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SceneError

Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]
REFLECTANCE = "reflectance"


def resampling_for(native: float, target: float) -> Resampling:
    """How reflectance comes from pixels of one size onto pixels of another (any unit).

    Whole multiples are averaged; everything else is bilinear, whose kernel GDAL widens when it shrinks, so that a plane
    stays the same plane.
    """
    whole = target > native and abs(target / native - round(target / native)) < 1e-6  # noqa: PLR2004 - rounding
    return "average" if whole else "bilinear"


@dataclass(frozen=True)
class BandSource:
    """Where one band's pixels are and what they mean: value = DN x scale + offset."""

    band: str  # Name in the scene: a STAC common name, or the file's own description in lower case
    path: str  # Anything GDAL opens: a file, /vsizip/..., /vsitar/..., /vsicurl/...
    index: int = 1  # Band number in the file, from 1
    scale: float = 1.0  # Factor applied to DN
    offset: float = 0.0  # Added after scaling, in the unit of the value (reflectance)
    # DN that means "no observation", None where the file has none; NaN and infinite DN never are valid
    nodata: float | None = None
    valid_max: float | None = None  # Largest DN that is an observation
    use_dataset_mask: bool = False  # Also honour the file's own mask band or alpha
    nodata_stated: bool = False  # The user says which DN is no observation, or that none is
    resampling: Resampling = "bilinear"  # How it comes onto the scene's grid when its own pixels differ
    gsd_m: float | None = None  # Native ground sample distance in metres, None if unknown
    squared: bool = False  # value = sign(DN) (DN / 127.5)^2, scale and offset aside (``pipeline.scenes.describe``)
    scales: str = ""  # A raster on the same pixels whose values DN are multiplied with, "" for none
    unit: str = "DN"  # "reflectance", "kelvin", "dB", "DN", "1", "m" ...
    provenance: str = "none: DN as stored"  # Where scale and offset were read, for the ledger

    def __post_init__(self) -> None:
        """Refuse a scaling that makes no values of DN, wherever it was read."""
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise SceneError(
                f"scaling of band {self.band} ({self.provenance})", path=self.path,
                got=f"scale {self.scale:g}, offset {self.offset:g}", expected="a scale above 0 and a finite offset",
                fix="set scale and offset of the scene in the configuration, or mend the file's tags",
            )  # fmt: skip


@dataclass(frozen=True)
class QualitySource:
    """A layer that says which pixels cannot be used. A pixel is bad when any of the rules holds."""

    name: str  # What it is called in the ledger ("SCL", "QA_PIXEL", "MSK_CLASSI")
    path: str  # Anything GDAL opens
    index: int = 1  # Band number in the file, from 1
    bad_values: tuple[int, ...] = ()  # Values that are bad (Sentinel-2 SCL 0, 1, 3, 8, 9, 10)
    bad_bits: int = 0  # Bits of which any set makes a pixel bad (Landsat QA_PIXEL)
    # (mask, value) pairs: bad when ``qa & mask == value`` (Landsat confidence levels)
    bad_fields: tuple[tuple[int, int], ...] = ()
    reasons: tuple[str, ...] = ()  # For the ledger: what the values or bits mean, as text
    # The layer is a GML file of polygons (Sentinel-2 MSK_CLOUDS) instead of a raster: what lies in one whose
    # mask type is among ``reasons`` is bad
    vector: bool = False
