"""Geometries as people draw and files store them -> valid polygons; what is none, and what no repair ends for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import GeometryType

from pipeline.documents import parse_json
from pipeline.errors import LabelError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries

# Stands for a geometry that is none: a line, which labels drop and count like other geometries without area.
BROKEN = shapely.LineString([(0, 0), (0, 0)])
_POLYGONAL = (GeometryType.POLYGON, GeometryType.MULTIPOLYGON)
# Repair takes time and memory by the square of these: 2,000 vertices drawn at random cross 700,000 times and take 37 s
# and 1 GB. What people draw crosses itself a few times.
MAX_CROSSINGS = 5_000
_LOOKED_AT, _AT_ONCE = 2_000, 10
# A segment meets itself and the two beside it.
_NEIGHBOURS = 3
_POINTS = (GeometryType.POINT, GeometryType.MULTIPOINT)


def clean_polygons(geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Polygonal part of each geometry, made valid and two-dimensional; and which had to be repaired.

    Lines and points, what collapses when repaired (a bow tie without area), coordinates that are no numbers and tangles
    become None. Where a geometry is already a valid polygon it is returned as it is.
    """
    flat = shapely.force_2d(geometry)
    flat[[not np.isfinite(shapely.get_coordinates(shape)).all() for shape in flat]] = None
    invalid = ~shapely.is_valid(flat) & ~shapely.is_missing(flat)
    flat[[bool(bad) and crossings(shape) > MAX_CROSSINGS for shape, bad in zip(flat, invalid, strict=True)]] = None
    invalid &= ~shapely.is_missing(flat)
    flat[invalid] = shapely.make_valid(flat[invalid], method="structure", keep_collapsed=False)
    kinds = shapely.get_type_id(flat)
    mixed = np.flatnonzero(kinds == GeometryType.GEOMETRYCOLLECTION)
    for position in mixed:
        parts = shapely.get_parts(flat[position])
        parts = parts[np.isin(shapely.get_type_id(parts), _POLYGONAL)]
        flat[position] = shapely.union_all(parts) if len(parts) else None
    keep = np.isin(shapely.get_type_id(flat), _POLYGONAL) & ~shapely.is_empty(flat) & (shapely.area(flat) > 0)
    flat[~keep] = None
    return flat, invalid & keep


def crossings(shape: Any) -> float:
    """How often a geometry's segments meet others than their neighbours, estimated from some of them.

    >>> round(crossings(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])))
    1
    """
    lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(shape)]
    if not lines:
        return 0.0
    segments = np.concatenate([np.stack([line[:-1], line[1:]], axis=1) for line in lines])
    parts = np.asarray(shapely.linestrings(segments), dtype=object)
    tree, met, seen = shapely.STRtree(parts), 0, 0
    # In an order that is none along the ring, as tangles may be local.
    for some in np.array_split(np.random.default_rng(0).permutation(len(parts))[:_LOOKED_AT], _LOOKED_AT // _AT_ONCE):
        if not len(some):
            break
        met += len(tree.query(parts[some], predicate="intersects")[0]) - _NEIGHBOURS * len(some)
        seen += len(some)
        if met > MAX_CROSSINGS:
            break
    return float(max(met, 0) / seen * len(parts) / 2)


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
    metric = flat.to_crs(metric_crs(flat, path=path))
    return np.asarray(metric.buffer(radius_m).to_crs(points.crs).array, dtype=object)


def metric_crs(shapes: GeoSeries | GeoDataFrame, *, path: Path | str | None = None) -> Any:
    """The UTM zone in which labels are measured.

    Raises:
        LabelError: their CRS and coordinates say nowhere on the ground, or more of it than a zone can hold.
    """
    try:
        crs = shapes.estimate_utm_crs()
        here, there = (np.asarray(item.array, dtype=object) for item in (shapes.geometry, shapes.geometry.to_crs(crs)))
    except Exception as err:  # pyproj raises several unrelated types
        fix = "assign the CRS they are in"
        raise LabelError("polygons or points lie where none can", path=path, got=err, fix=fix) from err
    areas = shapely.area(there[shapely.get_dimensions(there) == 2])  # noqa: PLR2004 - polygons
    lost = np.isfinite(shapely.get_coordinates(here)) & ~np.isfinite(shapely.get_coordinates(there))
    if lost.any() or not (areas > 0).all():
        got = f"coordinates {shapes.total_bounds.tolist()} in {shapes.crs.name}"
        what, fix = "polygons or points cannot be brought into metres", "assign their CRS, or cut them to one region"
        raise LabelError(what, path=path, got=got, fix=fix)
    return crs


def readable_parquet(path: Path) -> Path | io.BytesIO:
    """A GeoParquet file, with BROKEN in the place of geometries that are none."""
    import pyarrow as pa
    from pyarrow import parquet

    about = parquet.read_schema(path).metadata or {}
    column = str(parse_json(about.get(b"geo", b"{}")).get("primary_column", "geometry"))
    table = parquet.read_table(path)
    if column not in table.column_names or not pa.types.is_binary(table.schema.field(column).type):
        return path
    stored = table[column].to_pylist()
    lost = shapely.is_missing(shapely.from_wkb(stored, on_invalid="ignore"))
    if not any(gone and blob is not None for gone, blob in zip(lost, stored, strict=True)):
        return path
    mended = [BROKEN.wkb if gone and blob is not None else blob for gone, blob in zip(lost, stored, strict=True)]
    place, field = table.schema.get_field_index(column), table.schema.field(column)
    copy = io.BytesIO()
    parquet.write_table(table.set_column(place, field, pa.array(mended, field.type)), copy)
    copy.seek(0)
    return copy
