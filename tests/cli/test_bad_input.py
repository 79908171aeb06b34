"""Each bad input gets its one line: what failed, in which file, what was found, what to do; never a traceback."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from pipeline.cli import main
from pipeline.legend import ClassScheme, LandClass
from pipeline.model.bundle import ModelBundle, save_bundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import NetworkSpec
from pipeline.runs import RunFolder
from pipeline.workflow import costs
from pipeline.workflow.costs import StageCost
from tests.fakes.rasters import TRANSFORM
from tests.fakes.small_world import (
    BANDS,
    CLASSES,
    CRS,
    SIDE,
    reflectance,
    settings,
    squares,
    write_labels,
    write_scene,
    write_settings,
    write_world,
)

WETLAND = {"code": 9, "name": "Wetland", "color": "#112233"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A job that has nothing wrong with it yet."""
    return write_world(tmp_path)


@pytest.fixture(autouse=True)
def _no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job takes is measured in some seconds and has tests of its own."""
    monkeypatch.setattr(costs, "estimate_stages", lambda _job, _encoder: (StageCost("all", 1.0, 1, 1),))


class Spoken:
    """What a command said on stderr, by kind, and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        capsys.readouterr()
        self.status = main([str(item) for item in arguments])
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("landcover: stage ")]
        self.errors = [line for line in lines if line.startswith("landcover: error: ")]
        self.warnings = [line for line in lines if line.startswith("landcover: warning: ")]
        self.others = [line for line in lines if line not in self.errors + self.warnings]

    def error(self, *words: object) -> str:
        """The only error; holds all the words."""
        assert self.status == 2
        assert self.others == []
        assert len(self.errors) == 1, self.errors
        assert [word for word in words if str(word) not in self.errors[0]] == [], self.errors[0]
        return self.errors[0]

    def warning(self, *words: object) -> None:
        """No error, and one of the warnings holds all the words."""
        assert (self.status, self.errors, self.others) == (0, [], [])
        assert any(all(str(word) in line for word in words) for line in self.warnings), self.warnings


@pytest.fixture(params=["check", "chips"])
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]):
    """Say the same to the dry run and to the first stage: they must agree."""
    return lambda config: Spoken(capsys, request.param, config)


def replace_labels(folder: Path, frame: gpd.GeoDataFrame) -> None:
    (folder / "labels.gpkg").unlink()
    write_labels(folder / "labels.gpkg", frame)


def test_a_good_job_has_no_error_and_no_warning(config, say):
    spoken = say(config)
    assert (spoken.status, spoken.errors, spoken.warnings, spoken.others) == (0, [], [], [])


def test_labels_outside_the_scene(config, say):
    frame = squares()
    replace_labels(config.parent, frame.set_geometry(frame.geometry.translate(1e6, 0)))
    say(config).error("labels.gpkg", "labels lie outside the scene", "lon 27.", "lon 15.", "check the CRS")


def test_some_labels_outside_the_scene(config, say):
    frame = squares()
    frame.loc[[0, 1], "geometry"] = frame.loc[[0, 1], "geometry"].translate(1e5, 0)
    replace_labels(config.parent, frame)
    say(config).warning("labels.gpkg", "2 of 36 polygons lie outside the scene")


def test_label_crs_missing(tmp_path, say):
    config = write_world(tmp_path, labels={"path": "l.shp", "field": "class"})
    write_labels(tmp_path / "l.shp")
    (tmp_path / "l.prj").unlink()
    say(config).error("l.shp", "labels have no CRS", ".prj")


def test_field_missing(tmp_path, say):
    config = write_world(tmp_path, labels={"path": "labels.gpkg", "field": "klass"})
    say(config).error("labels.gpkg", "no field 'klass'", "class, number")


def test_a_class_with_one_polygon(tmp_path, say):
    config = write_world(tmp_path, classes=[*settings()["classes"], WETLAND])
    frame = squares()
    frame.loc[0, "class"] = "Wetland"
    replace_labels(tmp_path, frame)
    say(config).warning("one polygon only of class Wetland", "not both")


def test_a_class_of_the_config_absent_in_labels(tmp_path, say):
    config = write_world(tmp_path, classes=[*settings()["classes"], WETLAND])
    say(config).warning("no labelled pixel of class Wetland", "cannot be mapped")


def test_a_class_of_the_labels_absent_in_the_config(config, say):
    frame = squares()
    frame.loc[[0, 5], "class"] = "Moss"
    replace_labels(config.parent, frame)
    say(config).warning("labels.gpkg", "2 features left out", "Moss")


def test_labels_of_one_class_only(config, say):
    replace_labels(config.parent, squares().assign(**{"class": CLASSES[0]}))
    say(config).error("fewer than two classes", CLASSES[0])


def test_empty_layer(config, say):
    replace_labels(config.parent, squares().iloc[:0])
    say(config).error("labels.gpkg", "layer has no features")


def test_points_where_polygons_are_needed(config, say):
    frame = squares()
    replace_labels(config.parent, frame.set_geometry(frame.geometry.centroid))
    say(config).error("labels.gpkg", "points where polygons are needed", "36 points")


def test_polygons_of_two_classes_that_overlap(config, say):
    frame = squares()
    other = frame.iloc[[0]].assign(**{"class": next(name for name in CLASSES if name != frame["class"][0])})
    frame = gpd.GeoDataFrame(pd.concat([frame, other], ignore_index=True), crs=CRS)
    replace_labels(config.parent, frame)
    say(config).warning("labels.gpkg", "16 pixels are claimed by two classes", "polygons 1 ", "/ 37 ")


def test_label_file_missing_or_not_a_vector_file(config, say):
    (config.parent / "labels.gpkg").unlink()
    say(config).error("labels.gpkg", "no such file")
    (config.parent / "labels.gpkg").write_text("hello")
    say(config).error("labels.gpkg", "not a vector file")


def test_scene_missing(tmp_path, say):
    say(write_world(tmp_path, scenes=[{"path": "none.tif"}])).error("none.tif", "no such file")


def test_scene_without_crs(config, say):
    write_scene(config.parent / "scene.tif", crs=None)
    say(config).error("scene.tif", "scene has no CRS", "gdal_edit.py")


def test_scene_without_geotransform(config, say):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_scene(config.parent / "scene.tif", transform=Affine.identity())
    say(config).error("scene.tif", "scene has no geotransform")


def test_rotated_scene(config, say):
    write_scene(config.parent / "scene.tif", transform=TRANSFORM @ Affine.rotation(10))
    say(config).error("scene.tif", "rotated", "gdalwarp")


def test_band_count_that_differs_between_scenes(tmp_path, say):
    config = write_world(tmp_path, scenes=[{"path": "scene.tif"}, {"path": "b.tif"}])
    write_scene(tmp_path / "b.tif", reflectance()[:3])
    say(config).warning("scene.tif", "bands nir are not used", "other scenes do not have them")


def test_band_names_that_differ_between_scenes(tmp_path, say):
    config = write_world(tmp_path, scenes=[{"path": "scene.tif"}, {"path": "b.tif"}])
    write_scene(tmp_path / "b.tif", names=("swir16", "swir22", "rededge1", "rededge2"))
    say(config).error("no band in common", "scene: blue", "b: swir16", "name the bands")


def test_a_band_of_the_config_that_a_scene_lacks(tmp_path, say):
    say(write_world(tmp_path, inputs={"bands": ["red", "swir16"]})).error("scene.tif", "lacks band swir16", "blue")


def test_number_of_band_names_in_the_config(tmp_path, say):
    config = write_world(tmp_path, scenes=[{"path": "scene.tif", "bands": ["blue", "green"]}])
    say(config).error("scene.tif", "number of band names", "got 2", "expected 4")


def test_a_tiff_cut_before_its_directory(config, say):
    content = (config.parent / "scene.tif").read_bytes()
    (config.parent / "scene.tif").write_bytes(content[: len(content) // 2])
    say(config).error("scene.tif", "not a raster that GDAL can open")


def test_a_tiff_cut_in_its_pixels(config, say):
    path = write_scene(config.parent / "scene.tif", driver="COG", options={"compress": "deflate"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    say(config).error("scene.tif", "cut off or damaged")


def test_a_text_file_named_tif(config, say):
    (config.parent / "scene.tif").write_text("hello")
    say(config).error("scene.tif", "not a raster that GDAL can open")


def test_all_nodata_scene(config, say):
    write_scene(config.parent / "scene.tif", np.zeros((4, SIDE, SIDE), dtype=np.float32), nodata=0)
    say(config).error("scene.tif", "nodata")


def test_nan_and_infinity_are_no_data(config, capsys):
    values = reflectance()
    values[:, :60] = np.nan
    values[0, 60:64] = np.inf
    write_scene(config.parent / "scene.tif", values)
    spoken = Spoken(capsys, "check", config)
    spoken.warning("scene.tif", "67% of the pixels looked at have no data")
    spoken.warning("scene.tif", "labelled pixels looked at have no data")


def test_a_chip_larger_than_the_scene(tmp_path, say):
    config = write_world(tmp_path, chips={"size_px": 128})
    say(config).error("128 x 128", "scene 'scene'", "96 x 96", "at most 96")


def test_a_scene_of_one_pixel(config, say):
    write_scene(config.parent / "scene.tif", reflectance()[:, :1, :1])
    say(config).error("labels lie outside the scene")


def test_a_scene_of_one_pixel_with_a_label(config, say):
    write_scene(config.parent / "scene.tif", reflectance()[:, 7:8, 7:8], transform=TRANSFORM @ Affine.translation(7, 7))
    say(config).error("fewer than two classes")


def many_classes(count: int) -> gpd.GeoDataFrame:
    """Two polygons of 2 x 2 pixels for each of 200 classes, or one for each of 400."""
    corners = [(4 * (i % 20), 4 * (i // 20)) for i in range(400)]
    shapes = [shapely.box(*(TRANSFORM @ (col, row + 2)), *(TRANSFORM @ (col + 2, row))) for col, row in corners]
    return gpd.GeoDataFrame({"class": [f"class {i % count}" for i in range(400)]}, geometry=shapes, crs=CRS)


def init(capsys: pytest.CaptureFixture[str], folder: Path) -> Spoken:
    labels, scene = folder / "labels.gpkg", folder / "scene.tif"
    return Spoken(capsys, "init", "--scene", scene, "--labels", labels, "--field", "class", "-o", folder / "new.yaml")


def test_two_hundred_classes_are_many_but_allowed(config, capsys):
    replace_labels(config.parent, many_classes(200))
    assert init(capsys, config.parent).status == 0
    spoken = Spoken(capsys, "check", config.parent / "new.yaml")
    spoken.warning("no test polygon of class", "more")
    assert max(map(len, spoken.warnings)) < 350


def test_a_field_that_is_no_class(config, capsys):
    replace_labels(config.parent, many_classes(400))
    init(capsys, config.parent).error("labels.gpkg", "field 'class'", "too many", "got 400", "at most 254")
    assert not (config.parent / "new.yaml").exists()


def test_an_output_folder_that_is_a_file(tmp_path, say):
    say(write_world(tmp_path, output="scene.tif/run")).error("scene.tif/run", "output folder cannot be")


def test_an_output_folder_without_permission(tmp_path, capsys, monkeypatch):
    config = write_world(tmp_path)
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode, **more: not mode & os.W_OK and access(path, mode, **more))
    Spoken(capsys, "check", config).error(tmp_path / "run", "cannot be written", "no permission")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users as on Unix")
@pytest.mark.parametrize("command", ["check", "run", "init"])
def test_a_folder_that_may_not_be_entered(capsys, command):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders may be entered by their owner alone
        folder = Path(name)
        folder.chmod(0o755)
        refuse_closed(folder, capsys, command)


def refuse_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    config = write_world(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    arguments = {
        "check": [config, "--set", f"output={closed / 'run'}"],
        "run": [config, "--set", f"output={closed / 'run'}"],
        "init": ["--scene", closed / "s.tif", "--labels", tmp_path / "labels.gpkg", "--field", "class"],
    }[command]
    if os.geteuid() == 0:  # so that all is imported that is needed until the folder is met
        Spoken(capsys, {"run": "chips"}.get(command, command), *arguments)
    own = os.geteuid()
    os.seteuid(65534 if own == 0 else own)
    try:
        Spoken(capsys, command, *arguments).error("closed")
    finally:
        os.seteuid(own)


def test_a_disk_too_small(config, capsys, monkeypatch):
    monkeypatch.setattr(costs, "estimate_stages", lambda _job, _encoder: (StageCost("all", 1.0, 1, 10**18),))
    Spoken(capsys, "check", config).error(config.parent / "run", "GB on the disk", "free")


@pytest.mark.parametrize("text", ["a: [1, 2\nb: }", "\t- x", "just a sentence", "- 1\n- 2"])
def test_a_config_that_is_not_yaml_or_no_mapping(config, say, text):
    config.write_text(text)
    say(config).error("config.yaml", "configuration")


def test_a_binary_config(config, say):
    config.write_bytes(b"\xff\xfe\x00\x01")
    say(config).error("config.yaml", "the configuration cannot be read as YAML")


def test_a_misspelt_key(tmp_path, say):
    config = write_world(tmp_path, chips={"size": 16})
    say(config).error("config.yaml", "chips.size", "did you mean 'size_px'?")


def test_memory_that_is_no_amount(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    config = write_world(tmp_path, map={"memory": "plenty"})
    Spoken(capsys, "check", config).error("'map.memory'", "'plenty'", "2GB")


def test_several_errors_come_together(tmp_path, capsys):
    config = write_world(tmp_path, output="scene.tif/run", labels={"path": "labels.gpkg", "field": "klass"})
    write_scene(tmp_path / "scene.tif", crs=None)
    spoken = Spoken(capsys, "check", config)
    assert spoken.status == 2
    assert len(spoken.errors) == 3


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of the small world's bands, with random weights."""
    torch.manual_seed(0)
    spec = NetworkSpec(4, 3, encoder="none", spectral_channels=8, spectral_kernels=(1,))
    values = reflectance().reshape(4, -1)
    bundle = ModelBundle(
        members=(build_network(spec).eval(),),
        scheme=ClassScheme(tuple(LandClass(i, name, "#112233") for i, name in enumerate(CLASSES, 1))),
        preprocess=Preprocess(BANDS, tuple(values.mean(1).tolist()), tuple(values.std(1).tolist())),
        value_range=tuple(zip(values.min(1).tolist(), values.max(1).tolist(), strict=True)),
        units=("reflectance",) * 4,
        gsd_m=10.0,
    )
    return save_bundle(tmp_path / "model.safetensors", bundle)


def predict(capsys: pytest.CaptureFixture[str], model: Path, scene: Path, *more: str) -> Spoken:
    out = model.parent / "maps"
    return Spoken(capsys, "predict", "--model", model, "--scene", scene, "-o", out, "--engine", "torch", *more)


def test_a_model_that_fits_maps(model, capsys):
    scene = write_scene(model.parent / "scene.tif")
    assert predict(capsys, model, scene).status == 0
    with rasterio.open(model.parent / "maps" / "scene_lc.tif") as dataset:
        assert dataset.shape == (SIDE, SIDE)


def test_a_model_file_that_is_not_ours(model, capsys):
    scene = write_scene(model.parent / "scene.tif")
    model.write_text("hello, I am a model")
    predict(capsys, model, scene).error("model.safetensors", "not a model file")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, model)
    predict(capsys, model, scene).error("model.safetensors", "not a landcover model")
    predict(capsys, model.with_name("none.safetensors"), scene).error("none.safetensors", "No such file")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_model_file_cut_in_half(model, capsys, share):
    content = model.read_bytes()
    model.write_bytes(content[: int(len(content) * share)])
    predict(capsys, model, write_scene(model.parent / "scene.tif")).error("model.safetensors", "cut off")
    Spoken(capsys, "model", "show", model).error("model.safetensors", "cut off")


def test_a_scene_that_lacks_a_band_of_the_model(model, capsys):
    scene = write_scene(model.parent / "scene.tif", reflectance()[:3])
    predict(capsys, model, scene).error("scene.tif", "lacks band nir of the model", "blue, green, red")


def test_a_scene_in_counts_for_a_model_in_reflectance(model, capsys):
    scene = write_scene(model.parent / "scene.tif", (reflectance() * 10_000).astype(np.uint16))
    predict(capsys, model, scene).error("scene.tif", "times larger", "set scale and offset")


def test_a_scene_with_values_the_model_never_saw(model, capsys):
    scene = write_scene(model.parent / "scene.tif", reflectance() + np.float32(1.0))
    predict(capsys, model, scene).error("scene.tif", "outside the training range", "blue")


def test_a_scene_of_other_pixels_than_the_models(model, capsys):
    scene = write_scene(model.parent / "scene.tif", transform=Affine(30, 0, 500_000, 0, -30, 5_000_000))
    predict(capsys, model, scene).error(
        "scene.tif: scene has pixels of another size than the model was trained on; got 30 m; expected 10 m; "
        "read it at that size (--resolution 10, or inputs.resolution_m) or train on this one"
    )
    finer = ("--scene", scene, "-o", model.parent / "finer", "--engine", "torch", "--resolution", "10")
    assert Spoken(capsys, "predict", "--model", model, *finer).status == 0
    with rasterio.open(model.parent / "finer" / "scene_lc.tif") as dataset:
        assert dataset.shape == (3 * SIDE, 3 * SIDE)


def put_model(folder: Path, content: bytes) -> None:
    """A model where a run keeps its own, recorded as what its stage wrote."""
    target = folder / "model" / "model.safetensors"
    target.parent.mkdir(parents=True)
    run = RunFolder(folder)
    with run.stage("train", key="earlier") as outputs:
        target.write_bytes(content)
        outputs.append(target)


def test_a_cut_model_in_the_run_folder(config, model, capsys):
    put_model(config.parent / "run", model.read_bytes()[:-100])
    Spoken(capsys, "check", config).error("run/model/model.safetensors", "cut off")


def test_a_model_of_other_bands_in_the_run_folder(tmp_path, model, capsys):
    config = write_world(tmp_path, inputs={"bands": ["red", "nir"]})
    put_model(tmp_path / "run", model.read_bytes())
    Spoken(capsys, "check", config).warning(
        "run/model/model.safetensors", "trained on other bands (blue, green, red, nir)"
    )


def test_a_strangers_model_in_the_run_folder(config, model, capsys):
    target = config.parent / "run" / "model" / "model.safetensors"
    target.parent.mkdir(parents=True)
    target.write_bytes(model.read_bytes())
    Spoken(capsys, "check", config).error("run/model/model.safetensors", "exists", "--overwrite")


def test_nothing_is_overwritten_unasked(model, capsys):
    scene = write_scene(model.parent / "scene.tif")
    assert predict(capsys, model, scene).status == 0
    written = model.parent / "maps" / "scene_lc.tif"
    first = written.stat().st_mtime_ns
    # The same command finds its work done; another one would have to replace it.
    assert predict(capsys, model, scene).status == 0
    assert written.stat().st_mtime_ns == first
    predict(capsys, model, scene, "--probabilities").error("scene_lc.tif", "exists", "--overwrite")
    assert written.stat().st_mtime_ns == first
    write_settings(model.parent)
    labels = write_labels(model.parent / "labels.gpkg")
    Spoken(
        capsys, "init", "--scene", scene, "--labels", labels, "--field", "class", "-o", model.parent / "config.yaml"
    ).error("config.yaml", "exists", "--overwrite")
