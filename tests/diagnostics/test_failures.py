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
from shapely.geometry import Point, box

from pipeline.accuracy.class_maps import read_grid
from pipeline.diagnostics.failures import (
    BLOCKS,
    LABEL,
    SURELY_WRONG,
    MappedScene,
    block_accuracy,
    find_failures,
    joined,
    map_surroundings,
    surely_wrong,
    where_it_fails,
)
from pipeline.diagnostics.scoring import at_pixels
from pipeline.labels.rasterise import LabelledPixels, burn
from pipeline.labels.source import LabelReport, Labels
from pipeline.workflow.job import Job
from tests.accuracy.maps import SCHEME, UTM, patchy, spoil, write_map


@pytest.fixture(scope="module")
def job(finished) -> Job:
    return Job.load(finished.config)


def layer_of(name: str) -> str:
    """The layer of a file, which also holds its style."""
    return name.removesuffix(".gpkg")


def failures_at(job: Job, folder: Path) -> tuple[dict, list[Path]]:
    """What is found when the maps lie in another run folder."""
    job = replace(job, config=job.config.model_copy(update={"output": str(folder)}))
    tested = [(job.sources[number].id, pixels) for number, pixels in job.test_pixels]
    maps = [MappedScene(name, pixels, job.map_of(name), job.map_of(name, "conf")) for name, pixels in tested]
    return find_failures(
        maps, polygons=job.labels.frame, scheme=job.scheme, block_m=job.split.block_m, seed=0, folder=folder
    )


@pytest.fixture
def spoiled(finished, job: Job, tmp_path: Path) -> tuple[Path, int, int]:
    """Maps of the run, right everywhere but for one test polygon, wrong with 90 %, and one wrong with 40 %."""
    folder = tmp_path / "spoiled"
    maps = folder / "maps"
    maps.mkdir(parents=True)
    for kind in ("lc", "conf"):
        shutil.copy(finished.folder / "maps" / f"scene_{kind}.tif", maps)
    pixels = job.test_pixels[0][1]
    first, second = (int(number) for number in pixels.polygon_ids()[:2])
    with rasterio.open(maps / "scene_lc.tif") as mapped, rasterio.open(maps / "scene_conf.tif") as layer:
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


def test_a_run_says_where_it_fails_and_that_it_is_no_sample(finished, job):
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
    failures_at(job, folder)
    wrong = geopandas.read_file(folder / SURELY_WRONG, layer=layer_of(SURELY_WRONG))
    assert wrong["polygon"].tolist() == [first, second]
    assert wrong["sureness"].tolist() == pytest.approx([0.9, 0.4])
    frame = job.labels.frame.set_index("poly_id")
    assert wrong["label"].tolist() == [frame.loc[number, "name"] for number in (first, second)]
    assert set(wrong["sampling"]) == {LABEL}
    assert wrong.geometry.iloc[0].centroid.distance(frame.loc[first, "geometry"].centroid) < 1e-6


def test_blocks_add_up_to_the_accuracy_of_the_test_pixels(job, spoiled):
    folder, first, second = spoiled
    figures, files = failures_at(job, folder)
    assert [path.name for path in files] == [BLOCKS, SURELY_WRONG]
    pixels = job.test_pixels[0][1]
    bad = int(np.isin(pixels.polygon, (first, second)).sum())
    squares = geopandas.read_file(folder / BLOCKS, layer=layer_of(BLOCKS))
    assert squares["units"].sum() == len(pixels)
    assert squares["right"].sum() == len(pixels) - bad
    assert squares["scene"].unique().tolist() == ["scene"]
    by_edge = figures["scenes"]["scene"]["by"][0]
    hits = sum(n * share for n, share in zip(by_edge["count"], by_edge["accuracy"], strict=True) if n)
    assert hits == pytest.approx(len(pixels) - bad)


def test_scenes_in_other_crs_join_those_before_them():
    columns = {"polygon": [3], "sureness": [0.2], "scene": ["a"]}
    first = geopandas.GeoDataFrame(columns, geometry=[shapely.box(5e5, 5e6, 5.1e5, 5.01e6)], crs=32633)
    none = first.iloc[:0].assign(scene="b")
    third = first.assign(sureness=0.7, scene="c").to_crs(32634)
    whole = joined([first, none, third], by="sureness")
    assert whole["scene"].tolist() == ["c", "a"]
    assert whole.crs == first.crs
    assert whole.geometry.iloc[0].centroid.distance(first.geometry.iloc[0].centroid) < 5
    assert (whole["sampling"] == LABEL).all()


def test_both_layers_are_styled_and_no_errors_give_an_empty_one(job, spoiled):
    folder, first, second = spoiled
    failures_at(job, folder)
    for name, words in ((BLOCKS, "95 % and more"), (SURELY_WRONG, job.scheme.names[0])):
        with closing(sqlite3.connect(folder / name)) as file:
            ((style,),) = file.execute("SELECT styleQML FROM layer_styles")
        assert words in style
    squares = geopandas.read_file(folder / BLOCKS, layer="block_accuracy")
    assert ((squares["accuracy"] >= 0.95) == (squares["band"] == "95 % and more")).all()
    pixels = job.test_pixels[0][1]
    own = pixels.select([first, second])
    with rasterio.open(folder / "maps" / "scene_lc.tif", "r+") as mapped:
        codes = mapped.read(1)
        codes[own.row, own.col] = own.code
        mapped.write(codes, 1)
    failures_at(job, folder)
    info = pyogrio.read_info(folder / SURELY_WRONG, layer="surely_wrong")
    assert (info["features"], info["geometry_type"]) == (0, "Polygon")
    assert info["crs"] is not None


def test_of_many_test_pixels_some_are_looked_at(job, spoiled, monkeypatch):
    monkeypatch.setattr("pipeline.diagnostics.failures.SURROUNDED_PIXELS", 20)
    figures, _ = failures_at(job, spoiled[0])
    assert sum(figures["scenes"]["scene"]["by"][0]["count"]) == 20
    assert sum(block["units"] for block in figures["scenes"]["scene"]["blocks"]) == len(job.test_pixels[0][1])


def test_without_test_pixels_there_is_nothing_to_say(job, tmp_path):
    found = find_failures([], polygons=job.labels.frame, scheme=job.scheme, block_m=0.0, seed=0, folder=tmp_path)
    assert found == ({"label": LABEL, "scenes": {}}, [])
    assert not list(tmp_path.iterdir())


NAME = {item.code: item.name for item in SCHEME.classes}


def labelled(shapes, codes):
    """Labels of shapes, on the map's CRS."""
    ids = np.arange(1, len(shapes) + 1, dtype=np.int32)
    columns = {"poly_id": ids, "code": np.array(codes, np.uint8), "name": [NAME[c] for c in codes], "feature": ids - 1}
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=UTM)
    return Labels(Path("labels.gpkg"), frame, SCHEME, LabelReport(len(ids), 0, 0, 0, 0, 0, 0, len(ids)))


def pixels_at(path: Path, row: np.ndarray, col: np.ndarray, code: np.ndarray) -> LabelledPixels:
    """Labelled pixels of a map, a polygon each."""
    row, col = row.astype(np.int32), col.astype(np.int32)
    ids = np.arange(1, len(row) + 1, dtype=np.int32)
    return LabelledPixels(row, col, code.astype(np.uint8), ids, np.ones(len(row), np.uint8), read_grid(path))


@pytest.fixture
def halves(tmp_path):
    """Forest left, water right of column 100, a field of 2 x 2 pixels inside the forest."""
    codes = np.full((120, 200), 10, dtype=np.uint8)
    codes[:, 100:] = 20
    codes[60:62, 40:42] = 30
    return write_map(tmp_path / "m.tif", codes)


def test_distance_to_the_edge_and_patch_size(halves):
    distance, patch = map_surroundings(halves, np.array([5, 5, 60, 100]), np.array([99, 90, 40, 180]))
    assert distance.tolist() == [1.0, 10.0, 1.0, 32.0]
    assert patch[2] == 4
    assert patch[3] > 500


def test_errors_at_edges_show(halves):
    rows, cols = np.full(20, 20), np.r_[96:106, 20:30]
    field, forest = (SCHEME.by_name(name).code for name in ("field", "forest"))
    pixels = pixels_at(halves, rows, cols, np.repeat([field, forest], 10))
    by_edge, by_patch = where_it_fails(halves, pixels, at_pixels(halves, pixels) == pixels.code)
    assert by_edge.accuracy[0] == 0
    assert by_edge.accuracy[-1] == 1
    assert by_edge.count.sum() == by_patch.count.sum() == 20
    assert by_patch.to_json()["accuracy"][0] is None


def test_blocks_carry_their_accuracy(tmp_path):
    truth = patchy()
    path = write_map(tmp_path / "m.tif", spoil(truth))
    rows, cols = (7 * part for part in np.nonzero(truth[::7, ::7]))
    pixels = pixels_at(path, rows, cols, truth[rows, cols])
    right = at_pixels(path, pixels) == pixels.code
    blocks = block_accuracy(pixels, right, block_px=100)
    assert len(blocks) == 6
    assert blocks["units"].sum() == len(pixels)
    assert blocks["right"].sum() == right.sum()
    assert 0 < right.sum() < len(pixels)


def test_polygons_that_are_most_surely_wrong_come_first(halves):
    shapes = [box(500_000 + c * 10, 5_799_500, 500_000 + (c + 10) * 10, 5_799_600) for c in (10, 110, 160)]
    labels = labelled(shapes, codes=[10, 10, 30])
    pixels = burn(labels, read_grid(halves))
    sure = np.where(pixels.col < 150, 60, 95).astype(np.uint8)
    found = surely_wrong(pixels, at_pixels(halves, pixels), sure, polygons=labels.frame, scheme=SCHEME)
    assert found["polygon"].tolist() == [3, 2]
    assert found["mapped_as"].tolist() == ["water", "water"]
    assert found["sureness"].tolist() == pytest.approx([0.95, 0.6])


def test_a_point_is_judged_by_the_pixels_it_labels(halves):
    # Both on forest: of the pixels of the first, those in the third column are water; of the second, none.
    labels = labelled([Point(500_985, 5_799_495), Point(500_485, 5_799_495)], codes=[10, 10])
    for side_px, rows in ((1, []), (5, [(1, "water", 25, 0.2, 0.16)])):
        pixels = burn(labels, read_grid(halves), point_window_px=side_px)
        sure = np.full(len(pixels), 80, dtype=np.uint8)
        found = surely_wrong(pixels, at_pixels(halves, pixels), sure, polygons=labels.frame, scheme=SCHEME)
        columns = found[["polygon", "mapped_as", "pixels", "wrong_share", "sureness"]]
        assert [tuple(row) for row in columns.itertuples(index=False)] == [pytest.approx(row) for row in rows]
    assert found.geometry.iloc[0].equals(box(500_960, 5_799_470, 501_010, 5_799_520))
