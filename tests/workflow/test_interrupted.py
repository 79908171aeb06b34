"""Ctrl-C while a job trains: one line, the status of an interruption, and the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.entry import INTERRUPTED
from tests.fakes.finished import run_job
from tests.fakes.small_world import quick_training, write_settings, write_world

if TYPE_CHECKING:
    from collections.abc import Iterator

# A job whose networks say when they train, and which a person would have the time to stop.
JOB = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli import main
from pipeline.training.trainer import Watch
ended = Watch.on_train_batch_end
def said(self, *arguments, **keywords):
    print("training", self._stage, flush=True)
    Watch.on_train_batch_end = ended
    return ended(self, *arguments, **keywords)
Watch.on_train_batch_end = said
sys.exit(main(["run", sys.argv[1]]))
"""


LONG = quick_training(**{"pixels.steps": 100_000})


@pytest.fixture
def job(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The job, running."""
    command = [sys.executable, "-W", "ignore", "-c", JOB, str(write_world(tmp_path, training=LONG))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def test_an_interrupted_training_is_one_line_and_goes_on(job, tmp_path):
    assert job.stdout is not None
    assert job.stdout.readline().startswith("training ")
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=120)
    assert job.returncode == INTERRUPTED, err
    *stages, last = err.splitlines()
    assert last == "landcover: interrupted; the same command continues where it stopped"
    assert all(line.startswith("landcover: stage ") for line in stages)
    write_settings(tmp_path)
    assert run_job(tmp_path / "config.yaml", last="train").written
