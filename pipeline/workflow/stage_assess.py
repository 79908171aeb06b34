"""Stage assess: the network and a random forest on the same test polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.experts.forest import fit_forest
from pipeline.files import write_json, write_text
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.training.settings import learned_polygons
from pipeline.workflow.calibrating import held_out_reliability
from pipeline.workflow.failures import find_failures
from pipeline.workflow.scoring import HOLD_OUT, SAMPLING, at_pixels, confusion_csv, held_out, score, score_json
from pipeline.workflow.stage_chips import split_summary
from pipeline.workflow.stage_train import training_scenes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.workflow.job import Job
    from pipeline.workflow.stages import StageRun


def perform(given: StageRun) -> list[Path]:
    """Write ``accuracy.json``, ``confusion.csv`` and where the map fails.

    ``calibration`` in the first is the reliability diagram of the test pixels, without and with the temperature.

    The figures are the network's first, then those of the forest that learned from the same polygons.
    """
    job, folder = given.job, given.folder
    parts = held_out(job)
    reference = np.concatenate([pixels.code for _, pixels in parts]) if parts else np.empty(0, dtype=np.uint8)
    mapped = [at_pixels(job.map_of(job.sources[number].id), pixels) for number, pixels in parts]
    given.progress("random forest", 0, 1)
    network = np.concatenate(mapped) if mapped else reference
    forest = _forest(job)
    given.progress("random forest", 1, 1)
    # Both are judged on the pixels that both could see.
    both = (network != 0) & (forest != 0)
    scores = [
        score("network", network[both], reference[both], job=job),
        score("random forest", forest[both], reference[both], job=job),
    ]
    failures, files = find_failures(job, folder)
    given.progress("calibration", 0, 1)
    calibration = held_out_reliability(job)
    given.progress("calibration", 1, 1)
    return [
        write_json(
            folder / "accuracy.json",
            {
                "method": scores[0].method,
                **score_json(scores[0]),
                "baseline": {"method": scores[1].method, **score_json(scores[1])},
                "split": split_summary(job),
                "sampling": HOLD_OUT,
                "sampling_words": SAMPLING,
                "test_polygons": len(job.split.polygons(Part.TEST)),
                "test_pixels": int(both.sum()),
                "where_it_fails": failures,
                "calibration": calibration,
            },
        ),
        write_text(folder / "confusion.csv", confusion_csv(scores[0])),
        *files,
    ]


def _forest(job: Job) -> NDArray[np.uint8]:
    """Codes uint8 [pixel] that the forest gives the test pixels.

    It learns from the polygons that the network learned from, and from no others.
    """
    polygons = learned_polygons(job.split, job.config.training)
    forest = fit_forest(
        training_scenes(job), job.scheme, polygons=polygons, trees=job.config.assessment.forest_trees,
        seed=job.config.training.seed,
    )  # fmt: skip
    codes = []
    for number, pixels in held_out(job):
        with open_reader(job.sources[number]) as reader:
            codes.append(forest.predict(reader, pixels))
    return np.concatenate(codes) if codes else np.empty(0, dtype=np.uint8)
