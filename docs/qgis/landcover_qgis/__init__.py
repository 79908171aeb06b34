# ruff: noqa: ANN001, ANN201, N802 - QGIS finds these by name, and its own Python may be old
"""QGIS plugin: land-cover algorithms in the Processing Toolbox that call the ``landcover`` command.

Install: ``make plugin`` writes ``dist/landcover_qgis.zip``; Plugins > Manage and Install Plugins > Install from ZIP.
Without a window: unpack it into ``python/plugins`` of the QGIS profile, then ``qgis_process plugins enable
landcover_qgis``. A lone Processing script can hold one algorithm only, hence a plugin.
"""

from qgis.core import QgsApplication, QgsProcessingProvider

from .algorithms import ALGORITHMS


class LandcoverProvider(QgsProcessingProvider):
    """The group "Land cover" of the toolbox."""

    def id(self):
        """Identifier: algorithms are called ``landcover:run`` and so on."""
        return "landcover"

    def name(self):
        """Name in the toolbox."""
        return "Land cover"

    def loadAlgorithms(self):
        """Add the algorithms."""
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())


class LandcoverPlugin:
    """Adds the provider when QGIS, or qgis_process, starts the plugin."""

    def __init__(self) -> None:
        self.provider = None

    def initProcessing(self):
        """Add the provider; all that qgis_process calls."""
        self.provider = LandcoverProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Add the provider in a QGIS with windows."""
        self.initProcessing()

    def unload(self):
        """Take the provider away."""
        QgsApplication.processingRegistry().removeProvider(self.provider)


def classFactory(iface):
    """What QGIS calls to start the plugin."""
    del iface
    return LandcoverPlugin()
