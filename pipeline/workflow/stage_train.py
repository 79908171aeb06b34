"""Stage train: the network learns from the training polygons."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.diagnostics.applicability import learn_distance
from pipeline.diagnostics.class_sets import KEY as SETS
from pipeline.diagnostics.class_sets import fit_limits
from pipeline.diagnostics.confidence import blocks_of_pixels, calibrate, held_out_probabilities
from pipeline.errors import ModelError
from pipeline.files import write_text
from pipeline.inference.sources import OBJECTS, RECIPE, STORED, recipe_of, stored_values
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
        objects=job.object_indices,
        resume=given.resume,
        progress=given.progress,
    )
    given.facts.update({f"{step}_s": round(seconds, 1) for step, seconds in result.seconds.items()})
    bundle = with_judgement(result.bundle, job, out_of_fold=result.out_of_fold)
    bundle = with_inputs(bundle, job)
    return [save_bundle(job.model_path, bundle), write_history(given.folder / HISTORY, result.history)]


def with_inputs(bundle: ModelBundle, job: Job) -> ModelBundle:
    """The model with what it learned from: units, how values are spread, how scenes are made into its inputs."""
    return replace(
        bundle,
        units=job.sources[0].select(bundle.bands).units,
        histograms=histograms_of([sample_values(scene.source.select(bundle.bands)) for scene in job.training_scenes]),
        provenance={
            **bundle.provenance,
            "inputs": job.input_hash,
            "indices": list(job.config.inputs.indices),
            RECIPE: recipe_of(job.config.inputs, job.sources),
            OBJECTS: job.config.mapping.objects.model_dump(mode="json"),
            STORED: stored_values(job.sources[0]),
            "ledger": [source.ledger() for source in job.sources],
        },
    )


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
    bundle = _with_sets(bundle, job, refitted=refitted, out_of_fold=out_of_fold)
    return with_distance(bundle, job)


def with_distance(bundle: ModelBundle, job: Job) -> ModelBundle:
    """The model with features of training pixels, from which it tells its area of applicability."""
    scenes, settings = job.training_scenes, job.config.training
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
        bundle, provenance={**bundle.provenance, "applicability": note}, extra={**bundle.extra, **distance.tensors()}
    )


def _with_sets(bundle: ModelBundle, job: Job, *, refitted: bool, out_of_fold: OutOfFold | None) -> ModelBundle:
    """The model with the limits of its class sets, from pixels held out, or the reason why it has none."""
    found = held_out_probabilities(
        bundle, job.training_scenes, job.split, learned_validation=refitted, held_out=out_of_fold
    )
    if found is None or not len(found[1]):
        return replace(bundle, provenance={**bundle.provenance, SETS: "none: no pixel was held out"})
    probabilities, index, polygon = found
    limits = fit_limits(probabilities, index, block=blocks_of_pixels(polygon, job.split.block_of))
    try:
        note = limits.words(0.9)
    except ModelError as err:
        note = f"none at 90 %: {err}"
    return replace(bundle, provenance={**bundle.provenance, SETS: note}, extra={**bundle.extra, **limits.tensors()})


def write_history(path: Path, history: list[dict[str, float]]) -> Path:
    """The training log as CSV; columns that a row lacks stay empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    return write_text(path, text.getvalue(), what="the training log")
