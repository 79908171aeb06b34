"""Confidence that means what it says: reliability, expected calibration error, temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DEFAULT_BINS = 15  # Guo et al. (2017), sect. 4.1
TEMPERATURES = (0.05, 20.0)
# Temperatures of networks lie between a half and two more often than not.
PRIOR_LOG_T = 0.5
# With fewer polygons held out their spread, and with it what they show, is not known.
FEWEST_POLYGONS = 10
_STEPS = 41
_EPS = 1e-12


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability diagram in equal bins of confidence.

    Attributes:
        edges: float64 [bin + 1]; limits of the bins, 0..1.
        count: int64 [bin]; pixels.
        confidence: float64 [bin]; mean confidence, NaN in empty bins.
        accuracy: float64 [bin]; share of right pixels, NaN in empty bins.
        ece: Expected calibration error: mean |accuracy - confidence|, weighted by pixels.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float

    def to_json(self) -> dict[str, object]:
        """JSON-ready; None in empty bins."""
        plain = {
            name: [None if np.isnan(value) else float(value) for value in getattr(self, name)]
            for name in ("confidence", "accuracy")
        }
        return {"edges": self.edges.tolist(), "count": self.count.tolist(), **plain, "ece": self.ece}


def reliability(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = DEFAULT_BINS
) -> Reliability:
    """How often pixels of each confidence are right.

    Args:
        confidence: float [pixel], 0..1: probability of the mapped class.
        correct: bool [pixel].
        bins: Number of bins of equal width.

    Raises:
        ReferenceDataError: no pixels, different lengths, or values that are no probabilities.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, ICML, eqs. 2-3.
    """
    if confidence.shape != correct.shape or confidence.ndim != 1 or not confidence.size:
        raise ReferenceDataError("confidence and correctness", got=f"{confidence.shape}, {correct.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ReferenceDataError("confidence is no probability", expected="0..1")
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=confidence, minlength=bins) / count
        right = np.bincount(index, weights=correct, minlength=bins) / count
    gap = np.nansum(np.abs(right - mean) * count) / count.sum()
    return Reliability(edges, count.astype(np.int64), mean, right, float(gap))


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, polygon: NDArray[np.integer] | None = None
) -> float:
    """Temperature scaling: the one T that gives held-out labels the highest likelihood; the map stays the same.

    Args:
        logits: float [pixel, class]; scores on validation blocks, never on training pixels.
        labels: int [pixel]; class index.
        polygon: int [pixel]; pixels of one polygon are right or wrong together, so polygons count, each once, and T
            goes from 1 only as far as they can show (:func:`shown`). None: every pixel speaks for itself.

    Raises:
        ReferenceDataError: arrays that do not fit, or no pixels.

    Source: Guo et al. (2017), sect. 4.2.
    """
    scores = _checked(logits, labels)
    rows = np.arange(len(labels))
    return _temperature(lambda factor: -log_softmax(scores * factor, axis=1)[rows, labels], polygon)


def fit_confidence(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, polygon: NDArray[np.integer] | None = None
) -> float:
    """The T that makes the confidence of the likeliest class most credible, whatever the scores of the other classes.

    For scores of a stand-in, such as votes of forests, whose small shares are not those of the network: the likelihood
    of all classes would be ruled by them. What counts is "right with this confidence, or not" (a binary likelihood).

    Args:
        logits: float [pixel, class]; scores on pixels held out.
        labels: int [pixel]; class index.
        polygon: As for :func:`fit_temperature`.

    Raises:
        ReferenceDataError: arrays that do not fit, or no pixels.
    """
    scores = _checked(logits, labels)
    right = scores.argmax(axis=1) == labels

    def cost(factor: float) -> NDArray[np.float64]:
        sure = np.clip(softmax(scores * factor, axis=1).max(axis=1), _EPS, 1 - _EPS)
        return np.asarray(-np.where(right, np.log(sure), np.log1p(-sure)))

    return _temperature(cost, polygon)


def _temperature(cost: Callable[[float], NDArray[np.float64]], polygon: NDArray[np.integer] | None) -> float:
    """The temperature with the least mean cost; ``cost`` gives that of each pixel at a factor 1/T."""
    if polygon is None:
        log_t = _least(lambda log_t: float(cost(float(np.exp(-log_t))).mean()))
    else:
        ids, of = np.unique(polygon, return_inverse=True)
        pixels = np.bincount(of)
        log_t = 0.0
        if len(ids) >= FEWEST_POLYGONS:
            log_t = shown(lambda log_t: np.bincount(of, weights=cost(float(np.exp(-log_t)))) / pixels)
    return float(np.exp(log_t))


def shown(cost: Callable[[float], NDArray[np.float64]]) -> float:
    """The log T with the least mean cost, drawn to 0 by one standard error of its own.

    With the mean cost nearly a parabola around its least, log T is one standard error away (over polygons, whose costs
    differ) where the mean has grown by half the standard error of its growth. 0 where that interval holds 0.

    log T has a normal prior with mean 0 and deviation PRIOR_LOG_T, a polygon counting as one observation: where nearly
    all pixels held out are right the least cost lies at T = 0 otherwise.

    Args:
        cost: Cost float64 [polygon] at a log T, a negative log-likelihood.

    Source: our own, after the rule of one standard error of Breiman et al. (1984), Classification and Regression Trees,
    sect. 3.4.3: of what the data cannot tell apart, the simplest.
    """

    def total(log_t: float) -> NDArray[np.float64]:
        found = cost(log_t)
        return found + 0.5 * (log_t / PRIOR_LOG_T) ** 2 / len(found)

    best = _least(lambda log_t: float(total(log_t).mean()))
    least = total(best)
    for log_t in np.linspace(0.0, best, _STEPS):
        worse = total(float(log_t)) - least
        if 2 * worse.mean() <= worse.std(ddof=1) / np.sqrt(len(worse)):
            return float(log_t)
    return best


def _least(cost: Callable[[float], float]) -> float:
    return float(minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded").x)


def _checked(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):  # noqa: PLR2004 - [pixel, class]
        raise ReferenceDataError("scores and labels", got=f"{logits.shape}, {labels.shape}", expected="[n, class], [n]")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ReferenceDataError(
            "label beyond the classes", got=int(labels.max()), expected=f"0..{logits.shape[1] - 1}"
        )
    return np.asarray(logits, dtype=np.float64)
