"""Probability samples of a map, drawn in two passes over strips of rows so that memory does not grow with the map.

The first pass counts the pixels of every stratum in every strip; ranks are then drawn without replacement from the
whole stratum, and the second pass finds the pixels of these ranks, reading only strips that hold one. Every pixel of a
stratum has the same chance, exactly, and one seed gives one sample. Squares are drawn in
:mod:`pipeline.accuracy.clusters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.allocation import RARE_SIZE, sample_size
from pipeline.accuracy.design import SampleDesign, Stratum
from pipeline.accuracy.drawing import FrameCount, ValidPixels, count_frame, pick
from pipeline.accuracy.drawn import assemble_design, by_stratum, share_out
from pipeline.accuracy.pixels import map_scheme, open_class_map
from pipeline.accuracy.strata import MapStrata
from pipeline.accuracy.systematic import STARTS, draw_grids
from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.accuracy.allocation import Allocation
    from pipeline.accuracy.strata import StrataLayer
    from pipeline.legend import ClassScheme


def draw_stratified(
    map_path: Path | str,
    *,
    size: int | None = None,
    strata: StrataLayer | None = None,
    allocation: Allocation | Mapping[str, int] = "olofsson",
    expected_users: Sequence[float] | Mapping[str, float] | float | None = None,
    target_se: float | None = None,
    rare_size: int = RARE_SIZE,
    min_distance_m: float = 0.0,
    seed: int = 0,
    scheme: ClassScheme | None = None,
) -> SampleDesign:
    """A stratified random sample; the strata are the map's classes unless a layer is given.

    Args:
        map_path: The class map.
        size: Number of units; None to compute it from ``target_se`` and ``expected_users``.
        strata: Where strata come from; see :mod:`pipeline.accuracy.strata`.
        allocation: A rule, or units by stratum name.
        expected_users: Expected user's accuracy: one for all strata, by stratum name (OTHERS for those not named), or
            in the order of strata.
        target_se: Target standard error of overall accuracy.
        rare_size: Units of each rare stratum in the compromise allocation.
        min_distance_m: Least distance between units, in metres.
        seed: Seed of the draw.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: no size and no target, an allocation the strata cannot give, a distance they cannot keep.
    """
    scheme = map_scheme(map_path, scheme)
    layer = strata if strata is not None else MapStrata(map_path, scheme)
    with open_class_map(map_path) as dataset:
        count = count_frame(dataset, layer)
        values = np.flatnonzero(count.pixels.sum(axis=0))
        names = [layer.name(int(value)) for value in values]
        units = [int(n) for n in count.pixels.sum(axis=0)[values]]
        expected = by_stratum(expected_users, names)
        shares, how = share_out(
            size, allocation, names=names, units=units, expected=expected, target_se=target_se, rare_size=rare_size
        )
        rng = np.random.default_rng(seed)
        row, col, stratum = pick(dataset, layer, count, values, shares, rng, min_distance_m)
        table = tuple(
            Stratum(int(value), name, n, float(count.area_ha[value]), drawn)
            for value, name, n, drawn in zip(values, names, units, shares, strict=True)
        )
        return assemble_design(
            dataset, map_path, scheme, kind="stratified", seed=seed, strata=table, source=layer.source, allocation=how,
            units=(row, col, stratum), inclusion=(np.array(shares) / np.array(units))[stratum],
            min_distance_m=min_distance_m, rng=rng, within=strata,
        )  # fmt: skip


def draw_simple(
    map_path: Path | str,
    *,
    size: int | None = None,
    target_se: float | None = None,
    expected: float | None = None,
    min_distance_m: float = 0.0,
    seed: int = 0,
    scheme: ClassScheme | None = None,
) -> SampleDesign:
    """A simple random sample of the map's valid pixels.

    Args:
        map_path: The class map.
        size: Number of units; None to compute it from ``target_se`` and ``expected``.
        target_se: Target standard error of overall accuracy.
        expected: Expected overall accuracy.
        min_distance_m: Least distance between units, in metres.
        seed: Seed of the draw.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: more units than pixels, or a distance that cannot be kept.
    """
    scheme = map_scheme(map_path, scheme)
    with open_class_map(map_path) as dataset, ValidPixels(dataset) as layer:
        count = count_frame(dataset, layer)
        total, size = _total_and_size(count, size, target_se, expected)
        rng = np.random.default_rng(seed)
        row, col, _ = pick(dataset, layer, count, np.array([0]), [size], rng, min_distance_m)
        whole = Stratum(0, "all", total, float(count.area_ha.sum()), len(row))
        return assemble_design(
            dataset, map_path, scheme, kind="simple random", seed=seed, strata=(whole,), source="none",
            allocation="none", units=(row, col, np.zeros(len(row), dtype=np.intp)),
            inclusion=np.full(len(row), size / total), min_distance_m=min_distance_m, rng=rng,
        )  # fmt: skip


def draw_systematic(
    map_path: Path | str,
    *,
    size: int | None = None,
    target_se: float | None = None,
    expected: float | None = None,
    starts: int = STARTS,
    seed: int = 0,
    scheme: ClassScheme | None = None,
) -> SampleDesign:
    """Square grids of valid pixels with random starts: about ``size`` units, as spacings are whole pixels.

    Args:
        map_path: The class map.
        size: Units wanted, of all grids together; None to compute it from ``target_se`` and ``expected`` as for a
            simple random sample, which needs more for most maps.
        target_se: Target standard error of overall accuracy.
        expected: Expected overall accuracy.
        starts: Grids. Two or more have an unbiased variance (:mod:`pipeline.accuracy.systematic`); one has none.
        seed: Seed of the starts.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: more units than pixels, or more starts than units.
    """
    scheme = map_scheme(map_path, scheme)
    with open_class_map(map_path) as dataset, ValidPixels(dataset) as layer:
        count = count_frame(dataset, layer)
        total, size = _total_and_size(count, size, target_se, expected)
        rng = np.random.default_rng(seed)
        grids = draw_grids(dataset, count.windows, total=total, size=size, starts=starts, rng=rng)
        whole = Stratum(0, "all", total, float(count.area_ha.sum()), len(grids.row))
        how = f"every {grids.step}th pixel in both directions from {starts} random start{'s' * (starts > 1)}"
        return assemble_design(
            dataset, map_path, scheme, kind="systematic", seed=seed, strata=(whole,), source="none", allocation=how,
            units=(grids.row, grids.col, np.zeros(len(grids.row), dtype=np.intp)),
            inclusion=np.full(len(grids.row), starts / grids.in_frame), rng=rng,
            psu=grids.start, psu_units=grids.sizes, psus_in_frame=grids.in_frame,
        )  # fmt: skip


def _total_and_size(
    count: FrameCount, size: int | None, target_se: float | None, expected: float | None
) -> tuple[int, int]:
    total = int(count.pixels.sum())
    if size is None:
        if target_se is None or expected is None:
            raise ReferenceDataError("no sample size", fix="give a size, or a target error and an expected accuracy")
        size = sample_size([total], expected_users=[expected], target_se=target_se)
    if not 1 <= size <= total:
        raise ReferenceDataError("sample size", got=size, expected=f"1 to {total}, the valid pixels of the map")
    return total, size
