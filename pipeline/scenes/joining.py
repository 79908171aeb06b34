"""Several scenes as the network sees them: the same bands, dates joined, further rasters and indices added.

A composite is cloud-masked and streamed window by window; a pixel is valid where at least ``min_dates`` dates are.

- ``median``: per band, over the valid dates. Robust, but the bands of a pixel may come from different dates.
- ``medoid``: the date whose spectrum is nearest to those of all other valid dates (smallest sum of Euclidean
  distances), so a pixel's bands belong together. Source: Flood (2013), Seasonal composite Landsat TM/ETM+ images using
  the medoid (a multi-dimensional median), Remote Sensing 5(12):6481-6500.
- ``greenest``: the date of the highest NDVI. Source: Holben (1986), Characteristics of maximum-value composite images
  from temporal AVHRR data, International Journal of Remote Sensing 7(11):1417-1434.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.bands import besides_ground, listed
from pipeline.errors import ConfigError, SceneError, SceneWarning
from pipeline.raster import Raster
from pipeline.scenes.clouds import product_mask
from pipeline.scenes.derived import Derived, DerivedReader, common_input, in_time_order, plain_scenes, with_place
from pipeline.scenes.indices import Index, compute_index, find_index, with_indices, with_textures
from pipeline.scenes.layers import Layer, dem_layer, embedding_layer, raster_layer, sentinel1_layer, with_layers
from pipeline.scenes.opening import check_treatment, open_all
from pipeline.scenes.settings import InputSettings, LayerItem, SceneOptions, name_of
from pipeline.scenes.stack import series_layer, stack_scenes

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Scene, Source

# Folder of masks of clouds in the run folder, or beside the maps of a model.
CLOUDS = "clouds"
_WAYS_BACK = (
    " and is left out; name it in inputs.bands to use it",
    " and are left out; name them in inputs.bands to use them",
)


def unlike(ids: Sequence[str], *, paths: Sequence[str]) -> list[str]:
    """Names of scenes; those that several have, as files in different folders do, with the folders that differ before.

    ``paths`` are "" for scenes whose name must stay.

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
    scenes = _same_bands([scene for _, scene in opened], inputs)
    groups: dict[str, list[Source]] = {}
    for (group, _), scene in zip(opened, scenes, strict=True):
        groups.setdefault(group, []).append(scene)
    joined: list[Source] = [*scenes]
    if inputs.time != "separate":
        joined = [_join(group, name, inputs) for name, group in groups.items()]
    if inputs.textures:
        joined = [with_textures(scene, inputs.textures) for scene in joined]
    if inputs.layers:
        fixed = {number: open_layer(item) for number, item in enumerate(inputs.layers) if item.kind != "series"}
        for place, one in enumerate(joined):
            layers = [fixed.get(n) or open_layer(item, day=day_of(one)) for n, item in enumerate(inputs.layers)]
            joined[place] = with_layers(one, layers)
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


def _same_bands(scenes: Sequence[Scene], inputs: InputSettings) -> list[Scene]:
    """The scenes with the same bands in the same order: those wanted, else those that map ground."""
    scenes = [replace(scene, level=scene.level or _level_of(scene)) for scene in scenes]
    if inputs.bands is not None:
        return [scene.select(inputs.bands) for scene in scenes]
    chosen, left = default_bands(scenes, indices=inputs.indices)
    note = (said_of(left),) if left else ()
    for scene in scenes:
        other = [name for name in scene.band_names if name not in {*chosen, *left}]
        if other:
            text = f"bands {', '.join(other)} are not used, as other scenes do not have them"
            warnings.warn(f"{scene.path}: {text}", SceneWarning, stacklevel=2)
    return [replace(scene.select(chosen), notes=(*scene.notes, *note)) for scene in scenes]


def warn_of_left(source: Source) -> None:
    """SceneWarning of bands that were left out, though nobody chose the others."""
    for note in plain_scenes(source)[0].notes:
        if note.endswith(_WAYS_BACK):
            warnings.warn(f"{source.path}: {note}", SceneWarning, stacklevel=2)


def _level_of(scene: Scene) -> str:
    """Level 1 of a scene with a band for cirrus, which surface reflectance has not; "" of others."""
    if "cirrus" not in scene.band_names:
        return ""
    return "L1TP" if scene.sensor.startswith("landsat") else "L1C"


def default_bands(scenes: Sequence[Scene], *, indices: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bands that are used where none are asked for, and those left out as they measure the air or temperature.

    Used are all that every scene has but those of :func:`pipeline.bands.besides_ground` that enter no index.

    Raises:
        SceneError: scenes without a band in common, or an index of a band that they lack.
    """
    first = scenes[0]
    shared = [name for name in first.band_names if all(name in scene.band_names for scene in scenes)]
    if not shared:
        got = "; ".join(f"{scene.id}: {', '.join(scene.band_names)}" for scene in scenes)
        raise SceneError("scenes have no band in common", got=got, fix="name the bands (--bands, or scenes.bands)")
    found = (find_index(name, bands=shared, path=first.path) for name in indices)
    needed = {band for index in found for _, band in index.inputs}
    left = tuple(name for name in besides_ground(shared, sensor=first.sensor) if name not in needed)
    return tuple(name for name in shared if name not in left), left


def said_of(left: Sequence[str]) -> str:
    """What is said of bands that are left out.

    >>> said_of(["coastal", "cirrus"])
    'bands coastal, cirrus measure the air or temperature and are left out; name them in inputs.bands to use them'
    >>> said_of(["band 6 temperature"])
    'band 6 temperature measures the air or temperature and is left out; name it in inputs.bands to use it'
    """
    measure, way_back = ("measures", _WAYS_BACK[0]) if len(left) == 1 else ("measure", _WAYS_BACK[1])
    return f"{listed(left)} {measure} the air or temperature{way_back}"


Method = Literal["median", "medoid", "greenest"]


@dataclass(frozen=True)
class CompositeScene(Derived):
    """One picture of several dates; give it to ``open_reader`` like a scene."""

    method: Method  # See the module
    min_dates: int  # Fewest valid dates of a valid pixel

    def ledger(self) -> dict[str, object]:
        """The rule of the composite and the ledger of every date."""
        return self.dates_ledger(kind="composite") | {"method": self.method, "min_dates": self.min_dates}

    def open(self) -> Reader:
        """A reader; holds dates x bands of one window in memory."""
        greenness = _greenness(self.inputs[0]) if self.method == "greenest" else None
        compute = partial(_composed, composite=self, greenness=greenness)
        return DerivedReader(self.grid, self.names, tuple(scene.open() for scene in self.inputs), compute)


def composite_scenes(
    scenes: Sequence[Source], *, method: Method = "median", min_dates: int = 1, name: str | None = None
) -> CompositeScene:
    """A composite of the bands that all scenes have, on the finest of their grids.

    Ties between dates go to the earlier one.

    Raises:
        SceneError: no common band, no red and near infrared for "greenest", or an option that has no meaning.
    """
    if scenes and all(scene.acquired_utc is not None for scene in scenes):
        scenes = [scene for _, scene in in_time_order(scenes)]
    if not 1 <= min_dates <= len(scenes):
        raise SceneError("min_dates of a composite", got=min_dates, expected=f"1 to {len(scenes)}, the number of dates")
    inputs = common_input(scenes)
    if method == "greenest":
        _greenness(inputs[0])
    return CompositeScene(
        name or f"{inputs[0].id}_{method}_{len(inputs)}", inputs, inputs[0].band_names, method, min_dates
    )


def _greenness(scene: Source) -> Index:
    return find_index("NDVI", bands=scene.band_names, path=scene.path)


def _composed(
    inputs: Sequence[Reader], window: Window, *, composite: CompositeScene, greenness: Index | None
) -> Raster:
    rasters = [reader.read(window) for reader in inputs]
    observed = np.stack([raster.valid for raster in rasters])
    values = np.stack([raster.values for raster in rasters])
    valid = observed.sum(axis=0) >= composite.min_dates
    if greenness is not None:
        score = np.stack([np.where(ok, v, -np.inf) for v, ok in (compute_index(greenness, r) for r in rasters)])
        picture = _from_date(values, _best(score, observed))
    elif composite.method == "medoid":
        picture = _from_date(values, _best(-_distances(values, observed), observed))
    else:
        picture = masked_median(values, observed)
    result = np.stack([picture[rasters[0].bands.index(name)] for name in composite.names])
    np.multiply(result, valid, out=result)
    return Raster(result, valid, composite.names, composite.grid.crop(window))


def _best(score: NDArray[np.floating], observed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The valid date of the highest score, [row,col]; the first on a tie, and even where all valid scores are -inf."""
    ranked = np.where(observed, np.maximum(score, np.finfo(np.float64).min), -np.inf)
    return np.asarray(ranked.argmax(axis=0), dtype=np.intp)


def _from_date(values: NDArray[np.float32], date: NDArray[np.intp]) -> NDArray[np.float32]:
    chosen: NDArray[np.float32] = np.take_along_axis(values, date[None, None], axis=0)[0]
    return chosen


def _distances(values: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of spectral distances of each date to all valid dates, float64 [date,row,col]."""
    total = np.zeros(observed.shape)
    for one in range(len(values)):
        for other in range(one + 1, len(values)):
            apart = np.sqrt(np.square(values[one] - values[other], dtype=np.float64).sum(axis=0))
            total[one] += apart * observed[other]
            total[other] += apart * observed[one]
    return total


def masked_median(values: NDArray[np.float32], observed: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median over the valid dates, float32 [band,row,col]; 0 where there is none.

    ``values`` are float32 [date,band,row,col], ``observed`` bool [date,row,col].
    """
    ranked = np.sort(np.where(observed[:, None], values, np.inf), axis=0)
    count = observed.sum(axis=0)
    low = np.take_along_axis(ranked, np.maximum((count - 1) // 2, 0)[None, None], axis=0)[0]
    high = np.take_along_axis(ranked, np.minimum(count // 2, len(values) - 1)[None, None], axis=0)[0]
    some = count > 0
    middle = 0.5 * (np.where(some, low, 0) + np.where(some, high, 0))
    return middle.astype(np.float32)
