from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pipeline.grid import Window
from pipeline.inference import chips
from pipeline.inference.chips import Buffers, Layout
from pipeline.inference.fast import by_pixel
from pipeline.model.preprocess import Preprocess
from tests.inference.models import noise_scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("pixels", [1, 500, 10**6])
@pytest.mark.parametrize("window", [Window(-7, -5, 80, 60), Window(10, 20, 33, 41)])
def test_a_chip_is_the_same_whatever_the_strips(
    tmp_path: Path, window: Window, pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=64, width=50)
    preprocess = Preprocess(scene.band_names, (0.1,) * 3, (0.7,) * 3)
    monkeypatch.setattr(chips, "READ_PX", pixels)
    with scene.open() as reader:
        chip, valid = chips.read_chip(reader, window, preprocess)
        whole = reader.read(window)
    assert torch.equal(chip, preprocess(whole.values, whole.valid))
    assert np.array_equal(valid, whole.valid)


def test_a_layout_changes_type_and_place_not_values(tmp_path: Path) -> None:
    scene = noise_scene(tmp_path / "scene.tif", height=64, width=50)
    preprocess = Preprocess(scene.band_names, (0.1,) * 3, (0.7,) * 3)
    window, layout = Window(-7, -5, 80, 60), Layout(torch.bfloat16, by_pixel=True)
    with scene.open() as reader:
        expected, _ = chips.read_chip(reader, window, preprocess)
        found, _ = chips.read_chip(reader, window, preprocess, out=layout.empty(3, *window.shape))
    assert torch.equal(found, expected.to(torch.bfloat16))
    assert found[None].is_contiguous(memory_format=torch.channels_last)
    # The engine takes it as it is.
    assert by_pixel(found[None], torch.bfloat16).data_ptr() == found.data_ptr()
    assert torch.equal(by_pixel(expected[None], torch.bfloat16)[0], found)


def test_memory_of_chips_is_used_again_and_fits_smaller_ones() -> None:
    buffers = Buffers(Layout(torch.bfloat16, by_pixel=True), largest=3 * 8 * 10)
    first, second = buffers.take(), buffers.take()
    assert first.data_ptr() != second.data_ptr()
    buffers.give(first)
    again = buffers.take()
    assert again.data_ptr() == first.data_ptr()
    chip = buffers.layout.shape(again, 3, 7, 9)
    assert chip.shape == (3, 7, 9)
    assert chip.dtype == torch.bfloat16
    assert chip[None].is_contiguous(memory_format=torch.channels_last)
    assert chip.data_ptr() == first.data_ptr()
