"""Whatever ``run`` refuses, ``check`` refuses, and neither trains before it does."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import shapely

from pipeline.cli import main
from pipeline.workflow import costs
from pipeline.workflow.costs import StageCost
from tests.fakes.small_world import squares, write_labels, write_scene, write_settings, write_world

LONG = "a" * 300
MAP = {"engine": "torch", "dtype": "float32", "device": "cpu"}
UNSAFE_IDS = ("a[1]", "-a", ".a", "a/b", "<b>", "..", "run", "", LONG)
UNSAFE_NAMES = ("a[1]", "-a", ".", "..", "a/b", "<b>", "", LONG)


def scenes(**options: object) -> list[dict[str, object]]:
    return [{"path": "scene.tif", **options}]


def mapped(**options: object) -> dict[str, object]:
    return {"map": MAP | options}


def context(**options: object) -> dict[str, object]:
    return {"training": {"context": {"enabled": True, "encoder": "resnet18", **options}}}


CASES: dict[str, dict[str, object]] = {
    "area missing": mapped(aoi="nowhere.gpkg"),
    "area is a folder": mapped(aoi="folder"),
    "area is text": mapped(aoi="text.gpkg"),
    "area elsewhere": mapped(aoi="elsewhere.gpkg"),
    "mask missing": mapped(mask="nowhere.gpkg"),
    "mask is a folder": mapped(mask="folder"),
    "scale zero": {"scenes": scenes(scale=0.0)},
    "scale infinite": {"scenes": scenes(scale=float("inf"))},
    "weights are a pickle": context(weights="pickle.pth"),
    "weights missing": context(weights="nowhere.pth"),
    "weights are a folder": context(weights="folder.pth"),
    "weights unknown": context(weights="ResNet18_Weights.NOBODY"),
    "weights not downloaded": context(encoder="resnet50", weights="imagenet"),
    "sets of more blocks than there are": mapped(sets=0.99),
    "a number that is none": {"split": {"block_m": float("nan")}},
    "unit of no class": mapped(polygons=True, class_mmu_ha={"Nothing": 1.0}),
    "mosaic of dates that are not known": {"scenes": [*scenes(), {"path": "other.tif"}], **mapped(mosaic="latest")},
    "mosaic of two zones": {"scenes": [*scenes(), {"path": "zone.tif"}], **mapped(mosaic="first")},
    "labels missing": {"labels": {"path": "nowhere.gpkg", "field": "class"}},
    "output is a file": {"output": "text.gpkg"},
    **{f"id {name[:9]!r}": {"scenes": scenes(id=name)} for name in UNSAFE_IDS},
    **{f"group {name[:9]!r}": {"scenes": scenes(group=name)} for name in UNSAFE_IDS},
    **{f"name {name[:9]!r}": {"name": name} for name in UNSAFE_NAMES},
}


class Ran:
    """Left by a pickle that was executed."""

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, ("ran", 0o700)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the cases name."""
    monkeypatch.setattr(costs, "estimate_stages", lambda _job, _encoder: (StageCost("all", 1.0, 1, 1),))
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "folder.pth"):
        (tmp_path / name).mkdir()
    (tmp_path / "text.gpkg").write_text("text")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Ran()))
    far = squares().assign(geometry=[shapely.box(0, 0, 1, 1)] * len(squares()))
    write_labels(tmp_path / "elsewhere.gpkg", far)
    write_scene(tmp_path / "other.tif")
    write_scene(tmp_path / "zone.tif", crs="EPSG:32634")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_what_run_refuses_is_refused_by_check(folder, capsys, case):
    config = write_world(folder, **CASES[case])
    said = {}
    for command in ("check", "run"):
        assert main([command, str(config)]) == 2, command
        lines = capsys.readouterr().err.splitlines()
        said[command] = [line for line in lines if line.startswith("landcover: error: ")]
        assert len(said[command]) >= 1
        assert not any("Traceback" in line for line in lines)
    assert case == "output is a file" or said["run"][0] in said["check"]
    assert not list(folder.rglob("model.safetensors"))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("product", ["small.qgz", "maps/scene_lc.tif", "run.json", "chips/labels.gpkg", "report.html"])
def test_a_file_of_somebody_else_is_refused_by_both(folder, capsys, product):
    config = write_world(folder)
    own = folder / "run" / product
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert main(["check", str(config)]) == 2
    assert own.name in capsys.readouterr().err
    if product in {"run.json", "chips/labels.gpkg"}:  # others are met when their stage begins
        assert main(["run", str(config)]) == 2
    assert own.read_text() == "mine"


def test_a_job_without_faults_passes(folder, capsys):
    config = write_settings(folder)
    write_world(folder)
    assert main(["check", str(config)]) == 0, capsys.readouterr().err
