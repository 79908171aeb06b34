"""Stage report: everything of the run on one page, and the files that tie it together."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import yaml
from rasterio.enums import Resampling

from pipeline.accuracy.calibration import reliability
from pipeline.maps.look import coarse_grid, to_rgb
from pipeline.report.data import ClassArea, ErrorExample, Features, MapView, PolygonPart, Reliability, ReportData, Score
from pipeline.report.page import write_report
from pipeline.runs import RunFolder, environment
from pipeline.workflow.features import write_features
from pipeline.workflow.products import write_qgis_project, write_stac
from pipeline.workflow.scoring import SAMPLING, at_pixels, held_out, score_of
from pipeline.workflow.stage_chips import part_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.scenes.scene import Source
    from pipeline.workflow.job import Job
    from pipeline.workflow.stages import StageRun

VIEW_PX = 1200
EXAMPLES = 6
_EXAMPLE_PX = 48
_CONFIDENCE_NODATA = 255


def perform(given: StageRun) -> list[Path]:
    """Write ``<name>.qgz``, ``report.html`` with its figures, and the STAC collection."""
    job, folder = given.job, given.folder
    project = write_qgis_project(job, folder, overwrite=given.overwrite)
    found = write_features(job, folder, overwrite=given.overwrite) if job.config.assessment.features else None
    page = write_report(folder / "report.html", gather(job, folder, features=found[0] if found else None))
    return [project, page[0], write_stac(job, folder), *([found[1]] if found else [])]


def gather(job: Job, folder: Path, *, features: Features | None) -> ReportData:
    """What the page shows, from the files of the run."""
    record = RunFolder(folder).record()
    accuracy = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    areas = json.loads((folder / "areas.json").read_text(encoding="utf-8"))
    judged = _judged(job)
    return ReportData(
        title=job.config.name,
        created_utc=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        scheme=job.scheme,
        views=tuple(_view(job, source) for source in job.sources),
        areas=tuple(
            ClassArea(scene, name, area) for scene, per in areas["scenes"].items() for name, area in per.items()
        ),
        scores=tuple(_score(item, job) for item in (accuracy, accuracy["baseline"])),
        sampling=SAMPLING,
        history=_history(folder / "training.csv"),
        split=_split(job),
        block_m=job.split.block_m,
        features=features,
        reliability=_reliability(judged),
        examples=_examples(job, judged),
        ledger=tuple(source.ledger() for source in job.sources),
        settings=yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False),
        environment=environment(),
        timings={name: stage["seconds"] for name, stage in record["stages"].items()},
    )


def _score(item: dict[str, Any], job: Job) -> Score:
    return score_of(item["method"], np.asarray(item["confusion"]["matrix"]), names=job.scheme.names)


def _view(job: Job, source: Source) -> MapView:
    grid = coarse_grid(source.grid, VIEW_PX)
    with rasterio.open(job.map_of(source.id)) as dataset:
        codes: NDArray[np.uint8] = dataset.read(1, out_shape=grid.shape, resampling=Resampling.mode)
    return MapView(source.id, to_rgb(source, max_px=VIEW_PX), codes, grid.pixel_size_m[0])


def _history(path: Path) -> tuple[dict[str, float], ...]:
    with path.open(newline="", encoding="utf-8") as file:
        return tuple({key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file))


def _split(job: Job) -> tuple[PolygonPart, ...]:
    frame = job.labels.frame.to_crs(job.sources[0].grid.crs.to_wkt())
    return tuple(
        PolygonPart(np.asarray(ring.exterior.coords)[:, :2], part_of(job, int(number)))
        for number, shape in zip(frame["poly_id"], frame.geometry, strict=True)
        for ring in getattr(shape, "geoms", [shape])
    )


_Judged = tuple["LabelledPixels", "NDArray[np.uint8]", "NDArray[np.uint8]", int]


def _judged(job: Job) -> list[_Judged]:
    """Test pixels of each scene with the mapped code and the confidence in percent, and the scene's number."""
    return [
        (
            pixels,
            at_pixels(job.map_of(job.sources[number].id), pixels),
            at_pixels(job.confidence_of(job.sources[number].id), pixels),
            number,
        )
        for number, pixels in held_out(job)
    ]


def _reliability(judged: list[_Judged]) -> Reliability | None:
    if not judged:
        return None
    sure = np.concatenate([confidence for _, _, confidence, _ in judged])
    right = np.concatenate([mapped == pixels.code for pixels, mapped, _, _ in judged])
    seen = sure != _CONFIDENCE_NODATA
    if not seen.any():
        return None
    found = reliability(sure[seen] / 100.0, right[seen], bins=10)
    used = found.count > 0
    return Reliability(
        tuple(found.confidence[used].tolist()), tuple(found.accuracy[used].tolist()), tuple(found.count[used].tolist()),
        float(found.ece),
    )  # fmt: skip


def _examples(job: Job, judged: list[_Judged]) -> tuple[ErrorExample, ...]:
    """The test polygons with the most confident errors, worst first."""
    found = []
    for pixels, mapped, sure, number in judged:
        wrong = (mapped != pixels.code) & (mapped != 0)
        for polygon in np.unique(pixels.polygon[wrong]):
            own = pixels.polygon == polygon
            bad = own & wrong
            confidence = float(sure[bad].mean()) / 100.0
            found.append((float(bad.sum() / own.sum()) * confidence, int(polygon), number, own, bad, confidence))
    found.sort(key=lambda item: (-item[0], item[1]))
    by_number = {number: (pixels, mapped) for pixels, mapped, _, number in judged}
    return tuple(
        _example(job, polygon, number, by_number[number], own=own, bad=bad, confidence=confidence)
        for _, polygon, number, own, bad, confidence in found[:EXAMPLES]
    )


def _example(
    job: Job, polygon: int, number: int, given: tuple[LabelledPixels, NDArray[np.uint8]],
    *, own: NDArray[np.bool_], bad: NDArray[np.bool_], confidence: float,
) -> ErrorExample:  # fmt: skip
    from pipeline.grid import Window

    pixels, mapped = given
    source = job.sources[number]
    side = max(_EXAMPLE_PX, int(np.ptp(pixels.row[own])) + 9, int(np.ptp(pixels.col[own])) + 9)
    row, col = int(np.median(pixels.row[own])) - side // 2, int(np.median(pixels.col[own])) - side // 2
    window = Window(row, col, side, side).intersect(source.grid.window) or source.grid.window
    with rasterio.open(job.map_of(source.id)) as dataset:
        codes: NDArray[np.uint8] = dataset.read(1, window=window.to_rasterio())
    _, ids = pixels.dense(window)
    values, counts = np.unique(mapped[bad], return_counts=True)
    return ErrorExample(
        polygon=polygon,
        reference=job.scheme.by_code(int(pixels.code[own][0])).name,
        mapped=job.scheme.by_code(int(values[counts.argmax()])).name,
        share_wrong=float(bad.sum() / own.sum()),
        confidence=confidence,
        image=to_rgb(source.on_grid(source.grid.crop(window)), max_px=max(window.shape)),
        codes=codes,
        inside=ids == polygon,
    )
