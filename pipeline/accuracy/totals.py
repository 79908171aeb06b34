"""Mean and total of a continuous map's quantity from a probability sample: the map's own mean, corrected.

The regression estimator takes the map's mean over all pixels and corrects it by what the sample says of its errors; a
map that is any good makes the interval narrow, a bad one only leaves it wide.

Source: Saerndal, Swensson & Wretman (1992), Model Assisted Survey Sampling, sections 6.4 to 6.6 (general regression
estimator, g-weighted residuals for the variance).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
# Units of a stratum that a variance needs, and of the whole sample that a line with two coefficients needs.
_LEAST, _LEAST_IN_ALL = 2, 5


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and interval of 95 %."""

    estimate: float
    se: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """The same of a quantity that is so many times as large."""
        return Estimate(*(part * factor for part in (self.estimate, self.se, self.low, self.high)))

    def to_json(self) -> dict[str, float]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """What a sample says of the mapped area.

    Attributes:
        direct: Mean from the sample alone.
        regression: Mean from sample and map.
        map_mean: The map's own mean.
        gain: Variance of the direct mean over that of the regression: how many times as large a sample without the map
            would have to be.
        units: Sample units.
    """

    direct: Estimate
    regression: Estimate
    map_mean: float
    gain: float
    units: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def estimate_mean(
    measured: NDArray[np.float64], mapped: NDArray[np.float64], *, stratum: NDArray[np.intp],
    sizes: NDArray[np.float64], map_mean: float,
) -> Totals:  # fmt: skip
    """Mean of a quantity over a map.

    Args:
        measured: Value at each unit, float64 [n].
        mapped: The map's value there, float64 [n].
        stratum: Stratum of each unit, from 0; all 0 for a simple random sample.
        sizes: Map units in each stratum, float64 [stratum].
        map_mean: Mean of the map over all its units.

    Raises:
        ReferenceDataError: too few units.
    """
    counts = np.bincount(stratum, minlength=len(sizes))
    if len(measured) < _LEAST_IN_ALL or (counts[sizes > 0] < _LEAST).any():
        raise ReferenceDataError(
            "too few units with a measured value", got=f"{counts.tolist()} in the strata",
            expected=f"{_LEAST} in each stratum, {_LEAST_IN_ALL} in all",
        )  # fmt: skip
    every = sizes.sum()
    design = (sizes / counts)[stratum]
    freedom = max(len(measured) - int((sizes > 0).sum()), 1)
    plain = float((design * measured).sum() / every)
    direct = _interval(plain, _variance(design * measured, stratum, sizes, counts) / every**2, freedom)
    x = np.stack([np.ones_like(mapped), mapped], axis=1)
    cross = (x * design[:, None]).T @ x
    slope = np.linalg.lstsq(cross, (x * design[:, None]).T @ measured, rcond=None)[0]
    goal = every * np.array([1.0, map_mean])
    g = 1.0 + x @ np.linalg.lstsq(cross, goal - design @ x, rcond=None)[0]
    corrected = float((design * g * measured).sum() / every)
    rest = design * g * (measured - x @ slope)
    variance = _variance(rest, stratum, sizes, counts) / every**2
    gain = (direct.se**2 / variance) if variance > 0 else float("inf")
    return Totals(direct, _interval(corrected, variance, max(freedom - 1, 1)), map_mean, float(gain), len(measured))


def _variance(
    weighted: NDArray[np.float64], stratum: NDArray[np.intp], sizes: NDArray[np.float64], counts: NDArray[np.intp]
) -> float:
    """Variance of a total of weighted values drawn at random without replacement within strata."""
    total = 0.0
    for number in np.flatnonzero(counts):
        own = weighted[stratum == number]
        left = 1.0 - counts[number] / sizes[number]
        total += left * len(own) / (len(own) - 1) * float(((own - own.mean()) ** 2).sum())
    return total


def _interval(estimate: float, variance: float, freedom: int) -> Estimate:
    se = float(np.sqrt(variance))
    half = float(student.ppf(0.5 + CONFIDENCE / 2, freedom)) * se
    return Estimate(estimate, se, estimate - half, estimate + half)
