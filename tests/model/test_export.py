"""Exports give the same codes as torch, and carry what Deepness reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.model.export import deepness_metadata, export_onnx, export_torch, exportable
from pipeline.model.network import build_network
from pipeline.model.spec import NetworkSpec

SCALE, OFFSET = [1e-4, 1e-4], [-0.1, -0.1]


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(800, 7000, (1, 2, 32, 32)).astype(np.float32)


def reference(bundle, dn):
    values = torch.from_numpy(dn) * 1e-4 - 0.1
    with torch.no_grad():
        return bundle.network()(bundle.preprocess.apply(values, torch.ones((1, 32, 32), dtype=torch.bool))).softmax(1)


@pytest.fixture
def probed(bundle):
    """The first member is one with an encoder's columns."""
    columns = build_network(NetworkSpec(2, 3, depth=3, columns=True, surroundings=True))
    return replace(bundle, members=(columns, bundle.members[1]))


def test_onnxruntime_gives_what_columns_give(probed, dn, tmp_path):
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    test_onnxruntime_gives_the_codes_of_torch(probed, dn, tmp_path, "values")


@pytest.mark.parametrize("feed", ["values", "deepness"])
def test_onnxruntime_gives_the_codes_of_torch(bundle, dn, tmp_path, feed):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = export_onnx(tmp_path / "m.onnx", bundle, tile_px=32, feed=feed, scale=SCALE, offset=OFFSET)
    graph = onnx.load(str(path))
    assert graph.ir_version <= 9
    assert [item.version for item in graph.opset_import] == [17]
    x = dn
    if feed == "deepness":  # what the plugin does: divide by 255, then standardise by the metadata
        metadata = {item.key: json.loads(item.value) for item in graph.metadata_props}
        mean, std = (np.array(metadata[f"standardization_{key}"])[:, None, None] for key in ("mean", "std"))
        x = ((dn / 255 - mean) / std).astype(np.float32)
    session = runtime.InferenceSession(str(path))
    (entry,) = session.get_inputs()
    assert entry.shape == [1, 2, 32, 32]
    found = session.run(None, {entry.name: x})[0]
    expected = reference(bundle, dn).numpy()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_deepness_metadata_follow_its_contract(bundle):
    metadata = {key: json.loads(text) for key, text in deepness_metadata(bundle, tile_px=256).items()}
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {"0": "water", "1": "trees", "2": "crops"}
    assert metadata["resolution"] == 1000.0
    assert (metadata["tile_size"], metadata["tiles_overlap"]) == (256, 15)
    assert (metadata["seg_thresh"], metadata["seg_small_segment"]) == (0, 0)
    np.testing.assert_allclose(metadata["standardization_mean"], np.array([0.1, 0.3]) / 255)
    np.testing.assert_allclose(metadata["standardization_std"], np.array([0.05, 0.1]) / 255)


def test_a_torch_program_gives_the_same_probabilities(bundle, dn, tmp_path):
    path = export_torch(tmp_path / "m.pt2", bundle, tile_px=32, scale=SCALE, offset=OFFSET)
    found = torch.export.load(str(path)).module()(torch.from_numpy(dn))
    torch.testing.assert_close(found.detach(), reference(bundle, dn), atol=1e-5, rtol=1e-4)


def test_scales_that_do_not_fit_are_refused(bundle):
    with pytest.raises(ModelError, match="scale per band"):
        exportable(bundle, scale=[1.0])
    with pytest.raises(ModelError, match="scale per band"):
        exportable(bundle, scale=[1.0, 0.0])
