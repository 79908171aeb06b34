"""One self-contained HTML page per run: no network, light and dark, printable."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from pipeline.report import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipeline.report.data import MapView, ReportData


@dataclass(frozen=True)
class Picture:
    """A figure on the page: an anchor, a heading, what it shows, and the image as a data URI."""

    anchor: str
    heading: str
    caption: str
    uri: str


def write_report(path: Path, data: ReportData) -> tuple[Path, ...]:
    """Write the page, and its figures as PNG and SVG into ``figures/`` beside it; gives all files, the page first."""
    written: list[Path] = []
    pictures = []
    for anchor, heading, caption, draw in _drawn(data):
        files = figures.save(draw(), path.parent / "figures" / anchor)
        written.extend(files)
        pictures.append(Picture(anchor, heading, caption, _uri(files[1].read_bytes(), "image/svg+xml")))
    environment = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=select_autoescape(default=True), undefined=StrictUndefined
    )
    text = environment.get_template("report.html.jinja").render(
        data=data,
        views=[_view(view, data) for view in data.views],
        pictures=pictures,
        legend=[(item.name, item.color) for item in data.scheme.classes],
        ledger=[json.dumps(item, indent=2, default=str) for item in data.ledger],
        gain=_gain(data),
    )
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path, *written


def _gain(data: ReportData) -> float | None:
    """Macro-F1 of the network minus that of the forest, where both were measured."""
    if len(data.scores) < 2:  # noqa: PLR2004 - two methods to compare
        return None
    return data.scores[0].macro_f1 - data.scores[1].macro_f1


def _drawn(data: ReportData) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    """The figures that the run has data for: anchor, heading, caption, how to draw it."""
    scheme = data.scheme
    if data.areas:
        caption = (
            "Counted from the map. They are not area estimates: these need reference data from a probability sample."
        )
        yield "areas", "Mapped areas", caption, lambda: figures.areas(data.areas, scheme)
    if data.scores:
        caption = f"Counts of test pixels, map rows x reference columns. {data.sampling}"
        yield "confusion", "Error matrix of the network", caption, lambda: figures.confusion(data.scores[0], scheme)
        caption = "F1 per class on the test polygons; the random forest learned from the same pixels."
        yield "per_class", "Accuracy per class", caption, lambda: figures.per_class(data.scores, scheme)
    reliability = data.reliability
    if reliability is not None:
        caption = "Of the pixels mapped with a confidence of 0.8, about 80 % should be right."
        yield "reliability", "Reliability of the confidence", caption, lambda: figures.reliability(reliability)
    if data.history:
        yield "training", "Training", "The training log.", lambda: figures.training(data.history)
    if data.split:
        caption = "Whole polygons go to one part, by spatial blocks with a buffer between the parts."
        yield (
            "split",
            "Training, validation and test",
            caption,
            lambda: figures.split_map(data.split, block_m=data.block_m),
        )
    found = data.features
    if found is not None:
        caption = "What the network sees of labelled pixels, in two dimensions; classes that overlap here are confused."
        yield "features", "Features", caption, lambda: figures.features(found, scheme)
    if data.examples:
        caption = "Test polygons that the map gets wrong most surely; look at them in QGIS: is it the label or the map?"
        yield "examples", "Worst errors", caption, lambda: figures.examples(data.examples, scheme)


def _view(view: MapView, data: ReportData) -> dict[str, object]:
    height, width = view.codes.shape
    nodata = view.codes == 0
    scene = np.where(nodata[..., None], np.uint8(255), view.scene)
    bar_m = _round_length(width * view.pixel_m / 5)
    return {
        "name": view.name,
        "scene": _png_uri(scene),
        "map": _png_uri(figures.colour_codes(view.codes, data.scheme)),
        "width": width,
        "height": height,
        "bar_share": 100 * bar_m / (width * view.pixel_m),
        "bar_text": f"{bar_m / 1000:g} km" if bar_m >= 1000 else f"{bar_m:g} m",  # noqa: PLR2004 - metres in a kilometre
    }


def _round_length(length_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power: float = 10.0 ** np.floor(np.log10(max(length_m, 1e-6)))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length_m))


def _png_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return _uri(buffer.getvalue(), "image/png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{html.escape(kind)};base64,{base64.b64encode(content).decode()}"
