"""``landcover labels audit`` on a small world with one polygon of a wrong class."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from pipeline.cli.entry import main
from pipeline.errors import SplitWarning
from pipeline.workflow import labels_audit
from pipeline.workflow.labels_audit import audit_labels
from pipeline.workflow.outcome import no_progress
from tests.fakes.small_world import CLASSES, SIDE, squares, write_labels, write_scene, write_settings

WRONG = 8
# Blocks without a polygon: elsewhere every cell of 8 x 8 pixels holds a part of one.
BARE = [14, 21, 35]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setattr("pipeline.diagnostics.label_audit.TREES", 15)


@pytest.fixture
def config(tmp_path):
    frame = squares()
    frame.loc[WRONG, "class"] = next(name for name in CLASSES if name != frame.loc[WRONG, "class"])
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg", frame.drop(BARE))
    return write_settings(tmp_path)


def test_the_wrong_polygon_and_places_are_styled_layers(config, tmp_path, capsys):
    assert main(["labels", "audit", str(config), "--count", "5", "--json", "--quiet"]) == 0
    data = json.loads(capsys.readouterr().out)
    path = tmp_path / "run" / "labels_audit.gpkg"
    assert data["written"] == [str(path)]
    first = data["suspicious"][0]
    truth = squares().loc[WRONG, "class"]
    assert (first["poly_id"], first["feature"], first["suggested"]) == (WRONG + 1, WRONG, truth)
    assert first["p_suggested"] > first["p_class"]
    suspicious, places = (gpd.read_file(path, layer=name) for name in ("suspicious", "label_next"))
    assert suspicious["poly_id"].tolist() == [item["poly_id"] for item in data["suspicious"]]
    assert suspicious.geometry[0].equals(squares().geometry[WRONG])
    assert places["rank"].tolist() == list(range(1, len(places) + 1))
    assert 0 < len(places) <= 5
    assert not places.intersects(shapely.union_all(squares().drop(BARE).geometry)).any()
    assert places.area.to_numpy() == pytest.approx(80.0**2)
    with closing(sqlite3.connect(path)) as file:
        styles = dict(file.execute("SELECT f_table_name, styleQML FROM layer_styles").fetchall())
    assert set(styles) == {"suspicious", "label_next"}
    assert CLASSES[0] in styles["suspicious"]


def test_a_folder_that_is_missing_is_made(config, tmp_path):
    place = tmp_path / "new" / "mine.gpkg"
    assert main(["labels", "audit", str(config), "-o", str(place), "--count", "0", "--quiet"]) == 0
    assert place.is_file()


def test_an_audit_is_not_replaced_unasked(config, tmp_path, capsys):
    (tmp_path / "mine.gpkg").write_text("")
    assert main(["labels", "audit", str(config), "-o", str(tmp_path / "mine.gpkg")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_first(config, monkeypatch, capsys):
    monkeypatch.setattr(labels_audit, "scenes_for_folds", lambda *_, **__: pytest.fail("computed first"))
    assert main(["labels", "audit", str(config), "-o", str(config / "mine.gpkg")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_labels_without_doubt_give_an_empty_layer(tmp_path):
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg")
    config = write_settings(tmp_path)
    outcome = audit_labels(config, count=0, seed=0, output=None, overwrite=False, progress=no_progress)
    assert outcome.data["suspicious"] == []
    assert outcome.data["label_next"] == []
    assert gpd.read_file(outcome.written[0], layer="suspicious").empty
    assert [item["agree"] for item in outcome.data["classes"]] == [1.0, 1.0, 1.0]


def test_a_class_of_one_polygon_is_left_out_and_said(tmp_path):
    frame = squares()
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg", frame.drop(frame.index[frame["class"] == CLASSES[1]][1:]))
    with pytest.warns(SplitWarning, match=CLASSES[1]):
        outcome = audit_labels(
            write_settings(tmp_path), count=2, seed=0, output=None, overwrite=False, progress=no_progress
        )
    assert [item["class"] for item in outcome.data["classes"]] == [CLASSES[0], CLASSES[2]]


def test_overlapping_polygons_of_two_classes_are_said(tmp_path):
    frame = squares()
    over = frame.iloc[[0]].assign(**{"class": next(name for name in CLASSES if name != frame.loc[0, "class"])})
    over = over.set_geometry(over.geometry.translate(20, 0))
    write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "labels.gpkg", gpd.GeoDataFrame(pd.concat([frame, over]), crs=frame.crs))
    outcome = audit_labels(
        write_settings(tmp_path), count=0, seed=0, output=None, overwrite=False, progress=no_progress
    )
    doubtful = {item["poly_id"]: item for item in outcome.data["suspicious"]}
    assert doubtful[len(frame) + 1]["overlaps"].startswith("1 ")


def test_windows_bound_what_is_looked_at(config, monkeypatch):
    monkeypatch.setattr(labels_audit, "WINDOWS", 0)
    outcome = audit_labels(config, count=5, seed=0, output=None, overwrite=False, progress=no_progress)
    assert outcome.data["label_next"] == []
    assert SIDE > 64
