"""The report's map of the split: label polygons by part, the blocks that decided, and the buffer between the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Patch

from pipeline.maps.style import PART_COLORS
from pipeline.report.style import SOFT, WIDE_CM, blank, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.report.data import SplitMap

_KM = 1000.0
_TALLEST_CM = 20.0
_MANY_LINES = 200  # more block lines than this would hide what they divide


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
    around = shapely.buffer(
        np.array(kept, dtype=object), distance, cap_style="square", join_style="mitre", mitre_limit=2
    )
    zone = shapely.union_all(around)
    for shape in getattr(zone, "geoms", [zone]):
        rings = [np.asarray(ring.coords) for ring in (shape.exterior, *shape.interiors)]
        axes.add_collection(
            PolyCollection(rings[:1], facecolors="none", edgecolors=SOFT, linewidths=0.5, hatch="////", zorder=0.6)
        )


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
