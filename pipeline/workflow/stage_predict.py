"""Stage predict: every scene of the configuration is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model.bundle import load_bundle
from pipeline.workflow.mapping import map_scene, write_mosaic
from pipeline.workflow.stages import write_areas

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workflow.stages import StageRun


def perform(given: StageRun) -> list[Path]:
    """Write the maps of all scenes and ``areas.json``."""
    job = given.job
    bundle = load_bundle(job.model_path)
    maps = [
        map_scene(
            bundle,
            bundle.check(source),
            folder=job.maps_folder,
            section=job.config.map,
            overwrite=given.overwrite,
            progress=given.progress,
            seam_figure=given.seam_figure,
        )
        for source in job.sources
    ]
    mosaic = write_mosaic(maps, job.sources, folder=job.maps_folder, section=job.config.map, overwrite=given.overwrite)
    given.facts["mpx"] = round(sum(item.figures["mpx"] for item in maps), 4)
    given.facts["mpx_per_s"] = round(given.facts["mpx"] / max(sum(item.figures["seconds"] for item in maps), 1e-9), 4)
    areas = write_areas(given.folder / "areas.json", [(item.name, item.counts) for item in maps])
    return [*(path for item in maps for path in item.files), *([mosaic] if mosaic else []), areas]
