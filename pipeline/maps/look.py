"""A scene, small enough to look at: decimated reads in bounded memory, stretches for display, the picture of a map."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from rasterio.enums import Resampling

from pipeline import __version__
from pipeline.bands import name_in_words
from pipeline.errors import InputError
from pipeline.files import check_target, write_bytes
from pipeline.grid import Grid, Window
from pipeline.legend import VIRIDIS, ClassScheme
from pipeline.maps.geotiff import classes_title
from pipeline.maps.legends import read_scheme
from pipeline.maps.style import PERCENT_NODATA
from pipeline.raster import Raster, as_error
from pipeline.scenes.derived import PLACE
from pipeline.scenes.indices import is_texture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.maps.pixels import ClassCounts
    from pipeline.scenes.scene import Source

# Parts of a picture that are read at once.
_PARTS = 2

# Two per cent at each end is the cut that QGIS and most viewers use for imagery.
_CUT_PERCENT = (2.0, 98.0)
# Measurements do not have one value in all bands over such a share of the scene.
_FILL_SHARE = 0.01
TRUE_COLOUR = (("red",), ("green",), ("blue",))
# Colour infrared: vegetation is red. Source: USGS, common Landsat band combinations (5-4-3 for OLI).
FALSE_COLOUR = (("nir", "nir08"), ("red",), ("green",))
# Middles of red, green and blue, and how far a band called by its wavelength may lie from them, in nm.
# Source: Sentinel-2 MSI, central wavelengths of B04, B03 and B02.
_WAVELENGTHS_NM, _NEAR_NM = (665.0, 560.0, 490.0), 30.0
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?) ?nm")

# Longest side of a panel of a quicklook.
PANEL_PX = 900
_BAR_SHARE = 0.3  # longest scale bar as a share of the panel's width
# Sources: Copernicus, Legal notice on the use of Copernicus Sentinel Data and Service Information, 1 (c); USGS, Landsat
# data: credit line.
_CREDITS = {
    "sentinel": "Contains modified Copernicus Sentinel data",
    "landsat": "Landsat data courtesy of the U.S. Geological Survey",
}


def coarse_grid(grid: Grid, max_px: int) -> Grid:
    """The same area in pixels so large that neither side has more than ``max_px``; at most a pixel's edge is lost."""
    factor = max(1, math.ceil(max(grid.shape) / max_px))
    height, width = max(1, grid.height // factor), max(1, grid.width // factor)
    return Grid(grid.crs, grid.transform @ Affine.scale(factor), height, width)


def look_at(source: Source, names: Sequence[str], *, max_px: int) -> Raster:
    """Some bands of a scene on its coarse grid, masked and in physical units.

    Files without overviews must be decoded whole for it: parts of the picture are read side by side.
    """
    grid = coarse_grid(source.grid, max_px)
    small = source.select(names).on_grid(grid, for_display=True)
    step = -(-grid.height // _PARTS)
    parts = [Window(row, 0, min(step, grid.height - row), grid.width) for row in range(0, grid.height, step)]

    def part(window: Window) -> Raster:
        with small.open() as reader:
            return reader.read(window)

    with ThreadPoolExecutor(_PARTS) as pool:
        read = list(pool.map(part, parts))
    values, valid = (
        np.concatenate(layers, axis=-2) for layers in zip(*((r.values, r.valid) for r in read), strict=True)
    )
    return Raster(values, valid, read[0].bands, grid)


def choose_bands(
    names: Sequence[str], wanted: Sequence[Sequence[str]], *, sensor: str = ""
) -> tuple[str, str, str] | None:
    """Band names for red, green and blue of the display, of several dates the first; None where the scene lacks one.

    >>> choose_bands(("blue", "green", "red", "nir08"), FALSE_COLOUR)
    ('nir08', 'red', 'green')
    >>> choose_bands(("red_t1", "green_t1", "nir_t1", "nir_t2"), FALSE_COLOUR)
    ('nir_t1', 'red_t1', 'green_t1')
    """
    known = {name.partition("_")[0]: name for name in reversed(names)}
    known |= {name_in_words(name, sensor=sensor, beside=names): name for name in reversed(names)}
    red, green, blue = (next((known[name] for name in options if name in known), None) for options in wanted)
    return (red, green, blue) if red and green and blue else None


def shown_bands(names: Sequence[str], *, sensor: str = "") -> tuple[tuple[str, ...], str]:
    """Bands for red, green and blue of the display, or one for gray, and what they show.

    True colour, by name or wavelength, of several dates the first; else infrared; else the first three bands of the
    image itself.

    >>> shown_bands(("b1", "b2", "b3", "b4"))
    (('b1', 'b2', 'b3'), 'bands b1, b2, b3 as red, green, blue')
    >>> shown_bands(("418.2 nm", "490.4 nm", "550.1 nm", "666.4 nm"))
    (('666.4 nm', '550.1 nm', '490.4 nm'), 'true colour')
    >>> shown_bands(("band 1 reflectance", "band 2 reflectance", "band 3 reflectance"), sensor="landsat-etm")
    (('band 3 reflectance', 'band 2 reflectance', 'band 1 reflectance'), 'true colour')
    >>> shown_bands(("pan", "texture_mean5", "texture_sd5"))
    (('pan',), 'band pan')
    """
    nm = {float(found[1]): name for name in names if (found := _WAVELENGTH.fullmatch(name))}
    all_nm = np.array(list(nm))
    near = [float(all_nm[np.abs(all_nm - at).argmin()]) for at in _WAVELENGTHS_NM] if nm else []
    if near and max(abs(known - at) for known, at in zip(near, _WAVELENGTHS_NM, strict=True)) <= _NEAR_NM:
        return tuple(nm[known] for known in near), "true colour"
    for wanted, words in ((TRUE_COLOUR, "true colour"), (FALSE_COLOUR, "false colour (infrared)")):
        chosen = choose_bands(names, wanted, sensor=sensor)
        if chosen:
            return chosen, words
    measured = [name for name in names if name not in PLACE and not is_texture(name)] or names
    first = tuple(measured[: len(TRUE_COLOUR)])
    if len(first) < len(TRUE_COLOUR):
        return first[:1], f"band {first[0].removeprefix('band ')}"
    return first, f"bands {', '.join(name.removeprefix('band ') for name in first)} as red, green, blue"


def stretch_limits(raster: Raster) -> tuple[tuple[float, float], ...]:
    """(low, high) of each band for display: the 2nd and 98th percentile of valid pixels, undeclared fill left out."""
    seen = raster.valid & ~_fill(raster)
    if not seen.any():
        return ((0.0, 1.0),) * len(raster.bands)
    limits = []
    for layer in raster.values:
        low, high = np.percentile(layer[seen], _CUT_PERCENT)
        limits.append((float(low), float(max(high, low + 1e-6))))
    return tuple(limits)


def _fill(raster: Raster) -> NDArray[np.bool_]:
    """Where all of several bands have a value that fills a large part: white or black outside the image."""
    alike: NDArray[np.bool_] = raster.valid & (raster.values == raster.values[:1]).all(axis=0)
    if len(raster.bands) == 1 or not alike.any():
        return np.zeros_like(raster.valid)
    values, counts = np.unique(raster.values[0][alike], return_counts=True)
    return alike & np.isin(raster.values[0], values[counts >= _FILL_SHARE * raster.valid.size])


class Glimpse:
    """A scene's picture, gathered from what is read of it for another purpose: the scene is not read again for it."""

    def __init__(self, source: Source, bands: Sequence[str], *, max_px: int) -> None:
        names, _ = shown_bands(source.band_names, sensor=source.sensor)
        self._grid = coarse_grid(source.grid, max_px)
        self._step = max(1, math.ceil(max(source.grid.shape) / max_px))
        self._at = [bands.index(name) for name in names if name in bands]
        self._complete = len(self._at) == len(names)
        self._raster = Raster(
            np.zeros((len(names), *self._grid.shape), dtype=np.float32), np.zeros(self._grid.shape, dtype=np.bool_),
            tuple(names), self._grid,
        )  # fmt: skip
        self._seen = np.zeros(self._grid.shape, dtype=np.bool_)

    def add(self, raster: Raster, window: Window) -> None:
        """Keep the pixels in the middle of the picture's; for any number of threads."""
        if not self._complete:
            return
        rows = self._places(window.row, window.row_stop, size=self._grid.height)
        cols = self._places(window.col, window.col_stop, size=self._grid.width)
        own, read = zip(rows, cols, strict=True)
        self._raster.values[(slice(None), *own)] = raster.values[self._at][(slice(None), *read)]
        self._raster.valid[own] = raster.valid[read]
        self._seen[own] = True

    def _places(self, start: int, stop: int, *, size: int) -> tuple[slice, slice]:
        """Along an axis: pixels of the picture whose middles lie in a part of the scene, and where in the part."""
        first, last = (-(-(edge - self._step // 2) // self._step) for edge in (start, stop))
        first, last = max(first, 0), max(min(last, size), first, 0)
        begin = first * self._step + self._step // 2 - start
        return slice(first, last), slice(begin, begin + (last - first) * self._step, self._step)

    @property
    def raster(self) -> Raster | None:
        """What :func:`look_at` would give; None where not all of it was read."""
        return self._raster if self._complete and self._seen.all() else None


def true_colour(
    source: Source, *, max_px: int, raster: Raster | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], str]:
    """The scene to look at: float32 [row, col, 3] in 0..1, valid bool [row, col], and what is shown.

    The bands are those of :func:`shown_bands`. ``raster`` is what a :class:`Glimpse` kept of the scene; without it the
    scene is read.
    """
    names, shown = shown_bands(source.band_names, sensor=source.sensor)
    raster = raster or look_at(source, names, max_px=max_px)
    layers = [
        np.clip((layer - low) / (high - low), 0, 1)
        for layer, (low, high) in zip(raster.values, stretch_limits(raster), strict=True)
    ]
    image = np.stack(layers if len(names) > 1 else layers * 3, axis=-1).astype(np.float32)
    return image, raster.valid, shown


def to_rgb(source: Source, *, max_px: int) -> NDArray[np.uint8]:
    """uint8 [row, col, 3] of :func:`true_colour`; white where not valid."""
    image, valid, _ = true_colour(source, max_px=max_px)
    return np.where(valid[..., None], np.round(image * 255), 255).astype(np.uint8)


def scale_bar_m(width_m: float, *, share: float = _BAR_SHARE) -> float:
    """The longest of 1, 2 or 5 times a power of ten metres that takes at most a share of a width.

    >>> scale_bar_m(15_360)
    2000.0
    """
    limit = width_m * share
    power = 10.0 ** math.floor(math.log10(limit))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= limit)


def length_text(metres: float) -> str:
    """A length in m or km."""
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"  # noqa: PLR2004 - a kilometre


def credit(source: Source) -> str:
    """The notice that the licence of a scene's data asks for; "" where its sensor is not known."""
    found = next((text for key, text in _CREDITS.items() if source.sensor.startswith(key)), "")
    return f"{found} {source.acquired_utc.year}" if source.acquired_utc and "Copernicus" in found else found


_PANEL_INCHES = 5.0
# Of a panel's title, a line.
_TITLE_CHARACTERS = 48
_LEGEND_ROW_INCHES = 0.26
_DPI = 150
_BACKGROUND = (0.93, 0.93, 0.93)


def write_quicklook(
    path: Path, class_map: Path,
    *, scene: Source | None = None, look: Raster | None = None, confidence: Path | None = None,
    counts: ClassCounts | None = None, title: str = "", overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a PNG of scene | classes | confidence; panels without a source are left out.

    The scene is shown as :func:`shown_bands` chooses; ``counts`` give the legend areas.

    Raises:
        InputError: a map cannot be read.
        OutputError: the picture exists or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    codes, grid = _decimated(class_map, Resampling.mode)
    scheme = read_scheme(class_map)
    shown = coloured(codes, scheme, background=_BACKGROUND)
    panels: list[tuple[str, NDArray[Any]]] = [(classes_title(class_map), shown)]
    if scene is not None:
        image, valid, bands = true_colour(scene, max_px=PANEL_PX, raster=look)
        image[~valid] = _BACKGROUND
        panels.insert(0, (f"Scene, {bands}", image))
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
    # savefig would draw twice, the first time for a layout that this figure has already.
    metadata = {"Software": f"landcover {__version__}"}
    FigureCanvasAgg(figure).print_png(memory, metadata=metadata)  # type: ignore[no-untyped-call]  # untyped there
    write_bytes(path, memory.getvalue())


def _decimated(path: Path, resampling: Resampling) -> tuple[NDArray[np.uint8], Grid]:
    with as_error(InputError, "cannot read the map", path=path), rasterio.open(path) as dataset:
        grid = Grid.of(dataset)
        return dataset.read(1, out_shape=coarse_grid(grid, PANEL_PX).shape, resampling=resampling), grid


def coloured(
    codes: NDArray[np.uint8], scheme: ClassScheme, *, background: tuple[float, ...] = (1, 1, 1)
) -> NDArray[np.float64]:
    """Class codes [row, col] in their colours, float64 [row, col, 3] in 0..1; nodata in that of the background."""
    table = np.full((256, 3), background, dtype=np.float64)
    for item in scheme.classes:
        table[item.code] = np.array(item.rgb) / 255
    return np.asarray(table[codes])


def _ramped(percent: NDArray[np.uint8]) -> NDArray[np.float64]:
    image = _ramp()(np.minimum(percent, 100) / 100.0)[..., :3]
    image[percent == PERCENT_NODATA] = _BACKGROUND
    return np.asarray(image)


def _ramp() -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("confidence", VIRIDIS)


def _figure(panels: int, grid: Grid, *, rows: int) -> tuple[Figure, list[Axes]]:
    size_x, size_y = grid.pixel_size_m
    tall = _PANEL_INCHES * (grid.height * size_y) / (grid.width * size_x)
    tall = min(max(tall, 1.5), 10.0)
    legend = _LEGEND_ROW_INCHES * rows + 0.12
    height = tall + legend + 0.9
    figure = Figure(figsize=(_PANEL_INCHES * panels + 0.3, height), dpi=_DPI, facecolor="white")
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
    axis.set_title(fill(name, _TITLE_CHARACTERS), fontsize=10, loc="left", y=1.0)
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
    corner = (wide - 1.9 * pad, tall - 3.6 * pad)
    axis.add_patch(Rectangle(corner, 1.6 * pad, 3.3 * pad, facecolor="white", alpha=0.8, edgecolor="none"))
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
