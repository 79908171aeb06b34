"""The reliability diagram, in the colours that are set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from pipeline.diagnostics.confidence import Reliability

GREY = "#999999"
# Bins of the reliability diagram with a smaller share of the pixels are shown, but not joined: chance moves them.
FEW = 0.01


def reliability_figure(
    before: Reliability,
    *,
    after: Reliability | None = None,
    label: str = "as predicted",
    size: tuple[float, float] = (4.2, 5.0),
) -> Figure:
    """The reliability diagram as a figure of ``size`` in inches, in the style and colours that are set."""
    figure: Figure
    figure, (top, low) = _subplots(2, 1, size=size, heights=(3, 1))
    top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    for item, color, marker, name in ((before, "C0", "o", label), (after, "C1", "s", "calibrated")):
        if item is not None:
            share = item.count / item.count.sum()
            used = share >= FEW
            text = f"{name} (calibration error {item.ece:.3f})"
            top.plot(item.confidence[used], item.accuracy[used], color=color, marker=marker, markersize=4, label=text)
            rest = (item.count > 0) & ~used
            top.plot(item.confidence[rest], item.accuracy[rest], marker, color=color, markersize=3, mfc="none", mew=0.6)
            low.stairs(share, item.edges, color=color, fill=after is None)
    top.plot([], [], "o", color=GREY, markersize=3, mfc="none", mew=0.6, label=f"hollow: under {FEW:.0%} of the pixels")
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share of right pixels")
    figure.legend(loc="outside upper left", frameon=False, fontsize=8)
    low.set(xlim=(0, 1), xlabel="confidence", ylabel="share of pixels")
    return figure


def _subplots(rows: int, columns: int, *, size: tuple[float, float], heights: Sequence[float] | None = None) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, gridspec_kw={"height_ratios": heights} if heights else None)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes
