"""What there is to look at: a class map, the rasters that were written with it, and the scene it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import InputError, LegendError
from pipeline.grid import Grid
from pipeline.legend import NODATA
from pipeline.maps.geotiff import classes_title, scene_files
from pipeline.maps.legends import read_counts, read_scheme
from pipeline.maps.style import LAYERS, PERCENT_NODATA, VIRIDIS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.legend import ClassScheme
    from pipeline.scenes.scene import Source

CLASSES = "lc"


@dataclass(frozen=True)
class FileLayer:
    """One band of a file of uint8 values."""

    id: str  # Short and unique in its map: "lc", "conf", "probability-3" (the class with code 3)
    label: str  # What it is called
    path: Path  # The file
    band: int = 1  # From 1
    nodata: int = PERCENT_NODATA  # Value that means "not seen"
    # Stops of the colour ramp ``#rrggbb``, evenly spread from 0 to ``maximum``; empty for classes
    colors: tuple[str, ...] = ()
    maximum: int = 100  # Value of the last stop
    unit: str = "%"  # Of the values


@dataclass(frozen=True)
class ViewedMap:
    """A class map with what belongs to it."""

    name: str  # What the user calls it
    grid: Grid  # Where its pixels lie
    scheme: ClassScheme  # Its legend
    layers: tuple[FileLayer, ...]  # The classes first
    area_ha: Mapping[int, float]  # Area of each class code, as far as the file says
    scene: Source | None = None  # What it was made from, None where that is not known


def open_viewed(path: Path, *, name: str, scene: Source | None = None) -> ViewedMap:
    """A class map with the rasters beside it that bear its name: ``<scene>_conf.tif`` of ``<scene>_lc.tif`` ...

    Raises:
        InputError: a file cannot be opened, or is no class map of uint8 with a CRS.
        LegendError: the map does not say what its codes mean.
    """
    grid, _ = _look(path)
    scheme = read_scheme(path)
    layers = FileLayer(CLASSES, classes_title(path), path, nodata=NODATA), *_beside(path, grid, scheme)
    return ViewedMap(name, grid, scheme, layers, _areas(path), scene)


def _beside(path: Path, grid: Grid, scheme: ClassScheme) -> Iterator[FileLayer]:
    """The layers in percent on the same pixels."""
    files = scene_files(path)
    for layer in LAYERS:
        file = files.layers.get(layer.key)
        if file and _look(file)[0].same_pixels_as(grid):
            yield FileLayer(
                layer.suffix, layer.label, file, colors=layer.colors, maximum=layer.maximum, unit=layer.unit
            )
    if files.probabilities:
        own, bands = _look(files.probabilities)
        if own.same_pixels_as(grid) and bands == len(scheme):
            for band, item in enumerate(scheme.classes, start=1):
                label = f"Probability of {item.name}"
                yield FileLayer(f"probability-{item.code}", label, files.probabilities, band, colors=VIRIDIS)


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


def _areas(path: Path) -> dict[int, float]:
    """Area in ha of each class code, from the attribute table beside the map; empty where there is none to read."""
    try:
        counts = read_counts(path)
    except LegendError:
        return {}
    return dict(zip(counts.scheme.codes, counts.area_ha, strict=True)) if counts else {}
