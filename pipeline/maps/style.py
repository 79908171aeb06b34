"""Styles that travel with the files: QGIS renderers as XML, for .qml files, GeoPackages and projects.

The same elements go into a ``map.qml`` beside a raster, into the ``layer_styles`` table of a GeoPackage and into the
layers of a project. Elements and attributes are those that QGIS 3.22 and later read.
Source: QGIS, QgsRasterRenderer and QgsFeatureRenderer ``writeXml``; QML documentation of the QGIS user guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.legend import ClassScheme

QGIS_VERSION = "3.22.0"
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

# Five stops each of matplotlib's viridis and magma: perceptually uniform, told apart without colour vision.
# Source: van der Walt & Smith (2015), matplotlib default colormaps, CC0.
VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
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
    """One band of uint8 in percent that is written beside a class map.

    Attributes:
        key: Name of its STAC asset.
        suffix: Ending of the file: ``<scene>_<suffix>.tif``.
        band: Description of the band in the file.
        title: Name in projects and catalogues.
        label: Name in the viewer, which shows ``unit`` beside values.
        description: What the values are.
        colors: Stops of the colour ramp ``#rrggbb``, evenly spread from 0 to ``maximum``.
        maximum: Value of the last stop.
        ramp: matplotlib's name of the ramp, which tile servers know.
        unit: Of the values.
    """

    key: str
    suffix: str
    band: str
    title: str
    label: str
    description: str
    colors: tuple[str, ...] = VIRIDIS
    maximum: int = 100
    ramp: str = "viridis"
    unit: str = "%"


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


def paletted_pipe(scheme: ClassScheme) -> Element:
    """Classes of band 1 by colour and name; nodata is no row of the legend."""
    pipe = Element("pipe")
    renderer = _raster_renderer(pipe, "paletted", {"band": "1"})
    palette = SubElement(renderer, "colorPalette")
    for item in scheme.classes:
        SubElement(palette, "paletteEntry", value=str(item.code), label=item.name, color=item.color, alpha="255")
    return pipe


def ramp_pipe(band: int, colors: Sequence[str], *, maximum: float = 100.0, unit: str = "%") -> Element:
    """Values 0..``maximum`` of one band along a colour ramp."""
    pipe = Element("pipe")
    limits = {"classificationMin": "0", "classificationMax": f"{maximum:g}"}
    renderer = _raster_renderer(pipe, "singlebandpseudocolor", {"band": str(band), **limits})
    shader = SubElement(
        SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue=f"{maximum:g}",
    )
    for number, color in enumerate(colors):
        value = maximum * number / (len(colors) - 1)
        SubElement(shader, "item", value=f"{value:g}", label=f"{value:g} {unit}".strip(), color=color, alpha="255")
    return pipe


def rgb_pipe(bands: tuple[int, int, int], limits: Sequence[tuple[float, float]]) -> Element:
    """Three bands as red, green, blue, each stretched between its (minimum, maximum) in stored values."""
    pipe = Element("pipe")
    numbers = {f"{name}Band": str(band) for name, band in zip(("red", "green", "blue"), bands, strict=True)}
    renderer = _raster_renderer(pipe, "multibandcolor", numbers)
    for name, (low, high) in zip(("red", "green", "blue"), limits, strict=True):
        stretch = SubElement(renderer, f"{name}ContrastEnhancement")
        SubElement(stretch, "minValue").text = f"{low:g}"
        SubElement(stretch, "maxValue").text = f"{high:g}"
        SubElement(stretch, "algorithm").text = "StretchToMinimumMaximum"
    return pipe


def categorised(
    attribute: str, categories: Sequence[Category], *, shape: Literal["fill", "outline", "marker"] = "fill"
) -> Element:
    """Features by the values of an attribute: polygons filled or as outlines, or points as markers."""
    renderer = Element(
        "renderer-v2", type="categorizedSymbol", attr=attribute, symbollevels="0", forceraster="0", enableorderby="0"
    )
    rows = SubElement(renderer, "categories")
    symbols = SubElement(renderer, "symbols")
    for number, item in enumerate(categories):
        kind = "long" if isinstance(item.value, int) else "string"
        SubElement(
            rows,
            "category",
            {
                "value": str(item.value),
                "symbol": str(number),
                "label": item.label,
                "render": "true",
                "type": kind,
            },
        )
        _add_symbol(symbols, str(number), item.color, shape=shape)
    return renderer


def scheme_categories(scheme: ClassScheme, *, by_name: bool = False) -> tuple[Category, ...]:
    """The classes of a scheme as categories of their code, or of their name."""
    return tuple(Category(c.name if by_name else c.code, c.name, c.color) for c in scheme.classes)


def qml(*children: Element) -> str:
    """The text of a .qml file with these elements (a raster's pipe, or a vector's renderer)."""
    root = Element("qgis", version=QGIS_VERSION, styleCategories="Symbology")
    root.extend(children)
    return xml_text(root, doctype=True)


def xml_text(root: Element, *, doctype: bool = False) -> str:
    """Indented XML, with QGIS's document type where asked for."""
    indent(root)
    return (_DOCTYPE if doctype else "") + tostring(root, encoding="unicode") + "\n"


def _raster_renderer(pipe: Element, kind: str, attributes: Mapping[str, str]) -> Element:
    common = {"type": kind, "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = SubElement(pipe, "rasterrenderer", {**common, **attributes})
    SubElement(renderer, "rasterTransparency")
    return renderer


_SYMBOLS: dict[str, dict[str, str]] = {
    # A hair line in the colour of the fill closes the light seam that anti-aliasing leaves between neighbours.
    "fill": {"style": "solid", "outline_style": "solid", "outline_width": "0.1", "outline_width_unit": "MM"},
    "outline": {"style": "no", "outline_style": "solid", "outline_width": "0.66", "outline_width_unit": "MM"},
    # Drawn under an outline: on a map in the same colours a line would vanish where the two agree.
    "casing": {"style": "no", "outline_style": "solid", "outline_width": "1.3", "outline_width_unit": "MM"},
    "marker": {"name": "circle", "size": "2.4", "size_unit": "MM", "outline_color": "255,255,255,255"},
}
_BLACK, _WHITE = "#000000", "#ffffff"
# Colours lighter than this share of white are told from black more easily than from white.
# Source: W3C, WCAG 2.2, relative luminance; the ratio to black and to white is the same at 0.179, here in gamma space.
_LIGHT = 0.46


def _add_symbol(symbols: Element, name: str, color: str, *, shape: Literal["fill", "outline", "marker"]) -> None:
    kind = "marker" if shape == "marker" else "fill"
    symbol = SubElement(symbols, "symbol", type=kind, name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    if shape == "outline":
        _add_symbol_layer(symbol, _casing(color), "casing")
    _add_symbol_layer(symbol, color, shape)


def _add_symbol_layer(symbol: Element, color: str, drawn: str) -> None:
    rgba = ",".join(map(str, _rgb(color))) + ",255"
    layer_class = "SimpleMarker" if drawn == "marker" else "SimpleFill"
    layer = SubElement(symbol, "layer", {"class": layer_class, "enabled": "1", "locked": "0", "pass": "0"})
    table = SubElement(layer, "Option", type="Map")
    outline = {"outline_color": rgba} if drawn != "marker" else {}
    for key, value in {"color": rgba, **outline, **_SYMBOLS[drawn]}.items():
        SubElement(table, "Option", name=key, type="QString", value=value)


def _casing(color: str) -> str:
    """Black around light colours, white around dark ones."""
    red, green, blue = _rgb(color)
    return _BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > _LIGHT * 255 else _WHITE


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
