"""The picture of the README: scene, map and QGIS project of a finished ``landcover demo``.

``python tools/picture.py demo docs/images/demo.png``; the project is drawn by the system's QGIS (python3-qgis).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.patches import Patch
from PIL import Image

from pipeline.maps.look import to_rgb
from pipeline.scenes.opening import open_scene
from pipeline.workflow.demo import SCENE, find_sample_data

QGIS_PYTHON = "/usr/bin/python3"
SIDE_PX = 900
_DRAW = """
import os, sys, tempfile
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QGIS_CUSTOM_CONFIG_PATH"] = tempfile.mkdtemp()
from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsProject
from qgis.PyQt.QtCore import QSize
app = QgsApplication([], False)
app.initQgis()
project = QgsProject.instance()
project.read(sys.argv[1])
settings = QgsMapSettings()
shown = [layer for layer in project.layerTreeRoot().layerOrder()
         if project.layerTreeRoot().findLayer(layer.id()).isVisible()]
settings.setLayers(shown)
settings.setDestinationCrs(project.crs())
settings.setOutputSize(QSize(int(sys.argv[3]), int(sys.argv[3])))
extent = next(layer for layer in shown if layer.name().startswith("land cover") or "lc" in layer.source()).extent()
extent.scale(0.45)
settings.setExtent(extent)
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(sys.argv[2])
sys.stdout.flush()
os._exit(0)
"""


def draw_project(project: Path, *, side_px: int = SIDE_PX) -> np.ndarray:
    """The middle of a QGIS project as QGIS draws it, uint8 [row,col,rgba]."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ_", "GDAL_"))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "project.png"
        command = [QGIS_PYTHON, "-c", _DRAW, str(project), str(path), str(side_px)]
        subprocess.run(command, check=True, env=environment)  # noqa: S603 - a program of our own
        return np.asarray(plt.imread(path))


def draw(demo: Path, target: Path) -> None:
    """Write the picture of a finished demo."""
    run = demo / "demo-run"
    with rasterio.open(run / "maps" / "sentinel2_lc.tif") as file:
        codes, palette = file.read(1), file.colormap(1)
    colours = np.array([palette.get(code, (0, 0, 0, 0)) for code in range(256)], dtype=np.uint8)
    names = _legend(run)
    mpl.rcParams["font.size"] = 9
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), layout="constrained")
    pictures = (
        ("scene (simulated Sentinel-2)", to_rgb(open_scene(find_sample_data() / SCENE), max_px=SIDE_PX)),
        ("map", colours[codes]),
        ("the project in QGIS, with the training polygons", draw_project(run / "demo.qgz")),
    )
    for axis, (title, picture) in zip(axes, pictures, strict=True):
        axis.imshow(picture)
        axis.set_title(title)
        axis.axis("off")
    handles = [Patch(color=colours[code] / 255, label=name) for code, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    with Image.open(target) as whole:
        small = whole.convert("RGB").quantize(128)
    small.save(target, optimize=True)


def _legend(run: Path) -> dict[int, str]:
    from pipeline.config import load_config

    return {item.code: item.name for item in load_config(run / "config.yaml").classes}


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
