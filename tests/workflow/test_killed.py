"""A run that was killed is finished by the same command, and leaves the files of one that was not."""

from __future__ import annotations

import subprocess
import sys


def test_killed_runs_end_as_if_they_had_not_been():
    command = [sys.executable, "-W", "ignore", "-m", "tests.campaigns.kills", "--kills", "3", "--seed", "1", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "0 commands failed, 0 runs differ" in done.stdout
