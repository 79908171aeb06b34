from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pipeline.grid import Window
from pipeline.inference import chips
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
