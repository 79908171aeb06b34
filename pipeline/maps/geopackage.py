"""GeoPackages of a few layers that are held in memory, each with the style that QGIS opens it with."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyogrio.errors import DataLayerError, DataSourceError

from pipeline.files import whole_file
from pipeline.maps.vectors import add_layer_style

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame

# What writing a GeoPackage fails with, OSError aside.
FAILURES = (DataSourceError, DataLayerError, sqlite3.Error)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a GeoPackage.

    Attributes:
        name: Of the layer.
        frame: Its features; an empty layer is one of polygons.
        style: QML; "" for none.
    """

    name: str
    frame: GeoDataFrame
    style: str = ""


def write_geopackage(path: Path, layers: Sequence[Layer], *, what: str, overwrite: bool = True) -> Path:
    """Write layers into one GeoPackage, whole or not at all.

    Args:
        path: The GeoPackage.
        layers: In the order in which QGIS lists them.
        what: What is written, for the message.
        overwrite: Replace a file of that name.

    Raises:
        OutputError: see :func:`pipeline.files.whole_file`.
    """
    with whole_file(path, what=what, failures=FAILURES, overwrite=overwrite) as part:
        for layer in layers:
            kind = "Polygon" if layer.frame.empty else None
            layer.frame.to_file(part, layer=layer.name, driver="GPKG", engine="pyogrio", geometry_type=kind)
            if layer.style:
                add_layer_style(part, layer=layer.name, style=layer.style)
    return path
