"""What ties the files of a run together: the QGIS project and the STAC collection."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import shapely

from pipeline.errors import GridError, SceneWarning
from pipeline.files import check_target
from pipeline.maps.geotiff import scene_files
from pipeline.maps.legends import read_counts
from pipeline.maps.project import SceneLayers, label_layer, split_layer, write_project
from pipeline.maps.stac import MapItem, map_item, write_collection
from pipeline.maps.stac_model import WORLD, ModelItem, model_item
from pipeline.maps.vrt import write_mosaic, write_scene_view
from pipeline.model.describe import describe
from pipeline.runs import environment
from pipeline.scenes.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.grid import Grid
    from pipeline.maps.vrt import SceneView
    from pipeline.scenes.scene import Source
    from pipeline.workflow.job import Job


def write_qgis_project(job: Job, folder: Path, *, overwrite: bool) -> Path:
    """``<name>.qgz``: scenes, maps, confidence, polygons, labels and chips, styled, with relative paths."""
    target = folder / f"{job.config.name}.qgz"
    check_target(target, overwrite=overwrite)
    layers = [
        SceneLayers(
            source.id,
            source.grid,
            scene_files(job.map_of(source.id)),
            view=scene_view(job.maps_folder, source, overwrite=overwrite),
        )
        for source in job.sources
    ]
    mosaic = _mosaic(job, [layer.files.class_map for layer in layers], overwrite=overwrite)
    chips = next((source.id for source, pixels in zip(job.sources, job.pixels, strict=True) if len(pixels)), None)
    write_project(
        target,
        layers,
        scheme=job.scheme,
        labels=label_layer(job.chips_folder / "labels.gpkg", attribute="class", scheme=job.scheme, layer="labels"),
        chips=split_layer(job.chips_folder / "chips.gpkg", attribute="split", layer=chips) if chips else None,
        mosaic=mosaic,
        title=f"Land cover: {job.config.name}",
        overwrite=overwrite,
    )
    return target


def _mosaic(job: Job, maps: list[Path], *, overwrite: bool) -> tuple[Path, Grid] | None:
    """``<name>_mosaic.vrt`` over the maps of several scenes on one lattice of pixels; None where there is no such."""
    if len(maps) == 1 or len({str(source.grid.crs) for source in job.sources}) > 1:
        return None
    target = job.maps_folder / f"{job.config.name}_mosaic.vrt"
    try:
        return target, write_mosaic(target, maps, overwrite=overwrite)
    except GridError as err:
        warnings.warn(f"the project shows no mosaic: {err}", SceneWarning, stacklevel=2)
        return None


def scene_view(folder: Path, source: Source, *, overwrite: bool) -> SceneView | None:
    """``<scene>_view.vrt``, the scene to look at; None where it is computed when read (stacks, composites)."""
    scene = getattr(source, "source", source)
    if not isinstance(scene, Scene):
        return None
    return write_scene_view(folder / f"{source.id}_view.vrt", scene, overwrite=overwrite)


def write_stac(job: Job, folder: Path) -> Path:
    """``collection.json`` with an item per map and one for the model."""
    created = datetime.now(UTC).replace(microsecond=0)
    model = model_item(_model_item(job, created), folder=folder)
    items = [map_item(_map_item(job, source, created, model=model.id), folder=folder) for source in job.sources]
    return write_collection(
        folder,
        [*items, model],
        identity=job.config.name,
        description=f"Land-cover maps of the job {job.config.name}",
    )


def _map_item(job: Job, source: Source, created: datetime, *, model: str) -> MapItem:
    packages = environment()["packages"]
    return MapItem(
        id=source.id,
        grid=source.grid,
        scheme=job.scheme,
        files=scene_files(job.map_of(source.id)),
        created=created,
        acquired=source.acquired_utc,
        counts=read_counts(job.map_of(source.id)),
        sources=source.files,
        model=model,
        software={name: packages[name] for name in ("torch", "rasterio")},
    )


def _model_item(job: Job, created: datetime) -> ModelItem:
    about = describe(job.model_path)
    scaling = about["preprocess"]
    bands = tuple(scaling["bands"])
    return ModelItem(
        id=f"{job.config.name}-model",
        path=job.model_path,
        architecture="; ".join(_architecture(spec) for spec in about["specs"]),
        scheme=job.scheme,
        bands=bands,
        mean=tuple(scaling["mean"][: len(bands)]),
        std=tuple(scaling["std"][: len(bands)]),
        units=tuple(about["units"]),
        bbox=_bbox(about.get("footprint")),
        created=created,
        parameters=about["weights"],
        framework_version=about["provenance"].get("versions", {}).get("torch", ""),
        hyperparameters=about["provenance"].get("settings", {}),
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
