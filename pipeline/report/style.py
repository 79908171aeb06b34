"""How the report's figures look: one size of type, colours that everyone tells apart, on light and on dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from pipeline.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 200
# The page shows a half-width figure 12.3 cm wide: type keeps its size. A wide one takes both columns.
HALF_CM, WIDE_CM = 12.3, 26.0
_INCH_CM = 2.54
_COMMON: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "svg.hashsalt": "landcover",
}


def _theme(ink: str, page: str, grid: str, colours: tuple[str, ...]) -> dict[str, Any]:
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
    paged = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **_COMMON, **dict.fromkeys(inked, ink), **dict.fromkeys(paged, page), "grid.color": grid,
        "axes.prop_cycle": cycler(color=colours),
    }  # fmt: skip


# Okabe & Ito (2008): told apart by people with the common colour-vision deficiencies; lighter blue and green on dark.
LIGHT: Any = _theme("#1c2227", "#ffffff", "#e3e7ea", ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"))
DARK: Any = _theme("#e6eaed", "#1e2428", "#363f46", ("#56b4e9", "#e69f00", "#2fbf97", "#cc79a7", "#ee7f3b", "#0072b2"))
SOFT = "#8a949c"  # readable on both pages


def blank(width_cm: float, height_cm: float) -> Figure:
    """An empty figure of a size."""
    figure = Figure(figsize=(width_cm / _INCH_CM, height_cm / _INCH_CM), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ink() -> str:
    """The colour of type on the page that is being drawn for."""
    return str(rcParams["text.color"])


def shades() -> LinearSegmentedColormap:
    """From the page's own colour to its first one."""
    first = rcParams["axes.prop_cycle"].by_key()["color"][0]
    return LinearSegmentedColormap.from_list("shades", [rcParams["axes.facecolor"], first])


def grid_lines(axes: Axes, axis: str) -> None:
    """Thin lines behind the data along one axis."""
    getattr(axes, f"{axis}axis").grid(visible=True)


def save(draw: Callable[[], Figure], stem: Path) -> tuple[tuple[Path, Path], bytes]:
    """Write ``stem.png`` and ``stem.svg``, and give them with the SVG for a dark page.

    An SVG carries no date and its ids follow from its content, so that equal figures are equal files.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(LIGHT):
        figure = draw()
        png, svg = _png(figure), _svg(figure)
    with rc_context(DARK):
        dark = _svg(draw())
    files = write_bytes(stem.with_suffix(".png"), png), write_bytes(stem.with_suffix(".svg"), svg)
    return files, dark


def _png(figure: Figure) -> bytes:
    """A figure as the bytes of a file: on a full disk matplotlib would leave half of one.

    ``savefig`` would draw twice, the first time for the layout alone, which drawing brings about too.
    """
    memory, before = io.BytesIO(), figure.dpi
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(memory)  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    figure.set_dpi(before)
    return memory.getvalue()


def _svg(figure: Figure) -> bytes:
    memory = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(memory, metadata={"Date": None})  # type: ignore[no-untyped-call]  # as above
    return memory.getvalue()
