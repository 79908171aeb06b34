"""Figures of predicted against measured values: R2, RMSE, MAE, bias, and how intervals hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOLD_OUT = "held-out samples, not a probability sample"
SAMPLING = (
    "Figures on held-out samples: not a probability sample of the map. They compare methods and warn of failures; they "
    "are not the map's accuracy, and means and totals of the area need a sampling design: landcover total."
)


@dataclass(frozen=True)
class ValueScore:
    """Figures of one method on held-out samples, in the quantity's unit.

    Attributes:
        method: Its name.
        samples: How many judged.
        r2: Share of the variance explained, 1 less the squared error over that of the samples' own mean.
        rmse: Root mean squared error.
        mae: Mean absolute error.
        bias: Mean of predicted less measured.
        coverage: Share of the samples within their interval of 90 %; None without intervals.
        width: Mean width of the interval; None without.
    """

    method: str
    samples: int
    r2: float
    rmse: float
    mae: float
    bias: float
    coverage: float | None = None
    width: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def score_values(
    method: str, measured: NDArray[np.float64], predicted: NDArray[np.float64],
    bounds: NDArray[np.float64] | None = None,
) -> ValueScore:  # fmt: skip
    """Figures of one method.

    Args:
        method: Its name.
        measured: float64 [n].
        predicted: float64 [n].
        bounds: Lower and upper, float64 [n, 2].

    >>> score_values("x", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])).r2
    0.5
    """
    error = predicted - measured
    spread = float(((measured - measured.mean()) ** 2).sum())
    inside = None if bounds is None else (measured >= bounds[:, 0]) & (measured <= bounds[:, 1])
    return ValueScore(
        method,
        len(measured),
        1.0 - float((error**2).sum()) / spread if spread > 0 else 0.0,
        float(np.sqrt((error**2).mean())),
        float(np.abs(error).mean()),
        float(error.mean()),
        None if inside is None else float(inside.mean()),
        None if bounds is None else float((bounds[:, 1] - bounds[:, 0]).mean()),
    )


def by_sample(polygon: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the pixels of each sample, float64 [sample, ...], samples in the order of their ids."""
    _, which, count = np.unique(polygon, return_inverse=True, return_counts=True)
    flat = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(which.ravel(), flat[:, i]) for i in range(flat.shape[1])], axis=1)
    return np.asarray((sums / count[:, None]).reshape(len(count), *values.shape[1:]))
