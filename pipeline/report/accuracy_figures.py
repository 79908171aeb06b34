"""The report's figures of how good the map is; each is a Figure, drawn in the page's style."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from pipeline.diagnostics.failures import BAND_LIMITS, BANDS, AccuracyBy
from pipeline.diagnostics.scoring import FEW_PIXELS, Score
from pipeline.maps.look import coloured
from pipeline.report.style import HALF_CM, SOFT, WIDE_CM, blank, grid_lines, ink, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.diagnostics.confidence import Reliability
    from pipeline.legend import ClassScheme
    from pipeline.report.data import ChipExample, ErrorExample, Failures

_FULL_CELL = 0.55
_PALE = 0.25  # opacity of what cannot be judged
_WIDE_BLOCK = 0.1  # of the picture, for a block to have its share written in it
_MANY_CLASSES = 14
_LETTER_CM, _LINE_CM = 0.19, 0.42  # of a title, with some to spare


def confusion(score: Score, scheme: ClassScheme) -> Figure:
    """Error matrix, map rows x reference columns, with totals: pixels, shaded by the share of the reference class."""
    counts = np.asarray(score.matrix, dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    number = len(scheme)
    shown = np.full((number + 1, number + 1), np.nan)
    shown[:number, :number] = share
    totals = np.zeros((number + 1, number + 1))
    totals[:number, :number] = counts
    totals[number], totals[:, number] = totals.sum(axis=0), totals.sum(axis=1)
    totals[number, number] = counts.sum()
    side = min(max(7.5, 0.95 * (number + 1) + 3.2), WIDE_CM)
    figure = blank(max(HALF_CM, side + 1.5), side)
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap=shades(), vmin=0, vmax=1)
    red, green, blue = (int(ink()[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709
    full = "#101416" if luminance > 0.5 else "#ffffff"  # noqa: PLR2004 - half way between black and white
    if number <= _MANY_CLASSES:
        for row, col in np.argwhere(totals > 0):
            colour = full if shown[row, col] > _FULL_CELL else ink()
            bold = "bold" if row == col else "normal"
            text = f"{int(totals[row, col]):,}"
            axes.text(col, row, text, ha="center", va="center", fontsize=6.8, color=colour, fontweight=bold)
    edges = np.arange(number + 2) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(visible=True, which="minor", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    names = (*scheme.names, "total")
    axes.set_xticks(range(number + 1), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(number + 1), names)
    for line in (axes.axhline, axes.axvline):
        line(number - 0.5, color=ink(), linewidth=0.8)
    axes.set_xlabel("reference")
    axes.set_ylabel("map")
    bar = figure.colorbar(image, shrink=0.75, pad=0.02, format="{x:.0%}")
    bar.set_label("share of the reference class")
    bar.outline.set_visible(False)
    return figure


def per_class(scores: Sequence[Score], scheme: ClassScheme) -> Figure:
    """F1, user's and producer's accuracy per class: F1 as bars per method, the other two as marks on them.

    Classes of too few test polygons to be judged are pale and say so.
    """
    figure = blank(HALF_CM, max(7.0, (0.42 * len(scores) + 0.3) * len(scheme) + 2.2))
    axes = figure.add_subplot()
    height = 0.8 / len(scores)
    few = [scores[0].too_few(name) for name in scheme.names]
    for position, score in enumerate(scores):
        where = np.arange(len(scheme)) + (position - (len(scores) - 1) / 2) * height
        bars = axes.barh(
            where, _values(score.f1, scheme), height=height * 0.9, color=f"C{position}",
            label=f"{score.method} (macro-F1 {score.macro_f1:.2f})",
        )  # fmt: skip
        for bar, pale in zip(bars, few, strict=True):
            bar.set_alpha(_PALE if pale else 1.0)
        for values, marker in ((score.users, "D"), (score.producers, "o")):
            axes.plot(_values(values, scheme), where, marker=marker, **_marks(marker))
    names = [f"{name}\ntoo few to judge" if pale else name for name, pale in zip(scheme.names, few, strict=True)]
    axes.set_yticks(range(len(scheme)), names)
    for label, pale in zip(axes.get_yticklabels(), few, strict=True):
        label.set_color(SOFT if pale else ink())
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.01)
    axes.set_xlabel("share")
    grid_lines(axes, "x")
    handles: list[Any] = [
        Patch(color=f"C{number}", label=bars.get_label()) for number, bars in enumerate(axes.containers)
    ]
    for words, marker in (("user's accuracy", "D"), ("producer's accuracy", "o")):
        handles.append(Line2D([], [], marker=marker, label=words, **_marks(marker)))
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def _marks(marker: str) -> dict[str, Any]:
    """White diamonds, black circles: shapes of this size alone are hard to tell apart."""
    return {
        "linestyle": "",
        "markersize": 3.6,
        "markerfacecolor": "white" if marker == "D" else "black",
        "markeredgecolor": "black" if marker == "D" else "white",
        "markeredgewidth": 0.7,
    }


def _values(by_name: dict[str, float | None], scheme: ClassScheme) -> list[float]:
    return [np.nan if (value := by_name.get(name)) is None else value for name in scheme.names]


def examples(items: Sequence[ErrorExample], scheme: ClassScheme) -> Figure:
    """The worst errors as chips: scene above, map below, the polygon outlined, its id on top."""
    columns = max(len(items), 4)
    titles = [_titles(item, columns) for item in items]
    lines = sum(max(title.count("\n") for title in row) - 1 for row in zip(*titles, strict=True))
    figure = blank(WIDE_CM, 2 * WIDE_CM / columns + 3.4 + lines * _LINE_CM)
    grid = figure.subplots(2, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_anchor("S")  # what is left of a cell's height is the title's
    for (upper, lower), item, (above, below) in zip(grid.T, items, titles, strict=False):
        _chip(upper, item.image, item)
        _chip(lower, coloured(item.codes, scheme), item)
        upper.set_title(above, loc="left")
        lower.set_title(below, loc="left")
    shown = {int(code) for item in items for code in np.unique(item.codes)}
    handles = [
        Line2D([], [], linestyle="", marker="s", color=c.color, markeredgecolor=SOFT, markersize=7, label=c.name)
        for c in scheme.classes
        if c.code in shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(max(len(handles), 1), 8), fontsize=8.5)
    return figure


def wrong_chips(items: Sequence[ChipExample]) -> Figure:
    """The worst errors among whole chips: what each is, what it was taken for, and how surely."""
    columns = max(len(items), 4)
    letters = max(8, int(WIDE_CM / columns / _LETTER_CM))
    titles = [
        "\n".join(
            textwrap.fill(line, letters)
            for line in (item.name, f"reference: {item.reference}", f"said: {item.said}", f"{item.confidence:.0%} sure")
        )
        for item in items
    ]
    lines = max(title.count("\n") + 1 for title in titles)
    figure = blank(WIDE_CM, WIDE_CM / columns + 1.0 + lines * _LINE_CM)
    cells = figure.subplots(1, columns, squeeze=False)[0]
    for axes in cells:
        axes.set_axis_off()
        axes.set_anchor("S")
    for axes, item, title in zip(cells, items, titles, strict=False):
        axes.imshow(item.image, interpolation="nearest")
        axes.set_title(title, loc="left")
    return figure


def _titles(item: ErrorExample, columns: int) -> tuple[str, str]:
    """What stands over scene and map, broken to the width of a column: wider, it would run off the page."""
    letters = max(8, int(WIDE_CM / columns / _LETTER_CM))
    above = (f"polygon {item.polygon}", f"reference: {item.reference}")
    below = (f"map: {item.mapped}", f"{item.share_wrong:.0%} wrong, {item.confidence:.0%} sure")
    first, second = ("\n".join(textwrap.fill(line, letters) for line in lines) for lines in (above, below))
    return first, second


def _chip(axes: Axes, picture: NDArray[Any], item: ErrorExample) -> None:
    """A picture with the outline of its polygon, which is closed where the picture ends; true in its proportions."""
    inside = item.inside
    axes.imshow(picture, interpolation="nearest", aspect=item.tall)
    padded = np.pad(inside, 1)
    around = np.arange(-1, inside.shape[1] + 1), np.arange(-1, inside.shape[0] + 1)
    axes.contour(*around, padded, levels=[0.5], colors="black", linewidths=2.4)
    axes.contour(*around, padded, levels=[0.5], colors="white", linewidths=1.1)
    axes.set_xlim(-0.5, inside.shape[1] - 0.5)
    axes.set_ylim(inside.shape[0] - 0.5, -0.5)


GREY = "#999999"
# Bins of the reliability diagram with a smaller share of the pixels are shown, but not joined: chance moves them.
FEW = 0.01
_RELIABILITY_CM = 10.922


def reliability_figure(before: Reliability, *, after: Reliability | None = None, label: str = "as predicted") -> Figure:
    """The reliability diagram: share of right pixels by confidence, and the share of pixels there."""
    figure = blank(HALF_CM, _RELIABILITY_CM)
    top, low = figure.subplots(2, 1, gridspec_kw={"height_ratios": (3, 1)})
    top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    for item, color, marker, name in ((before, "C0", "o", label), (after, "C1", "s", "with temperature")):
        if item is not None:
            share = item.count / item.count.sum()
            used = share >= FEW
            text = f"{name} (calibration error {item.ece:.3f})"
            top.plot(item.confidence[used], item.accuracy[used], color=color, marker=marker, markersize=4, label=text)
            rest = (item.count > 0) & ~used
            top.plot(item.confidence[rest], item.accuracy[rest], marker, color=color, markersize=3, mfc="none", mew=0.6)
            low.stairs(share, item.edges, color=color, fill=after is None)
    top.plot([], [], "o", color=GREY, markersize=3, mfc="none", mew=0.6, label=f"hollow: under {FEW:.0%} of the pixels")
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share right")
    figure.legend(loc="outside upper left", frameon=False, fontsize=8)
    low.set(xlim=(0, 1), xlabel="confidence", ylabel="share of all")
    return figure


def failures_figure(found: Failures) -> Figure:
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
    """One bar per group, with its pixels on top, pale where they are few; groups without pixels stay empty."""
    heights = np.nan_to_num(item.accuracy)
    bars = axes.bar(range(len(item.labels)), heights, color="C0", width=0.72)
    for place, (bar, height, count) in enumerate(zip(bars, heights, item.count, strict=True)):
        bar.set_alpha(_PALE if count < FEW_PIXELS else 1.0)
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
    sides = np.array([block.bounds for block in found.blocks])
    widest = max(np.ptp(sides[:, [0, 2]]), np.ptp(sides[:, [1, 3]])) if len(sides) else 0.0
    for block in found.blocks:
        left, bottom, right, top = block.bounds
        color = BANDS[int(np.searchsorted(BAND_LIMITS, block.accuracy, side="right"))][1]
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, facecolor=color, edgecolor=SOFT, lw=0.5,
                                 alpha=_PALE if block.units < FEW_PIXELS else 1.0))  # fmt: skip
        if right - left >= _WIDE_BLOCK * widest:
            dark = color in {BANDS[0][1], BANDS[-1][1]} and block.units >= FEW_PIXELS
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
