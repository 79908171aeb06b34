"""A planted series: a season of each cell, and an anomaly that is halved by every other step or so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.forecast.frames import Past, look_back

SEASON, KEPT, NOISE = 12, 0.8, 1.0
STEPS, ROWS, COLS = 600, 3, 4


@dataclass(frozen=True)
class Planted:
    values: NDArray[np.float32]
    start: int
    past: Past

    def least_error(self, ahead: int) -> float:
        """Mean absolute error of who knows season and damping: that of a normal with the variance of the news."""
        spread = NOISE * np.sqrt((1 - KEPT ** (2 * ahead)) / (1 - KEPT**2))
        return float(spread * np.sqrt(2 / np.pi))


def planted_values(*, steps: int = STEPS, seed: int = 0) -> NDArray[np.float32]:
    """float32 [step, 1, cell]"""
    rng = np.random.default_rng(seed)
    cells = ROWS * COLS
    season = 10 * np.sin(2 * np.pi * (np.arange(SEASON)[:, None] / SEASON + rng.random(cells)))
    anomaly = np.zeros((steps, cells))
    for step in range(1, steps):
        anomaly[step] = KEPT * anomaly[step - 1] + rng.normal(0, NOISE, cells)
    return (20 + season[np.arange(steps) % SEASON] + anomaly).astype(np.float32)[:, None]


@pytest.fixture(scope="session")
def planted() -> Planted:
    values, start = planted_values(), STEPS - 120
    none = np.full((ROWS * COLS, 8), -1, dtype=np.int64)
    return Planted(values, start, look_back(values, seasons=(SEASON,), neighbours=none, until=start))
