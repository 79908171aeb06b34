"""Stage train: the network learns from the training polygons."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.diagnostics.applicability import learn_distance
from pipeline.diagnostics.temperature import calibrate
from pipeline.errors import OutputError
from pipeline.model.bundle import save_bundle
from pipeline.model.checks import histograms_of, sample_values
from pipeline.splits.split import Part
from pipeline.training.dataset import TrainingScene
from pipeline.training.fit import FitSettings, fit
from pipeline.training.settings import learned_polygons
from pipeline.workflow.recipe import RECIPE, recipe_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model.bundle import ModelBundle
    from pipeline.training.result import HeldOut
    from pipeline.workflow.job import Job, StageRun

HISTORY = "training.csv"


def fit_settings(job: Job) -> FitSettings:
    """Training settings as the configuration says; both use the same names."""
    return FitSettings(chip_px=job.config.chips.size_px, **job.config.training.model_dump())


def training_scenes(job: Job) -> list[TrainingScene]:
    """The scenes that have labels."""
    return [
        TrainingScene(source, pixels) for source, pixels in zip(job.sources, job.pixels, strict=True) if len(pixels)
    ]


def perform(given: StageRun) -> list[Path]:
    """Write ``model/model.safetensors`` and ``training.csv``."""
    job = given.job
    settings = fit_settings(job)
    result = fit(
        training_scenes(job),
        job.split,
        job.scheme,
        settings=settings,
        folder=job.model_path.parent,
        resume=given.resume,
        progress=given.progress,
    )
    bundle = with_judgement(result.bundle, job, settings=settings, held_out=result.held_out)
    bundle = replace(
        bundle,
        units=job.sources[0].select(bundle.bands).units,
        histograms=histograms_of([sample_values(scene.source.select(bundle.bands)) for scene in training_scenes(job)]),
        provenance={
            **bundle.provenance,
            "inputs": job.input_hash,
            "indices": list(job.config.inputs.indices),
            RECIPE: recipe_of(job.config.inputs, job.sources),
            "ledger": [source.ledger() for source in job.sources],
        },
    )
    return [save_bundle(job.model_path, bundle), write_history(given.folder / HISTORY, result.history)]


def products(job: Job) -> list[Path]:
    """The files that the stage makes."""
    return [job.model_path, job.folder / HISTORY]


def with_judgement(
    bundle: ModelBundle, job: Job, *, settings: FitSettings, held_out: HeldOut | None = None
) -> ModelBundle:
    """The model with what lets it judge its own maps: a temperature, and features of training pixels.

    ``provenance["calibration"]`` and ``provenance["applicability"]`` say how, or why not ("none: ...").
    """
    scenes = training_scenes(job)
    refitted = Part.VALIDATION in settings.learned_parts
    bundle = calibrate(bundle, scenes, job.split, learned_validation=refitted, held_out=held_out, seed=settings.seed)
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
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(history)
        part.replace(path)
    except OSError as err:
        raise OutputError("cannot write the training log", path=path, got=err) from err
    return path
