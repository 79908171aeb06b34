"""Stage chips: labels on the grids, parts by blocks, windows to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import prepare_folder, write_json
from pipeline.labels.checks import check_classes, check_overlap, check_pixels
from pipeline.labels.footprints import check_pixel_size
from pipeline.labels.values import warn_shared
from pipeline.maps.vectors import PackageLayer, write_geopackage
from pipeline.scenes.joining import warn_of_left
from pipeline.scenes.ledger import LEDGER_FILE, source_ledger
from pipeline.scenes.survey import warn_of_masks
from pipeline.splits.split import Part
from pipeline.splits.usable import check_labelled
from pipeline.training.chip_index import ChipIndex, write_index
from pipeline.training.chips import choose_chips

if TYPE_CHECKING:
    from pipeline.workflow.job import Job, StageRun

PART_NAMES = {int(part): part.name.lower() for part in Part}


def chips(given: StageRun) -> list[Path]:
    """Write ``index.parquet`` (which training reads), ``chips.gpkg`` and ``labels.gpkg`` into ``chips/``.

    ``chips/split.json`` has what each part holds, ``ledger.json`` how every scene was read.
    """
    job = given.job
    check_overlap(job.labels, [source.grid for source in job.sources])
    check_pixel_size(job.labels, [source.grid for source in job.sources], job.object_codes)
    for part in job.pixels:
        check_pixels(job.labels, part)
    if job.is_value:
        warn_shared(job.labels, job.pixels)
    check_classes(job.pixels, job.scheme)
    check_labelled(job.sources, job.pixels, job.scheme)
    job.check_leakage()
    ledger = [source_ledger(source) for source in job.sources]
    for source, entry in zip(job.sources, ledger, strict=True):
        warn_of_left(source)
        warn_of_masks(source, entry)
    prepare_folder(job.chips_folder)
    index = chosen_chips(job)
    return [
        write_index(job.index_path, index),
        write_index(job.chips_folder / "chips.gpkg", index),
        write_labels(job.labels_path, job),
        write_json(job.chips_folder / "split.json", split_summary(job)),
        write_json(job.folder / LEDGER_FILE, {"scenes": ledger}),
    ]


def chosen_chips(job: Job) -> ChipIndex:
    """The chips that the job learns from.

    Raises:
        GridError: chips larger than a scene.
        LabelError: no labelled pixel to learn from.
    """
    pixels = {source.id: part for source, part in zip(job.sources, job.pixels, strict=True) if len(part)}
    training = job.config.training
    return choose_chips(pixels, settings=job.config.chips, split=job.split, scheme=job.scheme, head=training.head)


def write_labels(path: Path, job: Job) -> Path:
    """The polygons as they are used: id, class, code, part; to look at in QGIS."""
    frame = job.labels.frame[["poly_id", "name", "code", "geometry"]].rename(columns={"name": "class"})
    known = frame["poly_id"].map(lambda number: part_of(job, int(number)))
    return write_geopackage(path, [PackageLayer("labels", frame.assign(part=known))], what="the labels")


def part_of(job: Job, polygon: int) -> str:
    """The name of a polygon's part; "unused" for polygons without pixels."""
    number = int(job.split.part[polygon]) if polygon < len(job.split.part) else -1
    return PART_NAMES.get(number, "unused")


def split_summary(job: Job) -> dict[str, object]:
    """Blocks, buffer, and polygons and pixels per class and part."""
    classes = job.split.counts(job.labelled, job.scheme)
    return {"block_m": job.split.block_m, "buffer_m": job.split.buffer_m, "classes": classes}
