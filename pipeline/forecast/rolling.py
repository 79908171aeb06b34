"""Rolling-origin evaluation: every step of the test is forecast from each origin before it, beside the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SceneError
from pipeline.forecast.baselines import baselines
from pipeline.forecast.frames import all_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.forecast.frames import Past
    from pipeline.forecast.network import Trained

    Floats = NDArray[np.float32]

NETWORK = "network"


@dataclass(frozen=True)
class Horizon:
    """Errors of forecasts of so many steps ahead, in the units of the series."""

    ahead: int  # Steps
    count: int  # Forecasts
    mae: dict[str, float]  # Mean absolute error by method, the network first
    rmse: dict[str, float]  # Root mean square error likewise
    coverage: float  # Share of the values that lie in their interval of 90 %
    width: float  # Mean width of the intervals

    @property
    def best(self) -> str:
        """The baseline with the least mean absolute error."""
        return min((name for name in self.mae if name != NETWORK), key=self.mae.__getitem__)

    @property
    def skill(self) -> float:
        """By which share the network's mean absolute error is below the best baseline's."""
        best = self.mae[self.best]
        return 1 - self.mae[NETWORK] / best if best else 0.0


def evaluate(
    past: Past, trained: Trained, *, start: int, progress: Callable[[str, int, int], None]
) -> tuple[Horizon, ...]:
    """Errors of each horizon over the steps from ``start`` on.

    Network and baselines have learned from the steps before ``start``; an origin sees the values up to itself. Each
    step of the test is forecast once by each horizon, so all horizons are judged on the same values.

    Raises:
        SceneError: all values of the test are unknown.
    """
    steps, channels, cells = past.values.shape
    settings = trained.settings
    found = []
    for ahead in range(1, settings.ahead + 1):
        progress("test", ahead - 1, settings.ahead)
        rows = all_rows(range(start - ahead, steps - ahead), ahead, channels=channels, cells=cells)
        rows = rows.take(np.isfinite(past.truth(rows)))
        if not len(rows):
            raise SceneError("no value is known in the steps of the test", fix="set test_steps higher")
        truth, quantiles = past.truth(rows), trained.predict(past, rows)
        forecasts = {NETWORK: quantiles[:, 1], **baselines(past, rows, until=start, settings=settings)}
        error = {name: (values - truth).astype(np.float64) for name, values in forecasts.items()}
        inside = (quantiles[:, 0] <= truth) & (truth <= quantiles[:, 2])
        found.append(
            Horizon(
                ahead,
                len(rows),
                {name: float(np.abs(values).mean()) for name, values in error.items()},
                {name: float(np.sqrt((values**2).mean())) for name, values in error.items()},
                float(inside.mean()),
                float((quantiles[:, 2] - quantiles[:, 0]).mean()),
            )
        )
    progress("test", settings.ahead, settings.ahead)
    return tuple(found)
