from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.inference.probe import feature_tiles, feature_weights, network_features, pixel_logits
from pipeline.labels.rasterise import LabelledPixels
from pipeline.scenes.scene import Scene
from tests.inference.models import bundle_of, noise_scene, small_bundle


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Larger than one tile both ways, with a wedge of nodata in the lower right corner."""
    return noise_scene(tmp_path_factory.mktemp("probe") / "scene.tif", height=290, width=270)


def pixels_of(scene: Scene, count: int, *, seed: int = 0) -> LabelledPixels:
    height, width = scene.grid.shape
    key = np.sort(np.random.default_rng(seed).choice(height * width, count, replace=False))
    return LabelledPixels(
        row=(key // width).astype(np.int32), col=(key % width).astype(np.int32),
        code=np.ones(count, dtype=np.uint8), polygon=np.arange(1, count + 1, dtype=np.int32),
        edge_px=np.ones(count, dtype=np.uint8), grid=scene.grid,
    )  # fmt: skip


def valid_of(scene: Scene) -> np.ndarray:
    with scene.open() as reader:
        return reader.read(scene.grid.window).valid


def test_tiles_hold_features_of_all_valid_single_pixels(scene):
    bundle = small_bundle(members=2)
    pixels = pixels_of(scene, 400)
    values, position = network_features(bundle, scene, pixels)
    whole = np.full((values.shape[1], *scene.grid.shape), np.nan, dtype=np.float32)
    seen = np.zeros(scene.grid.shape, dtype=int)
    for window, features, valid in feature_tiles(bundle, scene):
        whole[(slice(None), *window.slices)] = features
        seen[window.slices] += valid
    assert np.array_equal(seen, valid_of(scene).astype(int))
    assert np.array_equal(np.sort(position), np.flatnonzero(valid_of(scene)[pixels.row, pixels.col]))
    assert np.allclose(whole[:, pixels.row[position], pixels.col[position]].T, values, atol=1e-6)


def test_tiles_that_nobody_wants_are_not_read(scene):
    tiles = [window for window, _, _ in feature_tiles(small_bundle(), scene, wanted=lambda tile: tile.row == 0)]
    assert {(tile.row, tile.col) for tile in tiles} == {(0, 0), (0, 256)}


def test_a_members_head_turns_its_features_into_the_scores(scene):
    bundle = small_bundle()
    pixels = pixels_of(scene, 50)
    features, position = network_features(bundle, scene, pixels)
    logits, same = pixel_logits(bundle, scene, pixels)
    with torch.inference_mode():
        expected = bundle.members[0].head(torch.from_numpy(features)[:, :, None, None])[:, :, 0, 0].numpy()
    assert np.array_equal(position, same)
    assert np.allclose(logits, expected, atol=1e-4)


def test_scores_are_divided_by_the_temperature(scene):
    spec = small_bundle().specs[0]
    pixels = pixels_of(scene, 20)
    plain, _ = pixel_logits(bundle_of(spec), scene, pixels)
    cooler, _ = pixel_logits(bundle_of(spec, temperature=2.5), scene, pixels)
    assert np.allclose(plain, 2.5 * cooler, atol=1e-4)


def test_scenes_without_labels_give_empty_tables_of_full_width(scene):
    bundle = small_bundle(members=2)
    none = pixels_of(scene, 5).select(np.zeros(5, dtype=np.bool_))
    assert network_features(bundle, scene, none)[0].shape == (0, 2 * bundle.members[0].features_out)
    assert pixel_logits(bundle, scene, none)[0].shape == (0, len(bundle.scheme))


def test_members_weigh_as_they_do_in_the_map():
    bundle = small_bundle(members=2)
    object.__setattr__(bundle, "shares", (3.0, 1.0))
    squares = np.square(feature_weights(bundle)).reshape(2, -1).sum(axis=1)
    assert squares == pytest.approx([0.75, 0.25])


def test_a_scene_lacking_a_band_says_so(tmp_path: Path):
    from pipeline.errors import SceneError

    short = noise_scene(tmp_path / "short.tif", height=32, width=32, bands=2)
    with pytest.raises(SceneError):
        next(feature_tiles(small_bundle(bands=3), short))
