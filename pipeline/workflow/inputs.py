"""Configuration -> domain values: sources, legend, labels. Nothing is read of the pixels here."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, SceneError, SceneWarning
from pipeline.labels.rasterise import burn
from pipeline.labels.source import read_labels
from pipeline.legend import ClassScheme, LandClass
from pipeline.scenes.composite import composite_scenes
from pipeline.scenes.geotiff import Interpretation
from pipeline.scenes.indices import with_indices
from pipeline.scenes.layers import Layer, dem_layer, raster_layer, sentinel1_layer, with_layers
from pipeline.scenes.opening import check_treatment, open_scene
from pipeline.scenes.stack import stack_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.config import Config, LayerItem, SceneItem
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.labels.source import Labels
    from pipeline.scenes.scene import Scene, Source


def legend_of(config: Config) -> ClassScheme:
    """The legend of a configuration."""
    return ClassScheme(tuple(LandClass(item.code, item.name, item.color.lower()) for item in config.classes))


def open_sources(config: Config) -> tuple[Source, ...]:
    """The scenes of a configuration as the network sees them: bands chosen, dates joined, indices and layers added.

    Raises:
        SceneError: a scene that cannot be opened, or bands that differ between scenes.
    """
    opened = [open_item(item, config) for item in config.scenes]
    if not config.inputs.allow_mixed:
        check_treatment(opened)
    scenes: list[Source] = list(opened)
    ids = [scene.id for scene in scenes]
    if len(set(ids)) < len(ids):
        raise ConfigError("scenes", got=", ".join(ids), expected="different names", fix="give each scene an id")
    scenes = _same_bands(scenes, config.inputs.bands)
    if config.inputs.time == "stack":
        scenes = [stack_scenes(scenes)]
    elif config.inputs.time != "separate":
        scenes = [composite_scenes(scenes, method=config.inputs.time)]
    layers = [open_layer(item) for item in config.inputs.layers]
    if layers:
        scenes = [with_layers(scene, layers) for scene in scenes]
    if config.inputs.indices:
        scenes = [with_indices(scene, config.inputs.indices) for scene in scenes]
    return tuple(scenes)


def open_item(item: SceneItem, config: Config) -> Scene:
    """One scene as its files and the configuration say."""
    told = Interpretation(
        bands=item.bands,
        scale=item.scale,
        offset=item.offset,
        nodata=item.nodata,
        sensor=item.sensor,
        acquired_utc=item.acquired_utc,
    )
    scene = open_scene(item.path, told=told, resolution_m=config.inputs.resolution_m, mask=config.inputs.mask)
    return replace(scene, id=item.id) if item.id else scene


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
