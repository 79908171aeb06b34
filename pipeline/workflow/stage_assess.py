"""Stage assess: the network and a random forest on the same test polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.diagnostics.confidence import held_out_reliability
from pipeline.diagnostics.failures import BLOCKS, SURELY_WRONG, MappedScene, find_failures
from pipeline.diagnostics.scoring import (
    FORESTS,
    HOLD_OUT,
    SAMPLING,
    at_pixels,
    better,
    confusion_csv,
    score,
    score_json,
)
from pipeline.experts.forest import NEIGHBOURHOODS, fit_forest
from pipeline.files import write_json, write_text
from pipeline.legend import NODATA
from pipeline.model.bundle import load_bundle
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.training.settings import learned_polygons
from pipeline.workflow.objects import object_accuracy
from pipeline.workflow.stage_chips import split_summary

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.workflow.job import Job, StageRun

ACCURACY, CONFUSION, SAMPLES = "accuracy.json", "confusion.csv", "samples.csv"


def perform(given: StageRun) -> list[Path]:
    """Write ``accuracy.json``, ``confusion.csv`` and where the map fails.

    ``calibration`` in the first is the reliability diagram of the test pixels, without and with the temperature.

    The figures are the network's first, then those of two forests that learned from the same polygons: from bands, and
    from bands and neighbourhoods; ``baseline`` is the better of the two.
    """
    job, folder = given.job, given.folder
    maps = [mapped_scene(job, number) for number, _ in job.test_pixels]
    reference = _joined([item.pixels.code for item in maps])
    network = _joined([at_pixels(item.map_path, item.pixels) for item in maps])
    polygon = _joined([item.pixels.polygon for item in maps])
    given.progress("random forests", 0, len(FORESTS))
    mapped = {"network": network}
    for number, (method, sizes) in enumerate(zip(FORESTS, ((), NEIGHBOURHOODS), strict=True), 1):
        mapped[method] = _forest(job, sizes)
        given.progress("random forests", number, len(FORESTS))
    # All are judged on the pixels that all could see.
    seen = np.all([codes != NODATA for codes in mapped.values()], axis=0)
    scores = [
        score(method, codes[seen], reference[seen], scheme=job.scheme, polygon=polygon[seen])
        for method, codes in mapped.items()
    ]
    forests = scores[1:]
    failures, files = find_failures(
        maps, polygons=job.labels.frame, scheme=job.scheme, block_m=job.split.block_m, seed=job.config.split.seed,
        folder=folder,
    )  # fmt: skip
    given.progress("calibration", 0, 1)
    tested = [(job.sources[number], pixels) for number, pixels in job.test_pixels]
    calibration = held_out_reliability(load_bundle(job.model_path), tested, block_of=job.split.block_of)
    given.progress("calibration", 1, 1)
    accuracy = {
        "method": scores[0].method,
        **score_json(scores[0]),
        "baseline": {"method": better(forests).method, **score_json(better(forests))},
        "baselines": [{"method": item.method, **score_json(item)} for item in forests],
        "split": split_summary(job),
        "sampling": HOLD_OUT,
        "sampling_words": SAMPLING,
        "test_polygons": len(job.split.polygons(Part.TEST)),
        "test_pixels": int(seen.sum()),
        "where_it_fails": failures,
        "calibration": calibration,
    }
    if job.object_codes:
        accuracy["objects"] = object_accuracy(job)
    return [write_json(folder / ACCURACY, accuracy), write_text(folder / CONFUSION, confusion_csv(scores[0])), *files]


def products(job: Job) -> list[Path]:
    """The files that the stage makes."""
    names = (ACCURACY, SAMPLES) if job.is_value else (ACCURACY, CONFUSION, BLOCKS, SURELY_WRONG)
    return [job.folder / name for name in names]


def mapped_scene(job: Job, number: int) -> MappedScene:
    """A scene's map with its test pixels."""
    name = job.sources[number].id
    pixels = job.split.pixels(job.pixels[number], Part.TEST)
    return MappedScene(name, pixels, job.map_of(name), job.confidence_of(name))


def _forest(job: Job, sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Codes uint8 [pixel] that a forest, with windows of these sizes, gives the test pixels.

    It learns from the polygons that the network learned from, and from no others.
    """
    polygons = learned_polygons(job.split, job.config.training)
    forest = fit_forest(
        job.training_scenes, job.scheme, polygons=polygons, sizes=sizes, trees=job.config.assessment.forest_trees,
        seed=job.config.training.seed,
    )  # fmt: skip
    codes = []
    for number, pixels in job.test_pixels:
        with open_reader(job.sources[number]) as reader:
            codes.append(forest.predict(reader, pixels))
    return _joined(codes)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)
