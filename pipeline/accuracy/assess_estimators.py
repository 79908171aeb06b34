"""Accuracy and area with standard errors and 95 % intervals, for every design of :mod:`pipeline.accuracy.assess_frame`.

All figures are ratios of two estimated totals, R = Y / X, whose variance is that of the total of y - R x, over X^2;
docs/accuracy.md has y and x of each. Source: Stehman (2014), Int. J. Remote Sens. 35, 4923-4939, eqs. 20-28. With the
map classes as strata these are Olofsson et al. (2014), Remote Sens. Environ. 148, 42-57, eqs. 1-11; for clusters
Stehman (1997), Remote Sens. Environ. 60, 258-269.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from pipeline.accuracy.assess_frame import Frame, unit_weights, variance_of_total

NOT_PROBABILITY = "not a probability sample"
CENSUS = "agreement over all pixels of the reference: no sampling error"
_TINY = 1e-18


@dataclass(frozen=True, eq=False)
class ErrorMatrix:
    """Units and area that the map calls one thing (rows) and the reference another (columns)."""

    names: tuple[str, ...]  # Class names, one per row and per column
    counts: NDArray[np.int64]  # [map class, reference class] units of the sample
    proportions: NDArray[np.float64]  # [map class, reference class] estimated share of the area, sums to 1

    def to_json(self) -> dict[str, object]:
        """Rows are map classes, columns reference classes; both in the order of ``classes``."""
        return {
            "rows": "map",
            "columns": "reference",
            "classes": list(self.names),
            "counts": self.counts.tolist(),
            "proportions": [[round(float(value), 10) for value in row] for row in self.proportions],
        }


@dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty; None is "cannot be known from this sample", and ``note`` says why."""

    estimate: float | None  # The figure
    se: float | None = None  # Standard error
    ci95: tuple[float, float] | None = None  # (low, high) of the 95 % interval
    note: str = ""  # Empty, or why a part is None or how it was got

    def scaled(self, factor: float) -> Estimate:
        """The same figure in another unit."""
        return Estimate(
            None if self.estimate is None else self.estimate * factor,
            None if self.se is None else self.se * factor,
            None if self.ci95 is None else (self.ci95[0] * factor, self.ci95[1] * factor),
            self.note,
        )

    def to_json(self) -> dict[str, object]:
        """{estimate, se, ci95}, and ``note`` where there is one."""
        plain: dict[str, object] = {
            "estimate": self.estimate, "se": self.se, "ci95": None if self.ci95 is None else list(self.ci95)
        }  # fmt: skip
        return plain | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class; ``area_share`` is the share of the assessed area that the reference gives it."""

    users_accuracy: Estimate
    producers_accuracy: Estimate
    f1: Estimate
    area_share: Estimate


@dataclass(frozen=True, eq=False)
class Figures:
    """All figures of a map."""

    overall_accuracy: Estimate  # Share of the area that the map has right
    per_class: dict[str, ClassFigures]  # One entry per class of the legend, in its order
    error_matrix: ErrorMatrix  # Counts and area proportions
    notes: tuple[str, ...]  # What a reader of the figures must know


def estimate_accuracy(
    map_index: NDArray[np.integer], reference_index: NDArray[np.integer],
    *, names: tuple[str, ...], frame: Frame, unit_area: NDArray[np.float64] | None = None,
) -> Figures:  # fmt: skip
    """Every figure of an assessment, from paired class indices 0..K-1, int [unit] each.

    ``unit_area`` float [unit] is the area of each unit in any unit of area; None where all are equal.
    """
    classes = len(names)
    area = np.ones(len(map_index)) if unit_area is None else np.asarray(unit_area, dtype=np.float64)
    top, bottom, known = accuracy_columns(np.asarray(map_index), np.asarray(reference_index), area, frame, classes)
    figures = ratios(top, bottom, frame=frame, certain=known)
    pairs = np.asarray(map_index), np.asarray(reference_index)
    mass = cross_tabulate(*pairs, classes=classes, weights=area * unit_weights(frame))
    return Figures(
        figures[0],
        {name: ClassFigures(*(figures[1 + group * classes + k] for group in range(4))) for k, name in enumerate(names)},
        ErrorMatrix(names, cross_tabulate(*pairs, classes=classes), mass / mass.sum()),
        _notes(frame),
    )


def ratios(
    top: NDArray[np.float64], bottom: NDArray[np.float64],
    *, frame: Frame, certain: NDArray[np.bool_] | None = None, bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Estimate]:  # fmt: skip
    """Ratios of totals with their uncertainty, one per column.

    Args:
        top: float64 [unit, figure], y of docs/accuracy.md.
        bottom: float64 [unit, figure], x.
        frame: The design.
        certain: bool [stratum, figure]; where y and x are 0 in the whole stratum by definition.
        bounds: What the figure cannot go beyond; intervals are cut there.
    """
    weights = unit_weights(frame)
    denominator = weights @ bottom
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (weights @ top) / denominator
        residuals = top - np.nan_to_num(ratio) * bottom
        variance = variance_of_total(residuals, frame, certain=certain) / denominator**2
    results = []
    for column, value in enumerate(ratio):
        if not math.isfinite(value):
            results.append(Estimate(None, note=_missing(frame)))
        else:
            # A variance of 0, but for rounding.
            flat = bool(variance[column] <= _TINY * max(value * value, 1.0))
            complete = frame.sizes_are_counts and frame.clusters is None and bool((frame.counts == frame.sizes).all())
            if flat and not complete:  # of a sample of all units the spread is 0 indeed
                open_strata = frame.sizes > 0 if certain is None else (frame.sizes > 0) & ~certain[:, column]
                # The exact interval is one of shares, not of differences and trends.
                one = int(open_strata.sum()) == 1 and frame.clusters is None and bounds == (0.0, 1.0)
                results.append(_without_spread(float(value), bottom[:, column], frame, one_stratum=one))
            else:
                results.append(finish(float(value), float(variance[column]), frame, bounds))
    return results


def finish(value: float, variance: float, frame: Frame, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """An estimate with its interval, as far as the design allows one; the interval is cut at ``bounds``."""
    if not frame.is_probability:
        return Estimate(value, note=CENSUS if frame.kind == "census" else NOT_PROBABILITY)
    if not math.isfinite(variance):
        return Estimate(value, note="a stratum or the sample has a single unit: its variance cannot be estimated")
    spread = math.sqrt(max(variance, 0.0))
    # Student's t where the number of primary units, not of pixels, carries the information.
    half = (
        float(norm.ppf(0.975) if frame.clusters is None else t.ppf(0.975, frame.clusters.degrees_of_freedom)) * spread
    )
    return Estimate(value, spread, (max(value - half, bounds[0]), min(value + half, bounds[1])))


def _without_spread(value: float, bottom: NDArray[np.float64], frame: Frame, *, one_stratum: bool) -> Estimate:
    """A sample that is alike in each stratum (without a single error, say) has a variance of 0, which is no truth.

    Where the figure can have units in one stratum only, the exact binomial interval holds (Clopper & Pearson 1934,
    Biometrika 26, 404-413). Where other strata could hold some that the sample has not met (omissions of a class, for
    its producer's accuracy) nothing is claimed.
    """
    if not frame.is_probability:
        return Estimate(value, note=CENSUS if frame.kind == "census" else NOT_PROBABILITY)
    used = bottom > 0
    n = int(used.sum())
    agree = f"all {n} units agree" if value in {0.0, 1.0} else "the units of each stratum agree"
    note = f"{agree}: the sample shows no variance, so the standard error is unknown"
    if value not in (0.0, 1.0) or not one_stratum:
        return Estimate(value, note=note + ", and so is the interval")
    edge = 0.025 ** (1.0 / n)
    interval = (edge, 1.0) if value == 1.0 else (0.0, 1.0 - edge)
    return Estimate(value, ci95=interval, note=f"{note}; the interval is the exact binomial one (Clopper-Pearson)")


def accuracy_columns(
    map_index: NDArray[np.integer], reference_index: NDArray[np.integer], area: NDArray[np.float64], frame: Frame,
    classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_] | None]:  # fmt: skip
    """Y and x of docs/accuracy.md, and where they are 0 by definition, bool [stratum, figure].

    float64 [unit, 1 + 4 classes]: overall, user's, producer's, F1, share. With map classes as strata, user's accuracy
    of class k has nothing to do with the other strata.
    """
    mapped = (map_index[:, None] == np.arange(classes)) * area[:, None]
    is_truth = reference_index[:, None] == np.arange(classes)
    truth, both = is_truth * area[:, None], mapped * is_truth
    top = np.hstack([both.sum(axis=1, keepdims=True), both, both, 2 * both, truth])
    bottom = np.hstack([area[:, None], mapped, truth, mapped + truth, np.broadcast_to(area[:, None], mapped.shape)])
    if not frame.strata_are_map_classes:
        return top, bottom, None
    known = np.zeros((len(frame.names), 1 + 4 * classes), dtype=np.bool_)
    known[:, 1 : 1 + classes] = ~np.eye(len(frame.names), classes, dtype=np.bool_)
    return top, bottom, known


def _missing(frame: Frame) -> str:
    why = "no unit of this class in the sample: the figure cannot be estimated"
    return why if frame.is_probability or frame.kind == "census" else f"{why}; {NOT_PROBABILITY}"


def _notes(frame: Frame) -> tuple[str, ...]:
    notes = []
    counts = frame.counts
    if frame.unsampled_share > _TINY:
        empty = [name for name, n, size in zip(frame.names, counts, frame.sizes, strict=True) if n == 0 and size > 0]
        notes.append(
            f"no reference unit in {', '.join(empty)}: the figures hold for the other "
            f"{1 - frame.unsampled_share:.1%} of the map"
        )
    alone = [name for name, n, size in zip(frame.names, counts, frame.sizes, strict=True) if n == 1 and size > 1]
    if alone and frame.is_probability and frame.clusters is None:
        notes.append(f"a single reference unit in {', '.join(alone)}: no variance, so no interval where it counts")
    return tuple(notes)


@dataclass(frozen=True)
class Agreement:
    """Chance-corrected agreement, only for those who must report it; all are shares, 0..1 (kappa -1..1)."""

    kappa: float | None  # Cohen's kappa of the estimated area proportions; None where chance agreement is 1
    quantity_disagreement: float  # Half the sum of |map share - reference share|
    allocation_disagreement: float  # What is left of the disagreement when the quantities are as they are


def cross_tabulate(
    map_index: NDArray[np.integer], reference_index: NDArray[np.integer],
    *, classes: int, weights: NDArray[np.float64] | None = None,
) -> NDArray[Any]:  # fmt: skip
    """Counts int64 (sums of weights float64) [map class, reference class] of pairs of indices 0..classes-1, any shape.

    >>> cross_tabulate(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    flat = map_index.ravel().astype(np.int64) * classes + reference_index.ravel().astype(np.int64)
    return np.bincount(flat, weights, minlength=classes * classes).reshape(classes, classes)


def agreement(proportions: NDArray[np.float64]) -> Agreement:
    """Kappa with quantity and allocation disagreement beside it; they add up to 1 - overall accuracy.

    Source: Pontius & Millones (2011), Death to Kappa, Int. J. Remote Sens. 32, 4407-4429, eqs. 2-5 (disagreements)
    and 10 (kappa); they show why kappa alone is not worth reporting.

    >>> agreement(np.array([[0.4, 0.1], [0.2, 0.3]])).quantity_disagreement
    0.1
    """
    share = proportions / proportions.sum()
    rows, columns, diagonal = share.sum(axis=1), share.sum(axis=0), np.diag(share)
    quantity = float(np.abs(rows - columns).sum() / 2)
    allocation = float(np.minimum(rows - diagonal, columns - diagonal).sum())
    chance = float(rows @ columns)
    kappa = None if np.isclose(chance, 1.0) else (float(diagonal.sum()) - chance) / (1 - chance)
    return Agreement(kappa, round(quantity, 12), round(allocation, 12))
