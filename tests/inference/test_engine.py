from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference.engine import Choice, calibrate, candidates, fast_bfloat16, make_engine
from tests.inference.models import small_bundle

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

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
    best, trials = calibrate(make, [Choice(name) for name in names], chips)
    assert best.engine == "onnxruntime"
    assert [trial.choice.engine for trial in trials] == ["torch", "compiled", "onnxruntime"]
    assert "engine picked: onnxruntime" in caplog.text
    assert "operator not supported" in caplog.text


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
    with pytest.raises(ConfigError, match="onnxruntime in bfloat16"):
        make_engine(torch.nn.Identity(), Choice("onnxruntime", "bfloat16"), channels=3, threads=1)
    with pytest.raises(ConfigError, match="on cuda"):
        make_engine(torch.nn.Identity(), Choice("openvino", "float32", "cuda"), channels=3, threads=1)
    monkeypatch.setattr("pipeline.inference.engine.find_spec", absent)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[openvino\]"):
        candidates(engine="openvino", dtype="float32", device="cpu")
    assert candidates(engine="auto", dtype="float32", device="cpu") == [Choice()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        candidates(engine="torch", dtype="float32", device="cuda")
