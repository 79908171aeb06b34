"""Objects against footprints: F1, precision and recall at an IoU, PoLiS distance, counts; with intervals.

A predicted object and a footprint match where they share at least the threshold of IoU; each matches once, the pairs
that share most first. Intervals come from resampling spatial blocks, as neighbouring objects succeed and fail
together; of fewer than ten blocks precision and recall get binomial intervals (Wilson) instead, and the rest none.

Source: Avbelj, Mueller & Bamler (2015), A Metric for Polygon Comparison and Building Extraction Evaluation, IEEE
    Geoscience and Remote Sensing Letters 12(1), 170-174 (PoLiS); Efron & Tibshirani (1993), An Introduction to the
    Bootstrap (percentile intervals); Wilson (1927), JASA 22, 209-212.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.accuracy.assess_estimators import Estimate
from pipeline.errors import ReferenceDataError
from pipeline.labels.geometries import metric_crs

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

DEFAULT_IOU = 0.5
# Resampling fewer blocks than this tells little about their spread.
LEAST_BLOCKS = 10
_WISHED_BLOCKS = 25
_DRAWS = 2000
_SHARES = ("precision", "recall", "f1", "polis_m", "count_ratio")


@dataclass(frozen=True, eq=False)
class Matches:
    """Which object is which footprint."""

    predicted: NDArray[Any]  # Polygons in a plane of metres, object [predicted]
    reference: NDArray[Any]  # The footprints in the same plane, object [reference]
    pairs: NDArray[np.int64]  # int64 [pair, (predicted, reference)]
    iou: NDArray[np.float64]  # float64 [pair]
    # bool [predicted] and bool [reference]; those in the area that is assessed
    counted: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    @cached_property
    def polis_m(self) -> NDArray[np.float64]:
        """PoLiS distance of each pair in metres, float64 [pair]."""
        pairs = ((self.predicted[a], self.reference[b]) for a, b in self.pairs)
        return np.array([polis(one, other) for one, other in pairs], dtype=np.float64)


@dataclass(frozen=True)
class ObjectFigures:
    """What objects are worth."""

    predicted: int  # Objects counted
    reference: int  # Footprints counted
    matched: int  # Predicted objects that match a footprint
    iou_threshold: float  # From which on they match
    # precision, recall, f1, polis_m (mean over the matches), count_ratio (predicted over reference)
    figures: dict[str, Estimate]
    iou_of_areas: float | None  # IoU of all objects together with all footprints together
    intervals: str  # How the intervals came about
    # Whether every object of the area is among the footprints; else an unmatched prediction may be right, and
    # only recall, its PoLiS distance and counts of footprints mean something
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "predicted": self.predicted,
            "reference": self.reference,
            "matched": self.matched,
            "iou_threshold": self.iou_threshold,
            **{name: item.to_json() for name, item in self.figures.items()},
            "iou_of_areas": self.iou_of_areas,
            "intervals": self.intervals,
            "reference_complete": self.complete,
        }


def polis(one: Any, other: Any) -> float:
    """PoLiS distance: mean distance of the corners of each polygon to the outline of the other, both ways.

    >>> polis(shapely.box(0, 0, 4, 4), shapely.box(1, 0, 5, 4))
    0.5
    """
    ways = []
    for here, there in ((one, other), (other, one)):
        corners = np.concatenate([shapely.get_coordinates(ring)[:-1] for ring in shapely.get_rings(here)])
        ways.append(float(shapely.distance(shapely.points(corners), shapely.boundary(there)).mean()))
    return (ways[0] + ways[1]) / 2


def match_objects(
    predicted: GeoDataFrame, reference: GeoDataFrame, *, iou: float = DEFAULT_IOU, area: GeoDataFrame | None = None,
    one_place: bool = False,
) -> Matches:  # fmt: skip
    """Which predicted object is which footprint.

    With ``area`` only objects and footprints with their inner point in it count. ``one_place``: both are known to lie
    in one place, so that objects far from all footprints are wrong, not misplaced, and so are all without footprints.

    Raises:
        ReferenceDataError: no footprints, or none in the area; objects and footprints do not lie in one place.
    """
    if reference.empty:
        raise ReferenceDataError("no footprints to assess objects with", expected="at least one polygon")
    ours, theirs, inside = _in_metres(predicted, reference, area)
    counted = _inside(ours, inside), _inside(theirs, inside)
    if not counted[1].any() and not one_place:
        raise ReferenceDataError(
            "no footprint lies in the area that is assessed", got=f"{len(theirs)} elsewhere", fix="check both files"
        )
    apart = len(ours) and not shapely.box(*shapely.total_bounds(ours)).intersects(
        shapely.box(*shapely.total_bounds(theirs))
    )
    if apart and not one_place:
        raise ReferenceDataError(
            "objects and footprints do not lie in one place",
            got=f"objects in {_bounds(ours)}, footprints in {_bounds(theirs)} (m)",
            fix="check the CRS of both files",
        )
    one, other = shapely.STRtree(theirs).query(ours, predicate="intersects") if len(ours) else np.empty((2, 0), int)
    both = shapely.area(shapely.intersection(ours[one], theirs[other]))
    shared = both / np.maximum(shapely.area(ours[one]) + shapely.area(theirs[other]) - both, 1e-12)
    pairs, free = [], (np.ones(len(ours), dtype=np.bool_), np.ones(len(theirs), dtype=np.bool_))
    for k in np.lexsort((other, one, -shared)):
        if shared[k] >= iou and free[0][one[k]] and free[1][other[k]]:
            free[0][one[k]] = free[1][other[k]] = False
            pairs.append(k)
    chosen = np.array(pairs, dtype=np.int64)
    return Matches(ours, theirs, np.stack([one[chosen], other[chosen]], axis=1), shared[chosen], counted)


def pooled(parts: Sequence[Matches]) -> Matches:
    """Matches of several grounds as one; all in one plane, which they are where the reference was the same."""
    shapes, counted = (
        [np.concatenate([getattr(part, name) for part in parts]) for name in ("predicted", "reference")],
        [np.concatenate([part.counted[side] for part in parts]) for side in (0, 1)],
    )
    sizes = [[len(part.predicted), len(part.reference)] for part in parts]
    before = np.cumsum([[0, 0], *sizes[:-1]], axis=0)
    pairs = np.concatenate([part.pairs + first for part, first in zip(parts, before, strict=True)])
    iou = np.concatenate([part.iou for part in parts])
    return Matches(shapes[0], shapes[1], pairs, iou, (counted[0], counted[1]))


def _in_metres(
    predicted: GeoDataFrame, reference: GeoDataFrame, area: GeoDataFrame | None
) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Polygons of all in one plane of metres: the UTM zone of the footprints."""
    crs = metric_crs(reference)
    for frame in (predicted, *(() if area is None else (area,))):
        if len(frame):
            metric_crs(frame)
    ours, theirs = (np.asarray(frame.geometry.to_crs(crs).array, dtype=object) for frame in (predicted, reference))
    inside = None if area is None else shapely.union_all(np.asarray(area.geometry.to_crs(crs).array, dtype=object))
    return ours, theirs, inside


def _inside(shapes: NDArray[Any], area: Any) -> NDArray[np.bool_]:
    if area is None or not len(shapes):
        return np.ones(len(shapes), dtype=np.bool_)
    shapely.prepare(area)
    return np.asarray(shapely.intersects(area, shapely.point_on_surface(shapes)), dtype=np.bool_)


def _bounds(shapes: NDArray[Any]) -> str:
    left, bottom, right, top = shapely.total_bounds(shapes)
    return f"{left:.0f}..{right:.0f}, {bottom:.0f}..{top:.0f}"


def object_figures(
    found: Matches, *, iou: float = DEFAULT_IOU, block_m: float | None = None, complete: bool = True
) -> ObjectFigures:
    """Figures of matched objects.

    ``block_m`` is the side of the blocks that are resampled, by default so that there are some 25; ``complete``: the
    footprints are all there are.
    """
    sums, block_m = _sums_by_block(found, block_m)
    totals = sums.sum(axis=0)
    values = _figures(totals[np.newaxis])[0]
    many = len(sums) >= LEAST_BLOCKS
    if many:
        rng = np.random.default_rng(0)
        draws = _figures(sums[rng.integers(0, len(sums), (_DRAWS, len(sums)))].sum(axis=1))
        intervals = f"bootstrap of {len(sums)} blocks of {block_m:.0f} m ({_DRAWS} draws, percentiles)"
        ci95 = [_percentiles(draws[:, k]) for k in range(len(_SHARES))]
    else:
        intervals = (
            f"binomial (Wilson) of single objects: {len(sums)} blocks of {block_m:.0f} m are too few to resample"
        )
        ci95 = [wilson(int(totals[1]), int(totals[0])), wilson(int(totals[3]), int(totals[2])), None, None, None]
    figures = {
        name: Estimate(None if math.isnan(value) else float(value), ci95=None if math.isnan(value) else interval)
        for name, value, interval in zip(_SHARES, values, ci95, strict=True)
    }
    if not complete:
        note = Estimate(None, note="footprints are not complete: what they miss may be right")
        figures |= dict.fromkeys(("precision", "f1", "count_ratio"), note)
    return ObjectFigures(
        int(totals[0]), int(totals[2]), int(totals[1]), iou, figures, _iou_of_areas(found) if complete else None,
        intervals, complete,
    )  # fmt: skip


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """95 % interval of a share by Wilson's score; None without trials.

    >>> [round(limit, 3) for limit in wilson(8, 28)]
    [0.153, 0.471]
    """
    if trials == 0:
        return None
    limits = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(limits.low), float(limits.high)


def _sums_by_block(found: Matches, block_m: float | None) -> tuple[NDArray[np.float64], float]:
    """Sums of each block that has any, float64 [block, (predicted, matched, reference, found, PoLiS)], and its side."""
    centre = [shapely.get_coordinates(shapely.centroid(shapes)) for shapes in (found.predicted, found.reference)]
    every = np.concatenate([at[kept] for at, kept in zip(centre, found.counted, strict=True)])
    if block_m is None:
        extent = np.maximum(np.ptp(every, axis=0), 1.0)
        block_m = float(math.sqrt(extent[0] * extent[1] / _WISHED_BLOCKS))
    corner = every.min(axis=0)
    keys = [np.floor((at - corner) / block_m).astype(np.int64) for at in centre]
    blocks, number = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    ours, theirs = np.split(number.ravel(), [len(keys[0])])
    sums = np.zeros((len(blocks), 5))
    matched = [np.isin(np.arange(len(keys[side])), found.pairs[:, side]) for side in (0, 1)]
    for side, (block, column) in enumerate(((ours, 0), (theirs, 2))):
        kept = found.counted[side]
        np.add.at(sums[:, column], block[kept], 1.0)
        np.add.at(sums[:, column + 1], block[kept], matched[side][kept].astype(float))
    known = found.counted[1][found.pairs[:, 1]]
    np.add.at(sums[:, 4], theirs[found.pairs[known, 1]], found.polis_m[known])
    return sums[(sums[:, 0] > 0) | (sums[:, 2] > 0)], block_m


def _figures(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [draw, figure] as _SHARES, NaN where there is none, of sums float64 [draw, count]."""
    predicted, matched, reference, found, distance = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matched / predicted, found / reference
        f1 = 2 * precision * recall / (precision + recall)
        f1 = np.where((matched == 0) & (predicted + reference > 0), 0.0, f1)
        figures = np.stack([precision, recall, f1, distance / found, predicted / reference], axis=1)
    return np.where(np.isfinite(figures), figures, np.nan)


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float] | None:
    known = draws[np.isfinite(draws)]
    return (float(np.percentile(known, 2.5)), float(np.percentile(known, 97.5))) if len(known) else None


def _iou_of_areas(found: Matches) -> float:
    kept = zip((found.predicted, found.reference), found.counted, strict=True)
    ours, theirs = (shapely.union_all(shapes[inside]) for shapes, inside in kept)
    both = shapely.area(shapely.intersection(ours, theirs))
    return float(both / max(shapely.area(ours) + shapely.area(theirs) - both, 1e-12))
