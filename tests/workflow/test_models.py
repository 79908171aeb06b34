from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.inference.sources import STORED, stored_values
from pipeline.model.bundle import save_bundle
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions
from pipeline.workflow.models import export_model, show_model
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = small_bundle()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    stored = {name: [0.0001, -0.1] for name in BUNDLE.bands}
    return save_bundle(tmp_path / "model.safetensors", replace(BUNDLE, provenance={STORED: stored}))


def test_an_export_takes_raw_numbers_as_trained_on(model: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    outcome = export_model(model, form="onnx", output=None, tile_px=32, overwrite=False)
    last = outcome.hint.splitlines()[-1]
    assert "3 bands in this order: noise1, noise2, noise3; raw numbers (value = number x 0.0001 -0.1)" in last
    props = {item.key: item.value for item in onnx.load(str(outcome.written[0])).metadata_props}
    assert json.loads(props["bands"]) == list(BUNDLE.bands)
    assert json.loads(props["scale"]) == [0.0001] * 3
    assert json.loads(props["offset"]) == [-0.1] * 3
    # What Deepness feeds: the numbers over 255, standardised by what the file says of them.
    dn = np.random.default_rng(0).integers(0, 20_000, (1, 3, 32, 32)).astype(np.float32)
    mean, std = (np.array(json.loads(props[f"standardization_{key}"]))[:, None, None] for key in ("mean", "std"))
    session = runtime.InferenceSession(str(outcome.written[0]))
    (found,) = session.run(None, {"input": ((dn / 255 - mean) / std).astype(np.float32)})
    import torch

    with torch.inference_mode():
        chip = BUNDLE.preprocess(dn[0] * np.float32(0.0001) - np.float32(0.1), np.ones((32, 32), dtype=bool))[None]
        expected = BUNDLE.network()(chip).softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-3


def test_a_scale_that_is_given_wins_and_1_means_values(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    given = export_model(model, form="onnx", output=tmp_path / "a.onnx", tile_px=32, scale=1.0, overwrite=False)
    assert given.hint.endswith("values as they are")
    other = export_model(model, form="onnx", output=tmp_path / "b.onnx", tile_px=32, scale=0.5, overwrite=False)
    assert other.hint.endswith("raw numbers (value = number x 0.5)")


def test_stored_values_are_those_of_the_files(tmp_path: Path) -> None:
    noise_scene(tmp_path / "s.tif", height=20, width=20)
    scene = open_geotiff(tmp_path / "s.tif", options=SceneOptions(bands=("a", "b", "c"), scale=0.5, offset=2.0))
    assert stored_values(scene.select(("c", "a"))) == {"c": [0.5, 2.0], "a": [0.5, 2.0]}


def test_a_model_says_when_from_what_and_how_good(tmp_path: Path) -> None:
    bundle = replace(BUNDLE, provenance={"polygons": {"train": 5, "validation": 2, "test": 3}})
    path = save_bundle(tmp_path / "model" / "model.safetensors", bundle)
    about = show_model(path).summary
    assert f"trained      {datetime.now(UTC):%Y-%m-%d}" in about
    assert "on 7 polygons and pixels of" in about
    assert "judged       not yet" in about
    network = {"method": "network", "overall_accuracy": 0.75, "macro_f1": 0.5, "test_polygons": 3}
    (tmp_path / "accuracy.json").write_text(json.dumps(network | {"baselines": []}))
    assert (
        "judged       network: overall accuracy 75.0 %, macro-F1 0.500, on 3 test polygons" in show_model(path).summary
    )
