"""Rules of a class before its polygons label pixels: grown or shrunk, their rims left out, classes grouped."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.labels.rasterise import EDGE_CAP_PX, LabelledPixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.labels.source import Labels
    from pipeline.legend import ClassScheme

LISTED = "listed"
"""Column of ``Labels.frame`` with the code a polygon had before classes were grouped."""


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


def erode_edges(pixels: LabelledPixels, erode_px: Mapping[int, int]) -> LabelledPixels:
    """Labelled pixels without the outer pixels of each polygon, by polygon id: there a pixel sees two classes.

    Of a polygon that would vanish its innermost pixels stay, so that no polygon is lost to its size.

    Raises:
        LabelError: more pixels than distances are known for.
    """
    if any(not 0 <= count < EDGE_CAP_PX for count in erode_px.values()):
        got = ", ".join(str(count) for count in sorted(set(erode_px.values())))
        raise LabelError("pixels taken off a polygon's rim", got=got, expected=f"0..{EDGE_CAP_PX - 1}")
    if not len(pixels) or not any(erode_px.values()):
        return pixels
    size = int(pixels.polygon.max()) + 1
    wanted, deepest = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for polygon, count in erode_px.items():
        if polygon < size:
            wanted[polygon] = count
    np.maximum.at(deepest, pixels.polygon, pixels.edge_px.astype(np.int64))
    least = np.minimum(wanted + 1, deepest)
    return pixels.select(pixels.edge_px >= least[pixels.polygon])


def group_classes(labels: Labels, scheme: ClassScheme, group_of: Mapping[int, int]) -> Labels:
    """Labels in a coarser legend: ``group_of`` gives each class code the code of its group in ``scheme``.

    The frame keeps the former code in a column ``listed``.
    """
    frame = labels.frame.copy()
    frame[LISTED] = frame["code"]
    frame["code"] = frame["code"].map(lambda code: group_of[int(code)]).astype(np.uint8)
    frame["name"] = frame["code"].map(lambda code: scheme.by_code(int(code)).name)
    return replace(labels, frame=frame, scheme=scheme)
