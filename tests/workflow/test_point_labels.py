"""A run whose labels are points, from the configuration to the report."""

from __future__ import annotations

import geopandas
import pyogrio
import pytest

from pipeline.cli.entry import main
from pipeline.diagnostics.failures import SURELY_WRONG
from pipeline.workflow.job import Job
from pipeline.workflow.stage_report import gather
from tests.fakes.finished import run_job
from tests.fakes.rasters import TRANSFORM
from tests.fakes.small_world import CLASSES, squares, write_labels, write_scene, write_settings

PIXEL_M2 = TRANSFORM.a**2


def write_points(folder, **labels):
    """A world of points, a third of which are called cropland whatever they are; gives the configuration."""
    write_scene(folder / "scene.tif")
    frame = squares()
    frame = frame.set_geometry(frame.geometry.centroid)
    frame.loc[frame.index[::3], "class"] = CLASSES[0]
    write_labels(folder / "labels.gpkg", frame)
    return write_settings(folder, labels={"path": "labels.gpkg", "field": "class"} | labels)


@pytest.mark.parametrize(("how", "pixels"), [({"point_window_px": 3}, 9), ({"point_radius_m": 0}, 1)])
def test_points_go_through_to_the_report(tmp_path, capsys, how, pixels):
    config = write_points(tmp_path, **how)
    run_job(config)
    folder = tmp_path / "run"
    wrong = geopandas.read_file(folder / SURELY_WRONG, layer="surely_wrong")
    assert len(wrong)
    assert set(wrong["pixels"]) == {pixels}
    assert pyogrio.read_info(folder / SURELY_WRONG, layer="surely_wrong")["geometry_type"] == "Polygon"
    assert wrong.area.to_numpy() == pytest.approx(pixels * PIXEL_M2)
    data = gather(Job.load(config), features=None)
    sides = [item.outline_m.max(axis=0) - item.outline_m.min(axis=0) for item in data.split.polygons]
    assert len(sides) == len(squares())
    assert all(side == pytest.approx([(pixels * PIXEL_M2) ** 0.5] * 2) for side in sides)
    assert {item.inside.sum() for item in data.examples} == {pixels}
    assert "data:image" in (folder / "report.html").read_text(encoding="utf-8")
    found = str(folder / "maps" / "scene_lc.tif")
    assert main(["assess", found, "--reference", str(tmp_path / "labels.gpkg"), "--field", "class"]) == 0
    assert "units lie in polygons that scene_lc.tif learned from" in capsys.readouterr().err
