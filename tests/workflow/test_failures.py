from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from pipeline.splits.split import Part
from pipeline.workflow.failures import BLOCKS, LABEL, SURELY_WRONG, _write, find_failures
from pipeline.workflow.job import Job
from pipeline.workflow.scoring import held_out


@pytest.fixture(scope="module")
def job(finished) -> Job:
    return Job.load(finished.config)


def layer_of(name: str) -> str:
    """The layer of a file, which also holds its style."""
    return name.removesuffix(".gpkg")


def at(job: Job, folder: Path) -> Job:
    """The job with another run folder."""
    return replace(job, config=job.config.model_copy(update={"output": str(folder)}))


@pytest.fixture
def spoiled(finished, job: Job, tmp_path: Path) -> tuple[Path, int, int]:
    """Maps of the run, right everywhere but for one test polygon, wrong with 90 %, and one wrong with 40 %."""
    folder = tmp_path / "spoiled"
    maps = folder / "maps"
    maps.mkdir(parents=True)
    for kind in ("lc", "conf"):
        shutil.copy(finished.folder / "maps" / f"scene_{kind}.tif", maps)
    pixels = held_out(job)[0][1]
    first, second = (int(number) for number in pixels.polygon_ids()[:2])
    with (
        rasterio.open(maps / "scene_lc.tif") as mapped,
        rasterio.open(maps / "scene_conf.tif") as layer,
    ):
        codes, sure, profiles = mapped.read(1), layer.read(1), (mapped.profile, layer.profile)
    codes[pixels.row, pixels.col] = pixels.code
    for number, confidence in ((first, 90), (second, 40)):
        own = pixels.select([number])
        codes[own.row, own.col] = own.code % 3 + 1
        sure[own.row, own.col] = confidence
    for kind, values, profile in zip(("lc", "conf"), (codes, sure), profiles, strict=True):
        plain = profile | {"driver": "GTiff", "tiled": False}
        for key in ("blockxsize", "blockysize", "interleave"):
            plain.pop(key, None)
        with rasterio.open(maps / f"scene_{kind}.tif", "r") as before:
            tags = before.tags()
        with rasterio.open(maps / f"scene_{kind}.tif", "w", **plain) as target:
            target.write(values, 1)
            target.update_tags(**{key: value for key, value in tags.items() if key.startswith("LANDCOVER")})
    return folder, first, second


def test_a_run_says_where_it_fails_and_that_it_is_no_probability_sample(finished, job):
    accuracy = json.loads((finished.folder / "accuracy.json").read_text(encoding="utf-8"))
    found = accuracy["where_it_fails"]
    assert found["label"] == "not a probability sample"
    by_edge, by_patch = found["scenes"]["scene"]["by"]
    assert sum(by_edge["count"]) == sum(by_patch["count"]) == accuracy["test_pixels"]
    assert sum(block["units"] for block in found["scenes"]["scene"]["blocks"]) == accuracy["test_pixels"]
    for name in (BLOCKS, SURELY_WRONG):
        assert str(name) in json.loads((finished.folder / "run.json").read_text())["stages"]["assess"]["outputs"]
        assert (geopandas.read_file(finished.folder / name, layer=layer_of(name))["sampling"] == LABEL).all()


def test_wrong_polygons_come_by_their_ids_the_surest_first(job, spoiled):
    folder, first, second = spoiled
    find_failures(at(job, folder), folder)
    wrong = geopandas.read_file(folder / SURELY_WRONG, layer=layer_of(SURELY_WRONG))
    assert wrong["polygon"].tolist() == [first, second]
    assert wrong["sureness"].tolist() == pytest.approx([0.9, 0.4])
    frame = job.labels.frame.set_index("poly_id")
    assert wrong["label"].tolist() == [frame.loc[number, "name"] for number in (first, second)]
    assert set(wrong["sampling"]) == {LABEL}
    assert wrong.geometry.iloc[0].centroid.distance(frame.loc[first, "geometry"].centroid) < 1e-6


def test_blocks_add_up_to_the_accuracy_of_the_test_pixels(job, spoiled):
    folder, first, second = spoiled
    figures, files = find_failures(at(job, folder), folder)
    assert [path.name for path in files] == [BLOCKS, SURELY_WRONG]
    pixels = held_out(job)[0][1]
    bad = int(np.isin(pixels.polygon, (first, second)).sum())
    squares = geopandas.read_file(folder / BLOCKS, layer=layer_of(BLOCKS))
    assert squares["units"].sum() == len(pixels)
    assert squares["right"].sum() == len(pixels) - bad
    assert squares["scene"].unique().tolist() == ["scene"]
    by_edge = figures["scenes"]["scene"]["by"][0]
    hits = sum(n * share for n, share in zip(by_edge["count"], by_edge["accuracy"], strict=True) if n)
    assert hits == pytest.approx(len(pixels) - bad)


def test_scenes_in_other_crs_join_those_before_them(tmp_path):
    columns = {"polygon": [3], "sureness": [0.2], "scene": ["a"]}
    first = geopandas.GeoDataFrame(columns, geometry=[shapely.box(5e5, 5e6, 5.1e5, 5.01e6)], crs=32633)
    none = first.iloc[:0].assign(scene="b")
    third = first.assign(sureness=0.7, scene="c").to_crs(32634)
    whole = geopandas.read_file(
        _write(tmp_path / SURELY_WRONG, [first, none, third], style="", by="sureness"), layer=layer_of(SURELY_WRONG)
    )
    assert whole["scene"].tolist() == ["c", "a"]
    assert whole.crs == first.crs
    assert whole.geometry.iloc[0].centroid.distance(first.geometry.iloc[0].centroid) < 5
    assert [path.name for path in tmp_path.iterdir()] == [SURELY_WRONG]


def test_both_layers_are_drawn_by_what_they_say_and_a_map_without_errors_gives_an_empty_layer(job, spoiled):
    folder, first, second = spoiled
    find_failures(at(job, folder), folder)
    for name, words in ((BLOCKS, "95 % and more"), (SURELY_WRONG, job.scheme.names[0])):
        with closing(sqlite3.connect(folder / name)) as file:
            ((style,),) = file.execute("SELECT styleQML FROM layer_styles")
        assert words in style
    squares = geopandas.read_file(folder / BLOCKS, layer="block_accuracy")
    assert ((squares["accuracy"] >= 0.95) == (squares["band"] == "95 % and more")).all()
    pixels = held_out(job)[0][1]
    own = pixels.select([first, second])
    with rasterio.open(folder / "maps" / "scene_lc.tif", "r+") as mapped:
        codes = mapped.read(1)
        codes[own.row, own.col] = own.code
        mapped.write(codes, 1)
    find_failures(at(job, folder), folder)
    info = pyogrio.read_info(folder / SURELY_WRONG, layer="surely_wrong")
    assert (info["features"], info["geometry_type"]) == (0, "Polygon")
    assert info["crs"] is not None


def test_of_many_test_pixels_some_are_looked_at(job, spoiled, monkeypatch):
    monkeypatch.setattr("pipeline.workflow.failures.SURROUNDED_PIXELS", 20)
    figures, _ = find_failures(at(job, spoiled[0]), spoiled[0])
    assert sum(figures["scenes"]["scene"]["by"][0]["count"]) == 20
    assert sum(block["units"] for block in figures["scenes"]["scene"]["blocks"]) == len(held_out(job)[0][1])


def test_without_test_pixels_there_is_nothing_to_say(job, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.workflow.failures.held_out", lambda _: [])
    assert find_failures(job, tmp_path) == ({"label": LABEL, "scenes": {}}, [])
    assert not list(tmp_path.iterdir())
    assert len(job.split.polygons(Part.TEST))
