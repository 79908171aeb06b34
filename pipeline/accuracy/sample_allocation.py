"""How many reference units, and how many in each stratum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.settings import OTHERS
from pipeline.errors import ReferenceDataError

MIN_PER_STRATUM = 2
# Olofsson et al. (2014), sect. 5.1.1: 50 to 100 units for each rare class; the middle of their three trials.
RARE_SIZE = 75


def sample_size(units: Sequence[float], *, expected_users: Sequence[float], target_se: float) -> int:
    """Units that a stratified sample needs for a target standard error of overall accuracy.

    n = (sum W_h S_h)^2 / (target^2 + sum W_h S_h^2 / N) with S_h = sqrt(U_h (1 - U_h)).

    Args:
        units: Map units of each stratum.
        expected_users: Expected user's accuracy of each stratum, 0..1.
        target_se: Target standard error of overall accuracy, 0..1.

    Raises:
        ReferenceDataError: accuracies outside 0..1, or another number of them than of strata.

    Source: Olofsson et al. (2014), eq. 13, after Cochran (1977), eq. 5.25.

    >>> sample_size([2e5, 1.5e5, 3.2e6, 6.45e6], expected_users=[0.7, 0.6, 0.9, 0.95], target_se=0.01)
    641
    """
    spread = _spread(units, expected_users)
    share = np.asarray(units, dtype=np.float64) / sum(units)
    needed = float(share @ spread) ** 2 / (target_se**2 + float(share @ spread**2) / sum(units))
    return max(math.ceil(needed), 1)


def allocate(
    total: int,
    *, units: Sequence[float], method: str, expected_users: Sequence[float] | None = None, rare_size: int = RARE_SIZE,
) -> list[int]:  # fmt: skip
    """Units of a sample of ``total`` in each stratum; MIN_PER_STRATUM or more each, so that each has a variance.

    Args:
        total: Sample size.
        units: Map units of each stratum.
        method: ``equal``; ``proportional`` to size; ``neyman``: to size times the expected spread; ``olofsson``:
            ``rare_size`` for every stratum whose proportional share is smaller, the rest proportional; equal where
            the sample is too small for that.
        expected_users: Expected user's accuracies, for ``neyman``.
        rare_size: Units of a rare stratum, for ``olofsson``.

    Raises:
        ReferenceDataError: more units than the map has, or fewer than MIN_PER_STRATUM for each stratum.

    Source: Cochran (1977), eq. 5.26 (Neyman); Olofsson et al. (2014), sect. 5.1.1 (compromise).

    >>> allocate(641, units=[2e5, 1.5e5, 3.2e6, 6.45e6], method="proportional")
    [13, 10, 205, 413]
    >>> allocate(640, units=[2e5, 1.5e5, 3.2e6, 6.45e6], method="olofsson")
    [75, 75, 162, 328]
    """
    size = np.asarray(units, dtype=np.float64)
    floor = np.minimum(MIN_PER_STRATUM, size).astype(np.int64)
    if total > size.sum() or total < floor.sum():
        expected = f"{floor.sum()} (at least {MIN_PER_STRATUM} in each of {len(size)} strata) to {size.sum():.0f}"
        raise ReferenceDataError("sample size", got=total, expected=expected)
    if method == "equal":
        ideal = np.full(len(size), total / len(size))
    elif method == "proportional":
        ideal = total * size / size.sum()
    elif method == "neyman":
        if expected_users is None:
            raise ReferenceDataError("Neyman allocation without expected user's accuracies")
        load = size * _spread(units, expected_users)
        ideal = total * (load / load.sum() if load.sum() > 0 else size / size.sum())
    else:
        shares = _compromise(total, size, rare_size)
        ideal = np.full(len(size), total / len(size)) if shares is None else shares
    return _whole(ideal, total, floor, size)


def round_at_random(total: int, *, units: NDArray[np.integer], rng: np.random.Generator) -> list[int]:
    """Proportional shares of ``total``, rounded up or down at random so that each unit of the map has the same chance.

    Strata of a fraction of a unit get one with the chance of that fraction; none has a minimum.

    Source: systematic sampling of the cumulated sizes, Madow (1949), Ann. Math. Stat. 20, 333-354.
    """
    ideal = np.concatenate([[0.0], np.cumsum(total * units / units.sum())])
    ideal[-1] = total
    return [int(n) for n in np.diff(np.floor(ideal + rng.random()))]


def by_stratum(expected: Mapping[str, float] | float, names: Sequence[str]) -> list[float]:
    """Expected user's accuracy of each stratum, from one for all, or by name (OTHERS for those not named).

    Raises:
        ReferenceDataError: a stratum that is not there, or one without a number.
    """
    if isinstance(expected, (int, float)):
        return [float(expected)] * len(names)
    strange = sorted(set(expected) - {*names, OTHERS})
    if strange:
        raise ReferenceDataError("expected accuracy of unknown strata: " + ", ".join(strange), got=", ".join(names))
    missing = [name for name in names if name not in expected and OTHERS not in expected]
    if missing:
        raise ReferenceDataError("no expected user's accuracy for " + ", ".join(missing), expected=", ".join(names))
    return [float(expected.get(name, expected.get(OTHERS, 0.0))) for name in names]


def share_out(
    size: int | None, method: str, *, units: Sequence[int], expected: Sequence[float], target_se: float | None = None
) -> tuple[list[int], str]:
    """Units to draw in each stratum, and how they were given, in words.

    ``size`` None computes it from ``target_se`` and ``expected``.

    Raises:
        ReferenceDataError: no size and no target, or an allocation that the strata cannot give.
    """
    reason = ""
    if size is None:
        if target_se is None:
            raise ReferenceDataError("no sample size", fix="give a size, or a target error and expected accuracies")
        size = sample_size(units, expected_users=expected, target_se=target_se)
        reason = (
            f"; {size} units for a standard error of {target_se:g} of overall accuracy (Olofsson et al. 2014, eq. 13)"
        )
    how = method
    if method == "olofsson" and _compromise(size, np.asarray(units, dtype=np.float64), RARE_SIZE) is None:
        how = f"equal, as olofsson's {RARE_SIZE} for every rare stratum are more than the sample has ({size})"
    return allocate(size, units=units, method=method, expected_users=expected), how + reason


def _spread(units: Sequence[float], expected_users: Sequence[float]) -> NDArray[np.float64]:
    users = np.asarray(expected_users, dtype=np.float64)
    if len(users) != len(units) or ((users < 0) | (users > 1)).any():
        raise ReferenceDataError(
            "expected user's accuracies",
            got=list(expected_users),
            expected=f"{len(units)} values of 0..1, one per stratum",
        )
    return np.asarray(np.sqrt(users * (1 - users)))


def _compromise(total: int, size: NDArray[np.float64], rare_size: int) -> NDArray[np.float64] | None:
    """Units per stratum, before rounding; None where the rare strata alone want more than there are."""
    rare = np.zeros(len(size), dtype=np.bool_)
    ideal = total * size / size.sum()
    while True:
        now = rare | (ideal < rare_size)
        if rare_size * now.sum() > total:
            return None
        if (now == rare).all():
            return np.asarray(ideal)
        rare = now
        rest = total - rare_size * rare.sum()
        ideal = np.where(rare, rare_size, rest * size / size[~rare].sum())


def _whole(ideal: NDArray[np.float64], total: int, floor: NDArray[np.int64], size: NDArray[np.float64]) -> list[int]:
    """Integers near ``ideal`` that add up to ``total`` within floor and size: largest remainders first."""
    low, high = 0.0, float(max(size.max() / max(ideal[ideal > 0].min(initial=1.0), 1e-9), 2.0))
    for _ in range(200):  # the factor whose clipped multiples add up to total, by bisection
        factor = (low + high) / 2
        if np.clip(ideal * factor, floor, size).sum() < total:
            low = factor
        else:
            high = factor
    wished = np.clip(ideal * high, floor, size)
    counts = np.maximum(np.floor(wished + 1e-6), floor).astype(np.int64)
    while counts.sum() != total:  # what rounding left: fewer steps than strata
        step = 1 if counts.sum() < total else -1
        free = counts < size if step > 0 else counts > floor
        counts[int(np.argmax(np.where(free, step * (wished - counts), -np.inf)))] += step
    return [int(count) for count in counts]
