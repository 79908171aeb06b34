"""Stage train: the network learns from the training polygons."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.errors import OutputError
from pipeline.model.bundle import save_bundle
from pipeline.training.dataset import TrainingScene
from pipeline.training.fit import FitSettings, fit

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workflow.job import Job
    from pipeline.workflow.stages import StageRun


def fit_settings(job: Job) -> FitSettings:
    """Training settings as the configuration says; both use the same names."""
    return FitSettings(chip_px=job.config.chips.size_px, **job.config.training.model_dump())


def training_scenes(job: Job) -> list[TrainingScene]:
    """The scenes that have labels."""
    return [
        TrainingScene(source, pixels) for source, pixels in zip(job.sources, job.pixels, strict=True) if len(pixels)
    ]


def perform(given: StageRun) -> list[Path]:
    """Write ``model.safetensors`` and ``training.csv``."""
    job = given.job
    result = fit(
        training_scenes(job),
        job.split,
        job.scheme,
        settings=fit_settings(job),
        folder=given.folder / "training",
        resume=given.resume,
        progress=given.progress,
    )
    bundle = replace(
        result.bundle,
        provenance={
            **result.bundle.provenance,
            "inputs": job.input_hash,
            "indices": list(job.config.inputs.indices),
            "ledger": [source.ledger() for source in job.sources],
        },
    )
    return [save_bundle(job.model_path, bundle), write_history(given.folder / "training.csv", result.history)]


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
