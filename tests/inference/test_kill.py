"""Kill -9 at random moments of a run, from before its first byte to its last; then the same command."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.inference.predict import JOURNAL, predict_scene
from tests.fakes.forks import fork_server
from tests.inference.mapping_process import main, settings
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

LAYERS = ("codes.u8", "confidence.u8")
MOMENTS = 10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_run_killed_at_any_moment_continues_to_the_same_bytes(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=224, width=192), small_bundle()
    rng = np.random.default_rng(11)
    predict_scene(bundle, scene, out=tmp_path / "whole", settings=settings()).close()
    whole = [(tmp_path / "whole" / name).read_bytes() for name in LAYERS]
    lasts = run_until(scene, tmp_path / "uncut", seconds=120.0)
    assert [(tmp_path / "uncut" / name).read_bytes() for name in LAYERS] == whole
    begun = continued = moment = 0
    # The moments are spread over the run and most leave something to continue; on a busy machine, where one run lasts
    # much longer than another, more of them are needed for that.
    while moment < MOMENTS or (continued <= MOMENTS // 3 and moment < 4 * MOMENTS):
        cut = tmp_path / f"cut{moment}"
        run_until(scene, cut, seconds=rng.uniform(0.0, lasts))
        begun += (cut / JOURNAL).exists()
        with predict_scene(bundle, scene, out=cut, settings=settings()) as mapped:
            continued += mapped.figures["tiles_before"] > 0
        assert [(cut / name).read_bytes() for name in LAYERS] == whole, f"moment {moment}"
        moment += 1
    assert begun >= continued > MOMENTS // 3


def run_until(scene: Scene, out: Path, *, seconds: float) -> float:
    """Map in another process and kill -9 it after so many seconds if it still runs; how long it ran."""
    server = fork_server()
    started = server.Event()
    process = server.Process(target=main, args=(scene.path, str(out), started))
    process.start()
    assert started.wait(120)
    begin = time.monotonic()
    process.join(seconds)
    ran = time.monotonic() - begin
    process.kill()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return ran
