"""``landcover crossval`` on a small world: its folds, its files, and what it refuses."""

from __future__ import annotations

import json
import warnings

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from pipeline.cli.entry import main
from pipeline.errors import ConfigError, OutputError, SplitError, SplitWarning
from pipeline.splits.settings import CrossvalSettings
from pipeline.workflow.crossval import cross_validate_job, draw_learning_curve
from pipeline.workflow.outcome import no_progress
from tests.fakes.small_world import (
    CLASSES,
    reflectance,
    squares,
    write_labels,
    write_scene,
    write_settings,
    write_world,
)

FIGURES = {"overall_accuracy", "macro_f1", "kappa"}
TINY = {"experts": {"trees": 2, "soft_pixels": 200}, "pixels": {"steps": 4}}


def validate(config, *, overwrite=False, force=False, **asked):
    asked = {"folds": 3, "methods": ("forest",), "random_folds": 0} | asked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cross_validate_job(
            config, CrossvalSettings(**asked), overwrite=overwrite, force=force, progress=no_progress
        )


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


def test_the_run_folder_keeps_folds_mean_deviation_and_pool(tmp_path, capsys):
    config = write_world(tmp_path, training=TINY)
    assert main(["crossval", str(config), "--folds", "2", "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "run" / "crossval.json").read_text())
    assert printed["pooled"] == kept["pooled"]
    for found in (kept, kept["baseline"], kept["random_split"], kept["random_split"]["baseline"]):
        assert set(found["pooled"]) == set(found["mean"]) == set(found["sd"]) == FIGURES
        assert all(set(fold) >= FIGURES for fold in found["folds"])
    assert len(kept["folds"]) == len(kept["baseline"]["folds"]) == 2
    assert set(kept["baseline"]["per_class"]) == set(CLASSES)
    assert kept["complete"]
    assert "not a probability sample" in kept["what"]


def test_a_fold_per_block_tests_every_polygon_once(world):
    data = validate(world, by="block").data
    folds = data["baseline"]["folds"]
    assert len(folds) == data["split"]["folds_in_all"] > 3
    assert sum(fold["polygons"] for fold in folds) == len(squares())


def test_a_fold_per_scene(tmp_path):
    write_scene(tmp_path / "scene.tif")
    write_scene(tmp_path / "east.tif", transform=shifted())
    frame = squares()
    moved = frame.set_geometry(
        shapely.transform(frame.geometry.array, lambda xy: xy + np.array([5000.0, 0.0])), crs=frame.crs
    )
    write_labels(tmp_path / "labels.gpkg", gpd.GeoDataFrame(pd.concat([frame, moved]), crs=frame.crs))
    config = write_settings(tmp_path, scenes=[{"path": "scene.tif"}, {"path": "east.tif"}])
    data = validate(config, by="scene").data
    assert [fold["polygons"] for fold in data["baseline"]["folds"]] == [len(frame), len(frame)]


def test_overlapping_scenes_test_pixels_of_the_one_left_out(tmp_path):
    write_scene(tmp_path / "scene.tif")
    write_scene(tmp_path / "east.tif", transform=shifted(480.0))  # half a scene; the pattern of classes repeats
    frame = squares()
    moved = frame.set_geometry(
        shapely.transform(frame.geometry.array, lambda xy: xy + np.array([480.0, 0.0])), crs=frame.crs
    )
    new = moved[moved.geometry.bounds["minx"] > frame.total_bounds[2]]
    write_labels(tmp_path / "labels.gpkg", gpd.GeoDataFrame(pd.concat([frame, new]), crs=frame.crs))
    config = write_settings(tmp_path, scenes=[{"path": "scene.tif"}, {"path": "east.tif"}])
    folds = validate(config, by="scene").data["baseline"]["folds"]
    assert [fold["polygons"] for fold in folds] == [len(frame), len(frame)]
    assert [fold["pixels"] for fold in folds] == [16 * len(frame), 16 * len(frame)]
    assert [fold["learned"] for fold in folds] == [len(new), len(new)]


def test_a_buffer_narrower_than_chips_is_refused_at_once(tmp_path):
    config = write_world(tmp_path, chips={"size_px": 32}, split={"buffer_m": 0})
    with pytest.raises(SplitError, match=r"are too near; got 1\d\d m; expected more than 160 m"):
        validate(config)


def shifted(metres=5000.0):
    from affine import Affine

    from tests.fakes.rasters import TRANSFORM

    return Affine.translation(metres, 0.0) @ TRANSFORM


def test_one_scene_cannot_be_left_out(world):
    with pytest.raises(SplitError, match="several; got 1 scene"):
        validate(world, by="scene")


def test_folds_of_blocks_and_of_polygons_in_one_go(world):
    data = validate(world, by="both", seeds=(0, 1)).data
    assert data["split"]["kind"] == "blocks"
    assert data["polygons"]["split"]["kind"] == "polygons"
    assert [item["seed"] for item in data["baseline"]["seeds"]] == [0, 1]
    assert len(data["polygons"]["baseline"]["folds"]) == 6


def test_a_run_can_be_cut_into_folds_and_methods(world):
    part = validate(world, only_folds=(2,)).data
    assert [fold["fold"] for fold in part["baseline"]["folds"]] == [2]
    assert not part["complete"]
    rest = validate(world, only_folds=(1, 3)).data
    assert rest["complete"]
    assert rest["pooled"]["macro_f1"] is None
    more = validate(world, methods=("forest_neighbourhood",)).data
    assert len(more["baseline"]["folds"]) == len(more["forest_neighbourhood"]["folds"]) == 3


def test_what_is_done_is_done_again_only_by_force(world):
    files = sorted((validate(world).written[0].parent / "crossval").rglob("*.npz"))
    before = [file.stat().st_mtime_ns for file in files]
    validate(world)
    assert [file.stat().st_mtime_ns for file in files] == before
    validate(world, force=True)
    assert all(file.stat().st_mtime_ns > time for file, time in zip(files, before, strict=True))


def test_figures_of_other_folds_are_not_replaced_unasked(world):
    validate(world)
    with pytest.raises(OutputError, match="--overwrite"):
        validate(world, folds=2)
    assert validate(world, folds=2, overwrite=True).data["split"]["folds_in_all"] == 2


@pytest.mark.parametrize("changed", [{"block_m": 480.0}, {"buffer_m": 0.0}])
def test_figures_of_other_blocks_are_not_replaced_unasked(tmp_path, changed):
    first = write_world(tmp_path, split={"block_m": 320.0, "buffer_m": 80.0})
    asked = CrossvalSettings(folds=3, methods=("forest",), random_folds=0, shares=(100,))
    validate(first)
    draw_learning_curve(first, asked, progress=no_progress)
    other = write_settings(tmp_path, split={"block_m": 320.0, "buffer_m": 80.0} | changed)
    with pytest.raises(OutputError, match="--overwrite"):
        validate(other)
    with pytest.raises(OutputError, match="--overwrite"):
        draw_learning_curve(other, asked, progress=no_progress)
    validate(other, by="polygons", overwrite=True)
    assert validate(first, by="polygons").data["complete"]  # blocks have no part in these


def test_figures_with_other_classes_are_not_replaced_unasked(world):
    validate(world)
    with pytest.raises(OutputError, match="--overwrite"):
        validate(world, leave_out_single=True)


def test_test_pixels_without_an_observation_are_no_errors(tmp_path):
    values = reflectance()
    values[:, :, 48:] = -9999
    write_scene(tmp_path / "scene.tif", values, nodata=-9999)
    write_labels(tmp_path / "labels.gpkg")
    found = validate(write_settings(tmp_path)).data["baseline"]
    assert sum(fold["pixels_not_valid"] for fold in found["folds"]) == 16 * len(squares()) / 2
    assert sum(fold["pixels"] for fold in found["folds"]) == 16 * len(squares()) / 2
    assert found["pooled"]["overall_accuracy"] > 0.9


def test_a_further_file_is_not_replaced_unasked(world, tmp_path, capsys):
    (tmp_path / "figures.json").write_text("{}")
    assert main(["crossval", str(world), "--methods", "forest", "-o", str(tmp_path / "figures.json")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_fewer_blocks_than_folds(world):
    with pytest.raises(SplitError, match=r"too few blocks hold polygons; got 9 blocks of 320 m; expected 2\.\.9 folds"):
        validate(write_settings(world.parent, split={"block_m": 320.0}), folds=10)


def test_all_polygons_in_one_corner_are_said(tmp_path):
    write_scene(tmp_path / "scene.tif", reflectance(320))
    write_labels(tmp_path / "labels.gpkg")
    with pytest.warns(SplitWarning, match="figures and map hold for that corner"):
        cross_validate_job(
            write_settings(tmp_path),
            CrossvalSettings(folds=2, methods=("forest",), random_folds=0),
            progress=no_progress,
        )


def lonely(folder):
    """A world in which one class has one polygon."""
    frame = squares()
    lone = frame.index[frame["class"] == CLASSES[2]][1:]
    write_scene(folder / "scene.tif")
    write_labels(folder / "labels.gpkg", frame.drop(lone))
    return write_settings(folder)


def test_a_class_with_one_polygon_is_named(tmp_path):
    with pytest.raises(SplitError, match=rf"one polygon cannot be cross-validated: {CLASSES[2]} \(polygon \d+\)"):
        validate(lonely(tmp_path))


def test_a_class_with_one_polygon_is_left_out_where_asked(tmp_path):
    request = CrossvalSettings(folds=2, methods=("forest",), leave_out_single=True)
    with pytest.warns(SplitWarning, match=f"one polygon only: {CLASSES[2]}"):
        data = cross_validate_job(lonely(tmp_path), request, progress=no_progress).data
    assert data["baseline"]["per_class"][CLASSES[2]] is None
    assert data["random_split"]["baseline"]["per_class"][CLASSES[2]] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--leave-one-block-out", "--leave-one-scene-out"], "give one of them"),
        (["--leave-one-block-out", "--by", "both"], "give one of them"),
        (["--methods", "svm"], "expected forest, forest_neighbourhood, network"),
        (["--methods", ","], "expected forest, forest_neighbourhood, network"),
        (["--by", "rows"], "expected blocks, polygons, both, block, scene"),
        (["--seeds", "a"], "'crossval.seeds.0'; got 'a'; expected a whole number"),
        (["--only-folds", "7", "--methods", "forest"], "expected numbers 1..5"),
        (["--random-folds", "6"], "expected 0..5"),
        (["--folds", "1", "--methods", "forest"], "2.."),
        (["--learning-curve", "--shares", "0"], "per cent, 1..100"),
        (["--learning-curve", "--by", "both"], "two kinds of folds"),
    ],
)
def test_options_that_make_no_folds_are_one_line(world, capsys, options, message):
    assert main(["crossval", str(world), "--quiet", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="svm"):
        CrossvalSettings(methods=("svm",)).check()


def test_the_learning_curve_ends_in_the_cross_validation(world):
    request = CrossvalSettings(folds=3, methods=("forest",), random_folds=0, shares=(100, 20))
    outcome = draw_learning_curve(world, request, progress=no_progress)
    points = json.loads(outcome.written[0].read_text())["points"]
    assert outcome.written[0].name == "learning_curve.json"
    assert [point["share"] for point in points] == [0.2, 1.0]
    assert points[0]["polygons"] < points[1]["polygons"]
    assert {"polygons", "macro_f1", "sd", "baseline_macro_f1"} <= set(points[0])
    whole = validate(world).data["baseline"]
    assert points[1]["baseline_macro_f1"] == whole["pooled"]["macro_f1"]


def test_keys_of_the_configuration_can_be_set(world, tmp_path):
    changes = ("--set", f"output={tmp_path / 'other'}", "--set", "assessment.forest_trees=3")
    asked = ("--set", "crossval.random_folds=0", "--methods", "forest", "--folds", "2", "--quiet")
    assert main(["crossval", str(world), *changes, *asked]) == 0
    assert (tmp_path / "other" / "crossval.json").is_file()
    assert not (tmp_path / "run").exists()
    assert main(["crossval", str(world), "--set", "assessment.trees=3", "--quiet"]) == 2
