"""Which stages are done again, and when earlier products are in the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import ModelError, OutputError
from pipeline.splits.split import Part
from pipeline.workflow import class_stages
from pipeline.workflow.job import Job
from pipeline.workflow.stages import STAGES
from tests.fakes.finished import run_job
from tests.fakes.small_world import (
    CLASSES,
    quick_training,
    reflectance,
    settings,
    squares,
    write_labels,
    write_scene,
    write_settings,
    write_world,
)  # fmt: skip


def keys(config: Path) -> dict[str, str]:
    job = Job.load(config)
    return {stage: job.stage_key(stage) for stage in STAGES}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [stage for stage in STAGES if before[stage] != after[stage]]


@pytest.mark.parametrize(
    ("section", "stages"),
    [
        ({"chips": {"size_px": 24}}, list(STAGES)),
        ({"split": {"seed": 5}}, list(STAGES)),
        ({"training": {"pixels": {"steps": 4}}}, list(STAGES[1:])),
        ({"training": {"head": "chip"}}, list(STAGES)),
        ({"map": {"margin": True}}, list(STAGES[2:])),
        ({"map": {"objects": {"classes": [CLASSES[0]]}}}, list(STAGES[1:])),  # training lifts them
        ({"assessment": {"forest_trees": 11, "features": False}}, list(STAGES[3:])),
        ({"name": "other"}, ["report"]),
        ({"inputs": {"bands": ["red", "nir"]}}, list(STAGES)),
    ],
)
def test_a_setting_concerns_its_stage_and_those_after(tmp_path, section, stages):
    config = write_world(tmp_path)
    before = keys(config)
    write_settings(tmp_path, **section)
    assert changed(before, keys(config)) == stages


def test_another_scene_concerns_all_stages(tmp_path):
    config = write_world(tmp_path)
    before = keys(config)
    assert keys(config) == before
    write_scene(tmp_path / "scene.tif", reflectance(seed=1))
    assert changed(before, keys(config)) == list(STAGES)


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.shp", "labels.geojson"])
def test_other_classes_of_the_same_polygons_concern_all_stages(tmp_path, name):
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / name)
    config = write_settings(tmp_path, labels={"path": name, "field": "class"})
    before, codes = keys(config), Job.load(config).pixels[0].code
    assert keys(config) == before
    relabelled = squares()
    write_labels(tmp_path / name, relabelled.assign(**{"class": relabelled["class"].to_numpy()[::-1]}))
    assert not np.array_equal(Job.load(config).pixels[0].code, codes)
    assert changed(before, keys(config)) == list(STAGES)


@pytest.mark.parametrize("key", ["aoi", "mask"])
def test_another_area_concerns_the_maps_made_of_it(tmp_path, key):
    config = write_world(tmp_path, map={key: "area.shp"})
    write_labels(tmp_path / "area.shp")
    before = keys(config)
    assert keys(config) == before
    write_labels(tmp_path / "area.shp", squares().iloc[:5])
    assert changed(before, keys(config)) == list(STAGES[2:])


def test_a_copied_model_of_another_run_is_noticed(tmp_path):
    config = write_world(tmp_path)
    before = keys(config)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"another")
    assert changed(before, keys(config)) == ["predict", "assess", "report"]


def test_other_settings_do_not_replace_earlier_products_unasked(finished):
    data = yaml.safe_load(finished.config.read_text(encoding="utf-8"))
    other = finished.config.with_name("other.yaml")
    other.write_text(yaml.safe_dump(data | {"assessment": {"forest_trees": 11, "features": False}}), encoding="utf-8")
    with pytest.raises(OutputError, match=r"accuracy\.json: stage assess has other settings.*--overwrite"):
        run_job(other, last="assess")


def test_force_asks_for_overwrite_too(finished):
    with pytest.raises(OutputError, match=r"accuracy\.json: stage assess is to be done again"):
        run_job(finished.config, last="assess", force=True)


def test_a_stage_whose_product_is_gone_is_done_again(finished):
    (finished.folder / "accuracy.json").unlink()
    outcome = run_job(finished.config, last="assess", overwrite=True)
    assert [row[1] for row in outcome.tables[0].rows] == ["unchanged", "unchanged", "unchanged", "done"]
    assert (finished.folder / "accuracy.json").exists()


def test_force_does_one_stage_again(finished):
    outcome = run_job(finished.config, last="assess", force=True, overwrite=True)
    assert [row[1] for row in outcome.tables[0].rows] == ["unchanged", "unchanged", "unchanged", "done"]


def test_the_resolved_settings_have_every_default(finished):
    resolved = yaml.safe_load((finished.folder / "config.yaml").read_text(encoding="utf-8"))
    assert set(settings()) <= set(resolved)
    assert resolved["training"]["context"]["lr"] > 0


CUT = quick_training(
    **{"context.weights": "none", "context.steps": 20, "context.batch": 2, "context.share": 0.2, "time_limit_s": 1e-6}
)


@pytest.mark.filterwarnings("ignore:training.time_limit_s")
def test_resume_replaces_nothing_but_a_model_of_the_same_job(tmp_path):
    config = write_world(tmp_path, training=CUT)
    run_job(config, last="train")
    model = tmp_path / "run" / "model" / "model.safetensors"
    before = model.read_bytes()
    write_settings(tmp_path, training=CUT, split={"seed": 5})
    with pytest.raises(OutputError, match=r"stage chips has other settings.*--overwrite"):
        run_job(config, last="train", resume=True)
    write_settings(tmp_path, training=CUT | {"seed": 1})
    with pytest.raises(OutputError, match=r"stage train has other settings.*--overwrite"):
        run_job(config, last="train", resume=True)
    assert model.read_bytes() == before
    write_settings(tmp_path, training=CUT | {"time_limit_s": 500.0})
    outcome = run_job(config, last="train", resume=True)
    assert [row[1] for row in outcome.tables[0].rows] == ["unchanged", "done"]
    assert model.read_bytes() != before


@pytest.mark.filterwarnings("ignore:training.time_limit_s")
def test_what_may_be_overwritten_is_not_resumed_otherwise(tmp_path):
    config = write_world(tmp_path, training=CUT)
    run_job(config, last="train")
    write_settings(tmp_path, training=CUT, split={"seed": 5})
    with pytest.raises(ModelError, match="checkpoint of another job"):
        run_job(config, last="train", resume=True, overwrite=True)


@pytest.mark.parametrize("changes", [{}, {"refit": False}], ids=str)
def test_the_forest_gets_the_polygons_of_the_network(tmp_path, monkeypatch, changes):
    job = Job.load(write_world(tmp_path, training=quick_training(**changes)))
    told = []

    def listening(*_args, polygons, **_options):
        told.extend(polygons.tolist())
        raise Told

    monkeypatch.setattr(class_stages, "fit_forest", listening)
    with pytest.raises(Told):
        class_stages._forest(job, ())
    parts = set(job.split.part[told].tolist())
    assert parts == ({Part.TRAIN} if changes else {Part.TRAIN, Part.VALIDATION})


class Told(Exception):  # noqa: N818 - no error
    """What was to be heard has been."""


def test_an_edited_area_of_a_layer_concerns_the_map(tmp_path):
    config = write_world(tmp_path)
    area = tmp_path / "area.gpkg"
    area.write_text("one")
    write_settings(tmp_path, map={"aoi": f"{area}|layername=fields"})
    before = keys(config)
    area.write_text("two")
    assert changed(before, keys(config)) == list(STAGES[2:])


@pytest.mark.parametrize("name", ["labels_audit.gpkg", "learning_curve.json", "full_reference.json"])
def test_what_the_report_shows_concerns_the_report(tmp_path, name):
    config = write_world(tmp_path)
    (tmp_path / "run").mkdir()
    seen = [keys(config)]
    for content in ("one", "two"):
        (tmp_path / "run" / name).write_text(content)
        seen.append(keys(config))
    assert changed(seen[0], seen[1]) == changed(seen[1], seen[2]) == ["report"]
