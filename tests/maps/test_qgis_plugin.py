"""The QGIS plugin in a headless QGIS: it calls the command as promised and hands back what it printed."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from pipeline import __version__
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import write_class_map
from tests.fakes.pixels import ArrayPixels
from tools.plugin import PLUGIN, plugin_zip

from .conftest import PROJECTED
from .qgis import what_qgis_shows

NAME = "landcover_qgis"
ALGORITHMS = ("init", "check", "run", "train", "predict", "design", "assess", "labels_audit", "load")
# A stand-in for the command: notes how it was called, makes a map, and prints JSON after other lines.
_COMMAND = """#!{python}
import json, os, shutil, sys
from pathlib import Path
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], os.environ.get("PYTHONPATH")]) + "\\n")
if "broken.model" in " ".join(sys.argv):
    print("broken.model: not a model; train one first")
    sys.exit(2)
if sys.argv[1] == "predict":
    shutil.copy({map!r}, Path(sys.argv[sys.argv.index("-o") + 1]) / "a_lc.tif")
report = {{"ok": True, "command": sys.argv[1]}}
if sys.argv[1] == "run":
    report["written"] = ["out/job.qgz", "out/report.html"]
print("working", file=sys.stderr)
if "--json" in sys.argv:
    print(json.dumps(report, indent=1))
"""


@pytest.fixture(scope="module")
def qgis(tmp_path_factory):
    """Runs one algorithm with the plugin installed in an empty profile; returns (status, results, output)."""
    # Debian's wrapper passes an option that its own program refuses; the program itself lies beside it.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("qgis_process is not installed")
    home = tmp_path_factory.mktemp("home")
    profiles = home / "config"
    plugins = profiles / "profiles" / "default" / "python" / "plugins"
    with zipfile.ZipFile(io.BytesIO(plugin_zip())) as archive:
        archive.extractall(plugins)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ_", "GDAL_", "VIRTUAL"))}
    environment |= {
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(profiles),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
    }

    enable = [program, "plugins", "enable", NAME]
    enabled = subprocess.run(enable, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert enabled.returncode == 0, enabled.stdout + enabled.stderr

    def run(algorithm, parameters=None):
        if parameters is None:
            listed = subprocess.run(
                [program, algorithm], capture_output=True, text=True, env=environment, check=False, timeout=600
            )
            return listed.stdout
        options = [
            f"--{key}={item}"
            for key, value in parameters.items()
            for item in (value if isinstance(value, list) else [value])
        ]
        command = [program, "--json", "run", f"landcover:{algorithm}", *options]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False, timeout=900
        )
        start = done.stdout.find("{")
        results = json.loads(done.stdout[start:]).get("results", {}) if start >= 0 else {}
        return done.returncode, results, done.stdout + done.stderr

    return run


@pytest.fixture
def inputs(tmp_path, codes, scheme):
    """A scene, labels and a stand-in command; ``calls()`` reads what it was asked."""
    scene = tmp_path / "my scene.tif"
    write_class_map(scene, ArrayPixels(codes), grid=PROJECTED, scheme=scheme)
    labels = tmp_path / "labels.gpkg"
    box = shapely.box(*PROJECTED.bounds)
    gpd.GeoDataFrame({"cover": ["water"]}, geometry=[box], crs="EPSG:32633").to_file(labels, layer="labels")
    log, command = tmp_path / "log", tmp_path / "landcover"
    command.write_text(_COMMAND.format(python=sys.executable, log=str(log), map=str(scene)))
    command.chmod(0o755)

    def calls():
        return [json.loads(line) for line in log.read_text().splitlines()]

    return scene, labels, command, calls


def test_predict_calls_the_command_and_returns_its_json(qgis, inputs, tmp_path):
    scene, _, command, calls = inputs
    out = tmp_path / "maps"
    model = tmp_path / "m.model"
    model.write_text("")
    parameters = {
        "MODEL": str(model),
        "SCENES": [str(scene)],
        "OUTPUT": str(out),
        "COMMAND": str(command),
        "LOAD": True,
    }
    status, results, text = qgis("predict", parameters)
    assert status == 0, text
    assert json.loads(results["RESULT"]) == {"ok": True, "command": "predict"}
    ((arguments, python_path),) = calls()
    assert arguments == ["predict", "--model", str(model), "--scene", str(scene), "-o", str(out), "--json"]
    assert python_path is None
    assert (out / "a_lc.tif").exists()


def test_train_writes_a_config_and_runs_it(qgis, inputs, tmp_path):
    scene, labels, command, calls = inputs
    out = tmp_path / "run"
    parameters = {"SCENES": [str(scene)], "LABELS": str(labels), "FIELD": "cover", "OUTPUT": str(out)}
    status, results, text = qgis("train", {**parameters, "COMMAND": str(command), "LOAD": False})
    assert status == 0, text
    config = str(out / "config.yaml")
    assert [arguments for arguments, _ in calls()] == [
        ["init", "--scene", str(scene), "--labels", str(labels), "--field", "cover", "-o", config, "--json"],
        ["run", config, "--json"],
    ]
    assert json.loads(results["RESULT"])["command"] == "run"


def test_every_command_is_called_with_what_was_chosen(qgis, inputs, tmp_path):
    scene, labels, command, calls = inputs
    config, sample, figures = tmp_path / "c.yaml", tmp_path / "s.gpkg", tmp_path / "f.json"
    config.write_text("version: 2\n")
    chosen = {"SCENES": [str(scene)], "LABELS": f"{labels}|layername=labels", "FIELD": "cover"}
    asked = {
        "init": (
            {**chosen, "OUTPUT": str(config), "OVERWRITE": True},
            f"init --scene {scene} --labels {labels} --field cover --layer labels -o {config} --overwrite",
        ),
        "check": ({"CONFIG": str(config)}, f"check {config}"),
        "run": ({"CONFIG": str(config), "LOAD": True}, f"run {config}"),
        "design": (
            {"MAP": str(scene), "KIND": 2, "SIZE": 50, "SEED": 7, "OUTPUT": str(sample)},
            f"design {scene} -o {sample} --kind systematic --seed 7 --size 50",
        ),
        "assess": (
            {"MAP": str(scene), "REFERENCE": str(labels), "FIELD": "cover", "OUTPUT": str(figures)},
            f"assess {scene} --reference {labels} --field cover -o {figures}",
        ),
        "labels_audit": (
            {"CONFIG": str(config), "COUNT": 5, "OUTPUT": str(sample)},
            f"labels audit {config} -o {sample} --count 5",
        ),
    }
    for algorithm, (parameters, _) in asked.items():
        status, results, text = qgis(algorithm, {**parameters, "COMMAND": str(command)})
        assert status == 0, text
        assert json.loads(results["RESULT"])["ok"]
    assert [" ".join(arguments) for arguments, _ in calls()] == [f"{words} --json" for _, words in asked.values()]


def test_qgis_lists_every_algorithm(qgis):
    listed = qgis("list")
    assert all(f"landcover:{name}" in listed for name in ALGORITHMS)


def test_the_zip_is_what_the_repository_takes():
    data = plugin_zip()
    assert data == plugin_zip()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        metadata = archive.read(f"{NAME}/metadata.txt").decode()
        content = [archive.read(name) for name in names]
    assert {name.split("/")[0] for name in names} == {NAME}
    assert {f"{NAME}/__init__.py", f"{NAME}/LICENSE"} < set(names)
    assert all(b"\0" not in item for item in content)
    assert "qgisMaximumVersion=4.99" in metadata
    assert f"version={__version__}\n" in metadata
    assert all(re.search(rf"^{key}=https?://", metadata, re.MULTILINE) for key in ("homepage", "tracker", "repository"))


def test_enums_are_named_under_their_type():
    text = (PLUGIN / "algorithms.py").read_text(encoding="utf-8")
    old = r"QgsProcessing\.Type|ParameterDefinition\.Flag[A-Z]|ParameterFile\.Folder|ParameterNumber\.Integer"
    assert re.findall(old, text) == []


def test_a_failing_command_fails_the_algorithm_with_its_message(qgis, inputs, tmp_path):
    scene, _, command, _ = inputs
    model = tmp_path / "broken.model"
    model.write_text("")
    parameters = {"MODEL": str(model), "SCENES": [str(scene)], "OUTPUT": str(tmp_path / "o"), "COMMAND": str(command)}
    status, _, text = qgis("predict", parameters)
    assert status != 0
    assert "train one first" in text


def test_load_finds_the_maps_of_a_folder(qgis, tmp_path):
    scheme, _ = scheme_for(["a", "b"])
    pixels = ArrayPixels(np.ones(PROJECTED.shape, np.uint8))
    write_class_map(tmp_path / "deep" / "x_lc.tif", pixels, grid=PROJECTED, scheme=scheme)
    status, results, text = qgis("load", {"FOLDER": str(tmp_path)})
    assert status == 0, text
    assert json.loads(results["LAYERS"]) == [str(tmp_path / "deep" / "x_lc.tif")]


def test_the_plugin_imports_qgis_and_standard_library_only():
    names = {
        name.split(".")[0]
        for path in PLUGIN.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert names - {"qgis"} <= set(sys.stdlib_module_names)


@pytest.fixture
def real(tmp_path):
    """The installed command, a model of two bands and a scene that fits it; (command, model, scene)."""
    import torch

    from pipeline.model.bundle import ModelBundle, save_bundle
    from pipeline.model.network import build_network
    from pipeline.model.preprocess import Preprocess
    from pipeline.model.spec import NetworkSpec

    command = Path(sys.executable).with_name("landcover")
    if not command.exists():
        pytest.skip("the landcover command is not installed")
    torch.manual_seed(0)
    network = build_network(NetworkSpec(2, 3, encoder="none", spectral_channels=8))
    preprocess = Preprocess.from_statistics(bands=("red", "nir"), mean=[0.1, 0.3], std=[0.05, 0.1])
    scheme = scheme_for(["water", "trees", "crops"])[0]
    bundle = ModelBundle((network,), scheme, preprocess, ((0, 1), (0, 1)), ("reflectance",) * 2, gsd_m=10)
    model = save_bundle(tmp_path / "m.safetensors", bundle)
    scene = tmp_path / "my scene.tif"
    profile = {"driver": "GTiff", "count": 2, "height": 90, "width": 120, "dtype": "uint16", "nodata": 0}
    values = np.random.default_rng(0).integers(200, 5000, (2, 90, 120)).astype(np.uint16)
    values[:, :20, :20] = 0
    with rasterio.open(scene, "w", crs=PROJECTED.crs, transform=PROJECTED.transform, **profile) as target:
        target.write(values)
        target.descriptions, target.scales, target.offsets = ("red", "nir"), (1e-4, 1e-4), (0.0, 0.0)
    return command, model, scene


def test_predict_with_the_real_command_maps_the_scene(qgis, real, tmp_path):
    command, model, scene = real
    out = tmp_path / "maps"
    parameters = {"MODEL": str(model), "SCENES": [str(scene)], "OUTPUT": str(out), "COMMAND": str(command)}
    status, results, text = qgis("predict", parameters | {"LOAD": True})
    assert status == 0, text
    (made,) = json.loads(results["RESULT"])["maps"]
    assert {Path(path).name for path in made["files"]} >= {"my scene_lc.tif", "my scene_conf.tif"}
    (shown,) = what_qgis_shows(out / "my scene_lc.tif")
    assert (shown["renderer"], shown["labels"]) == ("paletted", ["water", "trees", "crops"])


def test_train_hands_the_real_command_settings_that_it_accepts(qgis, real, tmp_path):
    command, _, scene = real
    # Training takes minutes: `landcover check` reads the same settings, scenes and labels, and judges them.
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nif [ "$1" = run ]; then shift; set -- check "$@"; fi\nexec "{command}" "$@"\n')
    wrapper.chmod(0o755)
    left, _, _, top = PROJECTED.bounds
    places = [(i, j) for i in range(5, 19) for j in range(4, 14)]
    cells = [shapely.box(left + 60 * i, top - 60 * j - 40, left + 60 * i + 40, top - 60 * j) for i, j in places]
    names = [("water", "trees", "crops")[(i + j) % 3] for i, j in places]
    labels = tmp_path / "labels.gpkg"
    gpd.GeoDataFrame({"cover": names}, geometry=cells, crs="EPSG:32633").to_file(labels, layer="labels")
    parameters = {"SCENES": [str(scene)], "LABELS": str(labels), "FIELD": "cover", "OUTPUT": str(tmp_path / "run")}
    status, results, text = qgis("train", {**parameters, "COMMAND": str(wrapper), "LOAD": False})
    assert status == 0, text
    assert (tmp_path / "run" / "config.yaml").exists()
    assert "errors" in json.loads(results["RESULT"]), text
    assert json.loads(results["RESULT"])["errors"] == []
