"""Every polygon is tested once, and nothing near it is learned from."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from pipeline.errors import SplitError, SplitWarning
from pipeline.grid import Grid
from pipeline.labels.rasterise import LabelledPixels
from pipeline.scenes.geotiff import open_geotiff
from pipeline.splits.folds import block_folds, group_split, polygon_folds, scene_folds, warn_of_corner
from pipeline.splits.split import Part, TrainingScene, check_leakage
from tests.fakes.rasters import write_raster
from tests.splits.test_split import SCHEME, UTM33, scattered, squares


@pytest.mark.parametrize("folds", [3, 5, None])
def test_every_polygon_is_tested_once_none_near_is_trained_on(folds: int | None) -> None:
    pixels = scattered()
    splits = block_folds([pixels], folds=folds, block_m=1200, buffer_m=160, seed=0)
    blocks = len(np.unique(splits[0].block_of[1:]))
    assert len(splits) == (folds or blocks)
    assert sorted(np.concatenate([s.polygons(Part.TEST) for s in splits]).tolist()) == list(range(1, 91))
    for split in splits:
        check_leakage([pixels], split, reach_px=16)
        assert len(split.polygons(Part.VALIDATION)) > 0


def test_folds_have_about_equal_shares_of_every_class() -> None:
    pixels = scattered(count=150)
    for split in block_folds([pixels], folds=5, block_m=800, buffer_m=0, seed=0):
        counts = split.counts([pixels], SCHEME)
        assert all(4 <= counts[name]["test"]["polygons"] <= 17 for name in SCHEME.names)


def test_more_folds_than_blocks_names_the_largest_number() -> None:
    with pytest.raises(SplitError, match=r"expected 2\.\.16 folds, not 50"):
        block_folds([scattered()], folds=50, block_m=1000, buffer_m=0, seed=0)


def test_fold_whose_buffer_leaves_nothing_is_named() -> None:
    with pytest.raises(SplitError, match="fold 1 of 3: the buffer leaves no polygon to train on"):
        block_folds([scattered()], folds=3, block_m=1000, buffer_m=9000, seed=0)


def test_polygon_folds_deal_every_class_evenly() -> None:
    pixels = scattered()
    splits = polygon_folds([pixels], folds=5, seed=0)
    assert sorted(np.concatenate([s.polygons(Part.TEST) for s in splits]).tolist()) == list(range(1, 91))
    for split in splits:
        counts = split.counts([pixels], SCHEME)
        assert all(counts[name]["test"]["polygons"] == 6 for name in SCHEME.names)
        assert all(counts[name]["validation"]["polygons"] in {4, 5} for name in SCHEME.names)
    with pytest.raises(SplitError, match=r"got 90 polygons; expected 2\.\.90 folds"):
        polygon_folds([pixels], folds=91, seed=0)


def test_leaving_a_scene_out_tests_its_polygons_only() -> None:
    other = Grid(UTM33, Affine(30, 0, 100_000, 0, -30, 5_400_000), 400, 400)
    scenes = [scattered(0), scattered(1, grid=other, first_id=91)]
    splits = scene_folds(scenes, block_m=2000, buffer_m=160, seed=0)
    assert [split.polygons(Part.TEST).tolist() for split in splits] == [list(range(1, 91)), list(range(91, 181))]
    assert all(len(split.polygons(Part.VALIDATION)) for split in splits)
    with pytest.raises(SplitError, match="needs several"):
        scene_folds(scenes[:1], block_m=2000, buffer_m=160, seed=0)
    with pytest.raises(SplitError, match="holds all polygons"):
        scene_folds([scenes[0], scenes[0]], block_m=2000, buffer_m=160, seed=0)


def overlapping() -> list[LabelledPixels]:
    """Two scenes that share half of their width: polygons on a lattice of both, burned onto each."""
    corners = [(row, col) for row in range(5, 380, 40) for col in range(5, 590, 20)]
    ids = np.arange(1, len(corners) + 1)
    scenes = []
    for shift in (0, 200):
        inside = np.array([0 <= col - shift <= 394 for _, col in corners])
        own = [(row, col - shift) for row, col in np.array(corners)[inside].tolist()]
        grid = Grid(UTM33, Affine(10, 0, 500_000 + 10 * shift, 0, -10, 5_400_000), 400, 400)
        pixels = squares(own, (1 + ids[inside] % 3).tolist(), grid=grid)
        scenes.append(replace(pixels, polygon=ids[inside][pixels.polygon - 1].astype(np.int32)))
    return scenes


def test_scenes_that_overlap_are_tested_once_each() -> None:
    scenes = overlapping()
    shared = np.intersect1d(scenes[0].polygon_ids(), scenes[1].polygon_ids())
    assert len(shared)
    splits = scene_folds(scenes, block_m=800, buffer_m=160, seed=0)
    for number, split in enumerate(splits):
        check_leakage(scenes, split, reach_px=16)
        tested = split.tested(scenes)
        assert np.array_equal(tested[number].polygon, scenes[number].polygon)
        assert not len(tested[1 - number])
        assert len(split.polygons(Part.BUFFER))
        assert not np.isin(shared, np.r_[split.polygons(Part.TRAIN), split.polygons(Part.VALIDATION)]).any()


def test_scene_whose_buffer_leaves_nothing_is_named() -> None:
    with pytest.raises(SplitError, match="scene 1 of 2 left out: the buffer leaves no polygon to train on"):
        scene_folds(overlapping(), block_m=800, buffer_m=9000, seed=0)


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.8, 0.0, 0.2)])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_groups_are_enough_for_every_part(count: int, fractions: tuple[float, float, float]) -> None:
    pixels = scattered()
    groups = np.arange(pixels.polygon.max() + 1, dtype=np.int64) % count
    split = group_split([pixels], groups, fractions=fractions, seed=0)
    own = [set(groups[split.polygons(part)].tolist()) for part in (Part.TRAIN, Part.VALIDATION, Part.TEST)]
    assert [bool(part) for part in own] == [share > 0 for share in fractions]
    assert sum(map(len, own)) == count
    with pytest.raises(SplitError, match="too few groups to hold some out; got 1 group"):
        group_split([pixels], np.zeros_like(groups), fractions=fractions, seed=0)


def test_a_corner_is_one_of_what_has_data(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (2, 400, 400)).astype(np.float32)
    whole = open_geotiff(write_raster(tmp_path / "whole.tif", values))
    values[:, 120:], values[:, :, 120:] = np.nan, np.nan  # 9 % of the scene is left, and is labelled
    part = open_geotiff(write_raster(tmp_path / "part.tif", values))
    pixels = squares([(5, 5), (100, 100)], [1, 2], grid=whole.grid)
    with pytest.warns(SplitWarning, match=r"all polygons lie within \d\.\d% of the scene"):
        warn_of_corner([TrainingScene(whole, pixels)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_corner([TrainingScene(part, pixels)])
        warn_of_corner([TrainingScene(whole, pixels)], mapped=lambda _: 120.0 * 120.0)
