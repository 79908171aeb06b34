from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference import demand, engines, versions
from pipeline.inference.engine import Choice
from pipeline.inference.picks import FILE, pick_key, recall, remember
from pipeline.inference.plan import PredictSettings, journal_key, make_plan
from pipeline.inference.trials import Trial
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.inference.memory import Demand

TORCH, OTHER, SHORT = Choice(), Choice("openvino"), Choice("torch", "bfloat16")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_later_run_takes_the_pick_of_the_first_whatever_it_would_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = small_bundle(), noise_scene(tmp_path / "scene.tif", height=64, width=64)
    monkeypatch.setattr(engines, "candidates", lambda **_: [TORCH, Choice("compiled"), OTHER])
    made: list[Choice] = []
    monkeypatch.setattr(engines, "engine_of", lambda _, choice, **__: made.append(choice))
    monkeypatch.setattr(engines, "SMALL_SCENE_PX", 0)
    monkeypatch.setattr(engines, "calibrate", lambda *_, **__: (OTHER, [Trial(OTHER, 1.0, 1.0)]))
    asked = PredictSettings(halo_px=8, tile_px=32, threads=1)
    first = make_plan(bundle, scene, asked)
    monkeypatch.setattr(engines, "calibrate", lambda *_, **__: (TORCH, [Trial(TORCH, 1.0, 1.0)]))
    assert first.choice == make_plan(bundle, scene, asked).choice == OTHER
    assert make_plan(small_bundle(seed=3), scene, asked).choice == TORCH


def test_a_pick_of_integers_holds_only_for_scenes_where_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, scene = small_bundle(), noise_scene(tmp_path / "scene.tif", height=64, width=64)
    int8 = Choice("onnxruntime", "int8")
    choices = [TORCH, int8]
    monkeypatch.setattr(engines, "candidates", lambda **_: choices)
    remember(pick_key(bundle.hash, choices, threads=1), int8)
    asked = PredictSettings(halo_px=8, tile_px=32, threads=1)
    for agreement, expected in ((0.996, int8), (0.994, TORCH)):
        monkeypatch.setattr(engines, "calibrate", lambda *_, found=agreement, **__: (int8, [Trial(int8, 1.0, found)]))
        assert make_plan(bundle, scene, asked).choice == expected


def test_a_pick_holds_for_its_model_choices_and_threads_only() -> None:
    keys = {
        pick_key("a", [TORCH, OTHER], threads=1),
        pick_key("b", [TORCH, OTHER], threads=1),
        pick_key("a", [TORCH], threads=1),
        pick_key("a", [TORCH, OTHER], threads=2),
    }
    assert len(keys) == 4


def test_a_damaged_or_missing_cache_is_no_pick(folder: Path) -> None:
    assert recall("k", [TORCH]) is None
    remember("k", OTHER)
    assert recall("k", [TORCH, OTHER]) == OTHER
    assert recall("k", [TORCH]) is None
    for text in ("{", "[]", '{"k": 3}', '{"k": {"motor": 1}}'):
        (folder / FILE).write_text(text)
        assert recall("k", [TORCH, OTHER]) is None


def test_a_cache_that_cannot_be_written_is_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("")
    remember("k", TORCH)
    assert "cannot be kept" in caplog.text


def test_an_engine_that_the_memory_does_not_allow_is_neither_tried_nor_recalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=64, width=64), small_bundle()
    tried: list[list[Choice]] = []

    def measured(_: object, choices: list[Choice], *__: object, **___: object) -> tuple[Choice, list[Trial]]:
        tried.append(list(choices))
        return choices[-1], []

    monkeypatch.setattr(engines, "candidates", lambda **_: [TORCH, SHORT])
    monkeypatch.setattr(engines, "calibrate", measured)
    real = demand.choose_tile

    def choose_tile(wanted: Demand, **sizes: int) -> int:
        if wanted.dtype == torch.bfloat16 and sizes["memory_bytes"] < 10**10:
            raise ConfigError("too little", fix="raise --memory")
        return real(wanted, **sizes)

    monkeypatch.setattr(demand, "choose_tile", choose_tile)
    monkeypatch.setattr(engines, "SMALL_SCENE_PX", 0)
    tight, roomy = PredictSettings(halo_px=8), PredictSettings(halo_px=8, memory_bytes=10**10)
    assert make_plan(bundle, scene, tight).choice == TORCH
    assert tried in ([], [[TORCH]])
    assert make_plan(bundle, scene, roomy).choice == SHORT
    assert tried[-1] == [TORCH, SHORT]
    # A small scene takes what was picked before, if that fits.
    monkeypatch.setattr(engines, "SMALL_SCENE_PX", 10**9)
    assert make_plan(bundle, scene, roomy).choice == SHORT
    assert make_plan(bundle, scene, tight).choice == TORCH


@pytest.mark.parametrize("package", ["torch", "onnxruntime", "openvino"])
def test_an_engine_of_another_version_neither_keeps_a_pick_nor_continues_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    bundle, scene = small_bundle(), noise_scene(tmp_path / "scene.tif", height=32, width=32)
    installed = dict.fromkeys(("torch", "onnxruntime", "openvino"), "1.0")
    monkeypatch.setattr(versions, "version", installed.__getitem__)
    pick, key = pick_key("model", [TORCH], threads=1), journal_key(bundle, scene, PredictSettings())
    assert pick_key("model", [TORCH], threads=1) == pick
    installed[package] = "1.1"
    assert pick_key("model", [TORCH], threads=1) != pick
    assert journal_key(bundle, scene, PredictSettings()).differs_in(key.parts) == ["software"]
