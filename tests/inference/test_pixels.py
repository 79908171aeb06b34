from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pipeline.grid import Window
from pipeline.inference import pixels as tiles
from pipeline.inference.fast import by_pixel
from pipeline.inference.pixels import Buffers, TileLayout, classify
from pipeline.inference.settings import Products
from pipeline.model.preprocess import Preprocess
from tests.inference.models import noise_scene, scheme

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("pixels", [1, 500, 10**6])
@pytest.mark.parametrize("window", [Window(-7, -5, 80, 60), Window(10, 20, 33, 41)])
def test_a_tile_is_the_same_whatever_the_strips(
    tmp_path: Path, window: Window, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=64, width=50)
    preprocess = Preprocess(scene.band_names, (0.1,) * 3, (0.7,) * 3)
    monkeypatch.setattr(tiles, "READ_PX", pixels)
    with scene.open() as reader:
        tile, valid = tiles.read_tile(reader, window, preprocess)
        whole = reader.read(window)
    assert torch.equal(tile, preprocess(whole.values, whole.valid))
    assert np.array_equal(valid, whole.valid)


def test_a_layout_changes_type_and_place_not_values(tmp_path: Path) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=64, width=50)
    preprocess = Preprocess(scene.band_names, (0.1,) * 3, (0.7,) * 3)
    window, layout = Window(-7, -5, 80, 60), TileLayout(torch.bfloat16, by_pixel=True)
    with scene.open() as reader:
        expected, _ = tiles.read_tile(reader, window, preprocess)
        found, _ = tiles.read_tile(reader, window, preprocess, out=layout.empty(3, *window.shape))
    assert torch.equal(found, expected.to(torch.bfloat16))
    assert found[None].is_contiguous(memory_format=torch.channels_last)
    # The engine takes it as it is.
    assert by_pixel(found[None], torch.bfloat16).data_ptr() == found.data_ptr()
    assert torch.equal(by_pixel(expected[None], torch.bfloat16)[0], found)


def test_memory_of_tiles_is_used_again_and_fits_smaller_ones() -> None:
    buffers = Buffers(TileLayout(torch.bfloat16, by_pixel=True), largest=3 * 8 * 10)
    first, second = buffers.take(), buffers.take()
    assert first.data_ptr() != second.data_ptr()
    buffers.give(first)
    again = buffers.take()
    assert again.data_ptr() == first.data_ptr()
    tile = buffers.layout.shape(again, 3, 7, 9)
    assert tile.shape == (3, 7, 9)
    assert tile.dtype == torch.bfloat16
    assert tile[None].is_contiguous(memory_format=torch.channels_last)
    assert tile.data_ptr() == first.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_classify_agrees_with_numpy(dtype: torch.dtype) -> None:
    logits = (3 * torch.randn(6, 75, 41, generator=torch.Generator().manual_seed(1))).to(dtype)
    valid = np.random.default_rng(0).random((75, 41)) > 0.2
    legend = scheme(6)
    got = classify(logits, valid, index_to_code=legend.index_to_code, products=Products(margin=True))
    exact = np.exp(logits.float().numpy().astype(np.float64))
    exact /= exact.sum(0)
    ordered = np.sort(exact, axis=0)
    clear = valid & (ordered[-1] > ordered[-2])
    assert np.array_equal(got["codes"][clear], legend.index_to_code[exact.argmax(0)][clear])
    assert np.abs(got["confidence"][valid] - 100 * ordered[-1][valid]).max() < 0.501
    assert np.abs(got["margin"][valid] - 100 * (ordered[-1] - ordered[-2])[valid]).max() < 0.501
    assert (got["codes"][~valid] == 0).all()
    assert (got["confidence"][~valid] == 255).all()


def test_a_legend_of_one_class_is_sure_and_without_entropy() -> None:
    asked = Products(probabilities=True, entropy=True, margin=True)
    got = classify(
        torch.zeros(1, 2, 2), np.ones((2, 2), dtype=bool), index_to_code=scheme(1).index_to_code, products=asked
    )
    assert {name: int(layer.max()) for name, layer in got.items()} == {
        "codes": 1, "confidence": 100, "probabilities": 100, "entropy": 0, "margin": 100,
    }  # fmt: skip
