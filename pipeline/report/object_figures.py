"""Objects drawn over the scene, with the footprints that they were assessed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.collections import LineCollection

from pipeline.report.style import WIDE_CM, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.report.data import ObjectsView

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
