from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference import demand, fitting, picks, versions
from pipeline.inference.engine import Choice
from pipeline.inference.picks import FILE, pick_key, recall, remember
from pipeline.inference.plan import PredictSettings, journal_key, make_plan
from pipeline.inference.trials import Trial
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.inference.memory import Demand
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

TORCH, OTHER, SHORT = Choice(), Choice("openvino"), Choice("torch", "bfloat16")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def scene_and_bundle(tmp_path: Path, *, seed: int = 0) -> tuple[ModelBundle, Source]:
    scene = noise_scene(tmp_path / "scene.tif", height=64, width=64)
    bundle = small_bundle(seed=seed)
    return bundle, scene.select(bundle.bands)


def test_a_later_run_takes_what_the_first_measured_whatever_it_would_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    monkeypatch.setattr(picks, "candidates", lambda **_: [TORCH, Choice("compiled"), SHORT])
    monkeypatch.setattr(picks, "SMALL_SCENE_PX", 0)
    asked = PredictSettings(halo_px=8, tile_px=32, threads=1)
    monkeypatch.setattr(picks, "calibrate", measuring({TORCH: 1.0, SHORT: 0.1}))
    first = make_plan(bundle, scene, asked)
    monkeypatch.setattr(picks, "calibrate", measuring({TORCH: 1.0, SHORT: 9.0}))
    assert first.choice == make_plan(bundle, scene, asked).choice == SHORT
    assert make_plan(small_bundle(seed=3), scene, asked).choice == TORCH


def measuring(
    seconds: dict[Choice, float], agreement: float = 1.0, tried: list[list[Choice]] | None = None
) -> Callable[..., list[Trial]]:
    def calibrate(_: object, choices: list[Choice], *__: object, **___: object) -> list[Trial]:
        if tried is not None:
            tried.append(list(choices))
        return [Trial(choice, seconds.get(choice, 5.0), agreement) for choice in choices]

    return calibrate


def test_a_pick_of_integers_holds_only_for_scenes_where_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    int8 = Choice("onnxruntime", "int8")
    monkeypatch.setattr(picks, "candidates", lambda **_: [TORCH, int8])
    remember(pick_key(bundle.hash, threads=1, device="cpu"), [Trial(TORCH, 1.0, 1.0), Trial(int8, 0.1, 0.999)])
    asked = PredictSettings(halo_px=8, tile_px=32, threads=1)
    for agreement, expected in ((0.996, int8), (0.994, TORCH)):
        monkeypatch.setattr(picks, "calibrate", measuring({}, agreement))
        assert make_plan(bundle, scene, asked).choice == expected


def test_an_engine_that_comes_later_is_measured_beside_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    tried: list[list[Choice]] = []
    extra = Choice("onnxruntime")
    monkeypatch.setattr(picks, "calibrate", measuring({TORCH: 1.0, SHORT: 0.5, extra: 0.1}, tried=tried))
    monkeypatch.setattr(picks, "SMALL_SCENE_PX", 0)
    asked = PredictSettings(halo_px=8, tile_px=32, threads=1)
    monkeypatch.setattr(picks, "candidates", lambda **_: [TORCH, SHORT, extra])
    assert make_plan(bundle, scene, asked).choice == SHORT  # too small for what an extra takes to be tried
    monkeypatch.setattr(picks, "SCENE_FOR_EXTRAS_PX", 0)
    assert make_plan(bundle, scene, asked).choice == extra
    assert tried == [[TORCH, SHORT], [extra]]


def test_a_measurement_holds_for_its_model_device_and_threads_only() -> None:
    keys = {
        pick_key("a", threads=1, device="cpu"),
        pick_key("b", threads=1, device="cpu"),
        pick_key("a", threads=2, device="cpu"),
    }
    assert len(keys) == 3


def test_a_damaged_or_missing_cache_is_no_measurement(folder: Path) -> None:
    assert recall("k") == {}
    trials = [Trial(TORCH, 1.0, 1.0), Trial(OTHER, float("inf"), 0.0)]
    remember("k", trials)
    assert list(recall("k").values()) == trials
    assert recall("other") == {}
    for text in ("{", "[]", '{"k": 3}', '{"k": {"motor": 1}}', '{"k": [{"motor": 1}]}', '{"k": [4]}'):
        (folder / FILE).write_text(text)
        assert recall("k") == {}


def test_a_cache_that_cannot_be_written_is_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("")
    remember("k", [Trial(TORCH, 1.0, 1.0)])
    assert "cannot be kept" in caplog.text


def test_an_engine_that_the_memory_does_not_allow_is_neither_tried_nor_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    tried: list[list[Choice]] = []
    monkeypatch.setattr(picks, "candidates", lambda **_: [TORCH, SHORT])
    monkeypatch.setattr(picks, "calibrate", measuring({TORCH: 1.0, SHORT: 0.1}, tried=tried))
    real = demand.choose_tile

    def choose_tile(wanted: Demand, **sizes: int) -> int:
        if wanted.dtype == torch.bfloat16 and sizes["memory_bytes"] < 10**10:
            raise ConfigError("too little", fix="raise --memory")
        return real(wanted, **sizes)

    monkeypatch.setattr(demand, "choose_tile", choose_tile)
    monkeypatch.setattr(picks, "SMALL_SCENE_PX", 0)
    tight, roomy = PredictSettings(halo_px=8), PredictSettings(halo_px=8, memory_bytes=10**10)
    assert make_plan(bundle, scene, tight).choice == TORCH
    assert tried == []  # one is left: nothing to measure
    assert make_plan(bundle, scene, roomy).choice == SHORT
    assert tried == [[TORCH, SHORT]]
    # A small scene takes what was measured before, where that fits.
    monkeypatch.setattr(picks, "SMALL_SCENE_PX", 10**9)
    assert make_plan(bundle, scene, roomy).choice == SHORT
    assert make_plan(bundle, scene, tight).choice == TORCH
    assert len(tried) == 1


def test_an_engine_whose_measured_halo_leaves_no_room_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    monkeypatch.setattr(fitting, "exact_halo_px", lambda _: None)
    monkeypatch.setattr(fitting, "effective_halo_px", lambda engine, *_, **__: 64 if engine.choice == SHORT else 8)
    real = demand.choose_tile

    def choose_tile(wanted: Demand, **sizes: int) -> int:
        if wanted.halo_px == 64:
            raise ConfigError("too little", fix="raise --memory")
        return real(wanted, **sizes)

    monkeypatch.setattr(demand, "choose_tile", choose_tile)
    monkeypatch.setattr(picks, "candidates", lambda **_: [TORCH, SHORT])
    monkeypatch.setattr(picks, "calibrate", measuring({TORCH: 1.0, SHORT: 0.1}))
    monkeypatch.setattr(picks, "SMALL_SCENE_PX", 0)
    for _ in range(2):  # also where it was measured before
        assert make_plan(bundle, scene, PredictSettings()).choice == TORCH


@pytest.mark.parametrize("package", ["torch", "onnxruntime", "openvino"])
def test_an_engine_of_another_version_neither_keeps_what_was_measured_nor_continues_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    bundle, scene = scene_and_bundle(tmp_path)
    installed = dict.fromkeys(("torch", "onnxruntime", "openvino"), "1.0")
    monkeypatch.setattr(versions, "version", installed.__getitem__)
    pick, key = pick_key("m", threads=1, device="cpu"), journal_key(bundle, scene, PredictSettings())
    assert pick_key("m", threads=1, device="cpu") == pick
    installed[package] = "1.1"
    assert pick_key("m", threads=1, device="cpu") != pick
    assert journal_key(bundle, scene, PredictSettings()).differs_in(key.parts) == ["software"]
