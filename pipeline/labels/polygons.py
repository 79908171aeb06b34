"""Geometries as people draw them -> valid two-dimensional polygons (or points), with a count of what was mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely import GeometryType

from pipeline.errors import LabelError

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoSeries
    from numpy.typing import NDArray

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
