"""Open files in a real, headless QGIS, where the system has one, and say what a user would see."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
_PROGRAM = """
import json, os, sys, tempfile
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QGIS_CUSTOM_CONFIG_PATH"] = tempfile.mkdtemp()
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()

def seen(layer):
    renderer = layer.renderer() if layer.isValid() else None
    kind = renderer.type() if renderer else None
    labels = []
    if kind == "paletted":
        labels = [item.label for item in renderer.classes()]
    elif kind == "categorizedSymbol":
        labels = [item.label() for item in renderer.categories()]
    return {"name": layer.name(), "valid": layer.isValid(), "crs": layer.crs().authid(), "renderer": kind,
            "labels": labels, "in_tree": False}

out = []
for path in sys.argv[1:]:
    if path.endswith(".qgz"):
        project = QgsProject.instance()
        project.read(path)
        tree = {node.layerId() for node in project.layerTreeRoot().findLayers()}
        for key, layer in project.mapLayers().items():
            out.append({**seen(layer), "in_tree": key in tree, "project_crs": project.crs().authid()})
    elif path.endswith((".tif", ".vrt")):
        out.append(seen(QgsRasterLayer(path, "layer")))
    else:
        out.append(seen(QgsVectorLayer(path + "|layername=landcover", "layer", "ogr")))
print("RESULT" + json.dumps(out))
sys.stdout.flush()
os._exit(0)
"""


def what_qgis_shows(*paths: Path) -> list[dict]:
    """One entry per layer: name, valid, crs, renderer, labels, in_tree; skips where QGIS is not installed."""
    if not Path(PYTHON).exists():
        pytest.skip("no system Python to run PyQGIS with")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ_", "GDAL_"))}
    probe = subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True, env=environment, check=False)
    if probe.returncode != 0:
        pytest.skip("QGIS (python3-qgis) is not installed")
    command = [PYTHON, "-c", _PROGRAM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))
