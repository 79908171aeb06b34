from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.inference.engine import Choice, choose_engine, fast_bfloat16, make_engine
from pipeline.inference.settings import MapSettings
from tests.inference.models import small_bundle

if TYPE_CHECKING:
    pass

BUNDLE = small_bundle(members=2)


def logits(choice: Choice, chips: torch.Tensor) -> torch.Tensor:
    return make_engine(BUNDLE.network(fused=True), choice, channels=3, threads=1)(chips).float()


@pytest.mark.parametrize("name", ["torch", "openvino"])
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


def test_auto_takes_the_type_that_the_device_computes_in() -> None:
    chosen = choose_engine(MapSettings(device="cpu"))
    assert chosen == Choice("torch", "bfloat16" if fast_bfloat16("cpu") else "float32", "cpu")
    assert choose_engine(MapSettings(dtype="float32", device="cpu")) == Choice()


def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.engine.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[openvino\]"):
        choose_engine(MapSettings(engine="openvino", dtype="float32"))
    monkeypatch.setattr("pipeline.inference.engine.find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[onnx\]"):
        choose_engine(MapSettings(engine="openvino", dtype="int8"))
    assert choose_engine(MapSettings(dtype="float32", device="cpu")) == Choice()


def test_integers_give_nearly_the_same_classes_and_repeat() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(2)]
    chips = torch.randn(1, 3, 64, 64, generator=generator)
    plain = logits(Choice(), chips)
    engine = Choice("openvino", "int8")
    made = [
        make_engine(BUNDLE.network(fused=True), engine, channels=3, threads=2, samples=samples)(chips) for _ in range(2)
    ]
    assert torch.equal(*made)
    assert not torch.allclose(made[0], plain, atol=1e-4)
    # Random weights on noise: scores lie close together. By chance a fourth would agree, of trained ones 99.8 %.
    assert (made[0].argmax(1) == plain.argmax(1)).float().mean() > 0.9


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        choose_engine(MapSettings(device="cuda"))


def test_openvino_keeps_compiled_models_of_the_last_sizes_only() -> None:
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
