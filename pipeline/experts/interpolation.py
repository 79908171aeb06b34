"""Interpolation of samples in space, day by day: inverse distance, kriging, and the mean of the day's other stations.

It is a baseline of maps from stations, and a feature beside rasters. What a sample learns from is interpolated from
other groups only (stations, blocks), never from itself: its own value would teach that neighbours are always right.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Columns of :meth:`Field.columns`.
COLUMNS = ("mean of the day", "inverse distance", "kriging")
# Neighbours of inverse distance weighting, and the power of the distance. Source: Shepard (1968), A two-dimensional
# interpolation function for irregularly-spaced data.
_NEIGHBOURS, _POWER = 8, 2.0
# Most samples that the covariance is fitted to: its cost grows with their cube.
_FITTED = 300
# Samples of one day from which on they say how far values are alike.
_LEAST_A_DAY = 3
_CHUNK = 20_000


@dataclass(frozen=True, eq=False)
class Field:
    """Samples to interpolate from.

    Attributes:
        xy: Places in metres, float64 [n, 2].
        day: Number of the day, int64 [n]; samples of other days are never used.
        value: Of each sample, standardised, float64 [n].
        group: Number of the station or block, int64 [n].
        kernel: (variance, range in metres, nugget) of the covariance, in units of ``value``.
    """

    xy: NDArray[np.float64]
    day: NDArray[np.int64]
    value: NDArray[np.float64]
    group: NDArray[np.int64]
    kernel: tuple[float, float, float]

    @classmethod
    def fit(
        cls, xy: NDArray[np.float64], day: NDArray[np.int64], value: NDArray[np.float64], group: NDArray[np.int64],
        *, seed: int = 0,
    ) -> Field:  # fmt: skip
        """With a covariance (Matern 3/2 and a nugget) by maximum likelihood, of values less their day's mean."""
        return cls(xy, day, value, group, fitted_kernel(xy, day, value, seed=seed))

    def columns(
        self, xy: NDArray[np.float64], day: NDArray[np.int64], group: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Mean of the day, inverse distance and kriging at other places, float64 [m, 3].

        Args:
            xy: Places float64 [m, 2].
            day: Their days int64 [m]; one without samples gives the mean of all.
            group: Groups int64 [m] whose samples are not used for each place; None uses all.
        """
        out = np.full((len(xy), 3), self.value.mean())
        key = day if group is None else np.stack([day, group], axis=1)
        _, which = np.unique(key, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        for rows in np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1]):
            used = self.day == day[rows[0]]
            if group is not None:
                used &= self.group != group[rows[0]]
            if used.any():
                for start in range(0, len(rows), _CHUNK):
                    part = rows[start : start + _CHUNK]
                    out[part] = self._at(xy[part], used)
        return out

    def held_out(self) -> NDArray[np.float64]:
        """The columns at the samples themselves, each from the day's other groups."""
        return self.columns(self.xy, self.day, self.group)

    def _at(self, xy: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
        places, value = self.xy[used], self.value[used]
        mean = value.mean()
        apart = _distances(xy, places)
        return np.stack([np.full(len(xy), mean), _inverse_distance(apart, value),
                         mean + self._kriged(apart, places, value - mean)], axis=1)  # fmt: skip

    def _kriged(
        self, apart: NDArray[np.float64], places: NDArray[np.float64], rest: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        variance, reach, nugget = self.kernel
        among = variance * _matern(_distances(places, places) / reach)
        among[np.diag_indices(len(places))] += nugget + 1e-9
        return variance * _matern(apart / reach) @ np.linalg.solve(among, rest)


def fitted_kernel(
    xy: NDArray[np.float64], day: NDArray[np.int64], value: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float, float]:
    """Variance, range in metres and nugget of the covariance of values less their day's mean.

    Days are put far from each other, so that one likelihood holds for all of them. Where a day has one sample nothing
    is known of space: the nugget is all.
    """
    days, which, counts = np.unique(day, return_inverse=True, return_counts=True)
    rest = value - (np.bincount(which, value) / counts)[which]
    rng = np.random.default_rng(seed)
    keep: list[int] = []
    for number in rng.permutation(len(days)):
        rows = np.flatnonzero(which == number)
        keep.extend(rng.permutation(rows)[: max(_FITTED - len(keep), 0)])
    span = max(float(np.ptp(xy, axis=0).max()), 1.0)
    variance = float(rest[keep].var())
    if variance <= 0 or counts.max() < _LEAST_A_DAY:
        return 0.0, span, max(variance, 1e-6)
    apart = np.c_[xy[keep] / span, which[keep] * 100.0]
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(0.2, (0.01, 3.0), nu=1.5) + WhiteKernel(0.3, (1e-3, 1e2))
    process = GaussianProcessRegressor(kernel, normalize_y=False, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(apart, rest[keep] / variance**0.5)
    found = process.kernel_
    return (float(found.k1.k1.constant_value) * variance, float(found.k1.k2.length_scale) * span,
            float(found.k2.noise_level) * variance)  # fmt: skip


def _matern(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matern correlation of smoothness 3/2 at distances in ranges."""
    scaled = 3.0**0.5 * ratio
    return np.asarray((1.0 + scaled) * np.exp(-scaled))


def _inverse_distance(apart: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of the nearest samples, by inverse squared distance; a sample's own place has its value."""
    count = min(_NEIGHBOURS, len(value))
    near = np.argpartition(apart, count - 1, axis=1)[:, :count]
    weight = 1.0 / np.maximum(np.take_along_axis(apart, near, axis=1), 1.0) ** _POWER
    return np.asarray((weight * value[near]).sum(1) / weight.sum(1))


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(one, other))
