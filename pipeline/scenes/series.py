"""Layers of a date out of a raster whose bands are dates: means over the days before, such as of weather.

A band says its day in its description (2024-06-01), or is a time step of a NetCDF file.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import SceneError
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.layers import Layer
from pipeline.scenes.settings import SceneOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.scenes.scene import Scene

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNITS = re.compile(r"(days|hours|minutes|seconds) since (\d{4}-\d{2}-\d{2})(?:[ T](\d{2}):(\d{2}))?")
_SECONDS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


def series_layer(path: str, *, name: str, days: int, day: date | None) -> Layer:
    """The mean of the bands of the ``days`` days before ``day``, as a band ``name``; of the day itself for 0.

    Raises:
        SceneError: a scene without a date, bands without dates, or none of those days.
    """
    if day is None:
        raise SceneError(
            "a layer with dates needs the date of the scene", path=path,
            fix="name the date of the samples in labels.value.date, or give the scene's acquired_utc (--date)",
        )  # fmt: skip
    dates = band_dates(path)
    first = day - timedelta(days=days)
    wanted = [i for i, found in enumerate(dates) if (found == day if days == 0 else first <= found < day)]
    if not wanted:
        span = f"{min(dates)} to {max(dates)}"
        expected = f"{day}" if days == 0 else f"a band of {first} to {day - timedelta(days=1)}"
        raise SceneError(f"layer has no band of the days before {day}", path=path, got=span, expected=expected)
    options = SceneOptions(bands=tuple(f"t{i}" for i in range(len(dates))))
    scene = open_geotiff(path, options=options)
    bands = tuple(replace(scene.bands[i], resampling="bilinear") for i in wanted)
    return Layer("mean", replace(scene, bands=bands), (name,))


def band_dates(path: str) -> list[date]:
    """The day of each band of a raster.

    Raises:
        SceneError: it cannot be opened, or a band does not say its day.
    """
    try:
        with rasterio.open(path) as source:
            texts = [text or "" for text in source.descriptions]
            steps = [source.tags(i).get("NETCDF_DIM_time", "") for i in source.indexes]
            unit = _UNITS.match(source.tags().get("time#units", ""))
    except RasterioError as err:
        raise SceneError("cannot open the layer", path=path, got=err) from err
    days: list[date] = []
    for number, (text, step) in enumerate(zip(texts, steps, strict=True), 1):
        if found := _DAY.search(text):
            days.append(date.fromisoformat(found[0]))
        elif step and unit:
            start = datetime.fromisoformat(f"{unit[2]}T{unit[3] or '00'}:{unit[4] or '00'}")
            days.append((start + timedelta(seconds=float(step) * _SECONDS[unit[1]])).date())
        else:
            raise SceneError(
                f"band {number} of a layer with dates does not say its day", path=path, got=text or "no description",
                expected="a description such as 2024-06-01, or the time of a NetCDF file",
            )  # fmt: skip
    return days


def dated(scenes: Sequence[Scene], days: Iterable[date]) -> list[Scene]:
    """Every scene once for each day, called after both: what does not change, with the layers of that day."""
    return [
        replace(scene, id=f"{scene.id}_{day}", acquired_utc=datetime.combine(day, time(12), UTC))
        for day in sorted(set(days))
        for scene in scenes
    ]
