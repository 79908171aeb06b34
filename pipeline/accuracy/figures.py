"""Figures of an assessment as PNG and SVG, in colours that people with colour-vision deficiencies tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.accuracy.calibration import Reliability
    from pipeline.accuracy.confusion import ErrorMatrix
    from pipeline.legend import ClassScheme

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"  # Okabe & Ito (2008)
_MARKERS = "os^DvPX*<>"
# Bins of the reliability diagram with a smaller share of the pixels are shown, but not joined: chance moves them.
FEW = 0.01


def draw_reliability(stem: Path, before: Reliability, *, after: Reliability | None = None) -> tuple[Path, Path]:
    """Reliability diagram, before and after calibration, with the pixels per bin below.

    Raises:
        OutputError: the files cannot be written.
    """
    return _save(reliability_figure(before, after=after), stem)


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


def draw_error_matrix(stem: Path, matrix: ErrorMatrix) -> tuple[Path, Path]:
    """The error matrix in percent of the area, map rows and reference columns.

    Raises:
        OutputError: the files cannot be written.
    """
    k = len(matrix.names)
    figure, axes = _subplots(1, 1, size=(1.6 + 0.62 * k, 1.4 + 0.55 * k))
    axes.imshow(matrix.proportions, cmap="Blues", vmin=0, vmax=max(float(matrix.proportions.max()), 1e-9))
    limit = matrix.proportions.max() / 2
    for i in range(k):
        for j in range(k):
            share = matrix.proportions[i, j]
            color = "white" if share > limit else "black"
            axes.text(j, i, f"{100 * share:.1f}" if matrix.counts[i, j] else "-", ha="center", va="center", color=color)
    axes.set_xticks(range(k), matrix.names, rotation=45, ha="right")
    axes.set_yticks(range(k), matrix.names)
    axes.set(xlabel="reference", ylabel="map", title="% of the area")
    return _save(figure, stem)


def draw_scatter(
    stem: Path, xy: NDArray[np.floating], class_index: NDArray[np.integer], *, scheme: ClassScheme, title: str
) -> tuple[Path, Path]:
    """Points of a 2-D embedding float [point, 2] by class; colour and marker both tell the class.

    Raises:
        OutputError: the files cannot be written.
    """
    figure, axes = _subplots(1, 1, size=(5.6, 4.2))
    for k, item in enumerate(scheme.classes):
        mine = class_index == k
        if mine.any():
            axes.scatter(
                xy[mine, 0], xy[mine, 1], s=9, color=item.color, marker=_MARKERS[k % len(_MARKERS)], linewidths=0.2,
                edgecolors="black", label=item.name, rasterized=True,
            )  # fmt: skip
    axes.set(title=title, xticks=[], yticks=[])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return _save(figure, stem)


def draw_accuracy_by(
    stem: Path, labels: Sequence[str], accuracy: NDArray[np.floating], *, count: NDArray[np.integer], title: str
) -> tuple[Path, Path]:
    """Accuracy per group (distance to an edge, patch size), with the units in each group written above.

    Raises:
        OutputError: the files cannot be written.
    """
    figure, axes = _subplots(1, 1, size=(5.0, 3.2))
    axes.bar(range(len(labels)), np.nan_to_num(accuracy), color=BLUE)
    for i, n in enumerate(count):
        axes.text(i, np.nan_to_num(accuracy)[i] + 0.02, f"n = {n}", ha="center", fontsize=7)
    axes.set_xticks(range(len(labels)), labels)
    axes.set(ylim=(0, 1.12), ylabel="share of right units", xlabel=title)
    return _save(figure, stem)


def _subplots(rows: int, columns: int, *, size: tuple[float, float], heights: Sequence[float] | None = None) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, gridspec_kw={"height_ratios": heights} if heights else None)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, stem: Path) -> tuple[Path, Path]:
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, dpi=160)
        figure.savefig(svg)
    except OSError as err:
        raise OutputError("figure cannot be written", path=png, got=err) from err
    return png, svg
