from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import ConfigError
from pipeline.inference.plan import PredictSettings
from pipeline.model.bundle import save_bundle
from pipeline.scale import Outcome, SceneJob, map_scene, map_scenes
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pipeline.scenes.scene import Scene

SETTINGS = PredictSettings(engine="torch", dtype="float32", device="cpu", threads=1, tile_px=48, halo_px=16)


def jobs_of(folder: Path, out: str, scenes: list[Scene]) -> list[SceneJob]:
    model = save_bundle(folder / "model.safetensors", small_bundle())
    return [SceneJob(model, scene, folder / out, SETTINGS) for scene in scenes]


def scenes_of(folder: Path) -> list[Scene]:
    return [noise_scene(folder / f"s{i}.tif", height=90, width=70, seed=i) for i in range(2)]


def dies_once(job: SceneJob) -> Outcome:
    """Kills its own worker the first time that it is called for the first scene."""
    mark = job.out / "died"
    if job.source.id == "s0" and not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return map_scene(job)


def test_a_broken_scene_does_not_stop_the_others_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    scenes = scenes_of(tmp_path)
    Path(scenes[0].path).unlink()
    seen: list[Outcome] = []
    outcomes = map_scenes(jobs_of(tmp_path, "out", scenes), report=seen.append)
    assert outcomes == seen
    assert "s0.tif" in outcomes[0].error
    assert outcomes[1].error == ""
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tif")) == ["s1_conf.tif", "s1_lc.tif"]
    again = map_scenes(jobs_of(tmp_path, "out", scenes))
    assert "exists" in again[1].error


def test_two_scenes_of_one_name_are_refused(tmp_path: Path) -> None:
    scene = scenes_of(tmp_path)[0]
    with pytest.raises(ConfigError, match="used twice: s0"):
        map_scenes(jobs_of(tmp_path, "out", [scene, scene]))


def test_a_missing_dask_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.scale.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[scale\]"):
        map_scenes(jobs_of(tmp_path, "out", scenes_of(tmp_path)), dask="local")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no kill -9")
def test_a_lost_worker_loses_nothing_and_the_maps_are_those_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    scenes = scenes_of(tmp_path)
    plain = map_scenes(jobs_of(tmp_path, "plain", scenes))
    over = map_scenes(jobs_of(tmp_path, "dask", scenes), dask="local", workers=2, task=dies_once)
    assert (tmp_path / "dask" / "died").exists()
    assert [outcome.error for outcome in (*plain, *over)] == ["", "", "", ""]
    for one, other in zip(plain, over, strict=True):
        assert [path.read_bytes() for path in one.maps] == [path.read_bytes() for path in other.maps]
