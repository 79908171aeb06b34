"""The dry run: what it finds, what it predicts, and that it leaves nothing behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml

from pipeline.errors import LabelWarning, SceneWarning, SplitWarning
from pipeline.model.records import OWN_NAME
from pipeline.scenes.reader import SceneReader
from pipeline.workflow.check import BANDS_SHOWN, _Findings, check_job, show_estimates
from pipeline.workflow.costs import StageCost, estimate_stages, job_encoder
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import no_progress
from tests.fakes.rasters import TRANSFORM
from tests.fakes.small_world import (
    BANDS,
    CLASSES,
    CRS,
    SIDE,
    reflectance,
    squares,
    write_labels,
    write_scene,
    write_world,
)


def estimates(job: Job) -> tuple[StageCost, ...]:
    """What the stages of a job take, with the encoder that it gets."""
    return estimate_stages(job, job_encoder(job))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory):
    """The dry run of a job that has nothing wrong with it, and its folder."""
    folder = tmp_path_factory.mktemp("good")
    return folder, check_job(write_world(folder), progress=no_progress)


@pytest.fixture
def no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes seconds, and is not what every test is about."""
    monkeypatch.setattr("pipeline.workflow.costs.estimate_stages", lambda _job, _encoder: ())
    monkeypatch.setattr("pipeline.workflow.check.show_estimates", lambda *_: None)


def tables(outcome) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {table.title.split(":")[0]: table.rows for table in outcome.tables}


def test_it_writes_nothing(good):
    folder, outcome = good
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "labels.gpkg", "scene.tif"}
    assert outcome.failed == ()
    assert "landcover run" in outcome.hint


def test_a_scene_without_a_mask_of_clouds_is_named(tmp_path, no_estimates):
    config = write_world(tmp_path)
    plain = yaml.safe_load(config.read_text(encoding="utf-8"))
    plain["scenes"][0]["sensor"] = "sentinel-2"
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    said = "no layer says where clouds are .* mapped as a class; give the folder of the product, or set inputs.clouds"
    with pytest.warns(SceneWarning, match=said):
        check_job(config, progress=no_progress)
    for quiet in ("inputs.clouds=none", "inputs.mask=[nodata]"):  # nobody asked for clouds: as an error it would fail
        assert check_job(config, progress=no_progress, changes=(quiet,)).failed == ()


def test_it_tells_grid_bands_and_values(good):
    (scene,) = good[1].data["scenes"]
    assert (scene["crs"], scene["shape"], scene["pixel_m"]) == (CRS, [SIDE, SIDE], [10.0, 10.0])
    assert scene["bands_used"] == list(BANDS)
    assert scene["bands_left"] == []
    values = reflectance()
    for number, band in enumerate(scene["values"]):
        assert band["smallest"] == pytest.approx(values[number].min())
        assert band["largest"] == pytest.approx(values[number].max())
        assert band["smallest"] < band["low"] < band["high"] < band["largest"]


def test_it_counts_polygons_and_pixels_of_every_class_and_part(good):
    split = good[1].data["split"]
    polygons = squares()["class"].value_counts()
    for name in CLASSES:
        parts = split["classes"][name]
        assert sum(part["polygons"] for part in parts.values()) == polygons[name]
        assert sum(part["pixels"] for part in parts.values()) == 16 * polygons[name]
    assert sum(good[1].data["chips"].values()) >= 30


def test_it_is_ready_for_machines(good):
    assert json.loads(json.dumps(good[1].data))["labels"]["polygons"] == 36


def test_it_predicts_every_stage(good):
    found = {item["stage"]: item for item in good[1].data["estimates"]}
    assert list(found) == ["chips", "train", "predict", "assess", "report"]
    assert all(item["seconds"] > 0 and item["disk_bytes"] > 0 for item in found.values())
    # No stage fits into less than the interpreter with torch, and none of this one needs a large machine.
    assert all(3e8 < item["memory_bytes"] < 4e9 for item in found.values())


def test_predictions_grow_with_what_is_asked_for(tmp_path):
    small = write_world(tmp_path)
    few = {item.stage: item for item in estimates(Job.load(small))}
    large = write_world(
        tmp_path,
        map={"engine": "torch", "device": "cpu", "dtype": "float32", "probabilities": True},
        assessment={"forest_trees": 500},
        training={"context": {"weights": "none", "steps": 400}},
    )
    many = {item.stage: item for item in estimates(Job.load(large))}
    assert many["predict"].disk_bytes > few["predict"].disk_bytes
    assert many["assess"].memory_bytes > few["assess"].memory_bytes
    assert many["assess"].seconds > few["assess"].seconds
    assert many["report"].seconds > few["report"].seconds


def test_it_predicts_a_pretrained_encoder_that_learns_alone(tmp_path):
    outcome = check_job(write_world(tmp_path), changes=("training.pixels.enabled=false",), progress=no_progress)
    assert "an encoder, resnet18 pretrained on" in outcome.summary
    assert "what it will take, about, in one process" in tables(outcome)


@pytest.mark.usefixtures("no_estimates")
@pytest.mark.parametrize("weights", ["auto", OWN_NAME])
def test_weights_that_the_values_do_not_fit_are_said_before(tmp_path, weights):
    config = write_world(tmp_path, scenes=[{"path": "scene.tif", "scale": 0.001}])
    changes = ("training.context.share=0.3", f"training.context.weights={weights}")
    outcome = check_job(config, changes=changes, progress=no_progress)
    why = r"values are 0.00\d+ times those it was trained on"
    if weights == "auto":
        assert re.search(f"no pretrained weights at hand fit .{OWN_NAME}: {why}", outcome.summary)
    else:
        assert len(outcome.failed) == 1
        assert re.search(f"weights {OWN_NAME} do not fit the scene: {why}", outcome.failed[0])


def test_it_predicts_a_pretrained_encoder_beside_the_pixels(tmp_path):
    base = {"experts": {"trees": 4}, "time_limit_s": 9000}
    with_share, off = (
        {item.stage: item for item in estimates(Job.load(write_world(tmp_path, training=base | {"context": own})))}
        for own in ({"share": 0.4, "steps": 300}, {"enabled": False})
    )
    for stage in ("train", "predict"):
        assert with_share[stage].unjudged
        assert not off[stage].unjudged
        assert with_share[stage].memory_bytes > off[stage].memory_bytes
    found = _Findings()
    show_estimates(Job.load(write_world(tmp_path)), tuple(with_share.values()), found)
    assert found.tables[0].rows[1][1].startswith("at most")
    assert "with the pretrained encoder" in found.tables[0].notes[0]


def test_a_time_that_is_the_limit_is_not_called_an_estimate(tmp_path):
    found = _Findings()
    job = Job.load(write_world(tmp_path, training={"time_limit_s": 600}))
    show_estimates(job, (StageCost("train", 600.0, 1, 1, limited=True), StageCost("predict", 3.0, 1, 1)), found)
    table = found.tables[0]
    assert [row[1] for row in table.rows] == ["at most 10 min", "3 s", "at most 10 min"]
    assert table.notes == ("training stops at training.time_limit_s, 600 s, with what it has learned",)


def test_of_many_bands_some_are_shown_and_the_rest_counted(tmp_path, no_estimates):
    config = write_world(tmp_path)
    values = np.linspace(0.1, 0.5, 60, dtype=np.float32)[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    values[:, 0, 0] = 0.05  # not one value in all bands
    write_scene(tmp_path / "scene.tif", values, names=[f"B{number}" for number in range(60)])
    outcome = check_job(config, progress=no_progress)
    table = next(item for item in outcome.tables if item.title.startswith("values of"))
    names = [row[0] for row in table.rows]
    assert (names[0], names[-1]) == ("b0", "b59")
    assert len(names) == BANDS_SHOWN
    assert table.notes == ("52 of 60 bands are not shown (all with --json); those used hold 0.05 to 0.5",)
    assert len(outcome.data["scenes"][0]["values"]) == 60


def test_it_asks_no_network_for_clouds_and_writes_nothing(tmp_path, no_estimates, monkeypatch):
    config = write_world(tmp_path, inputs={"clouds": "network"})
    monkeypatch.setattr("pipeline.scenes.clouds.find_spec", lambda _name: True)
    monkeypatch.setattr("pipeline.scenes.clouds.version", lambda _name: "1.0.0")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = check_job(config, progress=no_progress)
    assert not outcome.failed
    assert "not masked yet" in json.dumps(outcome.data["scenes"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_check_says_in_one_line_what_will_be_trained(tmp_path, no_estimates):
    outcome = check_job(write_world(tmp_path), progress=no_progress)
    assert "experts (10 trees each" in outcome.summary
    assert "no network with context" in outcome.summary


def test_lost_polygons_are_listed_with_their_ids(tmp_path, no_estimates):
    config = write_world(tmp_path)
    frame = squares()
    far = (CLASSES[0], shapely.box(600_000, 5_000_000, 600_010, 5_000_010))
    x, y = TRANSFORM @ (40.95, 40.95)
    tiny = (CLASSES[0], shapely.box(x, y - 0.3, x + 0.3, y))
    rival = (next(name for name in CLASSES if name != frame["class"][7]), frame.geometry[7])
    names, shapes = zip(far, tiny, rival, strict=True)
    more = gpd.GeoDataFrame({"class": [*frame["class"], *names]}, geometry=[*frame.geometry, *shapes], crs=CRS)
    (tmp_path / "labels.gpkg").unlink()
    write_labels(tmp_path / "labels.gpkg", more)
    with pytest.warns(LabelWarning):
        lost = check_job(config, progress=no_progress).data["lost"]
    assert lost["outside"] == [37]
    assert lost["too_small"] == [38]
    assert lost["wholly_contested"] == [8, 39]
    assert lost["contested_pixels"] == 16
    assert lost["conflicts"] == [{"polygons": [8, 39], "classes": [frame["class"][7], rival[0]], "pixels": 16}]


def test_an_offset_left_in_is_noticed(tmp_path, no_estimates):
    config = write_world(tmp_path)
    values = np.clip(reflectance() * 0.2 + 0.1, 0.1, 1)
    write_scene(tmp_path / "scene.tif", values.astype(np.float32))
    with pytest.warns(SceneWarning, match="offset looks left in"):
        outcome = check_job(config, progress=no_progress)
    assert tables(outcome)["scenes"][0][-1] == "left in"


def test_indices_have_values_too(tmp_path, no_estimates):
    config = write_world(tmp_path, inputs={"bands": ["red", "nir"], "indices": ["NDVI"]})
    outcome = check_job(config, progress=no_progress)
    (scene,) = outcome.data["scenes"]
    assert scene["bands_used"] == ["red", "nir", "ndvi"]
    assert scene["bands_left"] == ["blue", "green"]
    assert -1 <= scene["values"][2]["smallest"] < scene["values"][2]["largest"] <= 1


def test_of_a_large_scene_only_windows_are_read(tmp_path, monkeypatch, no_estimates):
    config = write_world(tmp_path)
    large = np.zeros((4, 2000, 2000), dtype=np.float32)
    large += np.linspace(0.1, 0.4, 4, dtype=np.float32)[:, None, None]
    large[:, :SIDE, :SIDE] = reflectance()
    write_scene(tmp_path / "scene.tif", large, options={"tiled": True, "compress": "deflate"})
    read: list[int] = []
    ordinary = SceneReader.read

    def counted(self, window):
        read.append(window.height * window.width)
        return ordinary(self, window)

    monkeypatch.setattr(SceneReader, "read", counted)
    with pytest.warns(SplitWarning, match="all polygons lie within 0.2% of the scene"):
        check_job(config, progress=no_progress)
    assert max(read) <= 256 * 256


def test_a_class_without_test_polygons_is_a_warning(tmp_path, no_estimates):
    config: Path = write_world(tmp_path)
    frame = squares()
    water = frame.index[frame["class"] == CLASSES[2]]
    (tmp_path / "labels.gpkg").unlink()
    write_labels(tmp_path / "labels.gpkg", frame.drop(water[1:]))
    with pytest.warns() as caught:
        outcome = check_job(config, progress=no_progress)
    assert outcome.failed == ()
    assert any("one polygon only" in str(item.message) for item in caught)
