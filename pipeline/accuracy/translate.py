"""Maps of another legend, public ones above all, brought to the classes of one's own through a crosswalk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipeline.accuracy.crosswalk import check_known, to_codes
from pipeline.accuracy.pixels import strips
from pipeline.accuracy.slots import open_slots
from pipeline.errors import LegendError, OutputError, PipelineError, SceneError
from pipeline.grid import Grid, Window
from pipeline.legend import NODATA, UNLABELLED
from pipeline.maps.legends import LEGEND_TAG, read_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme

_BLOCK_PX = 256


def codes_of_values(
    path: Path | str, values: Sequence[int], *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None
) -> NDArray[np.int16]:
    """Class codes int16 [value] of a raster's values: by crosswalk, else by its own legend, else as they are.

    A class that the crosswalk leaves out is -1; 0 and 255 are blank (0) unless crosswalk or legend know them.

    Raises:
        LegendError: values that lead to no class.
    """
    table = crosswalk or {}
    try:
        names = {item.code: item.name for item in read_scheme(path).classes}
    except (LegendError, PipelineError):
        names = {}
    labels: list[object] = []
    for value in values:
        known = str(value) in table or value in names
        if not known and value in {NODATA, UNLABELLED}:
            labels.append(None)
        else:
            labels.append(str(value) if str(value) in table else names.get(value, str(value)))
    codes, unknown = to_codes(labels, scheme=scheme, crosswalk=crosswalk)
    check_known(unknown, scheme=scheme, path=path)
    return codes


def translate_map(
    path: Path | str, output: Path, *, scheme: ClassScheme, crosswalk: Mapping[str, str], around: Grid
) -> Path:
    """Write the part of a map that lies under ``around``, on its own pixels, in the codes of ``scheme``.

    Raises:
        SceneError: the map cannot be read, or lies elsewhere.
        LegendError: values that the crosswalk does not lead to a class.
        OutputError: the file cannot be written.
    """
    with open_slots(path) as reader:
        grid, window = _under(path, around)
        profile = {
            "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "compress": "deflate", "tiled": True,
            "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX, "height": grid.height, "width": grid.width,
            "crs": grid.crs, "transform": grid.transform,
        }  # fmt: skip
        table = np.zeros(1, dtype=np.uint8)
        try:
            with rasterio.open(output, "w", **profile) as target:
                target.update_tags(**{LEGEND_TAG: json.dumps(scheme.to_json())})
                for strip in strips(grid, _BLOCK_PX):
                    here = Window(strip.row + window.row, strip.col + window.col, strip.height, strip.width)
                    slots = reader.read(here)
                    if len(reader.values) >= len(table):
                        found = codes_of_values(path, reader.values, scheme=scheme, crosswalk=crosswalk)
                        table = np.concatenate([[NODATA], np.maximum(found, NODATA)]).astype(np.uint8)
                    target.write(table[slots], 1, window=strip.to_rasterio())
        except (RasterioError, OSError) as err:
            raise OutputError("translated map cannot be written", path=output, got=err) from err
    return output


def _under(path: Path | str, around: Grid) -> tuple[Grid, Window]:
    """The grid of the part of a raster under another grid, one pixel wider on all sides, and where it lies."""
    with rasterio.open(path) as dataset:
        if dataset.crs is None:
            raise SceneError("raster has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
        grid = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    window = grid.window_of_bounds(transform_bounds(around.crs, grid.crs, *around.bounds))
    window = None if window is None else window.expand(1).intersect(grid.window)
    if window is None:
        raise SceneError("the two maps do not overlap", path=path)
    return grid.crop(window), window
