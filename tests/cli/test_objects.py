"""Objects on the command line: from init to the report, from a map, against footprints; and what goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine

from pipeline.cli import main
from pipeline.scenes.indices import TEXTURES_PX
from tests.fakes.rasters import write_raster
from tests.fakes.small_world import quick_training

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_data"
PLACE = Affine(0.5, 0, 600_000, 0, -0.5, 5_400_000)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status, and the last line on stderr."""
    status = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    return status, lines[-1] if lines else ""


def mask_file(path: Path, *, boxes: int = 3) -> Path:
    mask = np.zeros((80, 160), dtype=np.uint8)
    for k in range(boxes):
        mask[10:30, 10 + 40 * k : 34 + 40 * k] = 1
    return write_raster(path, mask, names=("mask",), crs="EPSG:32632", transform=PLACE, nodata=None)


def footprints_file(path: Path, shapes: list[Any]) -> Path:
    gpd.GeoDataFrame({"class": ["building"] * len(shapes)}, geometry=shapes, crs="EPSG:32632").to_file(
        path, engine="pyogrio"
    )
    return path


def house(k: int = 0) -> Any:
    return shapely.box(600_005 + 20 * k, 5_399_985, 600_017 + 20 * k, 5_399_995)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the buildings example with little training, on a part of its scene."""
    folder = tmp_path_factory.mktemp("buildings")
    data = yaml.safe_load((ROOT / "configs" / "buildings.yaml").read_text(encoding="utf-8"))
    with rasterio.open(SAMPLE / "aerial.tif") as file:
        part = file.read(window=((0, 192), (0, 288)))
        write_raster(
            folder / "aerial.tif", part, names=file.descriptions, crs="EPSG:32632", transform=file.transform,
            nodata=None,
        )  # fmt: skip
    data |= {"output": str(folder / "run"), "scenes": [{"path": str(folder / "aerial.tif")}]}
    data["labels"]["path"] = str(SAMPLE / "buildings.gpkg")
    data["split"], data["chips"] = {"block_m": 32, "buffer_m": 4}, {"size_px": 16, "unlabelled": 8}
    data["training"] = quick_training()
    data["assessment"] = {"forest_trees": 10, "features": False}
    data["map"] |= {"dtype": "float32", "device": "cpu"}
    config = folder / "buildings.yaml"
    config.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert main(["run", str(config), "--quiet"]) == 0
    return folder / "run"


def test_a_run_maps_the_buildings_as_objects(finished: Path) -> None:
    frame = gpd.read_file(finished / "maps" / "aerial_objects.gpkg", layer="objects")
    assert list(frame.columns) == ["id", "class", "code", "area_m2", "confidence", "vertices", "geometry"]
    assert len(frame) > 8
    assert frame["area_m2"].min() >= 6
    assert frame["confidence"].between(50, 100).all()
    assert frame.geometry.is_valid.all()


def test_objects_are_assessed_on_the_test_blocks(finished: Path) -> None:
    (found,) = json.loads((finished / "accuracy.json").read_text(encoding="utf-8"))["objects"]
    assert found["class"] == "building"
    assert found["reference"] > 0
    assert found["f1"]["estimate"] > 0.3
    assert found["intervals"]


def test_report_and_project_show_the_objects(finished: Path) -> None:
    import zipfile

    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Objects on the test blocks" in page
    assert "Objects of aerial" in page
    with zipfile.ZipFile(finished / "buildings.qgz") as archive:
        assert "maps/aerial_objects.gpkg|layername=objects" in archive.read("buildings.qgs").decode()


def test_the_model_knows_what_its_objects_are(finished: Path, tmp_path: Path) -> None:
    scene = finished.parent / "aerial.tif"
    model = finished / "model" / "model.safetensors"
    assert main(["predict", "--model", str(model), "--scene", str(scene), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    again = gpd.read_file(tmp_path / "out" / "aerial_objects.gpkg", layer="objects")
    assert len(again) == len(gpd.read_file(finished / "maps" / "aerial_objects.gpkg", layer="objects"))


def test_other_objects_than_the_models_are_mapped_and_said(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    words = ["--set", f"output={tmp_path / 'run'}", "--set", "map.objects.min_area_m2=40", "--overwrite"]
    assert main(["predict", str(finished.parent / "buildings.yaml"), *words]) == 0
    assert "map.objects is not what the model was trained with" in capsys.readouterr().err
    frame = gpd.read_file(tmp_path / "run" / "maps" / "aerial_objects.gpkg", layer="objects")
    assert frame["area_m2"].min() >= 40


def test_objects_of_a_mask_are_assessed_against_footprints(tmp_path: Path) -> None:
    out, figures = tmp_path / "objects.gpkg", tmp_path / "figures.json"
    assert main(["objects", str(mask_file(tmp_path / "mask.tif")), "-o", str(out), "--quiet"]) == 0
    truth = footprints_file(tmp_path / "truth.gpkg", [house(0), house(1)])
    assert main(["assess", str(out), "--reference", str(truth), "-o", str(figures), "--quiet"]) == 0
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert (found["predicted"], found["reference"], found["matched"]) == (3, 2, 2)
    assert found["polis_m"]["estimate"] == 0


def test_footprints_outside_the_map_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, mask = tmp_path / "here_objects.gpkg", mask_file(tmp_path / "here_lc.tif")
    assert main(["objects", str(mask), "-o", str(out), "--quiet"]) == 0
    with rasterio.open(mask, "r+") as file:
        codes = file.read(1)
        codes[:, 90:] = 255
        codes[codes == 0] = 2
        file.write(codes, 1)
        file.nodata = 255
    truth = footprints_file(tmp_path / "truth.gpkg", [house(0), house(1), house(2), house(10)])
    assert main(["assess", str(out), "--reference", str(truth), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["predicted"], document["reference"], document["matched"]) == (3, 2, 2)
    assert document["warnings"] == ["2 of 4 footprints lie where here_lc.tif maps nothing and are left out"]


def test_an_empty_mask_gives_an_empty_layer_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = mask_file(tmp_path / "mask.tif", boxes=1)
    out = tmp_path / "objects.gpkg"
    assert said(capsys, "objects", mask, "-o", out, "--min-area", 5000)[0] == 0
    truth = footprints_file(tmp_path / "truth.gpkg", [house(0)])
    assert said(capsys, "assess", out, "--reference", truth)[0] == 0


def test_init_of_one_class_asks_whether_it_is_complete(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "buildings"
    config = tmp_path / "config.yaml"
    given = ("init", "--scene", folder / "atlanta_pan.tif", "--labels", folder / "atlanta_buildings.gpkg", "-o", config)
    status, line = said(capsys, *given, "--field", "class")
    assert status == 2
    assert "--complete scene" in line
    assert said(capsys, *given, "--field", "class", "--complete", "scene")[0] == 0
    written = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert written["labels"]["complete"] is True
    assert [item.get("objects", False) for item in written["classes"]] == [True, False]
    assert written["inputs"]["textures"] == list(TEXTURES_PX)  # one band
    assert written["split"]["buffer_m"] == pytest.approx(0.5 * (written["chips"]["size_px"] / 2 + TEXTURES_PX[-1] // 2))
    assert said(capsys, *given, "--objects", "building", "--complete", "scene", "--overwrite")[0] == 0
    assert "field" not in yaml.safe_load(config.read_text(encoding="utf-8"))["labels"]


@pytest.mark.parametrize(
    ("shapes", "line"),
    [
        ([shapely.LineString([(600_000, 5_399_990), (600_010, 5_399_995)])], "no polygons; got LineString"),
        ([shapely.box(100_000, 5_000_000, 100_010, 5_000_010)], "do not lie in one place"),
    ],
)
def test_bad_footprints_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes: list[Any], line: str
) -> None:
    out = tmp_path / "objects.gpkg"
    main(["objects", str(mask_file(tmp_path / "mask.tif")), "-o", str(out), "--quiet"])
    status, found = said(capsys, "assess", out, "--reference", footprints_file(tmp_path / "bad.gpkg", shapes))
    assert status == 2
    assert line in found
    assert "Traceback" not in found


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"labels": {"background": "ground"}}, "no class called 'ground' for the ground around the footprints"),
        ({"map": {"objects": {"classes": ["house"]}}}, "map.objects.classes: no class called house"),
        ({"labels": {"complete": "nowhere.gpkg"}}, "no such file"),
    ],
)
def test_bad_settings_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], line: str
) -> None:
    data = yaml.safe_load((ROOT / "configs" / "buildings.yaml").read_text(encoding="utf-8"))
    data |= {"output": str(tmp_path / "run"), "scenes": [{"path": str(SAMPLE / "aerial.tif")}]}
    data["labels"]["path"] = str(SAMPLE / "buildings.gpkg")
    for key, value in changes.items():
        data[key] |= value
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(data), encoding="utf-8")
    status, found = said(capsys, "chips", config)
    assert status == 2
    assert line in found


def test_a_class_that_the_map_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = mask_file(tmp_path / "mask.tif")
    status, line = said(capsys, "objects", mask, "--class", "house", "-o", tmp_path / "out.gpkg")
    assert status == 2
    assert "no class called 'house'" in line


def test_crossval_maps_and_assesses_what_each_fold_holds_out(finished: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((finished.parent / "buildings.yaml").read_text(encoding="utf-8"))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(config | {"output": str(tmp_path / "run")}), encoding="utf-8")
    options = ("--folds", "2", "--methods", "network", "--random-folds", "0", "--quiet")
    assert main(["crossval", str(again), *options]) == 0
    data = json.loads((tmp_path / "run" / "crossval.json").read_text(encoding="utf-8"))
    (found,) = data["objects"]
    with rasterio.open(finished.parent / "aerial.tif") as file:
        inside = gpd.read_file(SAMPLE / "buildings.gpkg").intersects(shapely.box(*file.bounds))
    assert found["reference"] == sum(fold["reference"] for fold in found["folds"]) == inside.sum()
    assert [found[name] for name in ("predicted", "matched")] == [
        sum(fold[name] for fold in found["folds"]) for name in ("predicted", "matched")
    ]
    assert found["f1"]["estimate"] > 0.3
