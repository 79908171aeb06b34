from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.inference.predict import LOCK, predict_scene
from pipeline.inference.settings import MapSettings
from pipeline.process import hold_folder, release_folder
from tests.inference.models import noise_scene, small_bundle

HOLD = """
import sys
from pathlib import Path
from pipeline.process import hold_folder
lock = hold_folder(Path(sys.argv[1]), name="lock")
print("held", flush=True)
sys.stdin.read()
"""


def holding(folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"held"
    return process


def test_a_folder_in_use_names_its_process_a_killed_one_goes(tmp_path: Path) -> None:
    with holding(tmp_path) as process:
        with pytest.raises(OutputError, match=f"another run works in this folder.*process {process.pid} on"):
            hold_folder(tmp_path, name=LOCK)
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        process.wait()
    assert (tmp_path / LOCK).exists()
    lock = hold_folder(tmp_path, name=LOCK)
    assert str(os.getpid()) in (tmp_path / f"{LOCK}.json").read_text()
    release_folder(lock)
    release_folder(lock)
    assert not list(tmp_path.iterdir())


def test_a_mapped_scene_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=40, width=40), small_bundle()
    asked = MapSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=32, halo_px=4)
    out = tmp_path / "out"
    with (
        predict_scene(bundle, scene, out=out, settings=asked),
        pytest.raises(OutputError, match=f"process {os.getpid()}"),
    ):
        predict_scene(bundle, scene, out=out, settings=asked)
    with predict_scene(bundle, scene, out=out, settings=asked) as again:
        assert again.figures["tiles_before"] == again.figures["tiles"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot lock"):
        hold_folder(tmp_path / "file", name=LOCK)
