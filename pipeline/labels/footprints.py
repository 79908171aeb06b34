"""Footprints of objects: read as polygons whatever their attributes, how wide they are, and the ground around them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.labels.polygons import clean_polygons
from pipeline.labels.rasterise import to_grid_crs
from pipeline.labels.settings import split_source
from pipeline.labels.vectors import read_layer, resolve_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.labels.source import Labels

VECTOR_SUFFIXES = frozenset(
    {".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".geoparquet", ".pq", ".kml", ".gml"}
)
# Pixels that are wider than this share of the objects' median width hold no object as a whole.
COARSE = 1 / 3
_HALF_TURN = 2


def is_vector(path: Path | str) -> bool:
    """Whether a file is one of vectors by its name."""
    return Path(split_source(str(path))[0]).suffix.lower() in VECTOR_SUFFIXES


def read_footprints(path: Path | str, *, layer: str | None = None, may_be_empty: bool = False) -> GeoDataFrame:
    """Polygons of a layer with all its fields, valid; a LabelWarning says how many were repaired or left out.

    Args:
        path: A vector file, or QGIS's file.gpkg|layername=fields.
        layer: Its layer, where it has several.
        may_be_empty: Whether a layer without features is one of no objects.

    Raises:
        LabelError: not a vector file, no CRS, no features, or lines and points only.
    """
    file, named = split_source(str(path))
    frame = read_layer(Path(file), field=None, layer=resolve_layer(Path(file), field=None, layer=layer or named))
    if frame.crs is None:
        raise LabelError("polygons have no CRS", path=file, fix="add the .prj file, or set it in QGIS")
    if frame.empty and may_be_empty:
        return frame
    geometry = np.asarray(frame.geometry.array, dtype=object)
    shapes, repaired = clean_polygons(geometry)
    usable = ~shapely.is_missing(shapes)
    if not usable.any():
        kinds = ", ".join(sorted(set(frame.geometry.geom_type.dropna()))) or "features without geometry"
        what = "no polygons" if len(frame) else "layer has no features"
        raise LabelError(what, path=file, got=kinds if len(frame) else "0", expected="polygons, one per object")
    if repaired.any():
        _warn(f"{file}: {counted(int(repaired.sum()), 'polygon')} of invalid geometry (self-crossing) repaired")
    if not usable.all():
        _warn(f"{file}: {counted(int((~usable).sum()), 'feature')} without area left out")
    return frame.set_geometry(shapes, crs=frame.crs)[usable].reset_index(drop=True)


def widths_m(shapes: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
    """Shorter side of the minimum rotated rectangle of polygons in the grid's CRS, in metres on the ground."""
    scale = np.array(grid.pixel_size_m) / np.array(grid.pixel_size)
    there = shapely.transform(shapes, lambda xy: xy * scale)
    corners = [shapely.get_coordinates(shapely.oriented_envelope(shape))[:3] for shape in there]
    return np.array(
        [np.hypot(*np.diff(corner, axis=0).T).min() if len(corner) > _HALF_TURN else 0.0 for corner in corners]
    )


def check_pixel_size(labels: Labels, grids: Sequence[Grid], codes: Collection[int]) -> None:
    """LabelWarning where the pixels of a scene are coarser than a third of the median width of the objects there."""
    frame = labels.frame[labels.frame["code"].isin(list(codes))]
    for grid in grids:
        shapes = np.asarray(to_grid_crs(frame, grid).geometry.array, dtype=object)
        here = shapes[shapely.intersects(shapes, shapely.box(*grid.bounds)) & (shapely.get_dimensions(shapes) == 2)]  # noqa: PLR2004
        width = float(np.median(widths_m(here, grid))) if len(here) else 0.0
        pixel_m = max(grid.pixel_size_m)
        if len(here) and pixel_m > COARSE * width:
            _warn(
                f"{labels.path}: pixels of {pixel_m:.3g} m are too coarse for objects {width:.3g} m wide (median); "
                f"expected at most a third of it, {width * COARSE:.2g} m: outlines and counts will be rough"
            )


def _warn(text: str) -> None:
    warnings.warn(text, LabelWarning, stacklevel=3)
