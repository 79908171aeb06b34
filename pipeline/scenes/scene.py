"""Scene: what a folder or file holds, decided once from its metadata; no pixel read, no handle open.

A Scene says for every band which file and band to read, how DN become physical values, how it gets onto the scene's
grid, and where each of these facts was found. ``pipeline.scenes.reader`` does what the manifest says, deciding nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pipeline.errors import SceneError
from pipeline.scenes.names import EXPECTED, MAX_BYTES, is_name
from pipeline.scenes.remote import plain_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipeline.grid import Grid
    from pipeline.scenes.reader import Reader

Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]
REFLECTANCE = "reflectance"


def resampling_for(native: float, target: float) -> Resampling:
    """How reflectance comes from pixels of one size onto pixels of another (any unit).

    Whole multiples are averaged; everything else is bilinear, whose kernel GDAL widens when it shrinks, so that a plane
    stays the same plane.
    """
    whole = target > native and abs(target / native - round(target / native)) < 1e-6  # noqa: PLR2004 - rounding
    return "average" if whole else "bilinear"


class Source(Protocol):
    """An immutable manifest of pixels: a Scene, or one made of scenes (a stack of dates, a composite, added layers).

    Training and mapping take a Source, so that a stack goes wherever a scene goes. ``open`` gives the Reader.
    """

    @property
    def id(self) -> str:
        """Name, unique in a run."""

    @property
    def path(self) -> str:
        """What the user pointed at."""

    @property
    def grid(self) -> Grid:
        """The grid that every band is read on."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each band, "" for what is computed (an index, a slope)."""

    @property
    def sensor(self) -> str:
        """A key of ``pipeline.bands.TABLES``, or "" when unknown or mixed."""

    @property
    def level(self) -> str:
        """Product level, or "" when unknown or mixed."""

    @property
    def baseline(self) -> str:
        """Processing baseline or collection, or "" when unknown or mixed."""

    @property
    def acquired_utc(self) -> datetime | None:
        """Time of (the first) acquisition."""

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that pixels or masks come from, each once, in GDAL's spelling (for hashes of the input)."""

    def select(self, names: Sequence[str]) -> Self:
        """The same with only ``names``, in that order."""

    def on_grid(self, grid: Grid, *, for_display: bool = False) -> Self:
        """The same, resampled to another grid when read; ``for_display`` as in :class:`Scene`."""

    def ledger(self) -> dict[str, object]:
        """What was decided and where it was read, JSON-ready."""

    def open(self) -> Reader:
        """A reader of its windows; a context manager."""


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


@dataclass(frozen=True)
class Scene:
    """An immutable manifest of one acquisition on one grid.

    Attributes:
        id: Name of the scene, unique in a run; outputs are called after it.
        path: What the user pointed at.
        grid: The grid that every band is read on.
        bands: One source per band, in order; names are unique.
        quality: Layers that mask pixels (clouds, saturation).
        sensor: "sentinel-2", "landsat-oli", ..., or "" when unknown.
        level: "L1C", "L2A", "L2SP", ..., or "".
        baseline: Sentinel-2 processing baseline ("05.09") or Landsat collection ("02"), or "".
        acquired_utc: Time of acquisition, timezone-aware; None when unknown.
        notes: Decisions worth a line in the ledger ("offset already applied by the mirror: earth-search").
        mirror: Who delivered it when not the agency itself ("earth-search", "planetary-computer"), or "".
        for_display: Where the grid's pixels are whole multiples of a file's, single pixels of the file, or of its
            overviews, stand for them: to be looked at, not to be measured.
    """

    id: str
    path: str
    grid: Grid
    bands: tuple[BandSource, ...]
    quality: tuple[QualitySource, ...] = ()
    sensor: str = ""
    level: str = ""
    baseline: str = ""
    acquired_utc: datetime | None = None
    notes: tuple[str, ...] = field(default=())
    mirror: str = ""
    for_display: bool = False

    def __post_init__(self) -> None:
        """Refuse scenes without bands or with one name twice."""
        if not is_name(self.id):
            raise SceneError("name of a scene", path=self.path, got=repr(self.id[:MAX_BYTES]), expected=EXPECTED)
        names = self.band_names
        if not names:
            raise SceneError("scene has no bands", path=self.path)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            what = f"band name used twice: {', '.join(twice)}"
            raise SceneError(what, path=self.path, fix="name the bands (--bands, or scenes.bands)")
        if self.acquired_utc is not None and self.acquired_utc.tzinfo is None:
            raise SceneError("time of acquisition without a time zone", path=self.path, got=self.acquired_utc)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in order."""
        return tuple(source.band for source in self.bands)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each band."""
        return tuple(source.unit for source in self.bands)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that pixels or masks come from, each once."""
        return tuple(dict.fromkeys([*(band.path for band in self.bands), *(layer.path for layer in self.quality)]))

    def select(self, names: Sequence[str]) -> Self:
        """The same scene with only ``names``, in that order; SceneError names what is missing."""
        have = {source.band: source for source in self.bands}
        missing = [name for name in names if name not in have]
        if missing:
            what = f"scene lacks band {', '.join(missing)}"
            raise SceneError(what, path=self.path, got=", ".join(have), expected=", ".join(names))
        return replace(self, bands=tuple(have[name] for name in names))

    def on_grid(self, grid: Grid, *, for_display: bool = False) -> Self:
        """The same scene on another grid: what lies otherwise is resampled when read."""
        return replace(self, grid=grid, for_display=for_display)

    def open(self) -> Reader:
        """A reader of this scene; a context manager."""
        from pipeline.scenes.reader import SceneReader

        return SceneReader(self)

    def ledger(self) -> dict[str, object]:
        """What was decided about this scene and where it was read, JSON-ready."""
        return {
            "scene": self.id,
            "sensor": self.sensor,
            "level": self.level,
            "baseline": self.baseline,
            "mirror": self.mirror,
            "acquired_utc": self.acquired_utc.isoformat() if self.acquired_utc else None,
            "bands": [
                {
                    # JSON knows no NaN and no infinity.
                    key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
                    for key, value in asdict(source).items()
                    if key not in {"path", "valid_max", "use_dataset_mask", "nodata_stated"}
                }
                | {"file": plain_url(source.path).rsplit("/", 1)[-1]}
                for source in self.bands
            ],
            "masks": [
                {"name": q.name, "file": plain_url(q.path).rsplit("/", 1)[-1], "bad": list(q.reasons)}
                for q in self.quality
            ],
            "notes": list(self.notes),
        }
