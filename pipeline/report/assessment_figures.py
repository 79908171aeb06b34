"""The report's figures of where and how surely the map fails: reliability, distance to edges, patch size, blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipeline.diagnostics.failures import BAND_LIMITS, BANDS
from pipeline.report.style import HALF_CM, SOFT, WIDE_CM, blank, grid_lines, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.diagnostics.confidence import Reliability
    from pipeline.diagnostics.failures import AccuracyBy
    from pipeline.report.data import Failures

GREY = "#999999"
# Bins of the reliability diagram with a smaller share of the pixels are shown, but not joined: chance moves them.
FEW = 0.01
_RELIABILITY_CM = 10.922
_MANY_BLOCKS = 60


def reliability(before: Reliability, *, after: Reliability | None = None, label: str = "as predicted") -> Figure:
    """The reliability diagram: share of right pixels by confidence, and the share of pixels there."""
    figure = blank(HALF_CM, _RELIABILITY_CM)
    top, low = figure.subplots(2, 1, gridspec_kw={"height_ratios": (3, 1)})
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


def where_it_fails(found: Failures) -> Figure:
    """Shares of right test pixels as bars, by distance to an edge and by patch size, and as a map of blocks."""
    figure = blank(WIDE_CM, 8.6)
    grid = figure.add_gridspec(1, len(found.by) + 1, width_ratios=[1.0] * len(found.by) + [1.15])
    for number, item in enumerate(found.by):
        axes = figure.add_subplot(grid[0, number])
        _bars(axes, item)
        if number == 0:
            axes.set_ylabel("share of right test pixels")
    axes = figure.add_subplot(grid[0, len(found.by)])
    _blocks(axes, found)
    handles = [
        Line2D([], [], linestyle="", marker="s", color=color, markeredgecolor=SOFT, markersize=7, label=name)
        for name, color in BANDS
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(BANDS))
    return figure


def _bars(axes: Axes, item: AccuracyBy) -> None:
    """One bar per group, with its pixels on top; groups without pixels stay empty."""
    heights = np.nan_to_num(item.accuracy)
    axes.bar(range(len(item.labels)), heights, color="C0", width=0.72)
    for place, (height, count) in enumerate(zip(heights, item.count, strict=True)):
        text = f"{height:.0%}\n{count:,} px" if count else "none"
        axes.text(place, height + 0.015, text, ha="center", va="bottom", fontsize=7, color=ink())
    axes.set_xticks(range(len(item.labels)), item.labels)
    axes.set_xlabel(item.what)
    axes.set_ylim(0, 1.18)
    axes.set_yticks(np.linspace(0, 1, 6))
    grid_lines(axes, "y")
    axes.tick_params(axis="x", length=0)


def _blocks(axes: Axes, found: Failures) -> None:
    """Blocks with test pixels, coloured by band; the share is written where there is room."""
    for block in found.blocks:
        left, bottom, right, top = block.bounds
        color = BANDS[int(np.searchsorted(BAND_LIMITS, block.accuracy, side="right"))][1]
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, facecolor=color, edgecolor=SOFT, lw=0.5))
        if len(found.blocks) <= _MANY_BLOCKS:
            dark = color in {BANDS[0][1], BANDS[-1][1]}
            axes.text(
                (left + right) / 2, (bottom + top) / 2, f"{block.accuracy:.0%}", ha="center", va="center",
                fontsize=6.5, color="#ffffff" if dark else "#101416",
            )  # fmt: skip
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_title(f"blocks of {found.scene}, north up", loc="left")
