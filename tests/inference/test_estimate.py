from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.inference.estimate import estimate, estimate_time
from pipeline.inference.plan import PredictSettings
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_an_estimate_grows_with_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A scene of a moment: what is timed on it varies more than what is asked.
    monkeypatch.setattr("pipeline.inference.estimate.time_passes", lambda *_, **__: (None, 0.01))
    monkeypatch.setattr("pipeline.inference.estimate._reading_s", lambda *_: 1e-8)
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=300, width=200), small_bundle()
    plain = estimate(bundle, scene, PredictSettings(threads=1, tile_px=64))
    more = estimate(bundle, scene, PredictSettings(threads=1, tile_px=256, blend="hann", probabilities=True, tta=True))
    assert plain.disk_bytes == 2 * 300 * 200
    assert more.disk_bytes == 6 * 300 * 200
    assert 400e6 < plain.memory_bytes < more.memory_bytes
    # Flips are four passes; tiles of 64 with a halo of 16 see more than twice the pixels, tiles of 256 less than that.
    assert 1.5 * plain.seconds < more.seconds < 4 * plain.seconds
    assert (plain.plan.choice.engine, plain.plan.tile_px) == ("torch", 64)


def test_the_time_is_measured_on_the_scene_itself(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=300, width=200), small_bundle()
    plan = estimate(bundle, scene, PredictSettings(threads=1, tile_px=64)).plan
    assert 1e-4 < estimate_time(bundle, scene, plan) < 60
