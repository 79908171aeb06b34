"""What settings name beside scenes and labels: weights, areas, classes, packages, and files in the way.

``landcover check`` lists what is wrong here, and ``run`` looks before it trains: what would be refused hours later is
refused now.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, GridError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.workflow.job import Job


def settings_checks(job: Job) -> tuple[Callable[[], None], ...]:
    """Checks of a job whose scenes can be opened; each raises a PipelineError where a later stage would."""
    return tuple(
        lambda check=check: check(job)
        for check in (_check_weights, _check_areas, _check_class_units, _check_mosaic, _check_packages)
    )


def _check_weights(job: Job) -> None:
    """The encoder's weights: read as training does, which downloads nothing."""
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.pretrained import find_encoders
    from pipeline.training.networks import build_networks
    from pipeline.training.settings import AUTO, NO_WEIGHTS

    context = job.config.training.context
    if not context.enabled or context.weights in {NO_WEIGHTS, AUTO}:
        return
    source = job.sources[0]
    if context.frozen_first:
        find_encoders(source.band_names, sensor=source.sensor, units=source.units, weights=context.weights)
        return
    size = len(source.band_names)
    build_networks(
        job.config.training,
        classes=len(job.scheme),
        chip_px=job.config.chips.size_px,
        preprocess=Preprocess(source.band_names, (0.0,) * size, (1.0,) * size),
        units=source.units,
    )


def _check_areas(job: Job) -> None:
    """Area of interest and mask: polygons that meet every scene."""
    from pipeline.inference.areas import read_area

    for source in job.sources:
        read_area(source.grid, aoi=job.config.map.aoi, mask=job.config.map.mask)


def _check_class_units(job: Job) -> None:
    """Minimum mapping units of classes that there are."""
    from pipeline.maps.vectorise import minimum_pixels

    section = job.config.map
    if section.polygons:
        for source in job.sources:
            minimum_pixels(source.grid, job.scheme, mmu_ha=section.mmu_ha, class_mmu_ha=section.class_mmu_ha)


def _check_mosaic(job: Job) -> None:
    """A mosaic needs one CRS, or the choice of one, and dates where the newest wins."""
    section, sources = job.config.map, job.sources
    if section.mosaic is None or len(sources) == 1:
        return
    found = sorted({str(source.grid.crs) for source in sources})
    if section.mosaic_crs is None and len(found) > 1:
        raise GridError(
            "maps have several CRSs", got=", ".join(found), fix="choose the CRS of the mosaic, such as EPSG:3035"
        )
    undated = [source.id for source in sources if source.acquired_utc is None]
    if section.mosaic == "latest" and undated:
        raise ConfigError("map of a scene without date", got=undated[0], fix="use the rule confidence or first")


def _check_packages(job: Job) -> None:
    if job.config.assessment.umap and job.config.assessment.features and find_spec("umap") is None:
        raise ConfigError("UMAP needs the package umap-learn", fix="pip install landcover-pipeline[umap]")
