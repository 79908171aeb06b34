from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.inference.estimate import estimate
from pipeline.inference.plan import PredictSettings
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_an_estimate_grows_with_what_is_asked(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=300, width=200), small_bundle()
    plain = estimate(bundle, scene, PredictSettings(threads=1, tile_px=64))
    more = estimate(bundle, scene, PredictSettings(threads=1, tile_px=256, blend="hann", probabilities=True, tta=True))
    assert plain.disk_bytes == 2 * 300 * 200
    assert more.disk_bytes == 6 * 300 * 200
    assert 400e6 < plain.memory_bytes < more.memory_bytes
    assert 0 < plain.seconds < more.seconds
    assert (plain.plan.choice.engine, plain.plan.tile_px) == ("torch", 64)
