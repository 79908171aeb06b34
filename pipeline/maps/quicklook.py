"""One picture of a map: scene, classes and confidence side by side, with legend, scale bar and north arrow.

Everything is read decimated, so memory does not grow with the map.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from pipeline import __version__
from pipeline.errors import InputError
from pipeline.files import check_target, write_bytes
from pipeline.grid import Grid
from pipeline.legend import NODATA
from pipeline.maps.geotiff import classes_title
from pipeline.maps.legends import read_scheme
from pipeline.maps.look import PANEL_PX, coarse_grid, length_text, scale_bar_m, true_colour
from pipeline.maps.style import PERCENT_NODATA, VIRIDIS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme
    from pipeline.maps.pixels import ClassCounts
    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

_PANEL_INCHES = 5.0
_LEGEND_ROW_INCHES = 0.26
_DPI = 150
_BACKGROUND = (0.93, 0.93, 0.93)


def write_quicklook(
    path: Path,
    class_map: Path,
    *,
    scene: Source | None = None,
    look: Raster | None = None,
    confidence: Path | None = None,
    counts: ClassCounts | None = None,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Write a PNG of scene | classes | confidence; panels without a source are left out.

    The scene is shown as :func:`pipeline.maps.look.shown_bands` chooses; ``counts`` give the legend areas.

    Raises:
        InputError: a map cannot be read.
        OutputError: the picture exists or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    codes, grid = _decimated(class_map, Resampling.mode)
    scheme = read_scheme(class_map)
    panels: list[tuple[str, NDArray[Any]]] = [(classes_title(class_map), _coloured(codes, scheme))]
    if scene is not None:
        panels.insert(0, _scene_panel(scene, look))
    if confidence is not None:
        panels.append(("Confidence", _ramped(_decimated(confidence, Resampling.average)[0])))
    figure, axes = _figure(len(panels), grid, rows=math.ceil((len(scheme) + 1) / 4))
    for axis, (name, image) in zip(axes, panels, strict=True):
        _draw_panel(axis, name, image, grid)
    _add_scale_bar(axes[0], grid)
    if confidence is not None:
        _add_ramp(axes[-1])
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
    _add_legend(figure, scheme, counts)
    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=_DPI, facecolor="white", metadata={"Software": f"landcover {__version__}"})
    write_bytes(path, memory.getvalue())


def _decimated(path: Path, resampling: Resampling) -> tuple[NDArray[np.uint8], Grid]:
    try:
        with rasterio.open(path) as dataset:
            grid = Grid.of(dataset)
            shape = coarse_grid(grid, PANEL_PX).shape
            pixels: NDArray[np.uint8] = dataset.read(1, out_shape=shape, resampling=resampling)
    except (RasterioError, OSError) as err:
        raise InputError("cannot read the map", path=path, got=err) from err
    return pixels, grid


def _coloured(codes: NDArray[np.uint8], scheme: ClassScheme) -> NDArray[np.float64]:
    table = np.full((256, 3), _BACKGROUND)
    for item in scheme.classes:
        table[item.code] = np.array(item.rgb) / 255
    table[NODATA] = _BACKGROUND
    return np.asarray(table[codes])


def _ramped(percent: NDArray[np.uint8]) -> NDArray[np.float64]:
    image = _ramp()(np.minimum(percent, 100) / 100.0)[..., :3]
    image[percent == PERCENT_NODATA] = _BACKGROUND
    return np.asarray(image)


def _ramp() -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("confidence", VIRIDIS)


def _scene_panel(scene: Source, look: Raster | None) -> tuple[str, NDArray[np.float32]]:
    image, valid, shown = true_colour(scene, max_px=PANEL_PX, raster=look)
    image[~valid] = _BACKGROUND
    return f"Scene, {shown}", image


def _figure(panels: int, grid: Grid, *, rows: int) -> tuple[Figure, list[Axes]]:
    size_x, size_y = grid.pixel_size_m
    tall = _PANEL_INCHES * (grid.height * size_y) / (grid.width * size_x)
    tall = min(max(tall, 1.5), 10.0)
    legend = _LEGEND_ROW_INCHES * rows + 0.12
    height = tall + legend + 0.9
    figure = Figure(figsize=(_PANEL_INCHES * panels + 0.3, height))
    FigureCanvasAgg(figure)
    grid_of_axes = figure.subplots(1, panels, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=legend / height, top=1 - 0.75 / height, wspace=0.03)
    return figure, list(grid_of_axes[0])


def _draw_panel(axis: Axes, name: str, image: NDArray[Any], grid: Grid) -> None:
    """Draw north up and east right, whatever the sign of the grid's pixels, true to scale at its centre."""
    size_x, size_y = grid.pixel_size_m
    wide, tall = grid.width * size_x, grid.height * size_y
    image = image[::-1] if grid.transform.e > 0 else image
    image = image[:, ::-1] if grid.transform.a < 0 else image
    axis.imshow(image, extent=(0, wide, 0, tall), interpolation="nearest", aspect="equal")
    axis.set_title(name, fontsize=10, loc="left", y=1.0)
    axis.set_xticks([])
    axis.set_yticks([])


def _add_scale_bar(axis: Axes, grid: Grid) -> None:
    size_x, size_y = grid.pixel_size_m
    wide, tall = grid.width * size_x, grid.height * size_y
    length = scale_bar_m(wide)
    text = length_text(length)
    pad = 0.03 * wide
    thick = 0.012 * wide
    axis.add_patch(
        Rectangle((pad / 2, pad / 2), length + pad, 0.075 * wide, facecolor="white", alpha=0.8, edgecolor="none")
    )
    axis.add_patch(Rectangle((pad, pad), length / 2, thick, facecolor="black", edgecolor="black", linewidth=0.8))
    half = (pad + length / 2, pad)
    axis.add_patch(Rectangle(half, length / 2, thick, facecolor="white", edgecolor="black", linewidth=0.8))
    axis.text(pad + length / 2, pad + 1.4 * thick, text, ha="center", va="bottom", fontsize=8)
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.4}
    axis.add_patch(
        Rectangle(
            (wide - 1.9 * pad, tall - 3.6 * pad), 1.6 * pad, 3.3 * pad, facecolor="white", alpha=0.8, edgecolor="none"
        )
    )
    top = (wide - 1.1 * pad, tall - 0.5 * pad)
    axis.annotate("", xy=top, xytext=(top[0], tall - 2.2 * pad), arrowprops=arrow)
    axis.text(top[0], tall - 2.2 * pad, "N", ha="center", va="top", fontsize=8, fontweight="bold")


def _add_ramp(axis: Axes) -> None:
    inset = axis.inset_axes((0.55, 1.015, 0.4, 0.035))
    inset.imshow(np.linspace(0, 1, 256)[np.newaxis], aspect="auto", cmap=_ramp(), extent=(0, 100, 0, 1))
    inset.set_yticks([])
    inset.xaxis.tick_top()
    inset.set_xticks([0, 50, 100], ["0", "50", "100 %"])
    inset.tick_params(labelsize=7, length=2, pad=1)


def _add_legend(figure: Figure, scheme: ClassScheme, counts: ClassCounts | None) -> None:
    total = (counts.total_ha or 1.0) if counts else 1.0
    patches = []
    for number, item in enumerate(scheme.classes):
        area = f"  {counts.area_ha[number]:,.0f} ha ({counts.area_ha[number] / total:.1%})" if counts else ""
        patches.append(Patch(facecolor=item.color, edgecolor="0.3", linewidth=0.4, label=f"{item.name}{area}"))
    patches.append(Patch(facecolor=_BACKGROUND, edgecolor="0.3", linewidth=0.4, label="no data"))
    figure.legend(handles=patches, loc="lower left", ncols=4, fontsize=8, frameon=False, bbox_to_anchor=(0.005, 0.0))
