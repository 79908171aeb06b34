from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference.engine import Choice, fast_bfloat16, make_engine
from pipeline.inference.engines import Engines
from pipeline.inference.trials import Trial, agrees, best_of, calibrate, candidates, time_passes
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from pathlib import Path

BUNDLE = small_bundle(members=2)


def logits(choice: Choice, chips: torch.Tensor) -> torch.Tensor:
    return make_engine(BUNDLE.network(fused=True), choice, channels=3, threads=1)(chips).float()


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_every_engine_gives_the_classes_of_the_plain_network(name: str) -> None:
    pytest.importorskip(name)
    with torch.inference_mode():
        for shape in ((1, 3, 64, 48), (2, 3, 32, 96)):
            chips = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            plain = BUNDLE.network()(chips)
            got = logits(Choice(name), chips)
            assert got.shape == plain.shape
            assert (got.argmax(1) == plain.argmax(1)).float().mean() > 0.999


def test_bfloat16_gives_nearly_all_the_same_classes() -> None:
    chips = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    got, plain = (logits(Choice("torch", kind), chips) for kind in ("bfloat16", "float32"))
    assert (got.argmax(1) == plain.argmax(1)).float().mean() > 0.95


def test_calibration_takes_the_fastest_that_agrees_and_leaves_out_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    import time

    chips = torch.randn(1, 3, 8, 8)

    def make(choice: Choice) -> object:
        if choice.engine == "openvino":
            raise RuntimeError("operator not supported\nlong trace")
        seconds = {"torch": 0.03, "onnxruntime": 0.001, "compiled": 0.0}[choice.engine]
        sign = -1.0 if choice.engine == "compiled" else 1.0

        def run(x: torch.Tensor) -> torch.Tensor:
            time.sleep(seconds)
            return sign * x

        return run

    caplog.set_level("INFO")
    names = ("torch", "openvino", "compiled", "onnxruntime")
    trials = calibrate(make, [Choice(name) for name in names], chips)
    assert best_of(trials).choice.engine == "onnxruntime"
    assert [trial.choice.engine for trial in trials] == list(names)
    assert trials[1] == Trial(Choice("openvino"), float("inf"), 0.0)
    assert "operator not supported" in caplog.text
    with pytest.raises(ConfigError, match="no engine can run this network"):
        best_of([trials[1]])


def test_auto_tries_torch_first_and_only_types_that_the_device_computes_in() -> None:
    tried = candidates(engine="auto", dtype="auto", device="cpu")
    assert tried[0] == Choice("torch", "float32", "cpu")
    assert any(choice.dtype == "bfloat16" for choice in tried) == fast_bfloat16("cpu")
    assert candidates(engine="torch", dtype="float32", device="cpu") == [Choice()]


def test_engines_that_are_not_installed_or_unknown_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> ModuleSpec | None:
        return None

    with pytest.raises(ConfigError, match="one of torch, compiled"):
        candidates(engine="tensorrt", dtype="float32", device="cpu")
    with pytest.raises(ConfigError, match="type 'float16'"):
        candidates(engine="torch", dtype="float16", device="cpu")
    with pytest.raises(ConfigError, match=r"onnxruntime in bfloat16.*use torch or compiled or openvino"):
        make_engine(torch.nn.Identity(), Choice("onnxruntime", "bfloat16"), channels=3, threads=1)
    with pytest.raises(ConfigError, match="on cuda"):
        make_engine(torch.nn.Identity(), Choice("openvino", "float32", "cuda"), channels=3, threads=1)
    monkeypatch.setattr("pipeline.inference.engine.find_spec", absent)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[openvino\]"):
        candidates(engine="openvino", dtype="float32", device="cpu")
    assert candidates(engine="auto", dtype="float32", device="cpu") == [Choice()]
    with pytest.raises(ConfigError, match=r"engine torch in int8.*use onnxruntime or openvino"):
        candidates(engine="auto", dtype="int8", device="cpu")


def test_an_engine_in_integers_gives_nearly_all_the_same_classes_and_the_same_scores_again() -> None:
    pytest.importorskip("onnxruntime")
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(2)]
    chips = torch.randn(1, 3, 64, 64, generator=generator)
    plain = logits(Choice(), chips)
    for name in candidates(engine="auto", dtype="int8", device="cpu"):
        made = [
            make_engine(BUNDLE.network(fused=True), name, channels=3, threads=2, samples=samples)(chips)
            for _ in range(2)
        ]
        assert torch.equal(*made)
        assert not torch.allclose(made[0], plain, atol=1e-4)
        # Random weights on noise: scores lie close together. By chance a fourth would agree, of trained ones 99.8 %.
        assert (made[0].argmax(1) == plain.argmax(1)).float().mean() > 0.9


def test_integers_are_picked_unasked_only_where_they_agree_and_reported_where_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    int8, chips = Choice("onnxruntime", "int8"), torch.randn(1, 3, 100, 100, generator=torch.Generator().manual_seed(0))

    def maker(changed: int) -> object:
        def make(choice: Choice) -> object:
            def run(x: torch.Tensor) -> torch.Tensor:
                time.sleep(0.02 if choice.dtype == "float32" else 0.001)
                made = x.clone()
                if choice.dtype == "int8":
                    made[..., 0, :changed] *= -1.0
                return made

            return run

        return make

    assert best_of(calibrate(maker(20), [Choice(), int8], chips)).choice == int8
    assert best_of(calibrate(maker(30), [Choice(), int8], chips)).choice == Choice()
    caplog.clear()
    (trial,) = calibrate(maker(30), [int8], chips)
    assert best_of([trial]).choice == int8
    assert trial.agreement == pytest.approx(0.994)
    assert not agrees(Trial(int8, 1.0, 0.994))
    assert "onnxruntime int8 on cpu gives 99.40 % of the pixels" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        candidates(engine="torch", dtype="float32", device="cuda")


def test_timing_engines_leaves_torch_the_threads_it_had() -> None:
    before = torch.get_num_threads()
    engine = make_engine(BUNDLE.network(fused=True), Choice(), channels=3, threads=before + 1)
    time_passes(engine, Choice(), torch.zeros(1, 3, 64, 64), threads=before + 1, stride_px=1, repeats=1)
    assert torch.get_num_threads() == before


def test_what_an_engine_computes_twice_counts_and_is_asked_only_of_those_that_may_be_fastest() -> None:
    quick, steady, slow = Choice("openvino", "int8"), Choice("torch", "bfloat16"), Choice("onnxruntime")
    trials = [Trial(Choice(), 0.4, 1.0), Trial(slow, 0.3, 1.0), Trial(quick, 0.04, 0.999), Trial(steady, 0.12, 1.0)]
    asked: list[Choice] = []

    def overlap(choice: Choice) -> float:
        asked.append(choice)
        return {quick: 8.0, steady: 1.2}.get(choice, 1.1)

    assert best_of(trials).choice == quick
    assert best_of(trials, overlap).choice == steady
    assert slow not in asked
    assert Choice() not in asked
    # What the memory does not allow cannot be taken; a tenth is not worth a change.
    assert best_of(trials, lambda choice: float("inf") if choice in {quick, steady} else 1.1).choice == slow
    assert best_of(trials, lambda choice: 1.05 if choice == Choice() else 4.0).choice == quick
    assert best_of(trials[:2], lambda choice: 1.4 if choice == slow else 1.05).choice == Choice()


def test_openvino_keeps_what_it_compiled_for_the_last_sizes_only() -> None:
    pytest.importorskip("openvino")
    engine = make_engine(BUNDLE.network(fused=True), Choice("openvino"), channels=3, threads=2)
    chips = [torch.randn(1, 3, side, 64, generator=torch.Generator().manual_seed(side)) for side in (32, 64, 96)]
    first = [engine(part) for part in chips]
    assert len(engine._by_shape) == 2
    # Chips of a batch go one by one: batches that nodata thins out have many sizes.
    assert torch.equal(engine(torch.cat([chips[0], chips[0] + 1.0]))[0], first[0][0])
    assert (1, 3, 32, 64) in engine._by_shape
    assert all(shape[0] == 1 for shape in engine._by_shape)
    for part, found in zip(chips, first, strict=True):
        assert torch.equal(engine(part), found)
        assert torch.allclose(found, logits(Choice(), part), atol=1e-4)


def test_an_engine_is_kept_until_another_is_asked_for(tmp_path: Path) -> None:
    engines = Engines(BUNDLE, noise_scene(tmp_path / "scene.tif", height=64, width=64))
    first = engines(Choice(), threads=1)
    assert engines(Choice(), threads=1) is first
    assert engines(Choice(), threads=2) is not first
    assert engines(Choice(), threads=1) is not first
