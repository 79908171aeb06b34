"""Several scenes as the network sees them: the same bands, dates joined, further rasters and indices added.

A layer with dates is a raster whose bands are days: a band says its day in its description (2024-06-01), or is a time
step of a NetCDF file.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import ConfigError, SceneError, SceneWarning
from pipeline.scenes.clouds import product_mask
from pipeline.scenes.composite import composite_scenes
from pipeline.scenes.derived import with_place
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.indices import with_indices
from pipeline.scenes.layers import Layer, dem_layer, embedding_layer, raster_layer, sentinel1_layer, with_layers
from pipeline.scenes.opening import check_treatment, open_all
from pipeline.scenes.settings import SceneOptions, name_of
from pipeline.scenes.stack import stack_scenes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.scenes.composite import Method
    from pipeline.scenes.scene import Scene, Source
    from pipeline.scenes.settings import InputSettings, LayerItem

# Folder of masks of clouds in the run folder, or beside the maps of a model.
CLOUDS = "clouds"


def unlike(ids: Sequence[str], *, paths: Sequence[str]) -> list[str]:
    """Names of scenes; those that several have, as files in different folders do, with the folders that differ before.

    Args:
        ids: Of the scenes.
        paths: Of the scenes; "" for those whose name must stay.

    >>> unlike(["scene", "scene", "other"], paths=["2020/scene.tif", "2021/scene.tif", "other.tif"])
    ['2020_scene', '2021_scene', 'other']
    """
    folders = [Path(path).parent.resolve().parts[1:] if path else () for path in paths]
    names = list(ids)
    for depth in range(1, max(map(len, folders), default=0) + 1):
        places: dict[str, set[tuple[str, ...]]] = {}
        for name, folder in zip(names, folders, strict=True):
            places.setdefault(name, set()).add(folder)
        # Scenes of one folder would be called alike however far one goes up.
        names = [
            name_of("_".join((*folder[-depth:], own)), path=path) if folder and len(places[name]) > 1 else name
            for own, name, folder, path in zip(ids, names, folders, paths, strict=True)
        ]
    return names


def join_scenes(opened: Sequence[tuple[str, Scene]], inputs: InputSettings) -> tuple[Source, ...]:
    """Scenes, each with its group, as the network sees them.

    Raises:
        ConfigError: two scenes of one name.
        SceneError: scenes whose pixels do not mean the same, or bands that differ between scenes.
    """
    if not inputs.allow_mixed:
        check_treatment([scene for _, scene in opened])
    ids = [scene.id for _, scene in opened]
    if len(set(ids)) < len(ids):
        raise ConfigError("scenes", got=", ".join(ids), expected="different names", fix="give each scene an id")
    scenes = _same_bands([scene for _, scene in opened], inputs.bands)
    groups: dict[str, list[Source]] = {}
    for (group, _), scene in zip(opened, scenes, strict=True):
        groups.setdefault(group, []).append(scene)
    joined = scenes if inputs.time == "separate" else [_join(group, name, inputs) for name, group in groups.items()]
    if inputs.layers:
        fixed = {number: open_layer(item) for number, item in enumerate(inputs.layers) if item.kind != "series"}
        joined = [
            with_layers(
                scene,
                [
                    fixed[number] if number in fixed else open_layer(item, day=day_of(scene))
                    for number, item in enumerate(inputs.layers)
                ],
            )
            for scene in joined
        ]
    if inputs.place:
        joined = [with_place(scene) for scene in joined]
    # The bands of a stack have a date in their names: its indices are those of every date.
    if inputs.indices and inputs.time != "stack":
        joined = [with_indices(scene, inputs.indices) for scene in joined]
    return tuple(joined)


def _join(scenes: Sequence[Source], group: str, inputs: InputSettings) -> Source:
    """One stack or composite of the scenes of a group, called after it."""
    how = inputs.stack
    if inputs.time != "stack":
        method = cast("Method", inputs.time)
        return composite_scenes(scenes, method=method, min_dates=how.min_dates, name=group or None)
    if inputs.indices:
        scenes = [with_indices(scene, inputs.indices) for scene in scenes]
    return stack_scenes(scenes, how, name=group or None)


def open_as(path: str, inputs: InputSettings, *, options: SceneOptions) -> tuple[Scene, ...]:
    """The scenes at a path, on the resolution and with the masks of the product that the inputs ask for."""
    mask = product_mask(inputs.mask, inputs.clouds)
    return open_all(path, options=options, resolution_m=inputs.resolution_m, mask=mask)


def day_of(scene: Source) -> date | None:
    """The day of a scene."""
    return scene.acquired_utc.date() if scene.acquired_utc is not None else None


def open_layer(item: LayerItem, *, day: date | None = None) -> Layer:
    """One further raster as the configuration says; of a series what a scene of ``day`` gets."""
    if item.kind == "series":
        return series_layer(item.path, name=(item.bands or (Path(item.path).stem,))[0], days=item.days, day=day)
    if item.kind == "dem":
        return dem_layer(item.path, derive=item.bands or ("elevation", "slope", "northness"))
    if item.kind == "sentinel1":
        return sentinel1_layer(item.path, bands=item.bands or ("vv", "vh"))
    if item.kind != "raster":
        return embedding_layer(item.path, item.kind, bands=item.bands)
    return raster_layer(item.path, bands=item.bands)


def _same_bands(scenes: Sequence[Source], wanted: Sequence[str] | None) -> list[Source]:
    """The scenes with the same bands in the same order: those wanted, else all that every scene has."""
    if wanted is not None:
        return [scene.select(wanted) for scene in scenes]
    shared = [name for name in scenes[0].band_names if all(name in scene.band_names for scene in scenes)]
    if not shared:
        raise SceneError(
            "scenes have no band in common",
            got="; ".join(f"{scene.id}: {', '.join(scene.band_names)}" for scene in scenes),
            fix="name the bands (--bands, or scenes.bands)",
        )
    for scene in scenes:
        left = [name for name in scene.band_names if name not in shared]
        if left:
            warnings.warn(
                f"{scene.path}: bands {', '.join(left)} are not used, as other scenes do not have them",
                SceneWarning,
                stacklevel=2,
            )
    return [scene.select(shared) for scene in scenes]


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
