"""Scene: what a folder or file holds, decided once from its metadata; no pixel read, no handle open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self

from pipeline.errors import SceneError
from pipeline.scenes.reader import Reader, SceneReader
from pipeline.scenes.remote import plain_url
from pipeline.scenes.settings import EXPECTED, MAX_BYTES, is_name

if TYPE_CHECKING:
    from pipeline.grid import Grid
    from pipeline.scenes.sources import BandSource, QualitySource


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
class Scene:
    """An immutable manifest of one acquisition on one grid."""

    id: str  # Name of the scene, unique in a run; outputs are called after it
    path: str  # What the user pointed at
    grid: Grid  # The grid that every band is read on
    bands: tuple[BandSource, ...]  # One source per band, in order; names are unique
    quality: tuple[QualitySource, ...] = ()  # Layers that mask pixels (clouds, saturation)
    sensor: str = ""  # "sentinel-2", "landsat-oli", ..., or "" when unknown
    level: str = ""  # "L1C", "L2A", "L2SP", ..., or ""
    baseline: str = ""  # Sentinel-2 processing baseline ("05.09") or Landsat collection ("02"), or ""
    acquired_utc: datetime | None = None  # Time of acquisition, timezone-aware; None when unknown
    # Decisions worth a line in the ledger ("offset already applied by the mirror: earth-search")
    notes: tuple[str, ...] = field(default=())
    mirror: str = ""  # Who delivered it when not the agency itself ("earth-search", "planetary-computer"), or ""
    # Where the grid's pixels are whole multiples of a file's, single pixels of the file, or of its overviews,
    # stand for them: to be looked at, not to be measured
    for_display: bool = False

    def __post_init__(self) -> None:
        """Refuse scenes without bands or with one name twice."""
        if not is_name(self.id):
            raise SceneError("name of a scene", path=self.path, got=repr(self.id[:MAX_BYTES]), expected=EXPECTED)
        self.grid.check_place(what="scene", path=self.path, error=SceneError)
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
        scales = (band.scales for band in self.bands if band.scales)
        layers = (layer.path for layer in self.quality)
        return tuple(dict.fromkeys([*(band.path for band in self.bands), *scales, *layers]))

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
        return SceneReader(self.grid, self.bands, quality=self.quality, for_display=self.for_display)

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
                    if key not in {"path", "valid_max", "use_dataset_mask", "nodata_stated", "squared", "scales"}
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
