"""Configuration -> domain values: sources, legend, labels. Nothing is read of the pixels here."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipeline.errors import ConfigError, SceneError, SceneWarning
from pipeline.labels.rasterise import burn
from pipeline.labels.source import read_labels
from pipeline.legend import ClassScheme, LandClass
from pipeline.scenes.composite import composite_scenes
from pipeline.scenes.geotiff import Interpretation
from pipeline.scenes.indices import with_indices
from pipeline.scenes.layers import Layer, dem_layer, raster_layer, sentinel1_layer, with_layers
from pipeline.scenes.opening import check_treatment, open_all
from pipeline.scenes.stack import scenes_from_bands, stack_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import Config, Inputs, LayerItem, SceneItem
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.labels.source import Labels
    from pipeline.scenes.composite import Method
    from pipeline.scenes.scene import Scene, Source


def legend_of(config: Config) -> ClassScheme:
    """The legend of a configuration."""
    return ClassScheme(tuple(LandClass(item.code, item.name, item.color.lower()) for item in config.classes))


def open_sources(config: Config) -> tuple[Source, ...]:
    """The scenes of a configuration as the network sees them: bands chosen, dates joined, indices and layers added.

    Raises:
        SceneError: a scene that cannot be opened, or bands that differ between scenes.
    """
    opened = [(item.group or "", scene) for item in config.scenes for scene in open_dates(item, config)]
    return join_scenes(opened, config.inputs)


def join_scenes(opened: Sequence[tuple[str, Scene]], inputs: Inputs) -> tuple[Source, ...]:
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
    layers = [open_layer(item) for item in inputs.layers]
    if layers:
        joined = [with_layers(scene, layers) for scene in joined]
    # The bands of a stack have a date in their names: its indices are those of every date.
    if inputs.indices and inputs.time != "stack":
        joined = [with_indices(scene, inputs.indices) for scene in joined]
    return tuple(joined)


def _join(scenes: Sequence[Source], group: str, inputs: Inputs) -> Source:
    """One stack or composite of the scenes of a group, called after it."""
    how = inputs.stack
    if inputs.time != "stack":
        method = cast("Method", inputs.time)
        return composite_scenes(scenes, method=method, min_dates=how.min_dates, name=group or None)
    if inputs.indices:
        scenes = [with_indices(scene, inputs.indices) for scene in scenes]
    return stack_scenes(
        scenes,
        naming=how.naming,
        fill=how.fill,
        min_dates=how.min_dates,
        regular=how.regular,
        validity=how.validity,
        name=group or None,
    )


def open_dates(item: SceneItem, config: Config) -> tuple[Scene, ...]:
    """The scenes of one item: one, those of a STAC collection, or one per band of a file whose bands are dates.

    Raises:
        ConfigError: dates without the one name of what the bands are.
        SceneError: a scene that cannot be opened.
    """
    scenes = _open_item(item, config)
    if item.dates is None:
        return scenes
    if item.bands is None or len(item.bands) != 1:
        raise ConfigError("bands of a scene with dates", path=item.path, got=item.bands, expected="one name: [ndvi]")
    return scenes_from_bands(scenes[0], dates=item.dates, band=item.bands[0])


def _open_item(item: SceneItem, config: Config) -> tuple[Scene, ...]:
    """What one item stands for, as its files and the configuration say."""
    told = Interpretation(
        bands=item.bands if item.dates is None else None,
        scale=item.scale,
        offset=item.offset,
        nodata=item.nodata,
        sensor=item.sensor,
        acquired_utc=item.acquired_utc,
        mirror=item.mirror,
    )
    scenes = open_all(item.path, told=told, resolution_m=config.inputs.resolution_m, mask=config.inputs.mask)
    if item.id is None:
        return scenes
    if len(scenes) == 1:
        return (replace(scenes[0], id=item.id),)
    return tuple(replace(scene, id=f"{item.id}_{scene.id}") for scene in scenes)


def open_layer(item: LayerItem) -> Layer:
    """One further raster as the configuration says."""
    if item.kind == "dem":
        return dem_layer(item.path, derive=item.bands or ("elevation", "slope", "northness"))
    if item.kind == "sentinel1":
        return sentinel1_layer(item.path, bands=item.bands or ("vv", "vh"))
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
            fix="name the bands under scenes in the config",
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


def open_labels(config: Config) -> Labels:
    """The labels of a configuration, in its legend."""
    return read_labels(
        Path(config.labels.path),
        field=config.labels.field,
        scheme=legend_of(config),
        layer=config.labels.layer,
        aliases=config.labels.aliases,
    )


def burn_labels(labels: Labels, sources: Sequence[Source], *, all_touched: bool) -> tuple[LabelledPixels, ...]:
    """The labelled pixels of every scene."""
    return tuple(burn(labels, source.grid, all_touched=all_touched) for source in sources)
