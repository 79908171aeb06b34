from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.inference.predict import JOURNAL, predict_scene
from tests.inference.mapping_process import settings
from tests.inference.models import noise_scene, small_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_a_run_that_was_killed_continues_to_the_same_bytes(tmp_path: Path, blend: str) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=224, width=192)
    bundle = small_bundle()
    predict_scene(bundle, scene, out=tmp_path / "whole", settings=settings(blend)).close()
    cut = tmp_path / "cut"
    for lines in (2, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.inference.mapping_process", scene.path, str(cut), blend],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        kill_when_noted(process, cut / JOURNAL, lines=lines)
    with predict_scene(bundle, scene, out=cut, settings=settings(blend)) as mapped:
        assert 0 < mapped.figures["tiles_before"] < mapped.figures["tiles"]
    for name in ("codes.u8", "confidence.u8"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def kill_when_noted(process: subprocess.Popen[bytes], journal: Path, *, lines: int) -> None:
    """Kill -9 as soon as the journal has so many lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
