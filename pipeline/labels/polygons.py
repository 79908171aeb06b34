"""Geometries as people draw them -> valid polygons, grown or shrunk; and what labelled pixels cover on the ground."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import shapes
from shapely import GeometryType

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.grid import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame, GeoSeries
    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.labels.source import Labels

_POLYGONAL = (GeometryType.POLYGON, GeometryType.MULTIPOLYGON)
_POINTS = (GeometryType.POINT, GeometryType.MULTIPOINT)


def clean_polygons(geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Polygonal part of each geometry, made valid and two-dimensional; and which had to be repaired.

    Lines and points, and what collapses when repaired (a bow tie without area), become None. Where a geometry is
    already a valid polygon it is returned as it is.
    """
    flat = shapely.force_2d(geometry)
    invalid = ~shapely.is_valid(flat) & ~shapely.is_missing(flat)
    flat[invalid] = shapely.make_valid(flat[invalid], method="structure", keep_collapsed=False)
    kinds = shapely.get_type_id(flat)
    mixed = np.flatnonzero(kinds == GeometryType.GEOMETRYCOLLECTION)
    for position in mixed:
        flat[position] = _polygonal_parts(flat[position])
    keep = np.isin(shapely.get_type_id(flat), _POLYGONAL) & ~shapely.is_empty(flat) & (shapely.area(flat) > 0)
    flat[~keep] = None
    return flat, invalid & keep


def _polygonal_parts(collection: Any) -> Any:
    parts = shapely.get_parts(collection)
    parts = parts[np.isin(shapely.get_type_id(parts), _POLYGONAL)]
    return shapely.union_all(parts) if len(parts) else None


def is_point(geometry: NDArray[Any]) -> NDArray[np.bool_]:
    """Which geometries are points."""
    return np.isin(shapely.get_type_id(geometry), _POINTS)


def points_to_polygons(points: GeoSeries, *, radius_m: float, path: Path) -> NDArray[Any]:
    """Circles of ``radius_m`` metres around points, in the points' CRS; the points themselves for radius 0."""
    if radius_m < 0:
        raise LabelError("radius around points", path=path, got=f"{radius_m} m", expected="0 m or more")
    flat = points.force_2d()
    if radius_m == 0:
        return np.asarray(flat.array, dtype=object)
    metric = flat.to_crs(flat.estimate_utm_crs())
    return np.asarray(metric.buffer(radius_m).to_crs(points.crs).array, dtype=object)


def buffer_polygons(labels: Labels, buffer_m: Mapping[int, float]) -> Labels:
    """Polygons grown (or, below 0, shrunk) by metres, by class code; those of other classes stay as they are.

    Distances are measured in the UTM zone of the labels. Polygons that vanish are left out with a LabelWarning.

    Raises:
        LabelError: no polygon is left.
    """
    distance = labels.frame["code"].map(lambda code: float(buffer_m.get(int(code), 0.0))).to_numpy(dtype=float)
    moved = distance != 0
    if not moved.any():
        return labels
    frame = labels.frame.copy()
    metric = frame.geometry[moved].to_crs(frame.estimate_utm_crs())
    frame.loc[moved, frame.geometry.name] = metric.buffer(distance[moved]).to_crs(frame.crs).to_numpy()
    gone = frame.geometry.is_empty.to_numpy()
    if gone.all():
        raise LabelError("no polygon is left when shrunk", path=labels.path, fix="use a smaller labels.buffer_m")
    if gone.any():
        text = f"{labels.path}: {counted(int(gone.sum()), 'polygon')} that vanished when shrunk, not used"
        warnings.warn(text, LabelWarning, stacklevel=2)
    return replace(labels, frame=frame[~gone].reset_index(drop=True))


def pixel_outlines(pixels: LabelledPixels, ids: NDArray[np.int32]) -> list[Any]:
    """The outline of the pixels of each polygon, by ids that have some, in the grid's CRS."""
    order = np.argsort(pixels.polygon, kind="stable")
    starts = np.searchsorted(pixels.polygon[order], ids)
    stops = np.searchsorted(pixels.polygon[order], ids, side="right")
    outlines = []
    for start, stop in zip(starts, stops, strict=True):
        rows, cols = pixels.row[order[start:stop]], pixels.col[order[start:stop]]
        top, left = int(rows.min()), int(cols.min())
        mask = np.zeros((int(rows.max()) - top + 1, int(cols.max()) - left + 1), dtype=np.uint8)
        mask[rows - top, cols - left] = 1
        part = pixels.grid.crop(Window(top, left, *mask.shape))
        found = shapes(mask, mask=mask.astype(bool), transform=part.transform)
        outlines.append(shapely.union_all([shapely.geometry.shape(item) for item, _ in found]))
    return outlines


def with_areas(frame: GeoDataFrame, scenes: Sequence[LabelledPixels]) -> GeoDataFrame:
    """Rows of ``Labels.frame`` in their CRS, each point as the pixels it labels in the first scene where it does.

    Polygons stay as they were drawn, and so do points that label no pixel.
    """
    import geopandas as gpd

    shapes_of = np.array(frame.geometry.array, dtype=object)
    ids, waiting = frame["poly_id"].to_numpy(dtype=np.int32), is_point(shapes_of)
    for pixels in scenes:
        found = waiting & np.isin(ids, pixels.polygon_ids())
        if found.any():
            outlines = gpd.GeoSeries(pixel_outlines(pixels, ids[found]), crs=str(pixels.grid.crs))
            shapes_of[found] = np.asarray(outlines.to_crs(frame.crs).array, dtype=object)
        waiting &= ~found
    return frame.set_geometry(gpd.GeoSeries(shapes_of, index=frame.index, crs=frame.crs))
