"""Open files in a real, headless QGIS, where the system has one, and say what a user would see."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

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


_LAYOUT = """
import json, os, sys, tempfile
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QGIS_CUSTOM_CONFIG_PATH"] = tempfile.mkdtemp()
from qgis.core import (QgsApplication, QgsLayerTreeModel, QgsLayoutExporter, QgsLayoutItem, QgsLayoutItemLabel,
                       QgsLayoutItemLegend, QgsMapLayerLegendUtils, QgsProject)
app = QgsApplication([], False)
app.initQgis()
project = QgsProject.instance()
project.read(sys.argv[1])
(layout,) = project.layoutManager().printLayouts()
items = [item for item in layout.items() if isinstance(item, QgsLayoutItem)]
legend = next(item for item in items if isinstance(item, QgsLayoutItemLegend))
shown = []
for node in legend.model().rootGroup().findLayers():
    shown += [entry.data(0) for entry in legend.model().layerLegendNodes(node)]
settings = QgsLayoutExporter.ImageExportSettings()
settings.dpi = 60
QgsLayoutExporter(layout).exportToImage(sys.argv[2], settings)
texts = {item.id(): item.text() for item in items if isinstance(item, QgsLayoutItemLabel)}
print("RESULT" + json.dumps({"items": [item.id() for item in items], "texts": texts, "legend": shown}))
sys.stdout.flush()
os._exit(0)
"""


def what_the_layout_shows(project: Path, picture: Path) -> dict:
    """Ids of the items of a project's only print layout, its texts and legend; ``picture`` is its export."""
    return _ask_qgis(_LAYOUT, project, picture)


def what_qgis_shows(*paths: Path) -> list[dict]:
    """One entry per layer: name, valid, crs, renderer, labels, in_tree; skips where QGIS is not installed."""
    return _ask_qgis(_PROGRAM, *paths)


def _ask_qgis(program: str, *paths: Path) -> Any:
    """What a program prints as JSON in the system's Python, where QGIS lives."""
    if not Path(PYTHON).exists():
        pytest.skip("no system Python to run PyQGIS with")
    if not _has_qgis():
        pytest.skip("QGIS (python3-qgis) is not installed")
    done = _python(program, *map(str, paths))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


@cache
def _has_qgis() -> bool:
    return _python("import qgis.core").returncode == 0


def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ_", "GDAL_"))}
    command = [PYTHON, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
