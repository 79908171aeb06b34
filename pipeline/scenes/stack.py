"""Several dates of one place as one source: dates x bands, missing dates filled in time, streamed window by window.

A Raster has one mask per pixel, so a stack needs a rule for pixels that are clouded on some dates only. It is:

- a pixel is valid where at least ``min_dates`` dates are valid;
- on its other dates it gets the linear interpolation in time between the pixel's own valid dates before and after, and
  beyond the first or last of them the value of that one (``fill="nearest"``: the value of the valid date nearest in
  time; ``fill="none"``: nothing, only pixels valid on all dates are valid);
- ``validity=True`` adds a band ``valid_<date>`` per date, 1 where observed and 0 where filled.

Bands are matched by name, so a model for several places or years needs names without dates: ``naming="order"`` counts
the dates (nir_t1, nir_t2), ``regular=(91, 121, 152)`` interpolates all pixels to fixed days of the year (nir_doy091).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import SceneError, SceneWarning
from pipeline.raster import Raster
from pipeline.scenes.derived import DerivedReader, OfScenes, common_input, in_time_order, refuse_twice
from pipeline.scenes.fill import fill_in_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Grid, Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Scene, Source

Fill = Literal["linear", "nearest", "none"]
Naming = Literal["date", "order"]
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class StackScene(OfScenes):
    """Dates x bands of one place; give it to ``open_reader`` like a scene.

    Attributes:
        dates: Time of acquisition of each scene, ascending.
        labels: What follows the band's name, one per target date ("2020-05-01", "t1", "doy121").
        targets_utc: Times that values are given for: the dates, or the regular steps.
        min_dates: Fewest valid dates of a valid pixel.
        fill: How dates that are not valid are filled.
    """

    dates: tuple[datetime, ...]
    labels: tuple[str, ...]
    targets_utc: tuple[datetime, ...]
    min_dates: int
    fill: Fill

    @property
    def acquired_utc(self) -> datetime:
        """The first date."""
        return self.dates[0]

    def ledger(self) -> dict[str, object]:
        """The rule of the stack and the ledger of every date."""
        return self.common_ledger(kind="stack") | {
            "dates": [date.isoformat() for date in self.dates],
            "targets": [target.isoformat() for target in self.targets_utc],
            "min_dates": self.min_dates,
            "fill": self.fill,
        }

    def open(self) -> Reader:
        """A reader; holds dates x bands of one window in memory."""
        layout = {
            f"{band}_{label}": (band, position)
            for position, label in enumerate(self.labels)
            for band in (*self.scenes[0].band_names, "valid")
        }
        chosen = tuple(layout[name] for name in self.names)
        wanted = {band for band, _ in chosen}
        bands = [name for name in self.scenes[0].band_names if name in wanted] or list(self.scenes[0].band_names[:1])
        inputs = tuple(scene.select(bands).open() for scene in self.scenes)
        return DerivedReader(self.grid, self.names, inputs, partial(_stacked, stack=self, chosen=chosen))


def stack_scenes(
    scenes: Sequence[Source],
    *,
    dates: Sequence[datetime | None] | None = None,
    naming: Naming = "date",
    fill: Fill = "linear",
    min_dates: int = 1,
    regular: Sequence[int] | None = None,
    year: int | None = None,
    validity: bool = False,
    grid: Grid | None = None,
    name: str | None = None,
) -> StackScene:
    """Several dates of one place as one source, sorted by time.

    Args:
        scenes: Any order; the bands that all of them have are stacked.
        dates: One per scene, None for the scene's own time of acquisition.
        naming: "date" (nir_2020-05-01) or "order" (nir_t1).
        fill: See the module.
        min_dates: Fewest valid dates of a valid pixel; with fill="none" it is the number of dates.
        regular: Days of the year to interpolate to; day 1 is 1 January of ``year``, 0 and below or 366 and above reach
            into the years around it.
        year: Default: the year of the first date.
        validity: Add a band ``valid_<date>`` per date; not with ``regular``, whose steps are not observations.
        grid: Default: the finest of the scenes' grids.
        name: Default: the first scene's name and the number of dates.

    Raises:
        SceneError: no common band, a date unknown or twice, or an option that has no meaning.
    """
    ordered = in_time_order(scenes, dates if dates is not None else [None] * len(scenes))
    times = tuple(when for when, _ in ordered)
    inputs = common_input([scene for _, scene in ordered], grid=grid)
    if not 1 <= min_dates <= len(times):
        raise SceneError("min_dates of a stack", got=min_dates, expected=f"1 to {len(times)}, the number of dates")
    if regular is not None:
        if validity or fill != "linear":
            raise SceneError("a regular stack is linear and has no validity bands", fix="drop validity and fill")
        targets = _regular_targets(regular, year=year or times[0].year, first=times[0], last=times[-1])
        labels = tuple(f"doy{day:03d}" for day in regular)
    else:
        targets = times
        labels = tuple(_label(when, position, naming) for position, when in enumerate(times, start=1))
    bands = (*inputs[0].band_names, *(("valid",) if validity else ()))
    names = tuple(f"{band}_{label}" for label in labels for band in bands)
    refuse_twice(names, path=f"stack of {len(times)} dates, {times[0].date()} to {times[-1].date()}")
    least = len(times) if fill == "none" else min_dates
    return StackScene(name or f"{inputs[0].id}_{len(times)}_dates", inputs, names, times, labels, targets, least, fill)


def scenes_from_bands(scene: Scene, *, dates: Sequence[datetime], band: str) -> tuple[Scene, ...]:
    """A file whose bands are dates of one variable (an NDVI series) as one scene per date, to be stacked.

    Args:
        scene: As opened, one band per date.
        dates: Timezone-aware, in band order.
        band: What the bands are, for example "ndvi".

    Raises:
        SceneError: another number of dates than bands.
    """
    if len(dates) != len(scene.bands):
        raise SceneError("number of dates", path=scene.path, got=len(dates), expected=f"{len(scene.bands)} bands")
    return tuple(
        replace(
            scene,
            id=f"{scene.id}_{when.date().isoformat()}",
            bands=(replace(source, band=band),),
            acquired_utc=when,
        )
        for source, when in zip(scene.bands, dates, strict=True)
    )


def _label(when: datetime, position: int, naming: Naming) -> str:
    return when.date().isoformat() if naming == "date" else f"t{position}"


def _regular_targets(days: Sequence[int], *, year: int, first: datetime, last: datetime) -> tuple[datetime, ...]:
    if not days or sorted(set(days)) != list(days):
        raise SceneError("regular days of a stack", got=list(days), expected="ascending days of the year")
    # Noon, as optical satellites pass in the daytime: half a day at most from any acquisition of that day.
    start = datetime(year, 1, 1, 12, tzinfo=UTC).timestamp()
    targets = tuple(datetime.fromtimestamp(start + (day - 1) * SECONDS_PER_DAY, tz=UTC) for day in days)
    outside = [
        f"doy{day:03d}"
        for day, target in zip(days, targets, strict=True)
        if not first.date() <= target.date() <= last.date()
    ]
    if outside:
        what = (
            f"regular steps {', '.join(outside)} lie outside the dates {first.date()} to {last.date()}; "
            "they take the first or last valid value"
        )
        warnings.warn(what, SceneWarning, stacklevel=3)
    return targets


def _stacked(
    inputs: Sequence[Reader], window: Window, *, stack: StackScene, chosen: Sequence[tuple[str, int]]
) -> Raster:
    rasters = [reader.read(window) for reader in inputs]
    observed = np.stack([raster.valid for raster in rasters])
    valid = observed.sum(axis=0) >= stack.min_dates
    filled = fill_in_time(
        np.stack([raster.values for raster in rasters]),
        observed,
        times=_days(stack.dates, stack.dates[0]),
        targets=_days(stack.targets_utc, stack.dates[0]),
        nearest=stack.fill == "nearest",
    )
    values = np.empty((len(chosen), *window.shape), dtype=np.float32)
    for layer, (band, position) in zip(values, chosen, strict=True):
        layer[:] = observed[position] if band == "valid" else filled[position, rasters[0].bands.index(band)]
    np.multiply(values, valid, out=values)
    return Raster(values, valid, stack.names, stack.grid.crop(window))


def _days(moments: Sequence[datetime], origin: datetime) -> NDArray[np.float64]:
    return np.array([(moment - origin).total_seconds() / SECONDS_PER_DAY for moment in moments])
