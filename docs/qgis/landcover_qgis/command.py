# ruff: noqa: ANN001, ANN201, S603 - the plugin's Python may be old; arguments are a list, not a shell line
"""Find and run the ``landcover`` command, and find what it wrote.

The command runs outside QGIS's Python, in the environment where it is installed; only this plugin enters QGIS. Where
QGIS does not find the command, give its path in the algorithm's dialog or in the variable LANDCOVER_COMMAND.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

COMMAND_VARIABLE = "LANDCOVER_COMMAND"
# Variables by which QGIS points its own Python and PROJ at its own files; another Python must not see them.
QGIS_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH")


def find_command(given):
    """The path of the landcover command, or an error that says where to name it."""
    for candidate in (given, os.environ.get(COMMAND_VARIABLE), "landcover"):
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
    raise QgsProcessingException(
        "The landcover command was not found. Give its path in 'landcover command', or set the environment variable "
        + COMMAND_VARIABLE
        + " (for example to .venv/bin/landcover of the folder where it is installed)."
    )


def run_command(arguments, feedback, *, cwd=None):
    """Run the command, show its lines as they come, stop it on cancel; returns the JSON that it prints at the end."""
    environment = {key: value for key, value in os.environ.items() if key not in QGIS_VARIABLES}
    environment["PYTHONUNBUFFERED"] = "1"
    feedback.pushCommandInfo(" ".join(arguments))
    hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=environment,
        encoding="utf-8",
        errors="replace",
        **hidden,
    )
    lines = []
    with process:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            feedback.pushConsoleInfo(lines[-1])
            if feedback.isCanceled():
                process.terminate()
                raise QgsProcessingException("Cancelled.")
    if process.returncode != 0:
        tail = "\n".join(lines[-5:])
        raise QgsProcessingException(f"landcover ended with status {process.returncode}:\n{tail}")
    return last_json(lines)


def last_json(lines):
    """The JSON object at the end of a command's output: the lines from the last that opens one; {} without one."""
    for start in range(len(lines) - 1, -1, -1):
        if lines[start].startswith("{"):
            try:
                found = json.loads("\n".join(lines[start:]))
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}


def layer_path(layer):
    """The file behind a layer; memory layers and databases have none."""
    path = layer.source().split("|")[0]
    if not (path.startswith("/vsi") or Path(path).exists()):
        raise QgsProcessingException(f"Layer '{layer.name()}' is no file. Export it to a GeoPackage or GeoTIFF first.")
    return path


def load_on_completion(paths, context):
    """Have QGIS add files to the project when the algorithm has ended; their own styles apply."""
    for path in paths:
        layer = (
            QgsVectorLayer(str(path), path.stem, "ogr")
            if path.suffix == ".gpkg"
            else QgsRasterLayer(str(path), path.stem, "gdal")
        )
        if not layer.isValid():
            continue
        details = QgsProcessingContext.LayerDetails(path.stem, context.project() or QgsProject.instance(), path.stem)
        context.temporaryLayerStore().addMapLayer(layer)
        context.addLayerToLoadOnCompletion(layer.id(), details)


def products(folder):
    """Class maps, confidence and polygons under a folder: what is drawn on top comes last."""
    found = []
    for pattern in ("*_conf.tif", "*_lc.tif", "*_lc.gpkg"):
        found += sorted(Path(folder).rglob(pattern))
    return found
