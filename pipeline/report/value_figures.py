"""Figures of a continuous target: predicted against measured values, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.style import HALF_CM, SOFT, blank, grid_lines, ink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.report.data import ValueFigures


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
