"""Rolling-origin evaluation: every step of the test is forecast from each origin before it, beside simple rules.

The rules, which need no network: last value, the season before, historical average, damped anomaly, ridge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from pipeline.errors import SceneError
from pipeline.forecast.frames import Rows, all_rows, cycles, frames
from pipeline.forecast.network import draw_rows

if TYPE_CHECKING:
    from pipeline.forecast.frames import Past
    from pipeline.forecast.network import Trained
    from pipeline.forecast.settings import ForecastSettings

    Floats = NDArray[np.float32]

NETWORK = "network"
# What figures of several channels are called.
POOLED = "mean over channels"
LAST, SEASONAL, AVERAGE, DAMPED, RIDGE = (
    "last value", "season before", "historical average", "damped anomaly", "ridge",
)  # fmt: skip
_RIDGE_ROWS, _PENALTY = 60_000, 100.0


@dataclass(frozen=True)
class Horizon:
    """Errors of forecasts of so many steps ahead, in the units of the series."""

    ahead: int  # Steps
    count: int  # Forecasts
    mae: dict[str, float]  # Mean absolute error by method, the network first
    rmse: dict[str, float]  # Root mean square error likewise
    coverage: float  # Share of the values that lie in their interval of 90 %
    width: float  # Mean width of the intervals
    channels: dict[str, Horizon] = field(default_factory=dict)  # The same of each channel; empty where there is one

    @property
    def best(self) -> str:
        """The baseline with the least mean absolute error."""
        return min((name for name in self.mae if name != NETWORK), key=self.mae.__getitem__)

    @property
    def skill(self) -> float:
        """By which share the network's mean absolute error is below the best baseline's."""
        best = self.mae[self.best]
        return 1 - self.mae[NETWORK] / best if best else 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Horizon:
        """That of which ``dataclasses.asdict`` made a mapping."""
        parts = {name: cls.from_json(item) for name, item in data.get("channels", {}).items()}
        return cls(**{**data, "channels": parts})


def evaluate(
    past: Past, trained: Trained, *, start: int, channels: Sequence[str], progress: Callable[[str, int, int], None]
) -> tuple[Horizon, ...]:
    """Errors of each horizon over the steps from ``start`` on, of all ``channels`` and of each of several.

    Network and baselines have learned from the steps before ``start``; an origin sees the values up to itself. Each
    step of the test is forecast once by each horizon, so all horizons are judged on the same values.

    Raises:
        SceneError: all values of the test are unknown.
    """
    steps, _, cells = past.values.shape
    settings = trained.settings
    found = []
    for ahead in range(1, settings.ahead + 1):
        progress("test", ahead - 1, settings.ahead)
        rows = all_rows(range(start - ahead, steps - ahead), ahead, channels=len(channels), cells=cells)
        rows = rows.take(np.isfinite(past.truth(rows)))
        if not len(rows):
            raise SceneError("no value is known in the steps of the test", fix="set test_steps higher")
        truth, quantiles = past.truth(rows), trained.predict(past, rows)
        forecasts = {NETWORK: quantiles[:, 1], **baselines(past, rows, until=start, settings=settings)}
        whole = _errors(ahead, truth, quantiles, forecasts)
        if len(channels) > 1:
            parts = ((name, rows.channel == number) for number, name in enumerate(channels))
            each = {
                name: _errors(ahead, truth[own], quantiles[own], {key: item[own] for key, item in forecasts.items()})
                for name, own in parts if own.any()
            }  # fmt: skip
            whole = replace(whole, channels=each)
        found.append(whole)
    progress("test", settings.ahead, settings.ahead)
    return tuple(found)


def _errors(ahead: int, truth: Floats, quantiles: Floats, forecasts: Mapping[str, Floats]) -> Horizon:
    """Errors of forecasts [row] of every method, and of the quantiles [row, 3] of the network."""
    error = {name: (values - truth).astype(np.float64) for name, values in forecasts.items()}
    inside = (quantiles[:, 0] <= truth) & (truth <= quantiles[:, 2])
    return Horizon(
        ahead,
        len(truth),
        {name: float(np.abs(values).mean()) for name, values in error.items()},
        {name: float(np.sqrt((values**2).mean())) for name, values in error.items()},
        float(inside.mean()),
        float((quantiles[:, 2] - quantiles[:, 0]).mean()),
    )


@dataclass(frozen=True, eq=False)
class Climate:
    """Historical average of each step of the longest cycle, of the steps before ``until`` alone."""

    average: Floats  # float32 [step of the cycle, channel, cell]
    mean: Floats  # float32 [channel, cell]

    def at(self, rows: Rows, step: NDArray[np.int64]) -> Floats:
        """The average of a step of each row, float32 [row]."""
        found = self.average[step % len(self.average), rows.channel, rows.cell]
        return np.where(np.isfinite(found), found, self.mean[rows.channel, rows.cell])


def climate(past: Past, *, until: int) -> Climate:
    """Historical averages of the steps before ``until``."""
    steps = past.values[:until]
    phase = [_mean(steps[start :: past.season]) for start in range(past.season)]
    return Climate(np.stack(phase), np.nan_to_num(_mean(steps)))


def baselines(past: Past, rows: Rows, *, until: int, settings: ForecastSettings) -> dict[str, Floats]:
    """Forecasts of every rule, float32 [row], of rows of one horizon; what they fit is fitted before ``until``.

    Where a rule knows nothing it says the historical average. The damped anomaly adds to it the share of the last
    anomaly that is left, on average, after so many steps (least squares).
    """
    ahead = int(rows.ahead[0])
    normal = climate(past, until=until)
    average = normal.at(rows, rows.target)
    rng = np.random.default_rng(settings.seed)
    seen = draw_rows(past, rng, until=until, ahead=(ahead, ahead), count=_RIDGE_ROWS)

    def either(found: Floats) -> Floats:
        return np.where(np.isfinite(found), found, average)

    last = past.value(rows, rows.origin)
    x = np.nan_to_num(past.value(seen, seen.origin) - normal.at(seen, seen.origin))
    y = past.truth(seen) - normal.at(seen, seen.target)
    left = float((x * y).sum() / max(float((x * x).sum()), np.finfo(np.float32).tiny))
    return {
        LAST: either(last),
        SEASONAL: either(past.value(rows, rows.target - cycles(rows, past.season))),
        AVERAGE: average,
        DAMPED: average + left * np.nan_to_num(last - normal.at(rows, rows.origin)),
        RIDGE: _ridge(past, rows, seen, settings=settings),
    }


def _ridge(past: Past, rows: Rows, seen: Rows, *, settings: ForecastSettings) -> Floats:
    """Ridge regression on all frames that the network sees."""
    scaler = StandardScaler()
    model = Ridge(_PENALTY).fit(
        scaler.fit_transform(frames(past, seen, settings)),
        (past.truth(seen) - past.base(seen)) / past.spread(seen),
        sample_weight=past.spread(seen),
    )
    found: Floats = model.predict(scaler.transform(frames(past, rows, settings))).astype(np.float32)
    return past.base(rows) + past.spread(rows) * found


def _mean(values: Floats) -> Floats:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0), dtype=np.float32)
