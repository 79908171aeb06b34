"""Stage report: everything of the run on one page, and the files that tie it together."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio.enums import Resampling

from pipeline.diagnostics.confidence import Reliability
from pipeline.diagnostics.failures import AccuracyBy
from pipeline.diagnostics.features import Features, write_features
from pipeline.diagnostics.scoring import SAMPLING, Score, at_pixels, score_of
from pipeline.documents import read_json
from pipeline.errors import InputError, OutputError
from pipeline.grid import Grid, Window
from pipeline.labels.rasterise import LabelledPixels, with_areas
from pipeline.maps.look import coarse_grid, to_rgb
from pipeline.model.bundle import load_bundle
from pipeline.model.describe import read_header
from pipeline.report.data import (
    BlockAccuracy,
    ClassArea,
    ErrorExample,
    Failures,
    LearningPoint,
    MapView,
    PolygonPart,
    ReportData,
    SplitMap,
)
from pipeline.report.page import write_report
from pipeline.runs import RunFolder, environment
from pipeline.scenes.ledger import kept_ledger
from pipeline.workflow.job import ACCURACY, AREAS, FEATURES, FULL_REFERENCE, HISTORY, LEARNING_CURVE, Job, StageRun
from pipeline.workflow.objects import objects_views
from pipeline.workflow.products import write_qgis_project, write_stac
from pipeline.workflow.stage_chips import part_of

if TYPE_CHECKING:
    from pipeline.scenes.scene import Source

VIEW_PX = 1200
EXAMPLES = 6
_EXAMPLE_PX = 48
# A polygon of which less is wrong is no example of an error: its edge is.
_LEAST_WRONG = 0.1


def report(given: StageRun) -> list[Path]:
    """Write ``<name>.qgz``, ``report.html`` with its figures, and the STAC collection."""
    job, points = given.job, given.job.folder / FEATURES
    features, labelled = None, list(zip(job.sources, job.pixels, strict=True))
    if job.config.assessment.features:
        umap, seed = job.config.assessment.umap, job.config.training.seed
        features = write_features(points, load_bundle(job.model_path), labelled, umap=umap, seed=seed, overwrite=True)
    # The project shows the features, so it comes after them.
    project = write_qgis_project(job)
    page = write_report(job.folder / "report.html", gather(job, features=features))
    return [project, *page, write_stac(job), *([points] if features else [])]


def gather(job: Job, *, features: Features | None) -> ReportData:
    """What the page shows, from the files of the run."""
    folder, judged, common = job.folder, _judged(job), common_data(job)
    accuracy = read_json(folder / ACCURACY)
    return replace(
        common, objects=objects_views(job, common.views, accuracy) if job.object_codes else (),
        scores=tuple(_score(item, job.scheme.names) for item in (accuracy, *accuracy["baselines"])),
        full_reference=_full_reference(folder / FULL_REFERENCE), ahead=accuracy.get("ahead", ""), sampling=SAMPLING,
        learning=_learning(folder / LEARNING_CURVE), features=features,
        reliability=_reliability(accuracy.get("calibration"), "after"),
        uncalibrated=_reliability(accuracy.get("calibration"), "before"),
        failures=_failures(accuracy["where_it_fails"]["scenes"]), examples=_examples(job, judged),
    )  # fmt: skip


def common_data(job: Job) -> ReportData:
    """What the pages of classes and of values have in common."""
    folder = job.folder
    stages, areas = RunFolder(folder).record()["stages"], read_json(folder / AREAS)
    with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        history = tuple({key: float(value) for key, value in row.items() if value} for row in rows)
    return ReportData(
        title=job.config.name,
        scheme=job.scheme,
        views=tuple(_view_of(job, source) for source in job.mapped),
        areas=tuple(
            ClassArea(scene, name, area) for scene, per in areas["scenes"].items() for name, area in per.items()
        ),
        mapped_share=areas.get("mapped_share"),
        history=history,
        encoder=read_header(job.model_path)["provenance"].get("context", {}).get("line", ""),
        split=_split_map(job),
        ledger=tuple(kept_ledger(source, folder=folder) for source in job.mapped),
        warnings=tuple(dict.fromkeys(text for stage in stages.values() for text in stage.get("warnings", ()))),
        settings=yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False),
        environment=environment(),
    )


def _score(item: dict[str, Any], names: tuple[str, ...]) -> Score:
    polygons = {name: figures["polygons"] for name, figures in item["per_class"].items() if "polygons" in figures}
    return score_of(item["method"], np.asarray(item["confusion"]["matrix"]), names=names, polygons=polygons)


def _full_reference(path: Path) -> tuple[tuple[str, tuple[float, float]], ...]:
    if not path.exists():
        return ()
    methods = read_json(path)["methods"]
    return tuple((name, (item["overall_accuracy"], item["macro_f1"])) for name, item in methods.items())


def _view_of(job: Job, source: Source) -> MapView:
    """A mapped scene, decimated for the page."""
    grid = coarse_grid(source.grid, VIEW_PX)
    with rasterio.open(job.map_of(source.id)) as dataset:
        codes: NDArray[np.uint8] = dataset.read(1, out_shape=grid.shape, resampling=Resampling.mode)
    return MapView(source.id, to_rgb(source, max_px=VIEW_PX), codes, grid.pixel_size_m, facts=_facts(source, codes))


def _facts(source: Source, codes: NDArray[np.uint8]) -> tuple[tuple[str, str], ...]:
    """In words, what was mapped."""
    grid = source.grid
    code = grid.crs.to_epsg()
    taken = source.acquired_utc
    return (
        ("taken", taken.strftime("%Y-%m-%d %H:%M UTC") if taken else "unknown"),
        ("size", f"{grid.width:,} x {grid.height:,} pixels of {grid.pixel_text}"),
        ("reference system", f"EPSG:{code}" if code else "without EPSG code"),
        ("bands", ", ".join(source.band_names)),
        ("without data", f"{np.mean(codes == 0):.1%}"),
    )


def _learning(path: Path) -> tuple[LearningPoint, ...]:
    """What ``learning_curve.json`` holds, where cross-validation has written one into the run folder.

    Raises:
        OutputError: it is no such file.
    """
    if not path.exists():
        return ()
    try:
        points = read_json(path)["points"]
        names = [item.name for item in fields(LearningPoint)]
        return tuple(LearningPoint(**{name: point.get(name) for name in names}) for point in points)
    except (InputError, KeyError, TypeError, AttributeError) as err:
        raise OutputError("the learning curve is damaged", path=path, got=err, fix="delete it") from err


def _split_map(job: Job) -> SplitMap:
    """The labels' outlines in metres from the first scene's upper left corner, as the blocks are laid."""
    first = job.sources[0].grid
    frame = with_areas(job.labels.frame, job.labelled).to_crs(first.crs.to_wkt())
    left, _, _, top = first.bounds
    metres = np.array(first.pixel_size_m) / np.array(first.pixel_size) * (1.0, -1.0)
    polygons = tuple(
        PolygonPart(int(number), (np.asarray(ring.exterior.coords)[:, :2] - (left, top)) * metres, part)
        for number, shape in zip(frame["poly_id"], frame.geometry, strict=True)
        if (part := part_of(job, int(number))) != "unused"
        for ring in getattr(shape, "geoms", [shape])
    )
    # Scenes of several reference systems have their blocks in a plane of their own.
    one_plane = all(pixels.grid.crs == first.crs for pixels in job.labelled) and job.labelled[0].grid == first
    return SplitMap(polygons, job.split.block_m if one_plane else 0.0, job.split.buffer_m)


_Judged = tuple["LabelledPixels", "NDArray[np.uint8]", "NDArray[np.uint8]", int]


def _judged(job: Job) -> list[_Judged]:
    """Test pixels of each scene with the mapped code and the confidence in percent, and the scene's number."""
    found = []
    for number, pixels in job.test_pixels:
        codes, sure = (at_pixels(job.map_of(job.sources[number].id, kind), pixels) for kind in ("lc", "conf"))
        found.append((pixels, codes, sure, number))
    return found


def _reliability(found: dict[str, Any] | None, which: Literal["before", "after"]) -> Reliability | None:
    """A reliability diagram of ``accuracy.json``; the one without temperature only where there is a temperature."""
    if found is None or (which == "before" and found["temperature"] == 1.0):
        return None
    known = found[which]
    arrays = {name: np.array(known[name], dtype=np.float64) for name in ("edges", "confidence", "accuracy")}
    return Reliability(**arrays, count=np.array(known["count"], dtype=np.int64), ece=known["ece"])


def _failures(scenes: dict[str, Any]) -> Failures | None:
    """Where the map fails, of all scenes together; blocks of the scene that has most. None without test pixels."""
    if not scenes:
        return None
    by = []
    for parts in zip(*(scene["by"] for scene in scenes.values()), strict=True):
        count = np.array([part["count"] for part in parts], dtype=np.int64)
        share = np.array([part["accuracy"] for part in parts], dtype=np.float64)
        right, total = np.nansum(share * count, axis=0), count.sum(axis=0)
        whole = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
        by.append(AccuracyBy(parts[0]["what"], tuple(parts[0]["groups"]), whole, total))
    name = max(scenes, key=lambda scene: len(scenes[scene]["blocks"]))
    rows = scenes[name]["blocks"]
    blocks = tuple(BlockAccuracy(tuple(row["bounds"]), row["units"], row["accuracy"]) for row in rows)
    return Failures(tuple(by), blocks, name)


def _examples(job: Job, judged: list[_Judged]) -> tuple[ErrorExample, ...]:
    """The test polygons with the most confident errors, worst first."""
    found = []
    for pixels, mapped, sure, number in judged:
        wrong = (mapped != pixels.code) & (mapped != 0)
        for polygon in np.unique(pixels.polygon[wrong]):
            own = pixels.polygon == polygon
            bad = own & wrong
            if bad.sum() >= _LEAST_WRONG * own.sum():
                share, confidence = float(bad.sum() / own.sum()), float(sure[bad].mean()) / 100.0
                found.append((-share * confidence, int(polygon), number, pixels, mapped, own, bad, confidence))
    found.sort(key=lambda item: item[:2])
    return tuple(_example(job, *item[2:]) for item in found[:EXAMPLES])


def _example(
    job: Job, number: int, pixels: LabelledPixels, mapped: NDArray[np.uint8], own: NDArray[np.bool_],
    bad: NDArray[np.bool_], confidence: float,
) -> ErrorExample:  # fmt: skip
    source, polygon = job.sources[number], int(pixels.polygon[own][0])
    side = max(_EXAMPLE_PX, int(np.ptp(pixels.row[own])) + 9, int(np.ptp(pixels.col[own])) + 9)
    row, col = int(np.median(pixels.row[own])) - side // 2, int(np.median(pixels.col[own])) - side // 2
    window = _inside(Window(row, col, side, side), source.grid)
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
        tall=source.grid.pixel_size_m[1] / source.grid.pixel_size_m[0],
    )


def _inside(window: Window, grid: Grid) -> Window:
    """A window moved into the grid, and cut only where it is larger."""
    row = max(0, min(window.row, grid.height - window.height))
    col = max(0, min(window.col, grid.width - window.width))
    return Window(row, col, min(window.height, grid.height), min(window.width, grid.width))
