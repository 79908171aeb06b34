"""What all designs share: how units are given to strata, and how drawn pixels become a SampleDesign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.accuracy.allocation import RARE_SIZE, Allocation, allocate, rare_strata_fit, sample_size
from pipeline.accuracy.design import SampleDesign, Stratum
from pipeline.accuracy.pixels import class_areas, codes_at, grid_of
from pipeline.accuracy.systematic import ONE_START
from pipeline.errors import ReferenceDataError
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.accuracy.strata import StrataLayer
    from pipeline.legend import ClassScheme

# Key of the expected accuracy of all strata that are not named.
OTHERS = ""
Pixels = tuple["NDArray[np.int32]", "NDArray[np.int32]", "NDArray[np.intp]"]


def by_stratum(
    expected: Sequence[float] | Mapping[str, float] | float | None, names: Sequence[str]
) -> list[float] | None:
    """Expected user's accuracy of each stratum, from one for all, by name, or in the order of ``names``.

    Raises:
        ReferenceDataError: a stratum that is not there, or one without a number.
    """
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


def share_out(
    size: int | None,
    allocation: Allocation | Mapping[str, int],
    *,
    names: Sequence[str],
    units: Sequence[int],
    expected: list[float] | None = None,
    target_se: float | None = None,
    rare_size: int = RARE_SIZE,
) -> tuple[list[int], str]:
    """Units to draw in each stratum, and how they were given, in words.

    Args:
        size: Units in all; None to compute it from ``target_se`` and ``expected``.
        allocation: A rule, or units by stratum name.
        names: The strata.
        units: Map units (or squares) of each.
        expected: Expected user's accuracy of each.
        target_se: Target standard error of overall accuracy.
        rare_size: Units of each rare stratum in the compromise allocation.

    Raises:
        ReferenceDataError: no size and no target, or an allocation the strata cannot give.
    """
    if not isinstance(allocation, str):
        unknown = sorted(set(allocation) - set(names)) or sorted(set(names) - set(allocation))
        if unknown:
            raise ReferenceDataError("allocation and strata differ: " + ", ".join(unknown), expected=", ".join(names))
        shares = [int(allocation[name]) for name in names]
        over = [name for name, n, most in zip(names, shares, units, strict=True) if not 0 < n <= most]
        if over:
            raise ReferenceDataError("allocation of stratum " + ", ".join(over), expected="1 to its number of pixels")
        return shares, "given by stratum"
    reason = ""
    if size is None:
        if target_se is None or expected is None:
            raise ReferenceDataError("no sample size", fix="give a size, or a target error and expected accuracies")
        size = sample_size(units, expected_users=expected, target_se=target_se)
        reason = (
            f"; {size} units for a standard error of {target_se:g} of overall accuracy (Olofsson et al. 2014, eq. 13)"
        )
    how: str = allocation
    if allocation == "olofsson" and not rare_strata_fit(size, units=units, rare_size=rare_size):
        how = f"equal, as olofsson's {rare_size} for every rare stratum are more than the sample has ({size})"
    shares = allocate(size, units=units, method=allocation, expected_users=expected, rare_size=rare_size)
    return shares, how + reason


def assemble_design(
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
    psu_stratum: NDArray[np.intp] | None = None,
    psus_by_stratum: tuple[int, ...] = (),
    within: StrataLayer | None = None,
) -> SampleDesign:
    """Units in random order, so that their numbers give no stratum away; squares stay together for the field.

    Pixels and areas of the map's classes are those ``within`` the strata, where these may cover a part of the map.
    """
    together = psu is not None and kind != "systematic"
    order = np.arange(len(units[0])) if together else rng.permutation(len(units[0]))
    row, col, stratum = units[0][order], units[1][order], units[2][order]
    pixels, area = class_areas(map_path, within=within)
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
        cluster_px=cluster_px, psu_stratum=psu_stratum, psus_by_stratum=psus_by_stratum,
        min_distance_m=min_distance_m, notes=tuple(notes),
    )  # fmt: skip
