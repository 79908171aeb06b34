"""What there is to look at: a class map, the rasters that were written with it, and the scene it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import rasterio
from defusedxml import ElementTree
from rasterio.errors import RasterioError

from pipeline.errors import InputError
from pipeline.grid import Grid
from pipeline.legend import NODATA
from pipeline.maps.geotiff import DISSIMILARITY_NODATA, PERCENT_NODATA
from pipeline.maps.legends import read_scheme
from pipeline.maps.sidecars import sidecar_paths
from pipeline.maps.style import BLUE_TO_RED, MAGMA, VIRIDIS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source

CLASSES = "lc"
_SUFFIX = "_lc"


@dataclass(frozen=True)
class FileLayer:
    """One band of a file of uint8 values.

    Attributes:
        id: Short and unique in its map: "lc", "conf", "probability-3" (the class with code 3).
        label: What it is called.
        path: The file.
        band: From 1.
        nodata: Value that means "not seen".
        colors: Stops of the colour ramp ``#rrggbb``, evenly spread from 0 to ``maximum``; empty for classes.
        maximum: Value of the last stop.
        unit: Of the values.
    """

    id: str
    label: str
    path: Path
    band: int = 1
    nodata: int = PERCENT_NODATA
    colors: tuple[str, ...] = ()
    maximum: int = 100
    unit: str = "%"


@dataclass(frozen=True)
class ViewedMap:
    """A class map with what belongs to it.

    Attributes:
        name: What the user calls it.
        grid: Where its pixels lie.
        scheme: Its legend.
        layers: The classes first.
        area_ha: Area of each class code, as far as the file says.
        scene: What it was made from, None where that is not known.
    """

    name: str
    grid: Grid
    scheme: ClassScheme
    layers: tuple[FileLayer, ...]
    area_ha: Mapping[int, float]
    scene: Source | None = None


def open_map(path: Path, *, name: str, scene: Source | None = None) -> ViewedMap:
    """A class map with the rasters beside it that bear its name: ``<scene>_conf.tif`` of ``<scene>_lc.tif`` ...

    Raises:
        InputError: a file cannot be opened, or is no class map of uint8 with a CRS.
        LegendError: the map does not say what its codes mean.
    """
    grid, _ = _look(path)
    scheme = read_scheme(path)
    layers = [FileLayer(CLASSES, "Land cover", path, nodata=NODATA)]
    stem = path.stem.removesuffix(_SUFFIX)
    for kind, label, colors, maximum, unit in _PERCENT_LAYERS:
        file = path.with_name(f"{stem}_{kind}.tif")
        if file.exists() and _look(file)[0].same_pixels_as(grid):
            nodata = DISSIMILARITY_NODATA if kind == "aoa" else PERCENT_NODATA
            layers.append(
                FileLayer(kind, label, file, nodata=nodata, colors=colors, maximum=maximum, unit=unit)
            )  # fmt: skip
    layers += _probabilities(path.with_name(f"{stem}_probabilities.tif"), grid, scheme)
    return ViewedMap(name, grid, scheme, tuple(layers), class_areas(path), scene)


# (ending of the file, label, colours, value of the last colour, unit): as pipeline.maps.geotiff writes them.
_PERCENT_LAYERS = (
    ("conf", "Confidence", VIRIDIS, 100, "%"),
    ("margin", "Margin to the second class", VIRIDIS, 100, "%"),
    ("entropy", "Entropy", MAGMA, 100, "%"),
    ("aoa", "Dissimilarity from the training data", BLUE_TO_RED, 200, "% of the threshold"),
)


def _probabilities(path: Path, grid: Grid, scheme: ClassScheme) -> list[FileLayer]:
    if not path.exists():
        return []
    own, bands = _look(path)
    if not own.same_pixels_as(grid) or bands != len(scheme):
        return []
    return [
        FileLayer(f"probability-{item.code}", f"Probability of {item.name}", path, number, colors=VIRIDIS)
        for number, item in enumerate(scheme.classes, start=1)
    ]


def _look(path: Path) -> tuple[Grid, int]:
    """Grid and number of bands of a file of uint8."""
    try:
        with rasterio.open(path) as dataset:
            types, crs, count = set(dataset.dtypes), dataset.crs, dataset.count
            place = (dataset.transform, dataset.height, dataset.width)
    except (RasterioError, OSError) as err:
        raise InputError("cannot open the map", path=path, got=err) from err
    if types != {"uint8"}:
        raise InputError("not a class map", path=path, got=", ".join(sorted(types)), expected="uint8")
    if crs is None:
        raise InputError("the map has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
    return Grid(crs, *place), count


def class_areas(path: Path) -> dict[int, float]:
    """Area in ha of each class code, from the attribute table beside the map; empty where there is none."""
    aux = sidecar_paths(path)[0]
    try:
        root = ElementTree.parse(aux).getroot()
    except (ElementTree.ParseError, OSError):
        return {}
    table = None if root is None else root.find("PAMRasterBand/GDALRasterAttributeTable")
    names = [] if table is None else [field.findtext("Name") for field in table.findall("FieldDefn")]
    if table is None or not {"Value", "Area_ha"} <= set(names):
        return {}
    rows = [[cell.text or "0" for cell in row.findall("F")] for row in table.findall("Row")]
    value, area = names.index("Value"), names.index("Area_ha")
    return {int(row[value]): float(row[area]) for row in rows}
