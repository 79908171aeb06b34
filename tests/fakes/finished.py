"""One whole run of the main job on a small world, done once and looked at by many tests."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.workflow.outcome import Outcome


@dataclass(frozen=True)
class Run:
    """A finished run."""

    config: Path
    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The main job from configuration to report."""
    from tests.fakes.small_world import write_world

    config = write_world(tmp_path_factory.mktemp("world"), map={"polygons": True, "engine": "torch", "device": "cpu"})
    outcome = run_job(config)
    return Run(config, config.parent / "run", outcome)


def run_job(
    config: Path, *, last: str = "report", force: bool = False, overwrite: bool = False, resume: bool = False
) -> Outcome:
    """Stages of a job; warnings of the libraries are not what these tests are about."""
    # Every process of pytest-xdist imports this file before it collects, one of them to run no test.
    from pipeline.workflow.outcome import no_progress
    from pipeline.workflow.stages import run_stages

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_stages(config, last=last, force=force, overwrite=overwrite, resume=resume, progress=no_progress)
