"""What a whole run leaves behind."""

from __future__ import annotations

import html
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.model.bundle import load_bundle
from tests.fakes.finished import Run, run_job
from tests.fakes.small_world import BANDS, CLASSES, SIDE, truth


def read(run: Run, name: str) -> dict:
    return json.loads((run.folder / name).read_text(encoding="utf-8"))


def test_a_run_writes_every_product_and_says_how_to_open_it(finished):
    names = {path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*")}
    assert names >= {
        "accuracy.json", "areas.json", "chips/chips.gpkg", "chips/index.parquet", "collection.json", "config.yaml",
        "confusion.csv",
        "chips/labels.gpkg", "model/model.safetensors", "report.html", "run.json",
        "maps/scene_lc.tif", "maps/scene_conf.tif",
        "maps/scene_lc.gpkg", "maps/scene_quicklook.png", "small.qgz", "chips/split.json", "training.csv",
    }  # fmt: skip
    assert "small.qgz" in finished.outcome.hint
    assert all(path.exists() for path in finished.outcome.written)


def test_nothing_half_written_stays(finished):
    left = [path for path in finished.folder.rglob("*") if ".part" in path.name or path.name.startswith(".write-test")]
    assert left == []
    work = finished.folder / "maps" / ".work"
    assert not work.exists() or not any(path.is_file() for path in work.rglob("*"))


def test_the_map_is_a_paletted_raster_on_the_scenes_grid(finished):
    with (
        rasterio.open(finished.folder / "maps" / "scene_lc.tif") as mapped,
        rasterio.open(finished.config.parent / "scene.tif") as scene,
    ):
        assert (mapped.crs, mapped.transform, mapped.shape) == (scene.crs, scene.transform, scene.shape)
        assert (mapped.count, mapped.dtypes, mapped.nodata) == (1, ("uint8",), 0)
        codes = mapped.read(1)
        assert mapped.colormap(1)[2][:3] == (0x00, 0x64, 0x00)
    # Three steps of training and forests that know better: the world is easy.
    assert np.mean(codes == truth() + 1) > 0.95


def test_confidence_is_in_per_cent(finished):
    with rasterio.open(finished.folder / "maps" / "scene_conf.tif") as dataset:
        assert dataset.shape == (SIDE, SIDE)
        assert dataset.read(1).max() <= 100


def test_accuracy_names_the_methods_and_their_figures(finished):
    accuracy = read(finished, "accuracy.json")
    assert accuracy["sampling"] == "hold-out of training polygons, not a probability sample"
    assert accuracy["method"] == "network"
    assert [item["method"] for item in accuracy["baselines"]] == ["forest (bands)", "forest (neighbourhoods)"]
    assert accuracy["baseline"] == max(accuracy["baselines"], key=lambda f: (f["overall_accuracy"], f["macro_f1"]))
    for item in (accuracy, *accuracy["baselines"]):
        assert sum(figures["polygons"] for figures in item["per_class"].values()) == accuracy["test_polygons"]
        assert item["confusion"]["classes"] == list(item["per_class"])
        assert set(item["per_class"]) == set(CLASSES)
        assert sum(figures["support"] for figures in item["per_class"].values()) == accuracy["test_pixels"]
        assert np.sum(item["confusion"]["matrix"]) == accuracy["test_pixels"]
        assert item["overall_accuracy"] > 0.9


def test_the_record_says_what_each_stage_took(finished):
    stages = read(finished, "run.json")["stages"]
    for stage in stages.values():
        assert stage["cpu_seconds"] > 0
        assert stage["peak_rss_mb"] is None or stage["peak_rss_mb"] > 50
    assert stages["predict"]["mpx"] == pytest.approx(SIDE * SIDE / 1e6, rel=0.01)
    assert stages["predict"]["mpx_per_s"] > 0


def test_areas_add_up_to_the_scene(finished):
    areas = read(finished, "areas.json")
    assert sum(item["area_ha"] for item in areas["classes"]) == pytest.approx(SIDE * SIDE / 100)
    assert sum(item["share"] for item in areas["classes"]) == pytest.approx(1)


def test_every_polygon_has_one_part_and_none_is_lost(finished):
    classes = read(finished, "chips/split.json")["classes"]
    assert sum(part["polygons"] for item in classes.values() for part in item.values()) == 36
    assert all(item["train"]["pixels"] > 0 and item["test"]["pixels"] > 0 for item in classes.values())


def test_the_model_carries_bands_classes_and_origin(finished):
    bundle = load_bundle(finished.folder / "model" / "model.safetensors")
    assert bundle.bands == BANDS
    assert bundle.scheme.names == CLASSES
    assert bundle.provenance["ledger"][0]["scene"] == "scene"


def test_the_qgis_project_has_relative_paths_only(finished):
    with zipfile.ZipFile(finished.folder / "small.qgz") as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith(".qgs"))).decode()
    assert "scene_lc.tif" in text
    assert str(finished.folder) not in text
    assert str(finished.config.parent) not in text


def test_the_record_says_what_ran_and_how_long(finished):
    record = read(finished, "run.json")
    assert set(record["stages"]) == {"chips", "train", "predict", "assess", "report"}
    assert record["environment"]["packages"]["torch"]
    for stage in record["stages"].values():
        assert stage["seconds"] >= 0
        assert all(not Path(name).is_absolute() for name in stage["outputs"])


def test_the_report_is_one_page_with_figures_and_its_warning(finished):
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "not a probability sample" in page
    assert all(name in page for name in CLASSES)
    context = load_bundle(finished.folder / "model" / "model.safetensors").provenance["context"]
    assert f"Encoder: {context['line']}." in html.unescape(page)


def test_a_second_run_does_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.glob("*.tif")}
    outcome = run_job(finished.config)
    assert [row[1] for row in outcome.tables[0].rows] == ["unchanged"] * 5
    assert {path: path.stat().st_mtime_ns for path in finished.folder.glob("*.tif")} == before


def test_scenes_are_sampled_for_chips_and_not_again_for_maps(finished, monkeypatch):
    for module in ("scenes.ledger", "workflow.scene_maps"):
        monkeypatch.setattr(f"pipeline.{module}.source_ledger", lambda _: pytest.fail("sampled again"))
    run_job(finished.config, last="predict", force=True, overwrite=True)
    with rasterio.open(finished.folder / "maps" / "scene_lc.tif") as mapped:
        assert json.loads(mapped.tags()["LANDCOVER_LEDGER"]) == read(finished, "ledger.json")["scenes"][0]


def test_the_item_of_the_model_says_what_it_was_pretrained_on(finished):
    said = read(finished, "small-model.json")["properties"]
    context = load_bundle(finished.folder / "model" / "model.safetensors").provenance["context"]
    assert said["mlm:pretrained_source"] == (context["encoder"] if context["share"] else None)
    assert said["mlm:pretrained"] is bool(context["share"])
