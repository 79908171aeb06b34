"""Statistics of chips: what they are, what does not change them, and that a map gets those of the chips cut out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.model.export import export_onnx
from pipeline.model.network import build_network
from pipeline.model.reach import reach_px
from pipeline.model.spec import NetworkSpec
from pipeline.model.surroundings import ChipStatistics, chip_statistics, statistics_count
from pipeline.training.batches import symmetry
from tests.model.test_network import shaken


def spec_of(**changes):
    plain = {"encoder": "none", "head": "chip", "statistics": True, "spectral_channels": 8, "chip_px": 16}
    return NetworkSpec(3, 4, **{**plain, "chip_stride_px": 4, **changes})


def test_means_deviations_and_correlations_are_those_of_numpy():
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    found = chip_statistics(x, chip_px=12, stride_px=12)[:, :, 0, 0].numpy()
    middle = x[..., 3:9, 3:9].numpy()
    assert found[:, :3] == pytest.approx(x.numpy().mean((2, 3)))
    assert np.exp(found[:, 3:6]) == pytest.approx(x.numpy().std((2, 3)), rel=1e-3)
    assert found[:, 6:9] == pytest.approx(middle.mean((2, 3)))
    flat = x[0].flatten(1).numpy()
    corner = np.corrcoef(flat)[[0, 0, 1], [1, 2, 2]]
    assert found[0, -3:] == pytest.approx(corner, abs=1e-3)


@pytest.mark.parametrize("chip_px", [8, 9, 16, 21])
def test_turning_and_mirroring_change_no_statistic(chip_px):
    x = torch.randn(2, 3, chip_px, chip_px)
    before = chip_statistics(x, chip_px=chip_px, stride_px=1)
    assert before.shape == (2, statistics_count(3, chip_px=chip_px), 1, 1)
    for turn in range(4):
        (turned,) = symmetry([x], turn=turn, flip=turn % 2 == 0)
        torch.testing.assert_close(chip_statistics(turned, chip_px=chip_px, stride_px=1), before, rtol=1e-4, atol=1e-4)


def test_a_constant_chip_has_finite_statistics():
    assert torch.isfinite(chip_statistics(torch.full((1, 3, 16, 16), 8.0), chip_px=16, stride_px=16)).all()


def test_a_map_has_the_statistics_of_chips_cut_out():
    x = torch.randn(1, 3, 40, 32)
    whole = chip_statistics(x, chip_px=16, stride_px=4)
    assert whole.shape[-2:] == (7, 5)
    torch.testing.assert_close(
        whole[..., 2:3, 3:4], chip_statistics(x[..., 8:24, 12:28], chip_px=16, stride_px=16), rtol=1e-4, atol=1e-4
    )


def test_each_cell_has_the_class_of_the_chip_around_it():
    network = shaken(spec_of())
    x = torch.randn(1, 3, 30, 34)
    with torch.inference_mode():
        scores = network.per_pixel(x)
        chip = network(x[..., 2:18, 6:22])
        assert network.features(x).shape == (1, network.features_out, 30, 34)
    torch.testing.assert_close(scores[:, :, 8, 12], chip, rtol=1e-3, atol=1e-4)
    assert scores.shape == (1, 4, 30, 34)


def test_no_pixel_beyond_the_reach_matters():
    network = shaken(spec_of())
    reach, at = reach_px(network.spec), 30
    x = torch.randn(1, 3, 60, 60)
    with torch.inference_mode():
        before = network.per_pixel(x)
        x[..., at, at] += 5.0
        changed = (network.per_pixel(x) - before).abs().amax((0, 1)) > 1e-4
    rows = changed.any(1).nonzero().flatten()
    assert len(rows) > 0
    assert (rows - at).abs().max() <= reach


def test_statistics_are_standardised_by_the_chips_shown():
    layer = ChipStatistics(3, chip_px=16, stride_px=4)
    x = torch.randn(20, 3, 16, 16)
    layer.standardise_by(chip_statistics(x, chip_px=16, stride_px=16))
    found = layer(x)
    assert found.mean(0).abs().max() < 1e-4
    assert set(layer.state_dict()) == {"mean", "gain"}


@pytest.mark.parametrize(
    "changes",
    [{"head": "unet"}, {"encoder": "resnet18"}, {"surroundings": True}, {"spectral_kernels": (3, 1)}, {"chip_px": 6}],
)
def test_statistics_where_they_do_not_fit_are_refused(changes):
    with pytest.raises(ModelError, match="statistics"):
        spec_of(**changes)


def test_a_spec_without_the_key_is_one_without_statistics():
    plain = NetworkSpec(3, 4, encoder="none", head="chip")
    older = {key: value for key, value in plain.to_json().items() if key != "statistics"}
    assert NetworkSpec.from_json(older) == plain
    assert build_network(plain).state_dict().keys() == build_network(NetworkSpec.from_json(older)).state_dict().keys()


def test_statistics_travel_in_the_model_file_and_to_onnx(tmp_path, bundle):
    onnxruntime = pytest.importorskip("onnxruntime")
    given = replace(bundle, members=(shaken(replace(spec_of(), bands_in=2, classes=3)),), shares=())
    again = load_bundle(save_bundle(tmp_path / "m.safetensors", given))
    x = torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.network()(x), given.network()(x))
    path = export_onnx(tmp_path / "m.onnx", again, tile_px=32, feed="values")
    values = np.random.default_rng(0).normal([[[0.1]], [[0.3]]], 0.05, (1, 2, 32, 32)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"input": values})
    with torch.inference_mode():
        x = again.preprocess.apply(torch.from_numpy(values), torch.ones((1, 32, 32), dtype=torch.bool))
        expected = again.network()(x).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
