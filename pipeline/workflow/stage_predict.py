"""Stage predict: every scene of the configuration is mapped."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING

from pipeline.errors import ModelWarning, PipelineError
from pipeline.files import write_json
from pipeline.inference.sources import OBJECTS
from pipeline.model.bundle import load_bundle
from pipeline.model.checks import check_source
from pipeline.process import give_back, reset_peak
from pipeline.workflow.scene_maps import MOSAIC, MOSAIC_RECORD, WORK, MapOrder, map_scene, write_mosaic_map

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.maps.pixels import ClassCounts
    from pipeline.model.bundle import ModelBundle
    from pipeline.workflow.job import Job, StageRun


def perform(given: StageRun) -> list[Path]:
    """Write the maps of all scenes and ``areas.json``.

    Raises:
        PipelineError: the first scene that cannot be mapped, once the others have been.
    """
    job = given.job
    # What training held is no part of what mapping needs.
    give_back()
    reset_peak()
    bundle = load_bundle(job.model_path)
    _warn_of_objects(job, bundle)
    order = MapOrder(job.maps_folder, job.config.mapping, overwrite=True, ledger=given.folder, values=job.is_value)
    maps, errors = [], list[PipelineError]()
    for source in job.mapped:
        try:
            maps.append(map_scene(bundle, check_source(bundle, source), order, progress=given.progress))
        except PipelineError as err:
            errors.append(err)
    if errors:
        raise errors[0]
    mosaic = write_mosaic_map(maps, job.mapped, order)
    given.facts["mpx"] = round(sum(item.figures["mpx"] for item in maps), 4)
    given.facts["mpx_per_s"] = round(given.facts["mpx"] / max(sum(item.figures["seconds"] for item in maps), 1e-9), 4)
    areas = write_areas(given.folder / "areas.json", [(item.name, item.counts) for item in maps])
    # The stage's own record says from now on that the maps are finished.
    for source in job.mapped:
        order.record(bundle, source).path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            order.work(source).rmdir()
    (job.maps_folder / WORK / MOSAIC_RECORD).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (job.maps_folder / WORK).rmdir()
    return [*(path for item in maps for path in item.files), *([mosaic] if mosaic else []), areas]


def _warn_of_objects(job: Job, bundle: ModelBundle) -> None:
    """The maps of a configuration follow it; those of the model file alone follow what it was trained with."""
    kept, now = bundle.provenance.get(OBJECTS), job.config.mapping.objects.model_dump(mode="json")
    if isinstance(kept, dict) and kept != now:
        text = "map.objects is not what the model was trained with: these maps follow the configuration, those of "
        text += "landcover predict --model the model file; landcover train --force brings it up to date"
        warnings.warn(text, ModelWarning, stacklevel=2)


def products(job: Job) -> list[Path]:
    """The files that the stage makes, sidecars aside."""
    order = MapOrder(job.maps_folder, job.config.mapping, values=job.is_value)
    mosaic = [job.maps_folder / MOSAIC] if order.settings.mosaic and len(job.mapped) > 1 else []
    return [path for source in job.mapped for path in order.products(source)] + [*mosaic, job.folder / "areas.json"]


def write_areas(path: Path, counts: list[tuple[str, ClassCounts]]) -> Path:
    """``areas.json``: mapped area per class over all scenes, and per scene."""
    names = counts[0][1].scheme.names
    totals = [sum(item.area_ha[i] for _, item in counts) for i in range(len(names))]
    whole = sum(totals) or 1.0
    mapped, unseen = sum(sum(item.pixels) for _, item in counts), sum(item.nodata_pixels for _, item in counts)
    return write_json(
        path,
        {
            "unit": "ha",
            "what": "mapped area, counted from pixels; not an area estimate",
            "mapped_share": mapped / max(mapped + unseen, 1),
            "classes": [
                {"name": name, "area_ha": round(area, 4), "share": area / whole}
                for name, area in zip(names, totals, strict=True)
            ],
            "scenes": {scene: dict(zip(names, item.area_ha, strict=True)) for scene, item in counts},
        },
    )
