"""The report's figures of other targets than classes: objects over the scene, values against samples, forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.report.style import HALF_CM, SOFT, WIDE_CM, blank, grid_lines, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.forecast.rolling import Horizon
    from pipeline.forecast.series import Series
    from pipeline.forecast.times import Times
    from pipeline.quantity import Quantity
    from pipeline.report.data import ObjectsView, ValueFigures

_TALLEST_CM = 24.0
MAPPED, FOUND, MISSED = "#ff9d00", "#00a6ff", "#ff2bd6"


def objects(shown: ObjectsView) -> Figure:
    """Mapped outlines and footprints over the scene."""
    height, width = shown.view.codes.shape
    tall = shown.view.pixel_m[1] / shown.view.pixel_m[0]
    figure = blank(WIDE_CM, min(WIDE_CM * tall * height / width + 1.0, _TALLEST_CM))
    axes = figure.add_subplot()
    axes.imshow(shown.view.scene, extent=(0, width, height, 0), aspect=tall)
    parts = ((shown.found, FOUND, "footprint, found"), (shown.missed, MISSED, "footprint, missed"))
    for outlines, color, label in (*parts, (shown.mapped, MAPPED, "mapped object")):
        if outlines:
            text = f"{label} ({len(outlines)})"
            axes.add_collection(LineCollection(list(outlines), colors=color, linewidths=1.2, label=text))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def value_map(quantity: Quantity, bands: NDArray[np.float32]) -> Figure:
    """The value and the width of its interval, side by side; ``bands`` are float32 [value, lower, upper; row; col]."""
    height, width = bands.shape[1:]
    figure = blank(WIDE_CM, min(WIDE_CM / 2 * height / width + 2.0, _TALLEST_CM))
    shown = (bands[0], f"{quantity.title}", "viridis"), (bands[2] - bands[1], "width of the interval", "magma")
    for axes, (values, title, ramp) in zip(figure.subplots(1, 2), shown, strict=True):
        low, high = np.nanpercentile(values, [2, 98]) if np.isfinite(values).any() else (0.0, 1.0)
        picture = axes.imshow(values, cmap=ramp, vmin=low, vmax=high, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9, loc="left")
        figure.colorbar(picture, ax=axes, location="bottom", fraction=0.05, pad=0.02, extend="both")
    return figure


def scatter(values: ValueFigures) -> Figure:
    """Predicted against measured with the interval of each sample, and the line where both are the same."""
    measured, network = values.samples["measured"], values.samples["network"]
    lower, upper = values.samples["lower"], values.samples["upper"]
    figure = blank(HALF_CM, 10.5)
    axes = figure.add_subplot()
    around = np.stack([network - lower, upper - network]).clip(0)
    axes.errorbar(measured, network, around, fmt="none", ecolor=SOFT, elinewidth=0.5, alpha=0.5, zorder=1)
    axes.scatter(measured, network, s=11, linewidths=0, alpha=0.85, zorder=2)
    low, high = float(min(measured.min(), network.min())), float(max(measured.max(), network.max()))
    axes.plot([low, high], [low, high], color=ink(), linewidth=0.8, zorder=3)
    best = values.scores[0]
    axes.set_title(f"R\u00b2 {best.r2:.2f}, RMSE {best.rmse:.3g}, bias {best.bias:+.2g}", loc="left")
    axes.set_xlabel(f"measured {values.quantity.title}")
    axes.set_ylabel("predicted, with interval of 90 %")
    for axis in ("x", "y"):
        grid_lines(axes, axis)
    return figure


def residuals(values: ValueFigures) -> Figure:
    """Predicted less measured along the predicted value, with its mean in tenths, and how it is spread."""
    measured, network = values.samples["measured"], values.samples["network"]
    rest = network - measured
    figure = blank(HALF_CM, 10.5)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    left.scatter(network, rest, s=11, linewidths=0, alpha=0.85)
    left.axhline(0, color=ink(), linewidth=0.8)
    order = np.argsort(network)
    parts = [part for part in np.array_split(order, min(10, max(len(order) // 5, 1))) if len(part)]
    left.plot([network[part].mean() for part in parts], [rest[part].mean() for part in parts], color="#d55e00",
              linewidth=1.4, marker="o", markersize=3)  # fmt: skip
    left.set_xlabel(f"predicted {values.quantity.title}")
    left.set_ylabel("predicted less measured")
    grid_lines(left, "y")
    right.hist(rest, bins=min(25, max(5, len(rest) // 4)), orientation="horizontal")
    right.set_xlabel("samples")
    return figure


def methods(values: ValueFigures) -> Figure:
    """R2 of the network and the baselines on the same samples."""
    figure = blank(HALF_CM, 1.2 + 0.9 * len(values.scores))
    axes = figure.add_subplot()
    names = [score.method for score in values.scores][::-1]
    found = [score.r2 for score in values.scores][::-1]
    bars = axes.barh(names, found, height=0.6)
    axes.bar_label(bars, [f" {value:.2f}" for value in found], fontsize=8)
    axes.axvline(0, color=ink(), linewidth=0.8)
    axes.set_xlim(min(0.0, *found) * 1.2, max(0.1, *found) * 1.15)
    axes.set_xlabel("R\u00b2 on held-out samples")
    grid_lines(axes, "x")
    return figure


# Cells, steps before them for each step ahead, and channels whose errors are drawn.
_CELLS, _BEFORE, _ERRORS = 3, 6, 4


def _draw_errors(axes: Axes, horizons: Sequence[Horizon], *, of: str) -> None:
    """Mean absolute error against steps ahead, of a channel where there are several."""
    ahead = [horizon.ahead for horizon in horizons]
    for number, name in enumerate(horizons[0].mae):
        colour, thick = (f"C{number - 1}", 1.2) if number else (ink(), 2.4)
        errors = [horizon.mae[name] for horizon in horizons]
        axes.plot(ahead, errors, label=name, marker="o", markersize=3, color=colour, linewidth=thick)
    axes.set_title(f"errors on the test steps{f' of {of}' if of else ''}", fontsize=9, loc="left")
    axes.set_xlabel("steps ahead")
    axes.set_ylabel("mean absolute error")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, ncols=3)
    grid_lines(axes, "y")


def forecast_figure(
    series: Series, *, horizons: Sequence[Horizon], times: Times, quantiles: NDArray[np.float32]
) -> Figure:
    """Mean absolute error against steps ahead, of up to four channels, and steps of three cells with their forecast.

    ``quantiles`` are float32 [step to come, quantile, channel, cell], at ``times``.
    """
    parts = [(name, [h.channels[name] for h in horizons]) for name in series.channels if name in horizons[0].channels]
    shown = parts[:_ERRORS] or [("", list(horizons))]
    figure = blank(WIDE_CM, 14.0 + 6.0 * (len(shown) - 1))
    rows = figure.subplots(len(shown) + 1, 1, height_ratios=(*(1.0 for _ in shown), 1.1))
    for axes, (name, own) in zip(rows, shown, strict=False):
        _draw_errors(axes, own, of=name)
    before = max(_BEFORE * len(times), 24)
    seen, known = series.times[-before:], series.values[-before:, 0]
    order = np.argsort(np.nanmean(series.values[:, 0], axis=0))
    for number, cell in enumerate(order[np.linspace(0, len(order) - 1, _CELLS + 2).astype(int)[1:-1]]):
        colour = f"C{number}"
        rows[-1].plot(seen, known[:, cell], color=colour, linewidth=1.2)
        rows[-1].plot(times, quantiles[:, 1, 0, cell], color=colour, linewidth=2, linestyle="--",
                     label=f"row {series.row[cell]}, column {series.col[cell]}")  # fmt: skip
        rows[-1].fill_between(times, quantiles[:, 0, 0, cell], quantiles[:, 2, 0, cell], color=colour, alpha=0.2)
    rows[-1].set_title(
        "three cells: last steps, then the forecast (dashed) and its interval of 90 %", fontsize=9, loc="left"
    )
    rows[-1].axvline(series.times[-1], color=SOFT, linewidth=0.8)
    rows[-1].set_ylabel(series.channels[0])
    rows[-1].legend(fontsize=8, ncols=_CELLS)
    rows[-1].tick_params(axis="x", labelrotation=20)
    grid_lines(rows[-1], "y")
    return figure
