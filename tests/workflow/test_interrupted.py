"""Ctrl-C while a job trains: one line, the status of an interruption, and the same command goes on."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.cli import main
from pipeline.cli.entry import INTERRUPTED
from pipeline.training.trainer import Watch
from tests.fakes.finished import run_job
from tests.fakes.forks import fork_server, forked
from tests.fakes.small_world import quick_training, write_settings, write_world

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

# A job that a person would have the time to stop.
LONG = quick_training(**{"pixels.steps": 100_000})


def run_and_say(config: str, trains: Event) -> int:
    """The job, which says when its networks train."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = Watch.on_train_batch_end

    def said(self: Watch, *given: object, **named: object) -> object:
        trains.set()
        return ended(self, *given, **named)

    Watch.on_train_batch_end = said
    return main(["run", config])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_training_is_one_line_and_goes_on(tmp_path: Path) -> None:
    config, log, trains = write_world(tmp_path, training=LONG), tmp_path / "log.txt", fork_server().Event()
    with forked(run_and_say, str(config), trains, log=log) as job:
        assert trains.wait(240)
        os.kill(job.pid, signal.SIGINT)
        job.join(120)
        assert job.exitcode == INTERRUPTED, log.read_text()
    *stages, last = log.read_text().splitlines()
    assert last == "landcover: interrupted; the same command continues where it stopped"
    assert all(line.startswith("landcover: stage ") for line in stages)
    write_settings(tmp_path)
    assert run_job(config, last="train").written
