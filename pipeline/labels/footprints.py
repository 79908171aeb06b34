"""Footprints of objects: read as polygons whatever their attributes, how wide they are, and the ground around them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.labels.geometries import clean_polygons
from pipeline.labels.rasterise import to_grid_crs
from pipeline.labels.rasters import is_class_raster
from pipeline.labels.settings import split_source
from pipeline.labels.vectors import read_layer, resolve_layer

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries

    from pipeline.grid import Grid
    from pipeline.labels.source import Labels

VECTOR_SUFFIXES = frozenset(
    {".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".geoparquet", ".pq", ".kml", ".gml"}
)
# Pixels that are wider than this share of the objects' median width hold no object as a whole.
COARSE = 1 / 3
_CORNERS = 2
# Ground around footprints is cut into squares of so many pixels a side, of which so many are labels: those beside
# footprints first, the others at random.
SQUARE_PX = 32
MOST_SQUARES = 2000
# Where footprints touch, a strip of so many pixels on both sides of the line is ground, so that the gap is learned.
_STRIP_PX = 0.75
# Footprints that share more than this of the smaller one are one object drawn twice.
_OVERLAP = 0.1
GROUND = -1
"""Feature of a polygon that no file holds."""


def is_vector(path: Path | str) -> bool:
    """Whether a file is one of vectors by its name."""
    return Path(split_source(str(path))[0]).suffix.lower() in VECTOR_SUFFIXES


def read_footprints(path: Path | str, *, may_be_empty: bool = False) -> GeoDataFrame:
    """Polygons of a layer with all its fields, valid; a LabelWarning says how many were repaired or left out.

    ``may_be_empty``: a layer without features is one of no objects.

    Raises:
        LabelError: not a vector file, no CRS, no features, or lines and points only.
    """
    file, named = split_source(str(path))
    frame = read_layer(Path(file), field=None, layer=resolve_layer(Path(file), field=None, layer=named))
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
        [np.hypot(*np.diff(corner, axis=0).T).min() if len(corner) > _CORNERS else 0.0 for corner in corners]
    )


def outlined(labels: Labels, codes: Collection[int]) -> tuple[int, ...]:
    """Those of some classes whose labels are an outline per object; LabelWarning for the others.

    Pixels of a map or mask do not say where one object ends and the next begins, and points have no outline.
    """
    polygons = labels.frame[labels.frame.geometry.geom_type.str.contains("Polygon")]
    has = set() if is_class_raster(labels.path) else set(polygons["code"].tolist())
    for code in codes:
        if code not in has:
            kind = "pixels of a raster" if is_class_raster(labels.path) else "points, or none"
            text = f"labels of {labels.scheme.by_code(code).name} are {kind}, not an outline per object"
            _warn(f"{labels.path}: {text}: its figures are those of pixels alone, without F1 of objects")
    return tuple(code for code in codes if code in has)


def check_pixel_size(labels: Labels, grids: Sequence[Grid], codes: Collection[int]) -> None:
    """LabelWarning where the pixels of a scene are coarser than a third of the median width of the objects there."""
    frame = labels.frame[labels.frame["code"].isin(outlined(labels, codes))]
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


def with_ground(labels: Labels, grids: Sequence[Grid], *, background: str, area: Path | str | None = None) -> Labels:
    """Complete footprints with the ground around them as polygons of a class of its own.

    In the scenes, or in the area where that is given, what lies outside all polygons is ``background``: squares of
    SQUARE_PX pixels less the polygons. Where footprints touch, a strip between them is ground too, so that touching
    objects are told apart. Ground beyond the area, and squares that are not drawn, stay unlabelled.

    ``area`` are polygons within which the footprints are complete; None for all of the scenes.

    Raises:
        LabelError: a scene in which no footprint lies, which would be ground altogether; an area that holds none.
        LegendError: no such class.
    """
    import geopandas as gpd
    import pandas as pd

    code = labels.scheme.by_name(background).code
    inside = read_footprints(area) if area is not None else None
    drawn = labels.frame.copy()
    squares, covered = list[Any](), list[Any]()
    for grid in grids:
        here = to_grid_crs(drawn, grid)
        shapes = np.asarray(here.geometry.array, dtype=object)
        extent: Any = shapely.box(*grid.bounds)
        if inside is not None:
            extent = shapely.intersection(extent, shapely.union_all(np.asarray(inside.to_crs(here.crs).geometry.array)))
        over = shapely.intersects(shapes, extent)
        if not over.any():
            what = "footprints are said to be complete, but none lies in a scene or in the area"
            fix = "name in labels.complete the polygons within which every object is drawn"
            raise LabelError(what, path=labels.path, got=f"0 of {len(labels)}", expected="at least one", fix=fix)
        parted, strips = _parted(shapes, over, grid)
        drawn = drawn.set_geometry(gpd.GeoSeries(parted, crs=here.crs).to_crs(drawn.crs), crs=drawn.crs)
        new = _squares(grid, extent, parted[over], covered=covered)
        squares.append(gpd.GeoSeries([*strips, *new], crs=here.crs).to_crs(drawn.crs))
        covered.append(gpd.GeoSeries([shapely.box(*grid.bounds)], crs=here.crs))
    ground = pd.concat(squares, ignore_index=True)
    first = int(drawn["poly_id"].max()) + 1
    rows: dict[str, Any] = {"poly_id": np.arange(first, first + len(ground), dtype=np.int32), "code": np.uint8(code)}
    rows |= {"name": background, "feature": GROUND}
    added = gpd.GeoDataFrame(rows, geometry=list(ground), crs=drawn.crs)
    frame = gpd.GeoDataFrame(pd.concat([drawn, added], ignore_index=True), crs=drawn.crs)
    return replace(labels, frame=frame.astype({"code": np.uint8, "poly_id": np.int32, "feature": np.int64}))


def _parted(shapes: NDArray[Any], over: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[Any], list[Any]]:
    """Footprints in the CRS of a grid without the strips along which they touch, and the strips."""
    pixel = max(grid.pixel_size)
    places = np.flatnonzero(over & (shapely.get_dimensions(shapes) == 2))  # noqa: PLR2004 - polygons
    near = shapely.STRtree(shapes[places]).query(shapes[places], predicate="dwithin", distance=pixel / 2)
    parted, strips = shapes.copy(), []
    for one, other in zip(*(places[side] for side in near), strict=True):
        if one >= other:
            continue
        pair = shapes[[one, other]]
        if shapely.area(shapely.intersection(*pair)) > _OVERLAP * shapely.area(pair).min():
            continue
        strip = shapely.intersection(*shapely.buffer(pair, _STRIP_PX * pixel, cap_style="flat", join_style="mitre"))
        left = shapely.difference(parted[[one, other]], strip)
        if shapely.area(strip) > 0 and (shapely.area(left) > shapely.area(pair) / 2).all():
            parted[[one, other]] = left
            strips.append(strip)
    return parted, strips


def _squares(grid: Grid, extent: Any, shapes: NDArray[Any], *, covered: Sequence[GeoSeries]) -> list[Any]:
    """Squares of a grid's lattice less the footprints, within the extent and not where an earlier scene lies."""
    windows = list(grid.tiles(SQUARE_PX))
    boxes = np.array([shapely.box(*grid.crop(window).bounds) for window in windows], dtype=object)
    kept = shapely.intersects(boxes, extent)
    for earlier in covered:
        kept &= ~shapely.intersects(boxes, earlier.to_crs(str(grid.crs)).iloc[0])
    boxes = boxes[kept]
    beside = np.zeros(len(boxes), dtype=np.bool_)
    beside[shapely.STRtree(boxes).query(shapes, predicate="intersects")[1]] = True
    order = np.random.default_rng(0).permutation(len(boxes))
    chosen = np.sort(order[np.argsort(~beside[order], kind="stable")][:MOST_SQUARES])
    tree, found = shapely.STRtree(shapes), []
    for box in boxes[chosen]:
        ground = shapely.intersection(box, extent)
        near = tree.query(box, predicate="intersects")
        ground = shapely.difference(ground, shapely.union_all(shapes[near])) if len(near) else ground
        found += [ground] if shapely.area(ground) > 0 else []
    return found


def _warn(text: str) -> None:
    warnings.warn(text, LabelWarning, stacklevel=3)
