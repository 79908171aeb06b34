from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from defusedxml import ElementTree
from scipy.spatial.distance import cdist

from pipeline.diagnostics.applicability import (
    COMPONENTS,
    FeatureDistance,
    FeatureSpace,
    fit_applicability,
    learn_distance,
)
from pipeline.errors import ModelError, ModelWarning
from pipeline.inference.probe import network_features
from pipeline.labels.rasterise import LabelledPixels
from pipeline.model.bundle import ModelBundle, load_bundle, save_bundle
from pipeline.scenes.scene import Scene
from pipeline.splits.split import Split, TrainingScene
from pipeline.workflow.predict import predict_maps
from tests.inference.models import changes, noise_scene, small_bundle, write_scene

RNG = np.random.default_rng(5)


def labelled(scene: Scene, *, codes: tuple[int, ...] = (1, 4)) -> LabelledPixels:
    """Squares of 6 x 6 pixels, a polygon each, in the upper half of a scene."""
    rows, cols = np.mgrid[: scene.grid.height // 2, : scene.grid.width]
    polygon = (rows // 12) * 100 + cols // 12 + 1
    inside = (rows % 12 < 6) & (cols % 12 < 6)
    row, col, ids = (part[inside].astype(np.int32) for part in (rows, cols, polygon))
    code = np.asarray(codes, dtype=np.uint8)[ids % len(codes)]
    return LabelledPixels(row, col, code, ids, np.ones(len(row), dtype=np.uint8), scene.grid)


def split_of(pixels: LabelledPixels, *, blocks: int) -> Split:
    ids = pixels.polygon_ids()
    part, block = np.full(ids.max() + 1, -1, dtype=np.int8), np.full(ids.max() + 1, -1, dtype=np.int32)
    part[ids], block[ids] = 0, np.arange(len(ids)) % blocks
    return Split(part, block, 120.0, 0.0)


def judged(scene: Scene, *, blocks: int = 4) -> tuple[ModelBundle, FeatureDistance | None]:
    bundle, pixels = small_bundle(), labelled(scene)
    split = split_of(pixels, blocks=blocks)
    scenes = [TrainingScene(scene, pixels)]
    return bundle, learn_distance(bundle, scenes, split, polygons=pixels.polygon_ids(), seed=0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return noise_scene(tmp_path_factory.mktemp("scene") / "here.tif", height=96, width=80)


@pytest.fixture(scope="module")
def trained(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with the training features of the scene."""
    bundle, distance = judged(scene)
    assert distance is not None
    bundle = replace(bundle, extra=distance.tensors())
    return save_bundle(tmp_path_factory.mktemp("model") / "model.safetensors", bundle)


def test_coordinates_never_exceed_the_distance_of_all_features():
    training, other = RNG.normal(size=(200, 40)).astype(np.float32), 3 * RNG.normal(size=(50, 40)).astype(np.float32)
    space = FeatureSpace.fit(training, weights=np.ones(40))
    full = cdist(other / training.std(axis=0), training / training.std(axis=0))
    short = cdist(space.project(other), space.project(training))
    assert space.project(other).shape == (50, COMPONENTS + 1)
    assert (short <= full * (1 + 1e-4)).all()


def test_coordinates_keep_distances_of_few_dimensions():
    mixing = RNG.normal(size=(5, 30))
    training = (RNG.normal(size=(200, 5)) @ mixing).astype(np.float32)
    space = FeatureSpace.fit(training, weights=np.ones(30))
    full = cdist(training / training.std(axis=0), training / training.std(axis=0))
    assert np.allclose(cdist(space.project(training), space.project(training)), full, atol=2e-2)


def test_features_in_a_direction_never_trained_are_far():
    mixing = RNG.normal(size=(5, 30))
    training = (RNG.normal(size=(300, 5)) @ mixing).astype(np.float32)
    space = FeatureSpace.fit(training, weights=np.ones(30))
    points = space.project(training)
    index = fit_applicability(points, folds=np.arange(300) % 4, weights=points.std(axis=0))
    distance = FeatureDistance(space, index)
    away = np.linalg.svd(mixing)[2][-1] * training.std(axis=0) * 20
    assert distance.percent((training.mean(axis=0) + away)[None].astype(np.float32))[0] > 100


def test_one_hundred_is_exactly_the_last_value_inside(scene):
    bundle, distance = judged(scene)
    assert distance is not None
    features, _ = network_features(bundle, scene, labelled(scene))
    features = np.concatenate([features, 1.5 * features, 0.3 * features])
    inside = distance.index.inside(distance.space.project(features))
    percent = distance.percent(features)
    assert np.array_equal(percent <= 100, inside)
    assert {True, False} == set(inside.tolist())
    assert percent.max() <= 250
    assert distance.percent(np.full((1, features.shape[1]), np.nan, dtype=np.float32))[0] == 255


def test_training_pixels_are_at_no_distance_from_themselves(scene):
    bundle, distance = judged(scene)
    assert distance is not None
    features, _ = network_features(bundle, scene, labelled(scene))
    assert len(distance.index.training) == len(features)
    assert distance.index.dissimilarity(distance.space.project(features)).max() < 0.01


def test_it_travels_in_the_model_file(scene, trained):
    bundle, distance = judged(scene)
    assert distance is not None
    again = FeatureDistance.of(load_bundle(trained).extra)
    features, _ = network_features(bundle, scene, labelled(scene))
    assert np.array_equal(again.percent(2 * features), distance.percent(2 * features))


def test_labels_in_one_block_give_no_threshold(scene):
    assert judged(scene, blocks=1)[1] is None


def test_a_model_without_training_features_says_what_to_do():
    with pytest.raises(ModelError, match="train it again"):
        FeatureDistance.of({"other": torch.zeros(1)})


def maps_of(model: Path, scene: Scene, output: Path, **asked: object) -> Path:
    asked = changes(dtype="float32", **asked)
    predict_maps(None, model=model, scenes=[str(scene.path)], output=output, changes=asked)
    return output


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        assert (dataset.dtypes, dataset.nodata, dataset.count) == (("uint8",), 255, 1)
        return dataset.read(1)


def test_predict_with_a_model_writes_the_layer_and_its_style(scene, trained, tmp_path):
    folder = maps_of(trained, scene, tmp_path / "maps", applicability=True)
    found = read(folder / "here_aoa.tif")
    with rasterio.open(folder / "here_lc.tif") as mapped:
        assert np.array_equal(found == 255, mapped.read(1) == 0)
    with rasterio.open(folder / "here_aoa.tif") as layer:
        assert '"inside": "0..100"' in layer.tags()["LANDCOVER_APPLICABILITY"]
    pixels = labelled(scene)
    assert found[pixels.row, pixels.col].max() <= 1  # rounding up of nearly nothing
    style = ElementTree.parse(folder / "here_aoa.qml")
    assert [item.get("value") for item in style.iter("item")] == ["0", "50", "100", "150", "200"]
    assert not list((folder / ".work").rglob("*.u8"))


def test_values_that_training_never_saw_are_outside(scene, trained, tmp_path):
    with scene.open() as reader:
        values = reader.read(scene.grid.window).values.copy()
    values[:, 48:] = 5.5  # within the range that the model accepts, and flat
    odd = write_scene(tmp_path / "odd.tif", values)
    with pytest.warns(ModelWarning, match="of the mapped pixels are like nothing that the model learned from"):
        folder = maps_of(trained, odd, tmp_path / "maps", applicability=True)
    found = read(folder / "odd_aoa.tif")
    assert (found[70:, 10:70] > 100).mean() > 0.95
    assert (found[:36] <= 100).mean() > 0.5


def test_a_model_that_cannot_tell_stops_before_it_maps(scene, tmp_path):
    model = save_bundle(tmp_path / "bare.safetensors", small_bundle())
    with pytest.raises(ModelError, match="no training features"):
        maps_of(model, scene, tmp_path / "maps", applicability=True)
    assert not list((tmp_path / "maps").glob("*.tif"))


def test_no_layer_unless_asked_for(scene, trained, tmp_path):
    assert not (maps_of(trained, scene, tmp_path / "maps") / "here_aoa.tif").exists()
