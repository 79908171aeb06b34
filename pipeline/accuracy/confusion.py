"""The error matrix: map classes in rows, reference classes in columns, as Olofsson et al. (2014) print it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ErrorMatrix:
    """Units and area that the map calls one thing (rows) and the reference another (columns).

    Attributes:
        names: Class names, one per row and per column.
        counts: int64 [map class, reference class]; units of the sample.
        proportions: float64 [map class, reference class]; estimated share of the area, sums to 1.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    proportions: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse matrices of another shape than the legend."""
        expected = (len(self.names), len(self.names))
        if self.counts.shape != expected or self.proportions.shape != expected:
            got = f"counts {self.counts.shape}, proportions {self.proportions.shape}"
            raise ReferenceDataError("error matrix of another shape than its legend", got=got, expected=expected)

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
class Agreement:
    """Chance-corrected agreement, only for those who must report it; all are shares, 0..1 (kappa -1..1).

    Attributes:
        kappa: Cohen's kappa of the estimated area proportions; None where chance agreement is 1.
        quantity_disagreement: Half the sum of |map share - reference share|.
        allocation_disagreement: What is left of the disagreement when the quantities are as they are.
    """

    kappa: float | None
    quantity_disagreement: float
    allocation_disagreement: float


def cross_tabulate(
    map_index: NDArray[np.integer], reference_index: NDArray[np.integer], *, classes: int
) -> NDArray[np.int64]:
    """Counts int64 [map class, reference class] of paired class indices 0..classes-1, any shape.

    >>> cross_tabulate(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    flat = map_index.ravel().astype(np.int64) * classes + reference_index.ravel().astype(np.int64)
    counts = np.bincount(flat, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


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
