# ruff: noqa: ANN001, ANN201, N802, S603 - QGIS finds methods by name; arguments are a list, not a shell line
"""QGIS Processing algorithms that call the ``landcover`` command: train, predict, load results styled.

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
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
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
            QgsVectorLayer(f"{path}|layername=landcover", path.stem, "ogr")
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


class LandcoverAlgorithm(QgsProcessingAlgorithm):
    """What the algorithms share: the parameter that names the command."""

    COMMAND = "COMMAND"

    def createInstance(self):
        """A fresh algorithm, as QGIS asks for."""
        return type(self)()

    def add_command(self):
        """Add the advanced parameter with the path of the command."""
        parameter = QgsProcessingParameterString(
            self.COMMAND, "landcover command (where it is not on the path)", "", optional=True
        )
        parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(parameter)

    def command(self, parameters, context):
        """The command's path."""
        return find_command(self.parameterAsString(parameters, self.COMMAND, context))


class TrainLandcover(LandcoverAlgorithm):
    """Scenes and polygons to a model and a map: ``landcover init``, then ``landcover run``."""

    def name(self):
        """Identifier."""
        return "train"

    def displayName(self):
        """Name in the toolbox."""
        return "Train a land-cover model and map the scenes"

    def shortHelpString(self):
        """Help beside the dialog."""
        return (
            "Fine-tunes a network on training polygons and maps the scenes with it. Training takes from minutes "
            "to hours; the log shows its progress. The folder receives the settings (config.yaml), the run and maps."
        )

    def initAlgorithm(self, config=None):
        """Declare parameters and outputs."""
        del config
        self.addParameter(QgsProcessingParameterMultipleLayers("SCENES", "Scenes", QgsProcessing.TypeRaster))
        self.addParameter(
            QgsProcessingParameterVectorLayer("LABELS", "Training polygons", [QgsProcessing.TypeVectorPolygon])
        )
        self.addParameter(
            QgsProcessingParameterField("FIELD", "Field with the class", parentLayerParameterName="LABELS")
        )
        self.addParameter(QgsProcessingParameterBoolean("LOAD", "Load the results", defaultValue=True))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the run"))
        self.add_command()
        self.addOutput(QgsProcessingOutputString("RESULT", "What the command reported, as JSON"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run the two commands."""
        command = self.command(parameters, context)
        folder = Path(self.parameterAsString(parameters, "OUTPUT", context))
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [layer_path(layer) for layer in self.parameterAsLayerList(parameters, "SCENES", context)]
        labels = layer_path(self.parameterAsVectorLayer(parameters, "LABELS", context))
        field = self.parameterAsFields(parameters, "FIELD", context)[0]
        config = folder / "config.yaml"
        scene_options = [part for scene in scenes for part in ("--scene", scene)]
        init = [command, "init", *scene_options, "--labels", labels, "--field", field, "-o", str(config)]
        run_command(init, feedback, cwd=folder)
        result = run_command([command, "run", str(config), "--json"], feedback, cwd=folder)
        if self.parameterAsBool(parameters, "LOAD", context):
            load_on_completion(products(folder), context)
        return {"OUTPUT": str(folder), "RESULT": json.dumps(result)}


class PredictLandcover(LandcoverAlgorithm):
    """A model and scenes to maps: ``landcover predict``."""

    def name(self):
        """Identifier."""
        return "predict"

    def displayName(self):
        """Name in the toolbox."""
        return "Map scenes with a land-cover model"

    def shortHelpString(self):
        """Help beside the dialog."""
        return (
            "Maps scenes with a trained model file and loads the class map, confidence and polygons with their styles."
        )

    def initAlgorithm(self, config=None):
        """Declare parameters and outputs."""
        del config
        self.addParameter(QgsProcessingParameterFile("MODEL", "Model file"))
        self.addParameter(QgsProcessingParameterMultipleLayers("SCENES", "Scenes", QgsProcessing.TypeRaster))
        self.addParameter(QgsProcessingParameterBoolean("LOAD", "Load the results", defaultValue=True))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the maps"))
        self.add_command()
        self.addOutput(QgsProcessingOutputString("RESULT", "What the command reported, as JSON"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        command = self.command(parameters, context)
        folder = Path(self.parameterAsString(parameters, "OUTPUT", context))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.parameterAsFile(parameters, "MODEL", context)
        scenes = [layer_path(layer) for layer in self.parameterAsLayerList(parameters, "SCENES", context)]
        scene_options = [part for scene in scenes for part in ("--scene", scene)]
        arguments = [command, "predict", "--model", model, *scene_options, "-o", str(folder), "--json"]
        result = run_command(arguments, feedback, cwd=folder)
        if self.parameterAsBool(parameters, "LOAD", context):
            load_on_completion(products(folder), context)
        return {"OUTPUT": str(folder), "RESULT": json.dumps(result)}


class LoadLandcover(LandcoverAlgorithm):
    """Add the maps of a folder to the project, styled."""

    def name(self):
        """Identifier."""
        return "load"

    def displayName(self):
        """Name in the toolbox."""
        return "Load land-cover results"

    def shortHelpString(self):
        """Help beside the dialog."""
        return "Adds class maps, confidence and polygons found under a folder to the project; their own styles apply."

    def initAlgorithm(self, config=None):
        """Declare parameters and outputs."""
        del config
        folder = QgsProcessingParameterFile("FOLDER", "Folder of a run or of maps", QgsProcessingParameterFile.Folder)
        self.addParameter(folder)
        self.addOutput(QgsProcessingOutputString("LAYERS", "Files that were loaded, as JSON"))

    def processAlgorithm(self, parameters, context, feedback):
        """Find and load."""
        found = products(self.parameterAsFile(parameters, "FOLDER", context))
        if not found:
            raise QgsProcessingException("No *_lc.tif, *_conf.tif or *_lc.gpkg under this folder.")
        load_on_completion(found, context)
        for path in found:
            feedback.pushInfo(str(path))
        return {"LAYERS": json.dumps([str(path) for path in found])}
