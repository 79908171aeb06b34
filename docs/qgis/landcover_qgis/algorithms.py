# ruff: noqa: ANN001, ANN201, N802 - QGIS finds methods by name, and its own Python may be old
"""QGIS Processing algorithms, one per ``landcover`` command: init, check, run, predict, design, assess, labels audit.

Two more save steps: *train* is init and run, *load* adds the maps of a folder to the project.
"""

import json
from pathlib import Path

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputFolder,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
)

from .command import find_command, layer_path, load_on_completion, products, run_command


def enum(scope, kind, name):
    """An enum's value by name: under its type, as Qt 6 wants it, or beside it, as old bindings of Qt 5 have it."""
    holder = getattr(scope, kind, scope)
    return getattr(holder if hasattr(holder, name) else scope, name)


RASTER = enum(QgsProcessing, "SourceType", "TypeRaster")
POLYGON = enum(QgsProcessing, "SourceType", "TypeVectorPolygon")
ADVANCED = enum(QgsProcessingParameterDefinition, "Flag", "FlagAdvanced")
FOLDER = enum(QgsProcessingParameterFile, "Behavior", "Folder")
INTEGER = enum(QgsProcessingParameterNumber, "Type", "Integer")

KINDS = ("stratified", "simple_random", "systematic", "cluster", "two_stage")
CONFIG = ("CONFIG", "Settings (config.yaml)")


class LandcoverAlgorithm(QgsProcessingAlgorithm):
    """What the algorithms share: names from the class, the parameter that names the command, the report as JSON."""

    NAME = ""
    TITLE = ""
    HELP = ""
    COMMAND = "COMMAND"

    def createInstance(self):
        """A fresh algorithm, as QGIS asks for."""
        return type(self)()

    def name(self):
        """Identifier."""
        return self.NAME

    def displayName(self):
        """Name in the toolbox."""
        return self.TITLE

    def shortHelpString(self):
        """Help beside the dialog."""
        return self.HELP

    def parameters(self):
        """The algorithm's own parameters."""
        return []

    def initAlgorithm(self, config=None):
        """Declare parameters and outputs."""
        del config
        for parameter in self.parameters():
            self.addParameter(parameter)
        command = QgsProcessingParameterString(
            self.COMMAND, "landcover command (where it is not on the path)", "", optional=True
        )
        command.setFlags(command.flags() | ADVANCED)
        self.addParameter(command)
        self.addOutput(QgsProcessingOutputString("RESULT", "What the command reported, as JSON"))

    def call(self, arguments, parameters, context, feedback, *, cwd=None):
        """Run ``landcover ARGUMENTS --json``; its report as text."""
        command = find_command(self.parameterAsString(parameters, self.COMMAND, context))
        return json.dumps(run_command([command, *arguments, "--json"], feedback, cwd=cwd))

    def output_file(self, parameters, context):
        """The file named by OUTPUT, with its folder made."""
        path = Path(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def output_folder(self, parameters, context):
        """The folder named by OUTPUT, made."""
        folder = Path(self.parameterAsString(parameters, "OUTPUT", context))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scene_options(self, parameters, context):
        """``--scene FILE`` for every layer of SCENES."""
        layers = self.parameterAsLayerList(parameters, "SCENES", context)
        return [part for layer in layers for part in ("--scene", layer_path(layer))]

    def label_options(self, parameters, context):
        """``--labels FILE --field NAME``, and the layer of a file with several."""
        layer = self.parameterAsVectorLayer(parameters, "LABELS", context)
        field = self.parameterAsFields(parameters, "FIELD", context)[0]
        named = [part for part in layer.source().split("|")[1:] if part.startswith("layername=")]
        chosen = ["--layer", named[0].split("=", 1)[1]] if named else []
        return ["--labels", layer_path(layer), "--field", field, *chosen]


def training_parameters():
    """Scenes, labels and the field with the class."""
    return [
        QgsProcessingParameterMultipleLayers("SCENES", "Scenes", RASTER),
        QgsProcessingParameterVectorLayer("LABELS", "Training polygons", [POLYGON]),
        QgsProcessingParameterField("FIELD", "Field with the class", parentLayerParameterName="LABELS"),
    ]


def overwrite_parameter():
    """Whether files of the same name are replaced."""
    return QgsProcessingParameterBoolean("OVERWRITE", "Replace what is there", defaultValue=False)


class InitLandcover(LandcoverAlgorithm):
    """``landcover init``."""

    NAME = "init"
    TITLE = "1. Write the settings of a job (init)"
    HELP = "Looks at scenes and training polygons and writes a commented configuration that runs as it is."

    def parameters(self):
        """Scenes, labels, field, file."""
        target = QgsProcessingParameterFileDestination("OUTPUT", "Settings", "Settings (*.yaml)")
        return [*training_parameters(), overwrite_parameter(), target]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        path = self.output_file(parameters, context)
        arguments = ["init", *self.scene_options(parameters, context), *self.label_options(parameters, context)]
        more = ["--overwrite"] if self.parameterAsBool(parameters, "OVERWRITE", context) else []
        result = self.call([*arguments, "-o", str(path), *more], parameters, context, feedback, cwd=path.parent)
        return {"OUTPUT": str(path), "RESULT": result}


class CheckLandcover(LandcoverAlgorithm):
    """``landcover check``."""

    NAME = "check"
    TITLE = "2. Check a job before it runs (check)"
    HELP = "The dry run: CRS, overlap, bands, values, classes per part; and what time, memory and disk it will take."

    def parameters(self):
        """The settings."""
        return [QgsProcessingParameterFile(*CONFIG, extension="yaml")]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        config = Path(self.parameterAsFile(parameters, "CONFIG", context))
        return {"RESULT": self.call(["check", str(config)], parameters, context, feedback, cwd=config.parent)}


class RunLandcover(LandcoverAlgorithm):
    """``landcover run``."""

    NAME = "run"
    TITLE = "3. Train and map (run)"
    HELP = (
        "Trains a model on the labels of the settings, maps the scenes, judges the map on held-out polygons and writes "
        "a report and a QGIS project. Takes from minutes to hours; what was interrupted goes on where it stopped."
    )

    def parameters(self):
        """The settings."""
        load = QgsProcessingParameterBoolean("LOAD", "Load the maps", defaultValue=True)
        return [QgsProcessingParameterFile(*CONFIG, extension="yaml"), overwrite_parameter(), load]

    def initAlgorithm(self, config=None):
        """Also the project."""
        super().initAlgorithm(config)
        self.addOutput(QgsProcessingOutputFile("PROJECT", "QGIS project"))
        self.addOutput(QgsProcessingOutputFile("REPORT", "Report"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        config = Path(self.parameterAsFile(parameters, "CONFIG", context))
        more = ["--overwrite"] if self.parameterAsBool(parameters, "OVERWRITE", context) else []
        result = self.call(["run", str(config), *more], parameters, context, feedback, cwd=config.parent)
        written = [config.parent / path for path in json.loads(result).get("written", [])]
        found = {path.suffix: path for path in reversed(written)}
        if self.parameterAsBool(parameters, "LOAD", context) and ".qgz" in found:
            load_on_completion(products(found[".qgz"].parent), context)
        return {"PROJECT": str(found.get(".qgz", "")), "REPORT": str(found.get(".html", "")), "RESULT": result}


class TrainLandcover(LandcoverAlgorithm):
    """Scenes and polygons to a model and a map: ``landcover init``, then ``landcover run``."""

    NAME = "train"
    TITLE = "Train a land-cover model and map the scenes (init and run)"
    HELP = (
        "Fine-tunes a network on training polygons and maps the scenes with it. Training takes from minutes "
        "to hours; the log shows its progress. The folder receives the settings (config.yaml), the run and maps."
    )

    def parameters(self):
        """Scenes, labels, field, folder."""
        load = QgsProcessingParameterBoolean("LOAD", "Load the maps", defaultValue=True)
        return [*training_parameters(), load, QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the run")]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the two commands."""
        folder = self.output_folder(parameters, context)
        config = folder / "config.yaml"
        arguments = ["init", *self.scene_options(parameters, context), *self.label_options(parameters, context)]
        self.call([*arguments, "-o", str(config)], parameters, context, feedback, cwd=folder)
        result = self.call(["run", str(config)], parameters, context, feedback, cwd=folder)
        if self.parameterAsBool(parameters, "LOAD", context):
            load_on_completion(products(folder), context)
        return {"OUTPUT": str(folder), "RESULT": result}


class PredictLandcover(LandcoverAlgorithm):
    """``landcover predict``."""

    NAME = "predict"
    TITLE = "4. Map scenes with a land-cover model (predict)"
    HELP = "Maps scenes with a trained model file and loads the class map, confidence and polygons with their styles."

    def parameters(self):
        """Model, scenes, folder."""
        return [
            QgsProcessingParameterFile("MODEL", "Model file"),
            QgsProcessingParameterMultipleLayers("SCENES", "Scenes", RASTER),
            QgsProcessingParameterBoolean("POLYGONS", "Also polygons", defaultValue=False),
            QgsProcessingParameterBoolean("LOAD", "Load the maps", defaultValue=True),
            QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the maps"),
        ]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        folder = self.output_folder(parameters, context)
        model = self.parameterAsFile(parameters, "MODEL", context)
        arguments = ["predict", "--model", model, *self.scene_options(parameters, context), "-o", str(folder)]
        more = ["--polygons"] if self.parameterAsBool(parameters, "POLYGONS", context) else []
        result = self.call([*arguments, *more], parameters, context, feedback, cwd=folder)
        if self.parameterAsBool(parameters, "LOAD", context):
            load_on_completion(products(folder), context)
        return {"OUTPUT": str(folder), "RESULT": result}


class DesignLandcover(LandcoverAlgorithm):
    """``landcover design``."""

    NAME = "design"
    TITLE = "5. Draw a sample to judge a map (design)"
    HELP = (
        "Draws a probability sample from a class map: points without a class, to be interpreted in QGIS and given to "
        "assess. Without a size, the sample is as large as the standard error aimed at needs."
    )

    def parameters(self):
        """Map, kind, size, seed, file."""
        size = QgsProcessingParameterNumber("SIZE", "Sample size (0: from the target)", INTEGER, 0, minValue=0)
        return [
            QgsProcessingParameterRasterLayer("MAP", "Class map"),
            QgsProcessingParameterEnum("KIND", "Kind of sample", options=list(KINDS), defaultValue=0),
            size,
            QgsProcessingParameterNumber("SEED", "Seed", INTEGER, 0, minValue=0),
            overwrite_parameter(),
            QgsProcessingParameterFileDestination("OUTPUT", "Sample", "GeoPackage (*.gpkg)"),
        ]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command and load the sample."""
        path = self.output_file(parameters, context)
        arguments = ["design", layer_path(self.parameterAsRasterLayer(parameters, "MAP", context)), "-o", str(path)]
        arguments += ["--kind", KINDS[self.parameterAsEnum(parameters, "KIND", context)]]
        arguments += ["--seed", str(self.parameterAsInt(parameters, "SEED", context))]
        size = self.parameterAsInt(parameters, "SIZE", context)
        arguments += ["--size", str(size)] if size else []
        arguments += ["--overwrite"] if self.parameterAsBool(parameters, "OVERWRITE", context) else []
        result = self.call(arguments, parameters, context, feedback, cwd=path.parent)
        load_on_completion([path], context)
        return {"OUTPUT": str(path), "RESULT": result}


class AssessLandcover(LandcoverAlgorithm):
    """``landcover assess``."""

    NAME = "assess"
    TITLE = "6. Judge a map against reference data (assess)"
    HELP = (
        "Accuracy and area estimates of a class map against an interpreted sample (with its design file), reference "
        "points, polygons or a raster. The figures are written as JSON."
    )

    def parameters(self):
        """Map, reference, field, design, file."""
        return [
            QgsProcessingParameterRasterLayer("MAP", "Class map"),
            QgsProcessingParameterFile("REFERENCE", "Reference: points, polygons or raster"),
            QgsProcessingParameterString("FIELD", "Field with the reference class", "", optional=True),
            QgsProcessingParameterFile("DESIGN", "Design file of the sample", optional=True),
            QgsProcessingParameterFileDestination("OUTPUT", "Figures", "JSON (*.json)"),
        ]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command."""
        path = self.output_file(parameters, context)
        arguments = ["assess", layer_path(self.parameterAsRasterLayer(parameters, "MAP", context))]
        arguments += ["--reference", self.parameterAsFile(parameters, "REFERENCE", context)]
        field = self.parameterAsString(parameters, "FIELD", context)
        design = self.parameterAsFile(parameters, "DESIGN", context)
        arguments += ["--field", field] if field else []
        arguments += ["--design", design] if design else []
        result = self.call([*arguments, "-o", str(path)], parameters, context, feedback, cwd=path.parent)
        return {"OUTPUT": str(path), "RESULT": result}


class AuditLabels(LandcoverAlgorithm):
    """``landcover labels audit``."""

    NAME = "labels_audit"
    TITLE = "7. Find doubtful labels and where to label next (labels audit)"
    HELP = "Lists doubtful polygons of a run and the places whose labels would teach most, as layers."

    def parameters(self):
        """Settings, number of places, file."""
        return [
            QgsProcessingParameterFile(*CONFIG, extension="yaml"),
            QgsProcessingParameterNumber("COUNT", "Places to label next", INTEGER, 30, minValue=0),
            overwrite_parameter(),
            QgsProcessingParameterFileDestination("OUTPUT", "Layers", "GeoPackage (*.gpkg)"),
        ]

    def processAlgorithm(self, parameters, context, feedback):
        """Run the command and load its layers."""
        path = self.output_file(parameters, context)
        config = Path(self.parameterAsFile(parameters, "CONFIG", context))
        arguments = ["labels", "audit", str(config), "-o", str(path)]
        arguments += ["--count", str(self.parameterAsInt(parameters, "COUNT", context))]
        arguments += ["--overwrite"] if self.parameterAsBool(parameters, "OVERWRITE", context) else []
        result = self.call(arguments, parameters, context, feedback, cwd=config.parent)
        load_on_completion([path], context)
        return {"OUTPUT": str(path), "RESULT": result}


class LoadLandcover(LandcoverAlgorithm):
    """Add the maps of a folder to the project, styled."""

    NAME = "load"
    TITLE = "Load land-cover results"
    HELP = "Adds class maps, confidence and polygons found under a folder to the project; their own styles apply."

    def initAlgorithm(self, config=None):
        """A folder; no command is needed."""
        del config
        self.addParameter(QgsProcessingParameterFile("FOLDER", "Folder of a run or of maps", FOLDER))
        self.addOutput(QgsProcessingOutputFolder("FOLDER", "Folder"))
        self.addOutput(QgsProcessingOutputString("LAYERS", "Files that were loaded, as JSON"))

    def processAlgorithm(self, parameters, context, feedback):
        """Find and load."""
        folder = self.parameterAsFile(parameters, "FOLDER", context)
        found = products(folder)
        if not found:
            raise QgsProcessingException("No *_lc.tif, *_conf.tif or *_lc.gpkg under this folder.")
        load_on_completion(found, context)
        for path in found:
            feedback.pushInfo(str(path))
        return {"FOLDER": folder, "LAYERS": json.dumps([str(path) for path in found])}


ALGORITHMS = (
    InitLandcover,
    CheckLandcover,
    RunLandcover,
    TrainLandcover,
    PredictLandcover,
    DesignLandcover,
    AssessLandcover,
    AuditLabels,
    LoadLandcover,
)
