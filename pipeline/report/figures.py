"""The report's figures of what was mapped and how it was learned; each is a Figure, drawn in the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.diagnostics.scoring import FORESTS
from pipeline.maps.style import PART_COLORS
from pipeline.report.style import HALF_CM, SOFT, WIDE_CM, blank, grid_lines, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.diagnostics.features import Features
    from pipeline.legend import ClassScheme
    from pipeline.report.data import ClassArea, LearningPoint, SplitMap

_MARKERS = "os^DvPX*<>hd"
_VALIDATION_LOSS = "val_loss"
_NAMES = {
    "pixel_loss": "network of pixels and surroundings",
    "loss": "network with context",
    _VALIDATION_LOSS: "validation",
    "val_accuracy": "validation polygons",
}
_SMOOTHED = 5
_KM = 1000.0
_TALLEST_CM = 20.0
_MANY_LINES = 200  # more block lines than this would hide what they divide


def areas(items: Sequence[ClassArea], scheme: ClassScheme) -> Figure:
    """Mapped area per class as bars in the classes' own colours."""
    totals = [sum(item.area_ha for item in items if item.name == name) for name in scheme.names]
    whole = sum(totals) or 1.0
    figure = blank(HALF_CM, max(7.0, 0.85 * len(scheme) + 1.6))
    axes = figure.add_subplot()
    colours = [item.color for item in scheme.classes]
    bars = axes.barh(scheme.names, totals, color=colours, edgecolor=SOFT, linewidth=0.5, height=0.72)
    digits = max(0, min(2, 3 - math.floor(math.log10(whole))))  # three of a hundredth of all
    texts = [f"{value:,.{digits}f} ha  ({value / whole:.1%})" for value in totals]
    axes.bar_label(bars, texts, padding=4, fontsize=8, color=ink())
    axes.invert_yaxis()
    axes.set_xlabel("mapped area (ha)")
    axes.set_xlim(0, max(totals, default=0.0) * 1.38 or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter("{x:,.0f}" if whole >= 10 else "{x:g}")  # noqa: PLR2004 - small maps
    grid_lines(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


def training(history: Sequence[dict[str, float]]) -> Figure:
    """Losses and accuracies of the training log against the step: a panel each, validation beside training."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    shown = [key for key in columns if key in _NAMES and key != _VALIDATION_LOSS]
    if _VALIDATION_LOSS in columns and "loss" not in shown:
        shown.append(_VALIDATION_LOSS)
    figure = blank(HALF_CM, 7.2)
    for number, key in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), number)
        steps, values = _series(history, key)
        if key.startswith("val"):
            axes.plot(steps, values, color="C1", marker="o", markersize=3, linewidth=1.4)
        else:
            axes.plot(steps, values, color=SOFT, linewidth=0.8, alpha=0.8)
            if len(values) > 2 * _SMOOTHED:
                middle = np.convolve(values, np.ones(_SMOOTHED) / _SMOOTHED, mode="valid")
                at = steps[_SMOOTHED // 2 : _SMOOTHED // 2 + len(middle)]
                axes.plot(at, middle, color="C0", linewidth=1.6, label="training")
        if key == "loss" and _VALIDATION_LOSS in columns:
            found = _series(history, _VALIDATION_LOSS)
            axes.plot(*found, color="C1", marker="o", markersize=3, linewidth=1.4, label="validation")
            axes.legend(loc="upper right")
        axes.set_title(_NAMES[key], loc="left")
        axes.set_ylabel("loss" if "loss" in key else "share of right pixels")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        grid_lines(axes, "y")
    return figure


def _series(history: Sequence[dict[str, float]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a column of the log."""
    rows = [(row.get("step", i), row[key]) for i, row in enumerate(history) if row.get(key) is not None]
    steps, values = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def learning_curve(points: Sequence[LearningPoint]) -> Figure:
    """Macro-F1, with its spread over repetitions, and overall accuracy by number of training polygons, per method."""
    figure = blank(HALF_CM, 7.2)
    ordered = sorted(points, key=lambda point: point.polygons)
    panels = {"macro_f1": "macro-F1", "overall_accuracy": "overall accuracy"}
    known = [key for key in panels if any(getattr(point, key) is not None for point in ordered)]
    for axes, key in zip(figure.subplots(1, max(len(known), 1), squeeze=False)[0], known, strict=True):
        _methods(axes, ordered, key)
        axes.set_title(panels[key], loc="left")
        axes.set_xlabel("training polygons")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        grid_lines(axes, "y")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _methods(axes: Axes, ordered: Sequence[LearningPoint], key: str) -> None:
    """A line per method on the polygons not trained on."""
    looks = (("network", "", "C0o"), (FORESTS[0], "baseline_", "C1s"), (FORESTS[1], "neighbourhood_", "C2^"))
    for name, prefix, look in looks:
        found = [(p.polygons, value, p.sd or 0.0) for p in ordered if (value := getattr(p, prefix + key)) is not None]
        if not found:
            continue
        x, y, sd = np.array(found, dtype=np.float64).T
        if name == "network" and key == "macro_f1" and sd.any():
            axes.fill_between(x, y - sd, y + sd, color="C0", alpha=0.2, linewidth=0, label="one standard deviation")
        axes.plot(x, y, color=look[:2], marker=look[2], markersize=4.5, label=name)


def features(found: Features, scheme: ClassScheme) -> Figure:
    """PCA and t-SNE of the network's features; colour and marker both tell the reference class."""
    figure = blank(WIDE_CM, 12.0)
    first, second = figure.subplots(1, 2)
    _scatter(first, found.pca, found, scheme)
    first.set_title("Principal components", loc="left")
    first.set_xlabel(f"first ({found.explained[0]:.0%} of variance)")
    first.set_ylabel(f"second ({found.explained[1]:.0%} of variance)")
    _scatter(second, found.tsne, found, scheme)
    second.set_title("t-SNE (distances between groups mean nothing)", loc="left")
    used = [i for i, item in enumerate(scheme.classes) if (found.code == item.code).any()]
    handles = [
        Line2D([], [], linestyle="", marker=_marker(i), color=scheme.classes[i].color, markeredgecolor=SOFT,
               markeredgewidth=0.4, markersize=6, label=scheme.names[i])
        for i in used
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(used), 8), fontsize=8.5)
    return figure


def _scatter(axes: Axes, points: NDArray[np.float32], found: Features, scheme: ClassScheme) -> None:
    for number, item in enumerate(scheme.classes):
        own = points[found.code == item.code]
        axes.scatter(
            own[:, 0], own[:, 1], s=13, color=item.color, marker=_marker(number), linewidths=0.25, edgecolors=SOFT,
            rasterized=True,
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(True)


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]


def split_map(found: SplitMap) -> Figure:
    """Polygons by part over the blocks, in km from the upper left corner of the first scene; north is up."""
    outlines = {part: _outlines(found, part) for part in PART_COLORS}
    points = np.concatenate([line for lines in outlines.values() for line in lines])
    low, high = points.min(axis=0), points.max(axis=0)
    pad = 0.02 * float((high - low).max()) or 0.1
    low, high = low - pad, high + pad
    wide, tall = high - low
    figure = blank(WIDE_CM, min((WIDE_CM - 2.5) * tall / wide + 3.0, _TALLEST_CM))
    axes = figure.add_subplot()
    _add_blocks(axes, found.block_m / _KM, low, high)
    _add_buffer(axes, outlines, found.buffer_m / _KM)
    for part, lines in outlines.items():
        axes.add_collection(PolyCollection(lines, facecolors=PART_COLORS[part], edgecolors=ink(), linewidths=0.2))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(high[1], low[1])
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel("km to the east")
    axes.set_ylabel("km to the south")
    figure.legend(handles=_handles(found, outlines), loc="outside upper left", ncols=6)
    return figure


def _outlines(found: SplitMap, part: str) -> list[NDArray[np.float64]]:
    return [item.outline_m / _KM for item in found.polygons if item.part == part]


def _add_blocks(axes: Axes, side: float, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """The lines between blocks, which start at the first scene's upper left corner."""
    if side <= 0 or float((high - low).sum()) / side > _MANY_LINES:
        return
    lines = []
    for axis in (0, 1):
        for at in np.arange(np.ceil(low[axis] / side), np.floor(high[axis] / side) + 1) * side:
            ends = np.stack([low, high])
            ends[:, axis] = at
            lines.append(ends)
    axes.add_collection(LineCollection(lines, colors=SOFT, linewidths=0.8, linestyles=(0, (4, 3)), zorder=0.5))


def _add_buffer(axes: Axes, outlines: dict[str, list[NDArray[np.float64]]], distance: float) -> None:
    """Hatch what is nearer than the buffer to validation and test polygons: nobody learns from what lies there."""
    kept = [shapely.Polygon(line) for part in ("validation", "test") for line in outlines[part]]
    if distance <= 0 or not kept:
        return
    # Distances of the split are chessboard distances, as chips are squares: corners stay square.
    zone = shapely.union_all([_within(shape, distance) for shape in kept])
    for shape in getattr(zone, "geoms", [zone]):
        rings = [np.asarray(ring.coords) for ring in (shape.exterior, *shape.interiors)]
        axes.add_collection(
            PolyCollection(rings[:1], facecolors="none", edgecolors=SOFT, linewidths=0.5, hatch="////", zorder=0.6)
        )


def _within(shape: shapely.Polygon, distance: float) -> shapely.Geometry:
    """What lies within a chessboard distance of a polygon: the polygon, and squares moved along its edges."""
    square = distance * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    corners = np.asarray(shape.exterior.coords)[:, None, :] + square  # [corner, corner of the square, (x, y)]
    ends = np.concatenate([corners[:-1], corners[1:]], axis=1)
    hulls = np.asarray(shapely.convex_hull(shapely.multipoints(ends)), dtype=object)
    return shapely.union_all([shape.buffer(0), *hulls.ravel()])


def _handles(found: SplitMap, outlines: dict[str, list[NDArray[np.float64]]]) -> list[Patch]:
    numbers = {part: len({item.polygon for item in found.polygons if item.part == part}) for part in outlines}
    handles = [
        Patch(facecolor=PART_COLORS[part], label=f"{'not used (buffer)' if part == 'buffer' else part} ({count})")
        for part, count in numbers.items()
        if count
    ]
    if found.buffer_m > 0:
        words = f"within {found.buffer_m:,.0f} m of validation or test"
        handles.append(Patch(facecolor="none", edgecolor=SOFT, hatch="////", linewidth=0.5, label=words))
    if found.block_m > 0:
        words = f"blocks of {found.block_m:,.0f} m"
        handles.append(Patch(facecolor="none", edgecolor=SOFT, linestyle="--", linewidth=0.8, label=words))
    return handles
