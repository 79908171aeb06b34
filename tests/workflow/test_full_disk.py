"""A disk that is full is one line, whatever was being written, and leaves no part of a file."""

from __future__ import annotations

import subprocess
import sys


def test_a_full_disk_is_one_line_and_leaves_nothing():
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.campaigns.full_disk",
        "--sizes",
        "3",
        "--limit-files",
        "--small",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 wrong" in done.stdout
