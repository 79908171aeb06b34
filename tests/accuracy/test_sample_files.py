from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import geopandas
import pytest

from pipeline.accuracy.sample_design import write_design
from pipeline.errors import OutputError
from tests.accuracy.maps import SCHEME, draw, patchy, write_map

SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture
def design(tmp_path):
    return draw(write_map(tmp_path / "map.tif", patchy()), size=40, seed=1)


def test_interpreters_see_neither_map_class_nor_stratum(design, tmp_path):
    files = write_design(tmp_path / "s.gpkg", design)
    frame = geopandas.read_file(files.geopackage, layer="sample")
    assert set(frame.columns) == {"id", "reference", "certainty", "comment", "inclusion_probability", "geometry"}
    assert frame["reference"].isna().all()
    assert frame["inclusion_probability"].to_numpy() == pytest.approx(design.inclusion)
    # Numbers give no stratum away: units come in random order.
    assert len(set(design.stratum[:15].tolist())) > 1


def test_map_classes_are_shown_on_request(design, tmp_path):
    files = write_design(tmp_path / "s.gpkg", design, blind=False)
    frame = geopandas.read_file(files.geopackage, layer="sample")
    assert frame["map_class"].tolist() == [SCHEME.by_code(int(code)).name for code in design.map_code]


def test_copies_for_acatama_and_collect_earth(design, tmp_path):
    files = write_design(tmp_path / "s.gpkg", design)
    acatama = geopandas.read_file(files.acatama)
    assert acatama.columns.tolist() == ["id", "geometry"]
    assert acatama["id"].tolist() == list(range(1, 41))
    with files.collect_earth.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["LON", "LAT", "PLOTID"]
    point = acatama.to_crs("EPSG:4326").geometry[0]
    assert [float(rows[1][0]), float(rows[1][1])] == pytest.approx([point.x, point.y], abs=1e-7)
    assert json.loads(files.design.read_text())["units"]["map_code"] == design.map_code.tolist()


def test_interpreted_files_are_not_overwritten(design, tmp_path):
    write_design(tmp_path / "s.gpkg", design)
    with pytest.raises(OutputError, match="may hold interpreted units"):
        write_design(tmp_path / "s.gpkg", design)


def test_a_sample_that_cannot_be_written_leaves_the_old_one(design, tmp_path, monkeypatch):
    from pyogrio.errors import DataSourceError

    before = write_design(tmp_path / "s.gpkg", design).geopackage.read_bytes()

    def full(path, _design):
        raise DataSourceError("disk is full")

    monkeypatch.setattr("pipeline.accuracy.sample_design._write_collect_earth", full)
    with pytest.raises(OutputError, match=r"s\.gpkg: sample cannot be written; got disk is full"):
        write_design(tmp_path / "s.gpkg", design, overwrite=True)
    assert (tmp_path / "s.gpkg").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_folder_that_cannot_be_made_is_said(design, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="sample cannot be written"):
        write_design(tmp_path / "file" / "s.gpkg", design)


@pytest.mark.parametrize("name", ["s.shp", "s"])
def test_a_sample_is_a_geopackage_by_its_name_too(design, tmp_path, name):
    with pytest.raises(OutputError, match=r"ends in \.gpkg"):
        write_design(tmp_path / name, design)
    assert not (tmp_path / name).exists()


_QGIS = """
from qgis.core import QgsApplication, QgsVectorLayer
app = QgsApplication([], False); app.initQgis()
layer = QgsVectorLayer(PATH + "|layername=sample", "s", "ogr")
names = [field.name() for field in layer.fields()]
setup = lambda name: layer.editorWidgetSetup(names.index(name))
choices = [list(item.values())[0] for item in setup("reference").config()["map"]]
print("RESULT", setup("reference").type(), choices, setup("inclusion_probability").type(),
      len(layer.renderer().categories()), layer.featureCount())
"""


def test_qgis_offers_the_legend_as_a_list_of_values(design, tmp_path):
    qgis = SYSTEM_PYTHON.exists() and subprocess.run(
        [str(SYSTEM_PYTHON), "-c", "import qgis.core"], capture_output=True, check=False
    )
    if not qgis or qgis.returncode:
        pytest.skip("QGIS's Python is not installed on the system")
    files = write_design(tmp_path / "s.gpkg", design)
    script = _QGIS.replace("PATH", repr(str(files.geopackage)))
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GDAL", "PROJ"))}
    out = subprocess.run(
        [str(SYSTEM_PYTHON), "-c", script], capture_output=True, text=True, check=False,
        env=plain | {"QT_QPA_PLATFORM": "offscreen"},
    )  # fmt: skip
    assert "RESULT ValueMap ['forest', 'water', 'field'] Hidden 4 40" in out.stdout, out.stderr
