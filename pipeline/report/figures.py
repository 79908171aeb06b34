"""The report's figures: matplotlib, colour-blind safe, readable in print; each is a Figure saved as PNG and SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme
    from pipeline.report.data import ClassArea, ErrorExample, Features, PolygonPart, Reliability, Score

# Okabe & Ito (2008): told apart by people with the common colour-vision deficiencies.
NETWORK, FOREST = "#0072b2", "#e69f00"
PART_COLOURS = {"train": "#009e73", "validation": "#e69f00", "test": "#0072b2", "buffer": "#999999"}
DPI = 150
_INCH = 2.54
_DARK_CELL = 0.55
_MANY_CLASSES = 14


def _figure(width_cm: float, height_cm: float) -> Figure:
    figure = Figure(figsize=(width_cm / _INCH, height_cm / _INCH), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``stem.png`` and ``stem.svg``; the SVG carries no date, so that equal figures are equal files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    figure.savefig(png, dpi=DPI)
    figure.savefig(svg, metadata={"Date": None})
    return png, svg


def confusion(score: Score, scheme: ClassScheme) -> Figure:
    """Error matrix, map rows x reference columns: counts, shaded by the share of the reference class."""
    counts = np.asarray(score.matrix, dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    size = max(9.0, 1.1 * len(scheme) + 4)
    figure = _figure(size + 2, size)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, col in np.ndindex(*counts.shape):
        if counts[row, col] and len(scheme) <= _MANY_CLASSES:
            colour = "white" if share[row, col] > _DARK_CELL else "black"
            axes.text(col, row, f"{int(counts[row, col])}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(scheme)), scheme.names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(scheme)), scheme.names, fontsize=8)
    axes.set_xlabel("reference")
    axes.set_ylabel("map")
    figure.colorbar(image, label="share of the reference class", shrink=0.8)
    return figure


def per_class(scores: Sequence[Score], scheme: ClassScheme) -> Figure:
    """F1 per class, one bar per method."""
    figure = _figure(16, max(6.0, 1.0 * len(scheme) + 2.5))
    axes = figure.add_subplot()
    height = 0.8 / len(scores)
    for position, (score, colour) in enumerate(zip(scores, (NETWORK, FOREST, "#009e73"), strict=False)):
        where = np.arange(len(scheme)) + (position - (len(scores) - 1) / 2) * height
        values = [score.f1.get(name) or 0.0 for name in scheme.names]
        axes.barh(
            where, values, height=height * 0.92, color=colour, label=f"{score.method} (mean {score.macro_f1:.2f})"
        )
    axes.set_yticks(range(len(scheme)), scheme.names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1 on the test polygons")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    _plain(axes)
    return figure


def areas(items: Sequence[ClassArea], scheme: ClassScheme) -> Figure:
    """Mapped area per class as bars in the classes' own colours."""
    totals = {name: sum(item.area_ha for item in items if item.name == name) for name in scheme.names}
    figure = _figure(16, max(5.0, 0.8 * len(scheme) + 2))
    axes = figure.add_subplot()
    colours = [item.color for item in scheme.classes]
    bars = axes.barh(list(totals), list(totals.values()), color=colours, edgecolor="#555555", linewidth=0.4)
    axes.bar_label(bars, [f"{value:,.1f} ha" for value in totals.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("mapped area (ha)")
    axes.set_xlim(0, max(totals.values(), default=0) * 1.18 or 1)
    axes.tick_params(axis="y", labelsize=8)
    _plain(axes)
    return figure


def training(history: Sequence[dict[str, float]]) -> Figure:
    """Every column of the training log against the step: losses above, figures of 0..1 below."""
    columns = [key for key in dict.fromkeys(key for row in history for key in row) if key not in {"step", "epoch"}]
    losses = [key for key in columns if "loss" in key]
    others = [key for key in columns if key not in losses and any(w in key for w in ("f1", "acc", "accuracy"))]
    groups = [group for group in (losses, others) if group]
    figure = _figure(16, 5.5 * len(groups))
    for number, group in enumerate(groups, 1):
        axes = figure.add_subplot(len(groups), 1, number)
        for key in group:
            points = [(row.get("step", i), row[key]) for i, row in enumerate(history) if row.get(key) is not None]
            axes.plot(*zip(*points, strict=True), label=key.replace("_", " "), linewidth=1.2)
        axes.legend(frameon=False, fontsize=8)
        axes.set_ylabel("loss" if group is losses else "share")
        _plain(axes)
    figure.axes[-1].set_xlabel("step")
    return figure


def split_map(polygons: Sequence[PolygonPart], *, block_m: float) -> Figure:
    """Label polygons by part, with the grid of blocks where coordinates are metres."""
    from matplotlib.patches import Patch
    from matplotlib.patches import Polygon as PolygonPatch

    figure = _figure(16, 12)
    axes = figure.add_subplot()
    for item in polygons:
        axes.add_patch(
            PolygonPatch(item.outline, closed=True, color=PART_COLOURS.get(item.part, "#cccccc"), linewidth=0.5)
        )
    axes.autoscale_view()
    axes.set_aspect("equal")
    counts = {part: sum(item.part == part for item in polygons) for part in PART_COLOURS}
    handles = [Patch(color=PART_COLOURS[part], label=f"{part} ({count})") for part, count in counts.items() if count]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=8)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.tick_params(labelsize=7)
    if block_m:
        axes.set_xlabel(f"blocks of {block_m:g} m; grey polygons lie in the buffer between parts and are not used")
    return figure


def features(found: Features, scheme: ClassScheme) -> Figure:
    """PCA and t-SNE of the network's features, coloured by reference class."""
    figure = _figure(18, 9)
    heads = (f"PCA ({found.explained[0]:.0%} + {found.explained[1]:.0%} of variance)", "t-SNE")
    for number, (points, head) in enumerate(zip((found.pca, found.tsne), heads, strict=True), 1):
        axes = figure.add_subplot(1, 2, number)
        for item in scheme.classes:
            chosen = found.code == item.code
            axes.scatter(points[chosen, 0], points[chosen, 1], s=5, color=item.color, label=item.name, linewidths=0)
        axes.set_title(head, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=7, markerscale=2.5)
    return figure


def reliability(found: Reliability) -> Figure:
    """Accuracy against confidence, with the counts below."""
    figure = _figure(10, 10)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot((0, 1), (0, 1), color="#999999", linewidth=1, linestyle="--", label="perfect")
    top.plot(found.confidence, found.accuracy, marker="o", color=NETWORK, label=f"network (ECE {found.ece:.3f})")
    top.set_ylabel("share right")
    top.set_ylim(0, 1)
    top.legend(frameon=False, fontsize=8)
    bottom.bar(found.confidence, found.count, width=0.06, color=NETWORK)
    bottom.set_ylabel("pixels")
    bottom.set_xlabel("confidence")
    bottom.set_xlim(0, 1)
    for axes in (top, bottom):
        _plain(axes)
    return figure


def examples(items: Sequence[ErrorExample], scheme: ClassScheme) -> Figure:
    """The worst errors as chips: scene above, map below, the polygon outlined."""
    figure = _figure(3.6 * max(len(items), 3), 8.5)
    grid = figure.subplots(2, max(len(items), 3), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for (upper, lower), item in zip(grid.T, items, strict=False):
        for axes, picture in ((upper, item.image), (lower, colour_codes(item.codes, scheme))):
            axes.imshow(picture, interpolation="nearest")
            axes.contour(item.inside, levels=[0.5], colors="white", linewidths=1.4)
            axes.contour(item.inside, levels=[0.5], colors="black", linewidths=0.6)
        upper.set_title(f"polygon {item.polygon}\n{item.reference}", fontsize=8)
        lower.set_title(f"mapped {item.mapped}\n({item.confidence:.0%} sure)", fontsize=8)
    return figure


def colour_codes(codes: NDArray[np.uint8], scheme: ClassScheme) -> NDArray[np.uint8]:
    """uint8 [row, col, 3] of class codes [row, col]; nodata is white."""
    palette = np.full((256, 3), 255, dtype=np.uint8)
    for item in scheme.classes:
        palette[item.code] = item.rgb
    return np.asarray(palette[codes], dtype=np.uint8)
