"""Probability samples of a map, drawn in two passes over strips of rows so that memory does not grow with the map.

The first pass counts the pixels of every stratum in every strip; ranks are then drawn without replacement from the
whole stratum, and the second pass finds the pixels of these ranks, reading only strips that hold one. Every pixel of a
stratum has the same chance, exactly, and one seed gives one sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.accuracy.allocation import MIN_PER_STRATUM, RARE_SIZE, Allocation, allocate, sample_size
from pipeline.accuracy.design import SampleDesign, Stratum
from pipeline.accuracy.drawing import FrameCount, ValidPixels, count_frame, pick
from pipeline.accuracy.pixels import class_areas, codes_at, grid_of, map_scheme, open_class_map
from pipeline.accuracy.squares import cluster_sizes, pixels_inside
from pipeline.accuracy.strata import MapStrata
from pipeline.accuracy.systematic import ONE_START, STARTS, draw_grids
from pipeline.errors import ReferenceDataError
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.accuracy.strata import StrataLayer
    from pipeline.legend import ClassScheme

# Key of the expected accuracy of all strata that are not named.
OTHERS = ""
Pixels = tuple["NDArray[np.int32]", "NDArray[np.int32]", "NDArray[np.intp]"]


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
        expected = _by_stratum(expected_users, names)
        shares, how = _share_out(size, names, units, allocation, expected, target_se, rare_size)
        rng = np.random.default_rng(seed)
        row, col, stratum = pick(dataset, layer, count, values, shares, rng, min_distance_m)
        table = tuple(
            Stratum(int(value), name, n, float(count.area_ha[value]), drawn)
            for value, name, n, drawn in zip(values, names, units, shares, strict=True)
        )
        return _design(
            dataset, map_path, scheme, kind="stratified", seed=seed, strata=table, source=layer.source, allocation=how,
            units=(row, col, stratum), inclusion=(np.array(shares) / np.array(units))[stratum],
            min_distance_m=min_distance_m, rng=rng,
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
        return _design(
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
        return _design(
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


def draw_clusters(
    map_path: Path | str,
    *,
    clusters: int,
    cluster_px: int,
    per_cluster: int | None = None,
    seed: int = 0,
    scheme: ClassScheme | None = None,
) -> SampleDesign:
    """A cluster sample: squares of ``cluster_px`` pixels drawn at random, then all or some of their pixels.

    Args:
        map_path: The class map.
        clusters: Primary units to draw.
        cluster_px: Side of a primary unit in pixels, counted from the map's corner.
        per_cluster: Pixels to draw in each (two stages); None for all of them (one stage).
        seed: Seed of the draw.
        scheme: The legend where the map does not carry one.

    Raises:
        ReferenceDataError: more clusters than the map has, or fewer than 2.
    """
    scheme = map_scheme(map_path, scheme)
    with open_class_map(map_path) as dataset:
        sizes = cluster_sizes(dataset, cluster_px)
        filled = np.flatnonzero(sizes)
        if not MIN_PER_STRATUM <= clusters <= len(filled):
            expected = f"{MIN_PER_STRATUM} to {len(filled)}, the squares with valid pixels"
            raise ReferenceDataError("number of clusters", got=clusters, expected=expected)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(filled, clusters, replace=False))
        parts = [pixels_inside(dataset, int(square), cluster_px, per_cluster, rng) for square in chosen]
        psu = np.repeat(np.arange(clusters), [len(part[0]) for part in parts])
        row, col = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        inside = sizes.ravel()[chosen]
        taken = np.bincount(psu)
        _, area = class_areas(map_path)
        whole = Stratum(0, "all", int(sizes.sum()), float(area[NODATA + 1 :].sum()), len(row))
        return _design(
            dataset, map_path, scheme, kind="one-stage cluster" if per_cluster is None else "two-stage cluster",
            seed=seed, strata=(whole,), source="none",
            allocation=f"{clusters} of {len(filled)} squares, {per_cluster or 'all'} pixels in each",
            units=(row, col, np.zeros(len(row), dtype=np.intp)),
            inclusion=(clusters / len(filled) * taken / inside)[psu], rng=rng,
            psu=psu, psu_units=inside, psus_in_frame=len(filled), cluster_px=cluster_px,
        )  # fmt: skip


def _by_stratum(
    expected: Sequence[float] | Mapping[str, float] | float | None, names: Sequence[str]
) -> list[float] | None:
    if expected is None:
        return None
    if isinstance(expected, (int, float)):
        return [float(expected)] * len(names)
    if isinstance(expected, Mapping):
        strange = sorted(set(expected) - {*names, OTHERS})
        if strange:
            raise ReferenceDataError("expected accuracy of unknown strata: " + ", ".join(strange), got=", ".join(names))
        missing = [name for name in names if name not in expected and OTHERS not in expected]
        if missing:
            raise ReferenceDataError("no expected user's accuracy for " + ", ".join(missing), expected=", ".join(names))
        return [float(expected.get(name, expected.get(OTHERS, 0.0))) for name in names]
    return [float(value) for value in expected]


def _share_out(
    size: int | None,
    names: Sequence[str],
    units: Sequence[int],
    allocation: Allocation | Mapping[str, int],
    expected: list[float] | None,
    target_se: float | None,
    rare_size: int,
) -> tuple[list[int], str]:
    if not isinstance(allocation, str):
        unknown = sorted(set(allocation) - set(names)) or sorted(set(names) - set(allocation))
        if unknown:
            raise ReferenceDataError("allocation and strata differ: " + ", ".join(unknown), expected=", ".join(names))
        shares = [int(allocation[name]) for name in names]
        over = [name for name, n, most in zip(names, shares, units, strict=True) if not 0 < n <= most]
        if over:
            raise ReferenceDataError("allocation of stratum " + ", ".join(over), expected="1 to its number of pixels")
        return shares, "given by stratum"
    how: str = allocation
    if size is None:
        if target_se is None or expected is None:
            raise ReferenceDataError("no sample size", fix="give a size, or a target error and expected accuracies")
        size = sample_size(units, expected_users=expected, target_se=target_se)
        how += (
            f"; {size} units for a standard error of {target_se:g} of overall accuracy (Olofsson et al. 2014, eq. 13)"
        )
    shares = allocate(size, units=units, method=allocation, expected_users=expected, rare_size=rare_size)
    return shares, how


def _design(
    dataset: DatasetReader,
    map_path: Path | str,
    scheme: ClassScheme,
    *,
    kind: Literal["simple random", "systematic", "stratified", "one-stage cluster", "two-stage cluster"],
    seed: int,
    strata: tuple[Stratum, ...],
    source: str,
    allocation: str,
    units: Pixels,
    inclusion: NDArray[np.float64],
    rng: np.random.Generator,
    min_distance_m: float = 0.0,
    psu: NDArray[np.intp] | None = None,
    psu_units: NDArray[np.int64] | None = None,
    psus_in_frame: int = 0,
    cluster_px: int = 0,
) -> SampleDesign:
    """Units in random order, so that their numbers give no stratum away; squares stay together for the field."""
    together = psu is not None and kind != "systematic"
    order = np.arange(len(units[0])) if together else rng.permutation(len(units[0]))
    row, col, stratum = units[0][order], units[1][order], units[2][order]
    pixels, area = class_areas(map_path)
    notes = []
    if min_distance_m > 0:
        notes.append(
            f"units lie at least {min_distance_m:g} m apart: inclusion probabilities, and with them the standard "
            "errors, are those of the design without this rule"
        )
    if kind == "systematic" and (psu_units is None or len(psu_units) == 1):
        notes.append(ONE_START)
    return SampleDesign(
        kind=kind, seed=seed, map_name=Path(map_path).name, strata_source=source, allocation=allocation,
        grid=grid_of(dataset), scheme=scheme, strata=strata,
        class_pixels={int(c): int(pixels[c]) for c in np.flatnonzero(pixels) if c != NODATA},
        class_area_ha={int(c): float(area[c]) for c in np.flatnonzero(pixels) if c != NODATA},
        row=row, col=col, stratum=stratum, map_code=codes_at(dataset, row, col), inclusion=inclusion[order],
        psu=None if psu is None else psu[order], psu_units=psu_units, psus_in_frame=psus_in_frame,
        cluster_px=cluster_px, min_distance_m=min_distance_m, notes=tuple(notes),
    )  # fmt: skip
