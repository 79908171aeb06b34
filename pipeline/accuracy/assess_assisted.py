"""Figures with the map's own confidence as auxiliary variable: narrower intervals, whatever the confidence is worth.

A regression estimator: with z the residual of a ratio R = Y / X (:mod:`pipeline.accuracy.assess_estimators`) and a the
confidence of a unit less the mean of its map class (its total over the map is 0), the estimate is R - b A / X with the
b of least variance, and its variance is that of the total of z - b a. Where the interval would not be narrower the
plain figure stands. docs/accuracy.md says why the design alone makes it right, and has its coverage.

Source: Saerndal, Swensson & Wretman (1992), Model Assisted Survey Sampling, sect. 6.3 and 6.4; the b of least variance
for any design, Montanari (1987), Int. Stat. Rev. 55, 191-202.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.accuracy.assess_estimators import Estimate, Figures, accuracy_columns, finish
from pipeline.accuracy.assess_frame import Frame, unit_weights, variance_of_total
from pipeline.accuracy.class_maps import CODES, aligned, count_strips, open_class_map, read_codes, values_at
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.raster import as_error

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    from pipeline.accuracy.assess_reference import ReferenceUnits

# Degrees of freedom that a slope takes; fewer units than this leave nothing to learn it from.
MIN_UNITS = 40
# Confidence rasters hold per cent, 0..100; larger values say that there is none.
SURE = 100


def confidence_beside(map_path: Path | str, named: str) -> Path:
    """The confidence raster of a map: ``confidence`` stands for ``<scene>_conf.tif`` beside ``<scene>_lc.tif``.

    Raises:
        ReferenceDataError: no such file.
    """
    path = Path(map_path)
    found = path.with_name(path.name.replace("_lc.", "_conf.")) if named == "confidence" else Path(named)
    if found == path or not found.is_file():
        raise ReferenceDataError("no confidence of the map", path=found, fix="name the raster that holds it")
    return found


def centred_confidence(map_path: Path | str, confidence: Path | str, units: ReferenceUnits) -> NDArray[np.float64]:
    """Confidence 0..1 of each unit less the mean of its map class over the map, float64 [unit].

    Pixels without confidence count as the mean of their class.

    Raises:
        ReferenceDataError: not a raster of per cent, or one that has nothing at any unit.
    """
    area, values = confidence_areas(map_path, confidence, units)
    if not (values <= SURE).any():
        fix = "name that of the map"
        raise ReferenceDataError("confidence has no value at any unit of the sample", path=confidence, fix=fix)
    known = area[:, : SURE + 1]
    means = known @ np.arange(SURE + 1) / np.maximum(known.sum(axis=1), 1e-12)
    centred = np.where(values <= SURE, values - means[units.map_code], 0.0) / SURE
    return np.asarray(centred, dtype=np.float64)


def confidence_areas(
    map_path: Path | str, confidence: Path | str, units: ReferenceUnits, *, applicability: Path | str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Area in ha float64 [code, confidence] of a map, each 0..255, and the confidence int64 [unit] at units.

    Confidence above 100 stands for pixels that have none, or that lie outside the area of applicability, if given.

    Raises:
        ReferenceDataError: a layer that is not one of per cent in uint8.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_class_map(map_path))
        grid = Grid.of(dataset)
        layers = [open_percent(path, grid, stack) for path in (confidence, applicability) if path is not None]

        def merged(values: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
            outside = np.zeros(values[0].shape, dtype=np.bool_) if len(values) == 1 else values[1] > SURE
            return np.where(outside, np.uint8(255), values[0])

        def pair(window: Window) -> NDArray[np.uint16]:
            values = merged([layer.read(1, window=window.to_rasterio()) for layer in layers])
            return read_codes(dataset, window).astype(np.uint16) * np.uint16(CODES) + values

        area = count_strips(dataset, pair, size=CODES * CODES)[1]
        at_units = merged([values_at(layer, units.row, units.col) for layer in layers])
    return area.reshape(CODES, CODES), at_units.astype(np.int64)


def open_percent(path: Path | str, grid: Grid, stack: ExitStack) -> DatasetReader | WarpedVRT:
    """A layer of per cent (confidence, area of applicability) on the pixels of ``grid``, 255 where it has nothing.

    Raises:
        ReferenceDataError: not a raster of one band of uint8.
    """
    with as_error(ReferenceDataError, "layer cannot be read", path=path):
        opened = stack.enter_context(rasterio.open(path))
    if opened.dtypes != ("uint8",):
        got = ", ".join(opened.dtypes)
        raise ReferenceDataError("layer is not one of per cent", path=path, got=got, expected="one band of uint8")
    return aligned(opened, grid, stack, empty=255)


def assist(
    figures: Figures, map_index: NDArray[np.integer], reference_index: NDArray[np.integer],
    *, frame: Frame, auxiliary: NDArray[np.float64], unit_area: NDArray[np.float64] | None = None,
) -> tuple[Figures, dict[str, float]]:  # fmt: skip
    """The same figures with the auxiliary's help, and the width over the plain one of each interval made narrower.

    The mean of ``auxiliary`` float64 [unit] over each map class is 0; indices of classes are 0..K-1.
    """
    classes, area = len(figures.per_class), np.ones(len(map_index)) if unit_area is None else unit_area
    top, bottom, known = accuracy_columns(np.asarray(map_index), np.asarray(reference_index), area, frame, classes)
    names = ["overall accuracy"]
    plain = [figures.overall_accuracy]
    for kind in ("users_accuracy", "producers_accuracy", "f1", "area_share"):
        plain += [getattr(item, kind) for item in figures.per_class.values()]
        names += [f"{kind} {name}" for name in figures.per_class]
    helped, gain = [], {}
    for column, item in enumerate(plain):
        own = np.asarray(map_index) == (column - 1) % classes if column else np.ones(len(area), dtype=np.bool_)
        # User's accuracy has nothing to do with the other classes of the map.
        parts = (own, ~own) if column > classes else (own,)
        helpers = [part * auxiliary * area for part in parts if part.sum() >= MIN_UNITS]
        certain = None if known is None else known[:, column]
        found = _regress(item, top[:, column], bottom[:, column], frame=frame, helpers=helpers, certain=certain)
        helped.append(found)
        if found is not item and item.se and found.se:
            gain[names[column]] = found.se / item.se
    groups = [helped[1 + k * classes : 1 + (k + 1) * classes] for k in range(4)]
    per_class = {
        name: replace(old, users_accuracy=u, producers_accuracy=p, f1=f, area_share=s)
        for (name, old), u, p, f, s in zip(figures.per_class.items(), *groups, strict=True)
    }
    return replace(figures, overall_accuracy=helped[0], per_class=per_class), gain


def _regress(
    plain: Estimate, top: NDArray[np.float64], bottom: NDArray[np.float64],
    *, frame: Frame, helpers: list[NDArray[np.float64]], certain: NDArray[np.bool_] | None,
) -> Estimate:  # fmt: skip
    """The estimate with the slopes of least variance, or the plain one where it is as good."""
    if plain.estimate is None or not plain.se or not helpers:
        return plain
    weights = unit_weights(frame)
    z = top - plain.estimate * bottom
    columns = np.stack([z, *helpers], axis=1)
    pairs = [(i, j) for i in range(columns.shape[1]) for j in range(i, columns.shape[1])]
    sums = np.stack([columns[:, i] + columns[:, j] for i, j in pairs], axis=1)
    open_strata = None if certain is None else np.repeat(certain[:, None], sums.shape[1], axis=1)
    both = variance_of_total(sums, frame, certain=open_strata)
    cov = np.zeros((columns.shape[1],) * 2)
    single = {i: both[pairs.index((i, i))] / 4 for i in range(columns.shape[1])}
    for (i, j), value in zip(pairs, both, strict=True):
        cov[i, j] = cov[j, i] = (value - single[i] - single[j]) / 2
    if not np.isfinite(cov).all() or (np.diag(cov)[1:] <= 0).any():
        return plain
    slopes = np.linalg.lstsq(cov[1:, 1:], cov[1:, 0], rcond=1e-9)[0]
    # Only units (or squares) with a residual say something about the slopes.
    told = z != 0
    free = len(np.unique(frame.clusters.index[told])) if frame.clusters is not None else int(told.sum())
    free -= len(frame.names)
    lost = len(slopes)
    if free < 10 * lost:
        return plain
    variance = (cov[0, 0] - slopes @ cov[1:, 0]) * (free / (free - lost)) ** 2
    denominator = float(weights @ bottom)
    if not 0 < variance < cov[0, 0]:
        return plain
    moved = plain.estimate - float(weights @ columns[:, 1:] @ slopes) / denominator
    return replace(finish(moved, variance / denominator**2, frame), note="with the map's confidence as auxiliary")
