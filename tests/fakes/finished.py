"""One whole run of the main job on a small world, done once and looked at by many tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.training.fit import FitSettings
from pipeline.workflow import stage_train
from pipeline.workflow.outcome import Outcome, no_progress
from pipeline.workflow.stages import run_stages
from tests.fakes.small_world import write_world


@dataclass(frozen=True)
class Run:
    """A finished run."""

    config: Path
    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def quick_training() -> Iterator[None]:
    """What the configuration leaves at its default takes a minute to train; here it takes a second."""
    ordinary = stage_train.fit_settings

    def quick(job: object) -> FitSettings:
        settings = ordinary(job)  # type: ignore[arg-type]
        return replace(settings, pixel_steps=40, teacher_trees=10, soft_pixels=2000, unlabelled_chips=8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_train, "fit_settings", quick)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, quick_training: None) -> Run:
    """The main job from configuration to report."""
    config = write_world(tmp_path_factory.mktemp("world"), map={"polygons": True, "engine": "torch", "device": "cpu"})
    outcome = run_job(config)
    return Run(config, config.parent / "run", outcome)


def run_job(
    config: Path, *, last: str = "report", force: bool = False, overwrite: bool = False, resume: bool = False
) -> Outcome:
    """Stages of a job; warnings of the libraries are not what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_stages(config, last=last, force=force, overwrite=overwrite, resume=resume, progress=no_progress)
