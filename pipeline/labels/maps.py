"""An existing map as training labels: pieces of its classes, drawn at random, as polygons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import LabelError
from pipeline.grid import Grid, Window
from pipeline.labels.outlines import pixel_outlines
from pipeline.labels.rasters import labels_from_raster
from pipeline.labels.source import LabelReport, Labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.legend import ClassScheme

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2", ".asc"})


def is_class_raster(path: Path | str) -> bool:
    """Whether a labels file is a raster by its name."""
    return Path(path).suffix.lower() in RASTER_SUFFIXES


def read_map_labels(
    path: Path | str,
    *,
    scheme: ClassScheme,
    extents: Sequence[tuple[tuple[float, float, float, float], str]],
    piece_px: int,
    pieces: int,
    seed: int = 0,
) -> Labels:
    """Polygons of a class raster, whose values are codes of ``scheme``.

    Connected pixels of one class, cut along a lattice so that a large region becomes many polygons that can be split
    into parts, are pieces; at most ``pieces`` of each class are drawn at random. Polygons follow the map's own pixels,
    in its own CRS. Only the part over the scenes is read.

    Args:
        path: The raster; integers, with a CRS.
        scheme: The classes; other values are unlabelled.
        extents: Bounds (left, bottom, right, top) and CRS of each scene.
        piece_px: Side of the lattice in pixels of the map.
        pieces: Most polygons of a class.
        seed: Of the choice.

    Raises:
        LabelError: not a class raster, not over the scenes, or without a class of the legend.
    """
    path = Path(path)
    grid = _part_over(path, extents)
    pixels = labels_from_raster(path, scheme=scheme, grid=grid, piece_px=piece_px)
    ids, first = np.unique(pixels.polygon, return_index=True)
    code = pixels.code[first]
    order = np.random.default_rng(seed).permutation(len(ids))
    kept = np.sort(np.concatenate([order[code[order] == value][:pieces] for value in np.unique(code)]))
    outlines = pixel_outlines(pixels, ids[kept])
    import geopandas as gpd

    names = {item.code: item.name for item in scheme.classes}
    frame = gpd.GeoDataFrame(
        {
            "poly_id": np.arange(1, len(kept) + 1, dtype=np.int32),
            "code": code[kept],
            "name": [names[int(value)] for value in code[kept]],
            "feature": ids[kept].astype(np.int64) - 1,
        },
        geometry=outlines,
        crs=str(grid.crs),
    )
    count = len(kept)
    return Labels(path, frame, scheme, LabelReport(count, 0, 0, 0, 0, 0, 0, count))


def _part_over(path: Path, extents: Sequence[tuple[tuple[float, float, float, float], str]]) -> Grid:
    """The raster's grid, cropped to the bounds of the scenes."""
    from rasterio.warp import transform_bounds

    try:
        with rasterio.open(path) as file:
            crs, transform, height, width = file.crs, file.transform, file.height, file.width
    except RasterioError as err:
        raise LabelError("not a raster that GDAL can open", path=path, got=err) from err
    if crs is None:
        raise LabelError("class raster has no CRS", path=path, fix="assign one with gdal_edit.py -a_srs")
    grid = Grid(crs, transform, height, width)
    windows = [grid.window_of_bounds(transform_bounds(of, crs, *bounds, densify_pts=21)) for bounds, of in extents]
    over = [window for window in windows if window is not None]
    if not over:
        raise LabelError("the map does not lie over the scenes", path=path, fix="check the CRS of both files")
    top, left = min(w.row for w in over), min(w.col for w in over)
    bottom, right = max(w.row_stop for w in over), max(w.col_stop for w in over)
    return grid.crop(Window(top, left, bottom - top, right - left))
