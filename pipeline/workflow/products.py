"""What ties the files of a run together: the QGIS project and the STAC collection."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyogrio
import shapely

from pipeline import __version__
from pipeline.diagnostics.failures import BLOCKS, SURELY_WRONG
from pipeline.errors import GridError, SceneWarning
from pipeline.maps.geotiff import scene_files
from pipeline.maps.legends import read_counts
from pipeline.maps.look import credit
from pipeline.maps.project import SceneLayers, StyledLayer, label_layer, split_layer, write_project
from pipeline.maps.stac import WORLD, MapItem, ModelItem, map_item, model_item, write_collection
from pipeline.maps.vrt import SceneView, write_groups, write_mosaic, write_scene_view
from pipeline.model.describe import describe
from pipeline.runs import environment
from pipeline.scenes.scene import Scene, Source
from pipeline.training.settings import NO_WEIGHTS
from pipeline.workflow.inputs import LISTED_LEVEL, groups_of
from pipeline.workflow.job import AUDIT, FEATURES, Job

if TYPE_CHECKING:
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme


def write_qgis_project(job: Job) -> Path:
    """``<name>.qgz``: scenes, maps, confidence, polygons, labels and chips, styled, with relative paths."""
    target = job.folder / f"{job.config.name}.qgz"
    layers = [
        SceneLayers(
            source.id,
            source.grid,
            scene_files(job.map_of(source.id)),
            view=_scene_view(job.maps_folder, source),
            groups=_groups(job, source),
        )
        for source in job.mapped
    ]
    mosaic = _mosaic(job, [layer.files.class_map for layer in layers])
    chips = next((source.id for source, pixels in zip(job.sources, job.pixels, strict=True) if len(pixels)), None)
    write_project(
        target, layers, scheme=job.scheme,
        labels=label_layer(job.labels_path, attribute="class", scheme=job.scheme, layer="labels"),
        chips=split_layer(job.chips_folder / "chips.gpkg", layer=chips) if chips else None,
        findings=_findings(job.folder), mosaic=mosaic,
        title=f"{job.quantity.title if job.quantity else 'Land cover'}: {job.config.name}", sources=_sources(job),
        overwrite=True,
    )  # fmt: skip
    return target


def _groups(job: Job, source: Source) -> tuple[Path, ClassScheme] | None:
    """``<scene>_groups.vrt``, the map by groups of classes; None where the job has none, or maps the groups."""
    labels = job.config.labels
    if not labels.groups or labels.level != LISTED_LEVEL:
        return None
    scheme, group_of = groups_of(job.scheme, labels.groups)
    target = job.maps_folder / f"{source.id}_groups.vrt"
    write_groups(target, job.map_of(source.id), group_of=group_of, scheme=scheme, overwrite=True)
    return target, scheme


def _findings(folder: Path) -> list[StyledLayer]:
    """Layers of the run that say where to look: where the map fails, doubtful labels, places to label next, features.

    A layer that has no features, or was not asked for, is left out.
    """
    known = [
        ("Accuracy by block", BLOCKS, "block_accuracy"),
        ("Surely wrong", SURELY_WRONG, "surely_wrong"),
        ("Doubtful labels", AUDIT, "suspicious"),
        ("Label next", AUDIT, "label_next"),
        ("Features", FEATURES, "places"),
    ]
    return [
        StyledLayer(name, folder / file, layer)
        for name, file, layer in known
        if (folder / file).exists() and pyogrio.read_info(folder / file, layer=layer)["features"]
    ]


def _sources(job: Job) -> str:
    """Scenes with their dates, the notices of their data's licences, and what made the map."""
    scenes = [
        f"{source.id}, {source.acquired_utc:%Y-%m-%d}" if source.acquired_utc else source.id for source in job.mapped
    ]
    notices = dict.fromkeys(text for source in job.mapped if (text := credit(source)))
    return ". ".join([f"Scenes: {'; '.join(scenes[:4])}", *notices, f"Map: landcover {__version__}"]) + "."


def _mosaic(job: Job, maps: list[Path]) -> tuple[Path, Grid] | None:
    """``<name>_mosaic.vrt`` over the maps of several scenes on one lattice of pixels; None where there is no such."""
    if len(maps) == 1 or len({str(source.grid.crs) for source in job.mapped}) > 1:
        return None
    target = job.maps_folder / f"{job.config.name}_mosaic.vrt"
    try:
        return target, write_mosaic(target, maps, overwrite=True)
    except GridError as err:
        warnings.warn(f"the project shows no mosaic: {err}", SceneWarning, stacklevel=2)
        return None


def _scene_view(folder: Path, source: Source) -> SceneView | None:
    """``<scene>_view.vrt``, the scene to look at; None where it is computed when read (stacks, composites)."""
    scene = getattr(source, "source", source)
    if not isinstance(scene, Scene):
        return None
    return write_scene_view(folder / f"{source.id}_view.vrt", scene, overwrite=True)


def write_stac(job: Job) -> Path:
    """``collection.json`` with an item per map and one for the model."""
    folder = job.folder
    until = _newest([file for source in job.mapped for file in source.files])
    model = model_item(_model_item(job, until), folder=folder)
    items = [map_item(_map_item(job, source, model=model.id), folder=folder) for source in job.mapped]
    return write_collection(
        folder, [*items, model], identity=job.config.name, description=f"Land-cover maps of the job {job.config.name}"
    )


def _newest(files: Sequence[str]) -> datetime:
    """When the newest of some files was changed, to the second: scenes are not newer; today where none is a file."""
    times = [path.stat().st_mtime for name in files if (path := Path(name)).is_file()]
    if not times:
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return datetime.fromtimestamp(int(max(times)), UTC)


def _map_item(job: Job, source: Source, *, model: str) -> MapItem:
    packages = environment()["packages"]
    return MapItem(
        id=source.id,
        grid=source.grid,
        scheme=job.scheme,
        files=scene_files(job.map_of(source.id)),
        until=_newest(source.files),
        acquired=source.acquired_utc,
        counts=read_counts(job.map_of(source.id)),
        sources=source.files,
        model=model,
        software={name: packages[name] for name in ("torch", "rasterio")},
    )


def _model_item(job: Job, until: datetime) -> ModelItem:
    about = describe(job.model_path)
    scaling = about["preprocess"]
    made = about["provenance"]
    context, settings = made.get("context", {}), made.get("settings", {})
    learned = context.get("share") and settings.get("context", {}).get("weights") != NO_WEIGHTS
    return ModelItem(
        id=f"{job.config.name}-model",
        path=job.model_path,
        architecture="; ".join(_architecture(spec) for spec in about["specs"]),
        scheme=job.scheme,
        bands=tuple(scaling["bands"]),
        mean=tuple(scaling["mean"]),
        std=tuple(scaling["std"]),
        units=tuple(about["units"]),
        bbox=_bbox(about.get("footprint")),
        until=until,
        parameters=about["weights"],
        framework_version=made.get("versions", {}).get("torch", ""),
        pretrained_source=context.get("encoder") if learned else None,
        hyperparameters=settings,
    )


def _architecture(spec: dict[str, Any]) -> str:
    if spec.get("statistics"):
        return "chip classifier: 1x1 convolutions of statistics of whole chips"
    if spec["encoder"] == "none":
        return "convolutions of pixels and their surroundings at full resolution"
    head = "chip classifier" if spec["head"] == "chip" else "U-Net"
    return f"{head}, {spec['encoder']} encoder, with a full-resolution spectral path"


def _bbox(footprint: dict[str, Any] | None) -> tuple[float, float, float, float]:
    """West, south, east, north of where a model learned, in degrees; the world where it does not say."""
    if not footprint:
        return WORLD
    west, south, east, north = shapely.geometry.shape(footprint).bounds
    return west, south, east, north
