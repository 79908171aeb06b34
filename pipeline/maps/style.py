"""Styles that travel with the files: QGIS renderers as XML, for .qml files, GeoPackages and projects.

The same renderers go into a ``map.qml`` beside a raster, into the ``layer_styles`` table of a GeoPackage and into the
layers of a project; ``templates/`` holds the XML of all of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.legend import VIRIDIS, ClassScheme

if TYPE_CHECKING:
    from markupsafe import Markup

QGIS_VERSION = "3.22.0"
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

# Magma, as `VIRIDIS`.
MAGMA = ("#000004", "#51127c", "#b73779", "#fc8961", "#fcfdbf")
# Blue below the middle, red above it, told apart without colour vision. Source: ColorBrewer 2.0, RdBu, Apache-2.0.
BLUE_TO_RED = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")
# The parts of a split, in projects and reports alike: Okabe & Ito's blue, orange and green, and grey, told apart by
# everyone. Source: Okabe & Ito (2008).
PART_COLORS = {"train": "#0072b2", "validation": "#e69f00", "test": "#009e73", "buffer": "#999999"}


# Value of confidence, probabilities, entropy, margin and dissimilarity where there is no observation.
PERCENT_NODATA = 255


@dataclass(frozen=True)
class PercentLayer:
    """One band of uint8 in percent that is written beside a class map."""

    key: str  # Name of its STAC asset
    suffix: str  # Ending of the file: ``<scene>_<suffix>.tif``
    band: str  # Description of the band in the file
    title: str  # Name in projects and catalogues
    label: str  # Name in the viewer, which shows ``unit`` beside values
    description: str  # What the values are
    colors: tuple[str, ...] = VIRIDIS  # Stops of the colour ramp ``#rrggbb``, evenly spread from 0 to ``maximum``
    maximum: int = 100  # Value of the last stop
    ramp: str = "viridis"  # matplotlib's name of the ramp, which tile servers know
    unit: str = "%"  # Of the values


CONFIDENCE = PercentLayer(
    "confidence", "conf", "confidence (%)", "Confidence (%)", "Confidence", "Probability of the mapped class"
)
MARGIN = PercentLayer(
    "margin", "margin", "margin (%)", "Margin (%)", "Margin to the second class", "First minus second class probability"
)
ENTROPY = PercentLayer(
    "entropy", "entropy", "entropy (% of log K)", "Entropy (%)", "Entropy",
    "Entropy of the class probabilities, 100 = log K", MAGMA, 100, "magma",
)  # fmt: skip
# Up to 100 is inside the area of applicability: the colours change side there.
DISSIMILARITY = PercentLayer(
    "applicability", "aoa", "dissimilarity (% of the threshold)", "Unlike the training data (%)",
    "Dissimilarity from the training data", "Dissimilarity from the training data, 100 = its threshold", BLUE_TO_RED,
    200, "rdbu_r", "% of the threshold",
)  # fmt: skip
LAYERS = (CONFIDENCE, ENTROPY, MARGIN, DISSIMILARITY)


@dataclass(frozen=True)
class Category:
    """One value of an attribute as QGIS shows it: value, label, fill ``#rrggbb``."""

    value: int | str
    label: str
    color: str


def from_template(name: str, **values: object) -> str:
    """A file of ``templates/`` with values, which are escaped unless they are XML from another template."""
    return _templates().get_template(name).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.maps"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _renderer(macro: str, *values: object) -> Markup:
    module = _templates().get_template("renderers.xml.jinja").module
    return cast("Markup", getattr(module, macro)(*values))


def paletted_pipe(scheme: ClassScheme) -> Markup:
    """Classes of band 1 by colour and name; nodata is no row of the legend."""
    return _renderer("paletted", scheme.classes)


def ramp_pipe(
    band: int, colors: Sequence[str], *, minimum: float = 0.0, maximum: float = 100.0, unit: str = "%"
) -> Markup:
    """Values ``minimum``..``maximum`` of one band along a colour ramp."""
    step = (maximum - minimum) / (len(colors) - 1)
    values = [f"{minimum + step * number:.6g}" for number in range(len(colors))]
    return _renderer("ramp", band, list(zip(values, colors, strict=True)), values[0], values[-1], unit)


def rgb_pipe(bands: tuple[int, int, int], limits: Sequence[tuple[float, float]]) -> Markup:
    """Three bands as red, green, blue, each stretched between its (minimum, maximum) in stored values."""
    channels = zip(("red", "green", "blue"), bands, limits, strict=True)
    return _renderer("rgb", [(name, band, f"{low:g}", f"{high:g}") for name, band, (low, high) in channels])


Shape = Literal["fill", "outline", "marker"]


def categorised(attribute: str, categories: Sequence[Category], *, shape: Shape = "fill") -> Markup:
    """Features by the values of an attribute: polygons filled or as outlines, or points as markers."""
    rows = [
        {
            "value": item.value,
            "label": item.label,
            "type": "long" if isinstance(item.value, int) else "string",
            "kind": "marker" if shape == "marker" else "fill",
            "symbol_layers": _symbol_layers(item.color, shape),
        }
        for item in categories
    ]
    return _renderer("categorised", attribute, rows)


def scheme_categories(scheme: ClassScheme, *, by_name: bool = False) -> tuple[Category, ...]:
    """The classes of a scheme as categories of their code, or of their name."""
    return tuple(Category(c.name if by_name else c.code, c.name, c.color) for c in scheme.classes)


def qml(renderer: Markup) -> str:
    """The text of a .qml file: a raster's pipe, or a vector's renderer."""
    return f'{_DOCTYPE}<qgis version="{QGIS_VERSION}" styleCategories="Symbology">\n{renderer}</qgis>\n'


def _line(*, metres: float, thin_mm: float, thick_mm: float) -> dict[str, str]:
    """A line as wide on the ground as a pixel or two, so that it gets thin when zoomed out, between two limits.

    Source: QGIS, QgsSymbolLayerUtils::encodeMapUnitScale: scales, then whether and how small and large in mm.
    """
    return {
        "style": "no",
        "outline_style": "solid",
        "outline_width": f"{metres:g}",
        "outline_width_unit": "RenderMetersInMapUnits",
        "border_width_map_unit_scale": f"3x:0,0,1,{thin_mm:g},1,{thick_mm:g}",
    }


_SYMBOLS: dict[str, dict[str, str]] = {
    # A hair line in the colour of the fill closes the light seam that anti-aliasing leaves between neighbours.
    "fill": {"style": "solid", "outline_style": "solid", "outline_width": "0.1", "outline_width_unit": "MM"},
    "outline": _line(metres=12, thin_mm=0.12, thick_mm=0.66),
    # Drawn under an outline: on a map in the same colours a line would vanish where the two agree.
    "casing": _line(metres=24, thin_mm=0.26, thick_mm=1.3),
    "marker": {"name": "circle", "size": "2.4", "size_unit": "MM", "outline_color": "255,255,255,255"},
}
_BLACK, _WHITE = "#000000", "#ffffff"
# Colours lighter than this share of white are told from black more easily than from white.
# Source: W3C, WCAG 2.2, relative luminance; the ratio to black and to white is the same at 0.179, here in gamma space.
_LIGHT = 0.46


def _symbol_layers(color: str, shape: Shape) -> list[tuple[str, dict[str, str]]]:
    """(class, options) of the layers of a symbol, the lowest first."""
    layers = []
    for fill, drawn in [(color, shape)] if shape != "outline" else [(_casing(color), "casing"), (color, "outline")]:
        rgba = ",".join(map(str, _rgb(fill))) + ",255"
        outline = {"outline_color": rgba} if drawn != "marker" else {}
        symbol = "SimpleMarker" if drawn == "marker" else "SimpleFill"
        layers.append((symbol, {"color": rgba, **outline, **_SYMBOLS[drawn]}))
    return layers


def _casing(color: str) -> str:
    """Black around light colours, white around dark ones."""
    red, green, blue = _rgb(color)
    return _BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > _LIGHT * 255 else _WHITE


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
