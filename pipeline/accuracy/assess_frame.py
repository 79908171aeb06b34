"""Frame: how the reference units were drawn, and what follows for totals and their variance.

Every figure of an accuracy assessment is a ratio of two totals over the map, so one pair of functions serves all
designs: :func:`unit_weights` (how much of the map a unit stands for) and :func:`variance_of_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ReferenceDataError

DesignKind = Literal[
    "simple random",
    "systematic",
    "stratified",
    "one-stage cluster",
    "two-stage cluster",
    "census",
    "not a probability sample",
]
PROBABILITY_DESIGNS = ("simple random", "systematic", "stratified", "one-stage cluster", "two-stage cluster")
CLUSTER_DESIGNS = ("one-stage cluster", "two-stage cluster")


@dataclass(frozen=True, eq=False)
class Clusters:
    """Primary units of a cluster sample: squares of the map, or the grids of a systematic one with several starts."""

    index: NDArray[np.intp]  # [unit] primary unit of each reference unit, 0..m-1
    sizes: NDArray[np.float64]  # [primary unit] map units inside each sampled primary unit
    # Primary units in the whole frame, of each of their strata where they were drawn by strata
    in_frame: int | tuple[int, ...]
    # [primary unit] stratum of each primary unit, 0.. in ``in_frame``; None without strata
    stratum: NDArray[np.intp] | None = None

    @property
    def strata(self) -> NDArray[np.intp]:
        """Stratum of each primary unit, int [primary unit]; 0 without strata."""
        return np.zeros(len(self.sizes), dtype=np.intp) if self.stratum is None else self.stratum

    @property
    def every(self) -> NDArray[np.float64]:
        """Primary units in the whole frame, float64 [stratum]."""
        return np.atleast_1d(np.asarray(self.in_frame, dtype=np.float64))

    @property
    def degrees_of_freedom(self) -> int:
        """Sampled primary units less their strata, at least 1 (Korn & Graubard 1999, Analysis of Health Surveys)."""
        return max(len(self.sizes) - len(np.unique(self.strata)), 1)


@dataclass(frozen=True, eq=False)
class Frame:
    """How units were drawn from the map."""

    kind: DesignKind  # The design that the figures assume
    stratum: NDArray[np.intp]  # [unit] stratum of each reference unit, 0..H-1 (all 0 without strata)
    sizes: NDArray[np.float64]  # [stratum] size of each stratum in map units, or in any unit of area
    names: tuple[str, ...]  # Names of the strata
    # True where ``sizes`` counts map units: only then is the finite population correction known
    sizes_are_counts: bool = True
    strata_are_map_classes: bool = False  # Stratum h is map class h; user's accuracies then use one stratum each
    post_stratified: bool = False  # The strata were used after a simple random or systematic draw, not in it
    # The primary units of a cluster design; of a systematic one its grids, where it has several
    clusters: Clusters | None = None

    def __post_init__(self) -> None:
        """Refuse frames whose parts do not fit."""
        if len(self.sizes) != len(self.names):
            raise ReferenceDataError("strata without sizes", got=len(self.sizes), expected=len(self.names))
        if self.stratum.size == 0:
            raise ReferenceDataError("no reference unit is left to assess the map with")
        may = self.kind == "systematic"
        if not may and (self.kind in CLUSTER_DESIGNS) != (self.clusters is not None):
            raise ReferenceDataError(f"design {self.kind!r} with{'out' if self.clusters is None else ''} primary units")
        counts = np.bincount(self.stratum, minlength=len(self.names))
        if self.sizes_are_counts and self.is_probability and self.clusters is None and (counts > self.sizes).any():
            worst = int(np.argmax(counts - self.sizes))
            raise ReferenceDataError(
                f"stratum {self.names[worst]!r} has more reference units than map units",
                got=int(counts[worst]),
                expected=f"at most {self.sizes[worst]:.0f}",
            )

    @property
    def is_probability(self) -> bool:
        """Whether figures may carry standard errors and intervals."""
        return self.kind in PROBABILITY_DESIGNS

    @property
    def counts(self) -> NDArray[np.intp]:
        """Reference units per stratum, int [stratum]."""
        return np.bincount(self.stratum, minlength=len(self.names))

    @property
    def unsampled_share(self) -> float:
        """Share of the map that lies in strata without a single reference unit."""
        return float(self.sizes[self.counts == 0].sum() / self.sizes.sum())


def unit_weights(frame: Frame) -> NDArray[np.float64]:
    """Map units that each reference unit stands for, float64 [unit]: the inverse inclusion probability.

    Source: Horvitz & Thompson (1952); for strata N_h/n_h, for two stages M/m * N_i/n_i.
    """
    if frame.clusters is not None:
        clusters, strata = frame.clusters, frame.clusters.strata
        taken = np.bincount(clusters.index, minlength=len(clusters.sizes))
        drawn = np.bincount(strata, minlength=len(clusters.every))
        return np.asarray(((clusters.every / np.maximum(drawn, 1))[strata] * clusters.sizes / taken)[clusters.index])
    if not frame.is_probability:
        return np.ones(len(frame.stratum))
    return np.asarray((frame.sizes / np.maximum(frame.counts, 1))[frame.stratum], dtype=np.float64)


def variance_of_total(
    values: NDArray[np.float64], frame: Frame, *, certain: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Variance of the estimated totals of some variables, float64 [variable]; NaN where it cannot be estimated.

    Args:
        values: float64 [unit, variable].
        frame: The design.
        certain: bool [stratum, variable]; True where a variable is known to be 0 in a whole stratum.

    Source: Cochran (1977), Sampling Techniques, eq. 5.11 (strata), 11.24 (two stages).
    """
    if frame.clusters is not None:
        return _two_stage(values, frame.clusters)
    squares, counts = _scatter(values, frame.stratum, len(frame.names))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = squares / (counts - 1.0)[:, None]
    left = np.clip(1.0 - counts / frame.sizes, 0.0, 1.0) if frame.sizes_are_counts else np.ones(len(counts))
    with np.errstate(invalid="ignore"):
        parts = (frame.sizes**2 * left / np.maximum(counts, 1))[:, None] * spread
    # A stratum that is taken whole adds nothing; a single unit of a larger one says nothing about its spread.
    parts[(left == 0.0) | (counts == 0)] = 0.0
    parts[(counts == 1) & (left > 0.0)] = np.nan
    if certain is not None:
        parts[certain] = 0.0
    return np.asarray(parts.sum(axis=0))


def _scatter(
    values: NDArray[np.float64], group: NDArray[np.intp], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of squares around the group means [group, variable], and group counts [group]."""
    counts = np.bincount(group, minlength=groups).astype(np.float64)
    means = _sums(values, group, groups) / np.maximum(counts, 1)[:, None]
    return _sums((values - means[group]) ** 2, group, groups), counts


def _sums(values: NDArray[np.float64], group: NDArray[np.intp], groups: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(group, weights=column, minlength=groups) for column in values.T], axis=1)


def _two_stage(values: NDArray[np.float64], clusters: Clusters) -> NDArray[np.float64]:
    """Stehman (1997), Remote Sens. Environ. 60, 258-269; one stage is the case where every unit is taken.

    Strata of primary units add their variances, as those of any strata do (Cochran 1977, eq. 5.10).
    """
    size = clusters.sizes
    squares, taken = _scatter(values, clusters.index, len(size))
    totals = _sums(values, clusters.index, len(size)) * (size / taken)[:, None]
    within = squares / np.maximum(taken - 1, 1)[:, None] * (size**2 * (1 - taken / size) / taken)[:, None]
    alone = (taken == 1) & (size > 1)
    variance = np.zeros(values.shape[1])
    for stratum in np.unique(clusters.strata):
        here = clusters.strata == stratum
        drawn, every = int(here.sum()), clusters.every[stratum]
        if drawn < 2 and drawn < every:  # noqa: PLR2004 - a spread needs two
            return np.full(values.shape[1], np.nan)
        between = every**2 * totals[here].var(axis=0, ddof=1) / drawn if drawn > 1 else np.zeros(values.shape[1])
        if alone[here].any():
            # One unit per cluster hides the spread within: treat primary units as drawn with replacement, which is
            # on the safe side (Cochran 1977, sect. 11.9).
            variance += between
        else:
            variance += (1 - drawn / every) * between + every / drawn * within[here].sum(axis=0)
    return variance
