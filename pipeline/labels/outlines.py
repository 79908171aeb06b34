"""LabelledPixels -> outlines: what a label covers on the ground, also where it was drawn as a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from rasterio.features import shapes

from pipeline.grid import Window
from pipeline.labels.polygons import is_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels


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
