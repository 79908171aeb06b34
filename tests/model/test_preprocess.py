"""Preprocess: one way from values to channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.model.preprocess import Preprocess

RNG = np.random.default_rng(0)


def test_training_pixels_come_out_with_mean_0_and_deviation_1():
    pixels = RNG.normal((0.1, 0.4), (0.01, 0.05), (5000, 2)).astype(np.float32)
    red, nir = pixels.T.astype(float)
    mean, std = [red.mean(), nir.mean()], [red.std(), nir.std()]
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=mean, std=std, clip=0.0)
    out = preprocess(np.ascontiguousarray(pixels.T).reshape(2, 50, 100), np.ones((50, 100), dtype=bool))
    assert out.shape == (2, 50, 100)
    torch.testing.assert_close(out.mean((1, 2)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std((1, 2)), torch.ones(2), atol=1e-2, rtol=0)


def test_invalid_pixels_are_0_whatever_they_hold():
    values = RNG.random((2, 4, 5), dtype=np.float32)
    values[0, 1, 1] = np.nan
    valid = np.ones((4, 5), dtype=bool)
    valid[1] = False
    kept = values.copy()
    out = Preprocess.from_statistics(bands=("a", "b"), mean=[1, 2], std=[1, 2])(values, valid)
    assert (out[:, 1] == 0).all()
    np.testing.assert_allclose(out[:, 0], (values[:, 0] - [[1], [2]]) / [[1], [2]], rtol=1e-5)
    np.testing.assert_array_equal(values, kept)


def test_a_batch_equals_its_chips():
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0.1, 0.2], std=[0.1, 0.2])
    values, valid = torch.rand(3, 2, 6, 7), torch.rand(3, 6, 7) > 0.3
    batch = preprocess.apply(values, valid)
    for i in range(3):
        torch.testing.assert_close(batch[i], preprocess(values[i].numpy(), valid[i].numpy()))


def test_values_are_clipped():
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0, 0], std=[1, 0], clip=3.0)
    out = preprocess(np.array([[[0.0, 50.0]], [[0.0, -1.0]]], dtype=np.float32), np.ones((1, 2), dtype=bool))
    assert out[:, 0, 1].tolist() == [3.0, -1.0]


def test_json_round_trip_and_bad_headers():
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0.1, 0.2], std=[0.1, 0.2])
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    with pytest.raises(ModelError, match="scaling"):
        Preprocess.from_json({"bands": ["red"]})
    with pytest.raises(ModelError, match=r"indices itself.*train it again"):
        Preprocess.from_json(preprocess.to_json() | {"indices": [["nir", "red"]]})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mean": (0.0,)}, "do not fit"),
        ({"std": (1.0, 0.0)}, "not positive"),
        ({"mean": (0.0, float("nan"))}, "not finite"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong, words):
    with pytest.raises(ModelError, match=words):
        Preprocess(**{"bands": ("red", "nir"), "mean": (0.0, 0.0), "std": (1.0, 1.0), **wrong})
    with pytest.raises(ModelError, match="other bands"):
        Preprocess(("red",), (0.0,), (1.0,))(np.zeros((2, 1, 1), dtype=np.float32), np.ones((1, 1), dtype=bool))
