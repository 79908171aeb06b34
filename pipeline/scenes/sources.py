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
    """Where one band's pixels are and what they mean: value = DN x scale + offset.

    Attributes:
        band: Name in the scene: a STAC common name, or the file's own description in lower case.
        path: Anything GDAL opens: a file, /vsizip/..., /vsitar/..., /vsicurl/...
        index: Band number in the file, from 1.
        scale: Factor applied to DN.
        offset: Added after scaling, in the unit of the value (reflectance).
        nodata: DN that means "no observation", None where the file has none; NaN and infinite DN never are valid.
        valid_max: Largest DN that is an observation.
        use_dataset_mask: Also honour the file's own mask band or alpha.
        nodata_stated: The user says which DN is no observation, or that none is.
        resampling: How it comes onto the scene's grid when its own pixels differ.
        gsd_m: Native ground sample distance in metres, None if unknown.
        squared: value = sign(DN) (DN / 127.5)^2, scale and offset aside (``pipeline.scenes.embeddings``).
        scales: A raster on the same pixels whose values DN are multiplied with, "" for none.
        unit: "reflectance", "kelvin", "dB", "DN", "1", "m" ...
        provenance: Where scale and offset were read, for the ledger.
    """

    band: str
    path: str
    index: int = 1
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    valid_max: float | None = None
    use_dataset_mask: bool = False
    nodata_stated: bool = False
    resampling: Resampling = "bilinear"
    gsd_m: float | None = None
    squared: bool = False
    scales: str = ""
    unit: str = "DN"
    provenance: str = "none: DN as stored"

    def __post_init__(self) -> None:
        """Refuse a scaling that makes no values of DN, wherever it was read."""
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise SceneError(
                f"scaling of band {self.band} ({self.provenance})",
                path=self.path,
                got=f"scale {self.scale:g}, offset {self.offset:g}",
                expected="a scale above 0 and a finite offset",
                fix="set scale and offset of the scene in the configuration, or mend the file's tags",
            )


@dataclass(frozen=True)
class QualitySource:
    """A layer that says which pixels cannot be used. A pixel is bad when any of the rules holds.

    Attributes:
        name: What it is called in the ledger ("SCL", "QA_PIXEL", "MSK_CLASSI").
        path: Anything GDAL opens.
        index: Band number in the file, from 1.
        bad_values: Values that are bad (Sentinel-2 SCL 0, 1, 3, 8, 9, 10).
        bad_bits: Bits of which any set makes a pixel bad (Landsat QA_PIXEL).
        bad_fields: (mask, value) pairs: bad when ``qa & mask == value`` (Landsat confidence levels).
        reasons: For the ledger: what the values or bits mean, as text.
        vector: The layer is a GML file of polygons (Sentinel-2 MSK_CLOUDS) instead of a raster: what lies in one whose
            mask type is among ``reasons`` is bad.
    """

    name: str
    path: str
    index: int = 1
    bad_values: tuple[int, ...] = ()
    bad_bits: int = 0
    bad_fields: tuple[tuple[int, int], ...] = ()
    reasons: tuple[str, ...] = ()
    vector: bool = False
