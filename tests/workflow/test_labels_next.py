"""``landcover labels next``: squares to digitise, which a run learns from once they have a class."""

from __future__ import annotations

import json
import shlex
import shutil
import sqlite3
from contextlib import closing

import geopandas as gpd
import pytest
import shapely
import yaml

from pipeline.cli.entry import main
from pipeline.workflow.job import Job
from tests.fakes.small_world import CLASSES, squares, write_labels


@pytest.fixture
def config(finished, tmp_path):
    """The finished job without the polygons of some blocks: elsewhere every square of 8 pixels holds a part of one."""
    keys = yaml.safe_load(finished.config.read_text())
    here = finished.config.parent
    keys["labels"]["path"] = str(write_labels(tmp_path / "own" / "labels.gpkg", squares().drop([14, 21, 35])))
    keys["output"] = str((here / keys["output"]).resolve())
    for scene in keys["scenes"]:
        scene["path"] = str((here / scene["path"]).resolve())
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


def test_places_are_open_squares_with_the_legend_to_choose_from(config, tmp_path, capsys):
    assert main(["labels", "next", str(config), "--count", "5", "--json", "--quiet"]) == 0
    data = json.loads(capsys.readouterr().out)
    path = tmp_path / "label_next.gpkg"
    assert data["written"] == [str(path)]
    places = gpd.read_file(path, layer="label_next")
    job = Job.load(config)
    assert 0 < len(places) <= 5
    assert places["class"].isna().all()
    assert places["rank"].tolist() == list(range(1, len(places) + 1))
    assert places["score"].is_monotonic_decreasing
    assert places.area.to_numpy() == pytest.approx(80.0**2)
    assert not places.intersects(shapely.union_all(job.labels.frame.geometry.buffer(-1))).any()
    with closing(sqlite3.connect(path)) as file:
        (style,) = file.execute("SELECT styleQML FROM layer_styles").fetchone()
    assert 'editWidget type="ValueMap"' in style
    assert all(f'name="{name}" value="{name}"' in style for name in CLASSES)


def test_a_further_round_keeps_the_last_and_asks_elsewhere(config, tmp_path, capsys):
    for _ in range(2):
        assert main(["labels", "next", str(config), "--count", "1"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.gpkg")) == ["label_next.gpkg", "label_next_2.gpkg"]
    first, second = (
        gpd.read_file(tmp_path / f"label_next{end}.gpkg", layer="label_next").geometry for end in ("", "_2")
    )
    assert not second.buffer(-1).intersects(first.union_all()).any()
    assert f"labels.also=[{tmp_path}/label_next.gpkg, {tmp_path}/label_next_2.gpkg]" in capsys.readouterr().out


def test_rounds_of_other_names_are_not_asked_again(config, tmp_path, capsys):
    folder = tmp_path / "field work"
    folder.mkdir()
    paths = [folder / f"{name}.gpkg" for name in ("june", "july")]
    for path in paths:
        assert main(["labels", "next", str(config), "--count", "1", "-o", str(path)]) == 0
    first, second = (gpd.read_file(path, layer="label_next").geometry for path in paths)
    assert not second.buffer(-1).intersects(first.union_all()).any()
    words = shlex.split(capsys.readouterr().out.rpartition("run again: ")[2].partition(";")[0])
    assert words[-2] == f"labels.also=[{paths[0]}, {paths[1]}]"


def test_the_polygons_that_a_map_learned_from_are_no_reference(finished, capsys):
    found = finished.folder / "maps"
    (scene,) = found.glob("*_lc.tif")
    labels = finished.folder / "chips" / "labels.gpkg"
    assert main(["assess", str(scene), "--reference", str(labels), "--field", "class"]) == 0
    parts = gpd.read_file(labels, layer="labels")["part"]
    learned = int(parts.isin(["train", "validation"]).sum())
    assert f"{learned} of {len(parts)} units lie in polygons that {scene.name} learned from" in capsys.readouterr().err
    assert main(["compare", str(scene), str(scene), "--reference", str(labels), "--field", "class"]) == 0
    assert f"lie in polygons that {scene.name} learned from" in capsys.readouterr().err


def test_labels_are_read_once_they_have_a_class(config, tmp_path):
    assert main(["labels", "next", str(config), "--count", "4", "-q"]) == 0
    before = Job.load(config)
    added = ["labels.also=[" + str(tmp_path / "label_next.gpkg") + "]"]
    blank = Job.load(config, changes=added)
    assert len(blank.labels) == len(before.labels)
    assert blank.input_hash != before.input_hash
    places = gpd.read_file(tmp_path / "label_next.gpkg", layer="label_next")
    places.loc[0, "class"] = CLASSES[1]
    places.to_crs("EPSG:4326").to_file(tmp_path / "label_next.gpkg", layer="label_next")
    after = Job.load(config, changes=added)
    assert len(after.labels) == len(before.labels) + 1
    assert after.labels.frame["name"].iloc[-1] == CLASSES[1]
    assert after.input_hash not in {before.input_hash, blank.input_hash}
    found = after.labels.frame.geometry.iloc[-1].buffer(-1)
    assert places.geometry[0].buffer(0.01).covers(found)


def test_a_job_without_a_map_is_told_to_run(config, tmp_path, capsys):
    keys = yaml.safe_load(config.read_text()) | {"output": str(tmp_path / "run")}
    config.write_text(yaml.safe_dump(keys))
    assert main(["labels", "next", str(config), "-q"]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "confidence" in error or "run" in error
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
