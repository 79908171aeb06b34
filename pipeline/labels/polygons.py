"""Labels made into others: polygons grown or shrunk, classes grouped; and the outlines of labelled pixels."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import shapes

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.grid import Window
from pipeline.labels.geometries import is_point, metric_crs
from pipeline.labels.source import LISTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.labels.source import Labels
    from pipeline.legend import ClassScheme


def buffer_polygons(labels: Labels, buffer_m: Mapping[int, float]) -> Labels:
    """Polygons grown (or, below 0, shrunk) by metres, by class code; those of other classes stay as they are.

    Distances are measured in the UTM zone of the labels. Polygons that vanish are left out with a LabelWarning.

    Raises:
        LabelError: no polygon is left, or their CRS says nowhere on the ground.
    """
    distance = labels.frame["code"].map(lambda code: float(buffer_m.get(int(code), 0.0))).to_numpy(dtype=float)
    moved = distance != 0
    if not moved.any():
        return labels
    frame = labels.frame.copy()
    metric = frame.geometry[moved].to_crs(metric_crs(frame, path=labels.path))
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


def group_classes(labels: Labels, scheme: ClassScheme, group_of: Mapping[int, int]) -> Labels:
    """Labels in a coarser legend: ``group_of`` gives each class code the code of its group in ``scheme``.

    The frame keeps the former code in a column ``listed``.
    """
    frame = labels.frame.copy()
    frame[LISTED] = frame["code"]
    frame["code"] = frame["code"].map(lambda code: group_of[int(code)]).astype(np.uint8)
    frame["name"] = frame["code"].map(lambda code: scheme.by_code(int(code)).name)
    return replace(labels, frame=frame, scheme=scheme)
