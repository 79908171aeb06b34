"""Stage train: the network learns from the training polygons."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.diagnostics.applicability import learn_distance
from pipeline.diagnostics.confidence import calibrate
from pipeline.files import write_text
from pipeline.inference.sources import RECIPE, STORED, recipe_of, stored_values
from pipeline.model.bundle import save_bundle
from pipeline.model.checks import histograms_of, sample_values
from pipeline.splits.split import Part
from pipeline.training.chip_index import read_index
from pipeline.training.fit import fit
from pipeline.training.settings import learned_polygons

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.experts.mixture import OutOfFold
    from pipeline.model.bundle import ModelBundle
    from pipeline.workflow.job import Job, StageRun

HISTORY = "training.csv"


def perform(given: StageRun) -> list[Path]:
    """Learn from the chips of ``chips/index.parquet``; write ``model/model.safetensors`` and ``training.csv``."""
    job = given.job
    result = fit(
        job.training_scenes,
        job.split,
        job.scheme,
        index=read_index(job.index_path),
        settings=job.config.training,
        folder=job.model_path.parent,
        resume=given.resume,
        progress=given.progress,
    )
    given.facts.update({f"{step}_s": round(seconds, 1) for step, seconds in result.seconds.items()})
    bundle = with_judgement(result.bundle, job, out_of_fold=result.out_of_fold)
    bundle = replace(
        bundle,
        units=job.sources[0].select(bundle.bands).units,
        histograms=histograms_of([sample_values(scene.source.select(bundle.bands)) for scene in job.training_scenes]),
        provenance={
            **bundle.provenance,
            "inputs": job.input_hash,
            "indices": list(job.config.inputs.indices),
            RECIPE: recipe_of(job.config.inputs, job.sources),
            STORED: stored_values(job.sources[0]),
            "ledger": [source.ledger() for source in job.sources],
        },
    )
    return [save_bundle(job.model_path, bundle), write_history(given.folder / HISTORY, result.history)]


def products(job: Job) -> list[Path]:
    """The files that the stage makes."""
    return [job.model_path, job.folder / HISTORY]


def with_judgement(bundle: ModelBundle, job: Job, *, out_of_fold: OutOfFold | None = None) -> ModelBundle:
    """The model with what lets it judge its own maps: a temperature, and features of training pixels.

    ``provenance["calibration"]`` and ``provenance["applicability"]`` say how, or why not ("none: ...").
    """
    scenes, settings = job.training_scenes, job.config.training
    refitted = Part.VALIDATION in settings.learned_parts
    bundle = calibrate(bundle, scenes, job.split, learned_validation=refitted, held_out=out_of_fold, seed=settings.seed)
    polygons = learned_polygons(job.split, settings)
    distance = learn_distance(bundle, scenes, job.split, polygons=polygons, seed=settings.seed)
    if distance is None:
        note: object = "none: the training polygons lie in one block, or their features do not vary"
        return replace(bundle, provenance={**bundle.provenance, "applicability": note})
    note = {
        "method": "dissimilarity index (Meyer & Pebesma 2021) of network features, folds by spatial block",
        "pixels": len(distance.index.training),
        "threshold": distance.index.threshold,
    }
    return replace(
        bundle,
        provenance={**bundle.provenance, "applicability": note},
        extra={**bundle.extra, **distance.tensors()},
    )


def write_history(path: Path, history: list[dict[str, float]]) -> Path:
    """The training log as CSV; columns that a row lacks stay empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    return write_text(path, text.getvalue(), what="the training log")
