"""The figure of a forecast: errors by horizon beside the baselines, and what is forecast for three cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from pipeline.report.style import SOFT, WIDE_CM, blank, grid_lines, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.forecast.rolling import Horizon
    from pipeline.forecast.series import Series
    from pipeline.forecast.times import Times

_CELLS, _BEFORE = 3, 6


def forecast_figure(
    series: Series, *, horizons: Sequence[Horizon], times: Times, quantiles: NDArray[np.float32]
) -> Figure:
    """Mean absolute error against steps ahead, and the last steps of three cells with their forecast and interval.

    Args:
        series: What was forecast.
        horizons: Errors of the test.
        times: Of the steps to come.
        quantiles: float32 [step to come, quantile, channel, cell].
    """
    figure = blank(WIDE_CM, 14.0)
    rows = figure.subplots(2, 1, height_ratios=(1, 1.1))
    ahead = [horizon.ahead for horizon in horizons]
    for number, name in enumerate(horizons[0].mae):
        style = {"color": ink() if not number else f"C{number - 1}", "linewidth": 1.2 if number else 2.4}
        rows[0].plot(ahead, [horizon.mae[name] for horizon in horizons], label=name, marker="o", markersize=3, **style)
    rows[0].set_title("errors on the test steps", fontsize=9, loc="left")
    rows[0].set_xlabel("steps ahead")
    rows[0].set_ylabel("mean absolute error")
    rows[0].set_ylim(bottom=0)
    rows[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    rows[0].legend(fontsize=8, ncols=3)
    grid_lines(rows[0], "y")
    before = max(_BEFORE * len(times), 24)
    seen, known = series.times[-before:], series.values[-before:, 0]
    order = np.argsort(np.nanmean(series.values[:, 0], axis=0))
    for number, cell in enumerate(order[np.linspace(0, len(order) - 1, _CELLS + 2).astype(int)[1:-1]]):
        colour = f"C{number}"
        rows[1].plot(seen, known[:, cell], color=colour, linewidth=1.2)
        rows[1].plot(times, quantiles[:, 1, 0, cell], color=colour, linewidth=2, linestyle="--",
                     label=f"row {series.row[cell]}, column {series.col[cell]}")  # fmt: skip
        rows[1].fill_between(times, quantiles[:, 0, 0, cell], quantiles[:, 2, 0, cell], color=colour, alpha=0.2)
    rows[1].set_title(
        "three cells: last steps, then the forecast (dashed) and its interval of 90 %", fontsize=9, loc="left"
    )
    rows[1].axvline(series.times[-1], color=SOFT, linewidth=0.8)
    rows[1].set_ylabel(series.channels[0])
    rows[1].legend(fontsize=8, ncols=_CELLS)
    rows[1].tick_params(axis="x", labelrotation=20)
    grid_lines(rows[1], "y")
    return figure
