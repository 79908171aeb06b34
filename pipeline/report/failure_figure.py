"""Where the map fails: right test pixels near edges and away from them, in small patches and large ones, by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipeline.diagnostics.failures import BAND_LIMITS, BANDS
from pipeline.report.style import SOFT, WIDE_CM, blank, grid_lines, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.diagnostics.failures import AccuracyBy
    from pipeline.report.data import Failures

_MANY_BLOCKS = 60


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
