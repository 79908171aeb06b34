from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from pipeline.chips.splits import Part, Split
from pipeline.errors import ModelError
from pipeline.grid import Grid
from pipeline.labels.rasterise import LabelledPixels
from pipeline.legend import scheme_for
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.scenes.opening import open_scene
from pipeline.training.baseline import fit_forest
from pipeline.training.crossval import cross_validate, predict_pixels, summary
from pipeline.training.dataset import TrainingScene, read_chips, turns
from pipeline.training.fit import FitSettings, fit
from pipeline.training.teacher import best_shares

QUICK = FitSettings(
    steps=4,
    batch=2,
    chip_px=32,
    teacher_trees=5,
    pixel_steps=150,
    pixel_batch=128,
    soft_pixels=2000,
    unlabelled_chips=3,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two classes told apart by the second band; twelve polygons of 5 x 5 pixels."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    truth = np.zeros((96, 96), dtype=int)
    truth[:, 48:] = 1
    values = np.stack([rng.normal(0.2, 0.05, truth.shape), 0.1 + 0.3 * truth + rng.normal(0, 0.03, truth.shape)])
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 500000, 0, -10, 5800000), 96, 96)
    with rasterio.open(
        path, "w", driver="GTiff", height=96, width=96, count=2, dtype="float32", crs=grid.crs, transform=grid.transform
    ) as out:
        out.write(values.astype(np.float32))
        out.descriptions = ("red", "nir")
    rows, cols, ids = [], [], []
    for number in range(12):
        row, col = 8 + 14 * (number // 2), 20 if number % 2 == 0 else 70
        r, c = np.mgrid[row : row + 5, col : col + 5].reshape(2, -1)
        rows.append(r), cols.append(c), ids.append(np.full(25, number + 1))
    row, col, ids = (np.concatenate(part).astype(np.int32) for part in (rows, cols, ids))
    order = np.lexsort((col, row))
    row, col, ids = row[order], col[order], ids[order]
    scheme, _ = scheme_for(["low", "high"])
    code = scheme.index_to_code[truth[row, col]]
    pixels = LabelledPixels(row, col, code, ids, np.ones(len(row), np.uint8), grid)
    part = np.array([-1, *[0] * 6, *[1] * 2, *[2] * 4], dtype=np.int8)
    split = Split(part, np.array([-1, *[i // 2 for i in range(12)]], dtype=np.int32), 140.0, 0.0)
    return TrainingScene(open_scene(path), pixels), split, scheme


def test_a_network_learns_what_a_threshold_tells(job, tmp_path):
    scene, split, scheme = job
    result = fit([scene], split, scheme, settings=QUICK, folder=tmp_path)
    test = split.pixels(scene.pixels, Part.TEST)
    assert (predict_pixels(result.bundle, scene.source, test) == test.code).mean() > 0.95
    assert len(result.bundle.members) == 2
    again = load_bundle(save_bundle(tmp_path / "m.safetensors", result.bundle))
    assert again.bands == ("red", "nir")


def test_same_seed_same_model(job, tmp_path):
    scene, split, scheme = job
    one, other = (fit([scene], split, scheme, settings=QUICK, folder=tmp_path / n).bundle for n in ("a", "b"))
    for left, right in zip(one.members, other.members, strict=True):
        for name, value in left.state_dict().items():
            assert torch.equal(value, right.state_dict()[name]), name


def test_early_stopping_keeps_a_best_checkpoint(job, tmp_path):
    scene, split, scheme = job
    settings = FitSettings(**{**vars(QUICK), "patience": 1, "steps": 20})
    fit([scene], split, scheme, settings=settings, folder=tmp_path)
    assert (tmp_path / "best.ckpt").is_file()


def test_test_polygons_are_no_labels_in_chips(job):
    from pipeline.model.preprocess import Preprocess

    scene, split, scheme = job
    plain = Preprocess(("red", "nir"), (0.0, 0.0), (1.0, 1.0), 0.0)
    chips = read_chips(
        [scene], split=split, parts=(Part.TRAIN,), scheme=scheme, preprocess=plain, chip_px=32, labelled=99,
        unlabelled=4, seed=0,
    )  # fmt: skip
    seen = set(chips.polygon[chips.index != 255].unique().tolist())
    assert seen == set(split.polygons(Part.TRAIN).tolist())


def test_forest_and_network_are_judged_on_the_same_pixels(job, tmp_path):
    scene, split, scheme = job
    results = cross_validate(
        [scene], scheme, [split], methods=("forest", "forest_neighbourhood"), settings=QUICK, folder=tmp_path, trees=10
    )
    assert np.array_equal(results[0].reference, results[1].reference)
    assert summary(results, "forest")["pooled"]["overall_accuracy"] > 0.95
    resumed = cross_validate(
        [scene], scheme, [split], methods=("forest",), settings=QUICK, folder=tmp_path, resume=True
    )
    assert resumed[0].seconds == results[0].seconds


def test_forest_window_agrees_with_forest_pixels(job):
    from pipeline.scenes.reader import open_reader

    scene, split, scheme = job
    forest = fit_forest([scene], scheme, polygons=split.polygons(Part.TRAIN), sizes=(3,), trees=10)
    with open_reader(scene.source) as reader:
        window = forest.predict_window(reader, scene.source.grid.window)
        codes = forest.predict(reader, scene.pixels)
    assert np.array_equal(window[scene.pixels.row, scene.pixels.col], codes)


def test_the_better_expert_gets_the_larger_share():
    mine = np.array([[0.9] * 50, [0.3] * 50])
    assert best_shares(mine, np.ones(50), strength=0.01)[0] > 0.8
    assert abs(best_shares(mine, np.ones(50), strength=100.0)[0] - 0.5) < 0.05


def test_turns_count_repetitions():
    assert turns(np.array([7, 7, 3, 7])).tolist() == [0, 1, 0, 2]


def test_settings_that_cannot_train_are_refused():
    with pytest.raises(ModelError, match="steps"):
        FitSettings(steps=0)
