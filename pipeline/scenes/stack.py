"""Several dates of one place as one source: dates x bands, missing dates filled in time, streamed window by window.

A Raster has one mask per pixel. Pixels that are clouded on some dates only follow a rule: a pixel is valid where at
least ``min_dates`` dates are; on its other dates it gets the linear interpolation in time between its own valid dates
before and after, and beyond the first or last of them the value of that one (``fill="nearest"``: of the valid date
nearest in time; ``fill="none"``: only pixels valid on all dates are valid).

Bands are matched by name, so a model for several places or years needs names without dates: ``naming="order"`` counts
the dates (nir_t1, nir_t2), ``regular=(91, 121, 152)`` interpolates all pixels to fixed days of the year (nir_doy091).

A raster whose bands are dates gives a layer: the mean over the days before a date, such as of weather. A band says its
day in its description (2024-06-01), or is a time step of a NetCDF file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.errors import SceneError, SceneWarning, counted
from pipeline.raster import Raster, as_error
from pipeline.scenes.derived import Derived, DerivedReader, common_input, in_time_order, refuse_twice
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.layers import Layer
from pipeline.scenes.settings import SceneOptions, StackSettings

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Scene, Source

SECONDS_PER_DAY = 86_400.0
# Bands of a layer this many times as far apart as usual have a gap between them.
_GAP = 1.5


@dataclass(frozen=True)
class StackScene(Derived):
    """Dates x bands of one place; give it to ``open_reader`` like a scene."""

    dates: tuple[datetime, ...]  # Time of acquisition of each scene, ascending
    labels: tuple[str, ...]  # What follows the band's name, one per target date ("2020-05-01", "t1", "doy121")
    targets_utc: tuple[datetime, ...]  # Times that values are given for: the dates, or the regular steps
    min_dates: int  # Fewest valid dates of a valid pixel
    fill: str  # How dates that are not valid are filled

    def ledger(self) -> dict[str, object]:
        """The rule of the stack and the ledger of every date."""
        return self.dates_ledger(kind="stack") | {
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
            for band in (*self.inputs[0].band_names, "valid")
        }
        chosen = tuple(layout[name] for name in self.names)
        wanted = {band for band, _ in chosen}
        bands = [name for name in self.inputs[0].band_names if name in wanted] or list(self.inputs[0].band_names[:1])
        inputs = tuple(scene.select(bands).open() for scene in self.inputs)
        return DerivedReader(self.grid, self.names, inputs, partial(_stacked, stack=self, chosen=chosen))


def stack_scenes(
    scenes: Sequence[Source], settings: StackSettings | None = None, *, name: str | None = None
) -> StackScene:
    """Several dates of one place as one source, sorted by time, on the finest of their grids.

    Of regular steps day 1 is 1 January of the first date's year; 0 and below or 366 and above reach into the years
    around it.

    Raises:
        SceneError: no common band, a date unknown or twice, or an option that has no meaning.
    """
    how = settings or StackSettings()
    ordered = in_time_order(scenes)
    times = tuple(when for when, _ in ordered)
    inputs = common_input([scene for _, scene in ordered])
    if how.min_dates > len(times):
        raise SceneError("min_dates of a stack", got=how.min_dates, expected=f"1 to {len(times)}, the number of dates")
    targets = times if how.regular is None else _regular_targets(how, first=times[0], last=times[-1])
    if how.regular is not None:
        labels = tuple(f"doy{day:03d}" for day in how.regular)
    elif how.naming == "date":
        labels = tuple(when.date().isoformat() for when in times)
    else:
        labels = tuple(f"t{position}" for position in range(1, len(times) + 1))
    bands = (*inputs[0].band_names, *(("valid",) if how.validity else ()))
    names = tuple(f"{band}_{label}" for label in labels for band in bands)
    refuse_twice(names, path=f"stack of {len(times)} dates, {times[0].date()} to {times[-1].date()}")
    least = len(times) if how.fill == "none" else how.min_dates
    return StackScene(
        name or f"{inputs[0].id}_{len(times)}_dates", inputs, names, times, labels, targets, least, how.fill
    )


def scenes_from_bands(scene: Scene, *, dates: Sequence[datetime], band: str) -> tuple[Scene, ...]:
    """A file whose bands are dates of one variable (an NDVI series) as one scene per date, to be stacked.

    ``dates`` have time zones and are in band order; ``band`` is what the bands are, for example "ndvi".

    Raises:
        SceneError: another number of dates than bands.
    """
    if len(dates) != len(scene.bands):
        raise SceneError("number of dates", path=scene.path, got=len(dates), expected=f"{len(scene.bands)} bands")
    return tuple(
        replace(
            scene, id=f"{scene.id}_{when.date().isoformat()}", bands=(replace(source, band=band),), acquired_utc=when
        )
        for source, when in zip(scene.bands, dates, strict=True)
    )


def _regular_targets(how: StackSettings, *, first: datetime, last: datetime) -> tuple[datetime, ...]:
    days = how.regular or ()
    if not days or sorted(set(days)) != list(days):
        raise SceneError("regular days of a stack", got=list(days), expected="ascending days of the year")
    if how.validity or how.fill != "linear":
        raise SceneError("a regular stack is linear and has no validity bands", fix="drop validity and fill")
    # Noon, as optical satellites pass in the daytime: half a day at most from any acquisition of that day.
    start = datetime(first.year, 1, 1, 12, tzinfo=UTC).timestamp()
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
        np.stack([raster.values for raster in rasters]), observed, times=_days(stack.dates, stack.dates[0]),
        targets=_days(stack.targets_utc, stack.dates[0]), nearest=stack.fill == "nearest",
    )  # fmt: skip
    values = np.empty((len(chosen), *window.shape), dtype=np.float32)
    for layer, (band, position) in zip(values, chosen, strict=True):
        layer[:] = observed[position] if band == "valid" else filled[position, rasters[0].bands.index(band)]
    np.multiply(values, valid, out=values)
    return Raster(values, valid, stack.names, stack.grid.crop(window))


def _days(moments: Sequence[datetime], origin: datetime) -> NDArray[np.float64]:
    return np.array([(moment - origin).total_seconds() / SECONDS_PER_DAY for moment in moments])


def fill_in_time(
    values: NDArray[np.float32], valid: NDArray[np.bool_],
    *, times: NDArray[np.float64], targets: NDArray[np.float64], nearest: bool = False,
) -> NDArray[np.float32]:  # fmt: skip
    """Values at ``targets`` from each pixel's own valid dates: linear between two, constant beyond the ends.

    ``values`` are float32 [date, band, row, col], ``valid`` bool [date, row, col]; ``times`` [date], ascending, and
    ``targets`` [target] days. ``nearest`` takes the nearer of two dates (the earlier on a tie) instead of the line
    between them.

    Returns:
        float32 [target, band, row, col]; 0 where no date is valid. A valid date comes back bit for bit.
    """
    if valid.all() and np.array_equal(times, targets):
        return values
    position = np.arange(len(times)).reshape(-1, 1, 1)
    before = np.maximum.accumulate(np.where(valid, position, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, position, len(times))[::-1], axis=0)[::-1]
    result = np.empty((len(targets), *values.shape[1:]), dtype=np.float32)
    for layer, target in zip(result, targets, strict=True):
        last = int(np.searchsorted(times, target, side="right")) - 1
        low, high = max(last, 0), min(last + 1, len(times) - 1)
        if times[low] >= target:
            high = low
        # Most pixels have both neighbours in time: one weight for all of them. The others are looked up one by one.
        layer[:] = _between(values[low], values[high], _weight(times[low], times[high], target, nearest=nearest))
        rows, cols = np.nonzero(~(valid[low] & valid[high]))
        if rows.size:
            previous = before[last, rows, cols] if last >= 0 else np.full(rows.size, -1)
            following = after[last + 1, rows, cols] if last + 1 < len(times) else np.full(rows.size, len(times))
            # Where there is no date on one side (-1 or one too many) the other stands for both.
            seen = (previous >= 0) | (following < len(times))
            start = np.where(seen, np.where(previous < 0, following, previous), 0)
            stop = np.where(seen, np.where(following == len(times), previous, following), 0)
            weight = _weight(times[start], times[stop], target, nearest=nearest)[:, None]
            pixels = _between(values[start, :, rows, cols], values[stop, :, rows, cols], weight)
            layer[:, rows, cols] = np.where(seen, pixels.T, 0)
    return result


def _weight(
    start: NDArray[np.float64], stop: NDArray[np.float64], target: float, *, nearest: bool
) -> NDArray[np.float32]:
    """Share of ``stop`` in the value at ``target``; 0 where both are one date."""
    span = np.asarray(stop - start, dtype=np.float64)
    weight = np.divide(target - start, span, out=np.zeros(span.shape), where=span > 0)
    if nearest:
        weight = (weight > 0.5).astype(np.float64)  # noqa: PLR2004 - the nearer half
    return weight.astype(np.float32)


def _between(start: NDArray[np.float32], stop: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """On the line from ``start`` to ``stop``; exactly ``start`` for weight 0 and ``stop`` for 1."""
    if not weight.any():
        return start
    return np.asarray((1 - weight) * start + weight * stop, dtype=np.float32)


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNITS = re.compile(r"(days|hours|minutes|seconds) since (\d{4}-\d{2}-\d{2})(?:[ T](\d{2}):(\d{2}))?")
_SECONDS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


def series_layer(path: str, *, name: str, days: int, day: date | None) -> Layer:
    """The mean of the bands of the ``days`` days before ``day``, as a band ``name``; of the day itself for 0.

    Raises:
        SceneError: a scene without a date, bands without dates, or none of those days.
    """
    if day is None:
        fix = "name the date of the samples in labels.value.date, or give the scene's acquired_utc (--date)"
        raise SceneError("a layer with dates needs the date of the scene", path=path, fix=fix)
    dates = band_dates(path)
    _warn_of_gap(path, dates)
    first = day - timedelta(days=days)
    wanted = [i for i, found in enumerate(dates) if (found == day if days == 0 else first <= found < day)]
    if not wanted:
        span = f"{min(dates)} to {max(dates)}"
        expected = f"{day}" if days == 0 else f"a band of {first} to {day - timedelta(days=1)}"
        raise SceneError(f"layer has no band of the days before {day}", path=path, got=span, expected=expected)
    scene = open_geotiff(path, options=SceneOptions(bands=tuple(f"t{i}" for i in range(len(dates)))))
    return Layer("mean", replace(scene, bands=tuple(scene.bands[i] for i in wanted)), (name,))


def _warn_of_gap(path: str, dates: Sequence[date]) -> None:
    """SceneWarning on the widest gap in a series that is otherwise even: a mean over it is one of fewer days."""
    apart = np.diff(np.unique(np.array(dates, dtype="datetime64[D]")).astype(np.int64))
    usual = int(np.median(apart)) if len(apart) > 1 else 0
    if usual and apart.max() > _GAP * usual:
        widest = sorted(set(dates))[int(apart.argmax())]
        when = f"after {widest} nothing for {apart.max()} days, usually every {counted(usual, 'day')}"
        text = f"{path}: the layer has gaps, {when}: means there are those of fewer bands"
        warnings.warn(text, SceneWarning, stacklevel=3)


def band_dates(path: str) -> list[date]:
    """The day of each band of a raster.

    Raises:
        SceneError: it cannot be opened, or a band does not say its day.
    """
    with as_error(SceneError, "cannot open the layer", path=path), rasterio.open(path) as source:
        texts = [text or "" for text in source.descriptions]
        steps = [source.tags(i).get("NETCDF_DIM_time", "") for i in source.indexes]
        unit = _UNITS.match(source.tags().get("time#units", ""))
    days: list[date] = []
    for number, (text, step) in enumerate(zip(texts, steps, strict=True), 1):
        if found := _DAY.search(text):
            days.append(date.fromisoformat(found[0]))
        elif step and unit:
            start = datetime.fromisoformat(f"{unit[2]}T{unit[3] or '00'}:{unit[4] or '00'}")
            days.append((start + timedelta(seconds=float(step) * _SECONDS[unit[1]])).date())
        else:
            what = f"band {number} of a layer with dates does not say its day"
            expected = "a description such as 2024-06-01, or the time of a NetCDF file"
            raise SceneError(what, path=path, got=text or "no description", expected=expected)
    return days


def dated(scenes: Sequence[Scene], days: Iterable[date]) -> list[Scene]:
    """Every scene once for each day, called after both: what does not change, with the layers of that day."""
    return [
        replace(scene, id=f"{scene.id}_{day}", acquired_utc=datetime.combine(day, time(12), UTC))
        for day in sorted(set(days))
        for scene in scenes
    ]
