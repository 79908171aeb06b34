"""Killed runs are finished by their own command; a full disk is one line and leaves no part of a file."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Children are forked from a process without threads that has imported torch once, for both campaigns.
BOTH = """
import sys
from tests.campaigns import full_disk, kills
killed = kills.main(["--kills", "2", "--seed", "1", "--small"])
sys.exit(killed or full_disk.main(["--sizes", "2", "--limit-files", "--small"]))
"""


@pytest.mark.slow
def test_runs_are_killed_and_starved_of_disk_without_harm():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BOTH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
    assert "0 commands failed, 0 runs differ" in done.stdout
    assert "full disks" in done.stdout
    assert ": 0 wrong" in done.stdout
