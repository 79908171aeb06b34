"""Killed runs are finished by their own command; a full disk is one line and leaves no part of a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.campaigns import full_disk, kills
from tests.fakes.forks import forked

if TYPE_CHECKING:
    from pathlib import Path


def both(folder: Path) -> None:
    """Both campaigns on one job, whose runs are forks of this process: it has no threads, and has imported torch."""
    killed = kills.campaign(folder, kills=2, seed=1, small=True)
    starved = full_disk.campaign(folder, sizes=2, mounted=False, small=True)
    sys.stdout.write("\n".join((*killed.lines(), *starved.lines())) + "\n")
    sys.stdout.flush()


@pytest.mark.slow
def test_runs_are_killed_and_starved_of_disk_without_harm(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    (tmp_path / "job").mkdir()
    with forked(both, tmp_path / "job", log=log) as campaigns:
        campaigns.join()
        said = log.read_text()
        assert campaigns.exitcode == 0, said
    assert "2 kills" in said
    assert "0 commands failed, 0 runs differ" in said
    assert "full disks" in said
    assert ": 0 wrong" in said
