"""One self-contained HTML page per run: no network, light and dark, printable."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from pipeline.diagnostics.scoring import FEW_PIXELS, Score, better
from pipeline.errors import OutputError, counted
from pipeline.files import write_text
from pipeline.maps.look import coloured, length_text, scale_bar_m
from pipeline.report import accuracy_figures, figures, target_figures
from pipeline.report.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.diagnostics.confidence import Reliability
    from pipeline.quantity import Quantity
    from pipeline.report.data import Failures, MapView, ReportData, ValueFigures

_HALF_CLASSES = 9  # an error matrix of more does not fit into half the page
_JUDGED_POLYGONS = 20  # a reliability diagram of fewer test polygons shows them, not the confidence
_LOWER = 0.9  # a calibration error above this share of the one without temperature is no improvement


@dataclass(frozen=True)
class Drawing:
    """A figure that the run has data for: where it stands, what it shows, how to draw it."""

    anchor: str
    heading: str
    caption: str
    draw: Callable[[], Figure]
    wide: bool = False


def write_report(path: Path, data: ReportData) -> tuple[Path, ...]:
    """Write the page, and its figures as PNG and SVG into ``figures/`` beside it; gives all files, the page first.

    Raises:
        OutputError: the folder cannot be written.
    """
    written: list[Path] = []
    pictures = []
    try:
        for item in _drawings(data):
            files, dark = save(item.draw, path.parent / "figures" / item.anchor)
            written.extend(files)
            light = files[1].read_bytes()
            pages = {page: _uri(content, "image/svg+xml") for page, content in (("light", light), ("dark", dark))}
            pictures.append(vars(item) | pages)
    except OSError as err:
        raise OutputError("cannot write the figures", path=path.parent / "figures", got=err.strerror or err) from err
    write_text(path, _render(data, pictures))
    return path, *written


def _render(data: ReportData, pictures: list[dict[str, Any]]) -> str:
    environment = Environment(loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.jinja").render(
        data=data, kind=f"Map of {data.values.quantity.title}" if data.values else "Land-cover map",
        views=[_view(view, data) for view in data.views], pictures=pictures,
        legend=[(item.name, item.color) for item in data.scheme.classes],
        ledgers=[ledger_table(item) for item in data.ledger], versions=list(_flat(data.environment)),
        shown=[data.scores[0], better(data.scores[1:])] if len(data.scores) > 1 else data.scores,
        gain=_gain(data.scores), full=dict(data.full_reference),
    )  # fmt: skip


def _flat(entries: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value) of nested entries."""
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from _flat(value)
        elif value is not None:
            yield name, str(value)


def _gain(scores: Sequence[Score]) -> tuple[str, float, float] | None:
    """The better forest, and by how much the network is ahead of it in overall accuracy and macro-F1."""
    if len(scores) < 2:  # noqa: PLR2004 - two methods to compare
        return None
    network, forest = scores[0], better(scores[1:])
    gains = network.overall_accuracy - forest.overall_accuracy, network.macro_f1 - forest.macro_f1
    return forest.method, *gains


def _drawings(data: ReportData) -> Iterator[Drawing]:
    """The figures that the run has data for, halves in pairs of a height."""
    if data.areas:
        caption = "Counted from the map's pixels. Area estimates need reference data from a probability sample."
        if data.mapped_share is not None:
            whole = data.mapped_share == 1
            share = "all of the scenes" if whole else f"{data.mapped_share:.1%} of the scenes; the rest has no data"
            caption += f" The map covers {share}."
        yield Drawing("areas", "Mapped areas", caption, lambda: figures.areas(data.areas, data.scheme))
    for number, shown in enumerate(data.objects, 1):
        caption = f"Mapped objects and the footprints of the test blocks. Intervals: {shown.intervals or 'none'}."
        draw = partial(target_figures.objects, shown)
        yield Drawing(f"objects{number}", f"Objects of {shown.view.name}", caption, draw, wide=True)
    yield from _accuracy_drawings(data)
    if data.values is not None and data.values.samples:
        yield from _value_drawings(data.values)
    if data.forecast is not None:
        caption = "Mean absolute error over the test steps, and three cells with what was known before the forecast."
        yield Drawing("forecast", "Errors and cells", caption, data.forecast.draw, wide=True)
        yield from _map_drawings(data.forecast.quantity, data.forecast.maps)
    yield from _learning_drawings(data)


def _map_drawings(quantity: Quantity, maps: Sequence[tuple[str, NDArray[np.float32]]]) -> Iterator[Drawing]:
    for number, (name, bands) in enumerate(maps, 1):
        caption = "The mapped value, and how wide the interval is that should hold nine of ten values of single pixels."
        draw = partial(target_figures.value_map, quantity, bands)
        yield Drawing(f"values{number}", f"Values of {name}", caption, draw, wide=True)


def _value_drawings(values: ValueFigures) -> Iterator[Drawing]:
    yield from _map_drawings(values.quantity, values.maps)
    caption = "Held-out samples with the interval that should hold nine of ten; on the line both are the same."
    yield Drawing("scatter", "Predicted and measured", caption, lambda: target_figures.scatter(values))
    caption = "What is left, by tenths of the predicted values (orange): a slope says that extremes are missed."
    yield Drawing("residuals", "Residuals", caption, lambda: target_figures.residuals(values))
    caption = "The mean of the samples, a line on the best single band, and a random forest learned from the same ones."
    yield Drawing("methods", "Network and baselines", caption, lambda: target_figures.methods(values))


def _accuracy_drawings(data: ReportData) -> Iterator[Drawing]:
    scheme, found = data.scheme, data.reliability
    what = "chips" if data.chips else "pixels"
    if data.scores:
        of = "chips" if data.chips else "polygons"
        caption = f"Network and forests learned from the same {of} and are judged on the same test {of}."
        draw = partial(accuracy_figures.per_class, data.scores, scheme)
        yield Drawing("per_class", "Accuracy per class", caption, draw)
        caption = f"Test {what} as the network sees them; each column is shaded by its share of the reference class."
        draw = partial(accuracy_figures.confusion, data.scores[0], scheme)
        yield Drawing("confusion", "Error matrix", caption, draw, wide=len(scheme) > _HALF_CLASSES)
    if found is not None:
        first, after = (data.uncalibrated, found) if data.uncalibrated else (found, None)
        label = "without temperature" if after else "network"
        caption = _reliability_caption(
            data.scores[0].polygons if data.scores else {}, what=what, first=first, after=after
        )
        draw = partial(accuracy_figures.reliability_figure, first, after=after, label=label)
        yield Drawing("reliability", "Reliability of the confidence", caption, draw)
    failures = data.failures
    if failures is not None:
        caption = _failures_caption(failures, data.scores[0] if data.scores else None)
        draw = partial(accuracy_figures.failures_figure, failures)
        yield Drawing("failures", "Where the map fails", caption, draw, wide=True)
    if data.examples:
        caption = (
            "The test polygons that the map gets wrong most surely. Look at them in QGIS by their id (poly_id of "
            "labels.gpkg): is it the label or the map?"
        )
        draw = partial(accuracy_figures.examples, data.examples, scheme)
        yield Drawing("examples", "Worst errors", caption, draw, wide=True)
    if data.wrong_chips:
        caption = "The test chips that are wrong most surely: is it the folder or the model?"
        draw = partial(accuracy_figures.wrong_chips, data.wrong_chips)
        yield Drawing("examples", "Worst errors", caption, draw, wide=True)


def _failures_caption(found: Failures, judged: Score | None) -> str:
    """How many test pixels each part of the figure is made from, and what it may say."""
    polygons, pixels = (sum(part.values()) for part in (judged.polygons, judged.pixels)) if judged else (0, 0)
    of = f" of {counted(polygons, 'polygon')}" if polygons else ""
    drawn = f", drawn at random from {pixels:,}," if pixels > found.looked_at else ""
    return (
        f"{found.looked_at:,} test pixels{of}{drawn} by their distance to another class of the map, and by the size of "
        f"the map's patch; all test pixels of {found.scene} by block (block_accuracy.gpkg). Pale where they are "
        f"fewer than {FEW_PIXELS}, too few to judge. Held-out polygons are not a probability sample: this shows where "
        "to look."
    )


def _reliability_caption(
    polygons: Mapping[str, int], *, what: str, first: Reliability, after: Reliability | None
) -> str:
    """What the diagram may say: nothing where few test polygons (by class) carry it."""
    count = sum(polygons.values())
    if polygons and count < _JUDGED_POLYGONS:
        return (
            f"{counted(count, 'test polygon')} can not judge the confidence: pixels of a polygon are right or wrong "
            "together. Below: where they lie."
        )
    caption = f"Of the test {what} with a confidence of 0.8, about 80 % should be right. Below: where they lie."
    if after is not None and after.ece > _LOWER * first.ece:
        caption += " Here the temperature makes the confidence no truer."
    return caption


def _learning_drawings(data: ReportData) -> Iterator[Drawing]:
    split, found = data.split, data.features
    if data.history:
        caption = "Loss per step (grey) and its running mean, one panel per part of the model."
        if not any("val_loss" in row for row in data.history):
            caption += " No curve of validation: the parts shown learn from the validation polygons too."
        caption += f" Encoder: {data.encoder}." if data.encoder else ""
        yield Drawing("training", "Training curves", caption, lambda: figures.training(data.history))
    if data.learning:
        caption = "What more polygons would bring: rising at its end, more labels help; flat, they do not."
        yield Drawing("learning", "Learning curve", caption, lambda: figures.learning_curve(data.learning))
    if split is not None:
        caption = (
            "Whole polygons go to one part, by the block that holds their middle. What lies too near to another part "
            "is not used, so that nothing is tested on what training has seen."
        )
        yield Drawing("split", "Training, validation and test", caption, lambda: figures.split_map(split), wide=True)
    if found is not None:
        caption = (
            "What the network makes of labelled pixels, in two dimensions, by reference class: classes that overlap "
            "here are confused on the map."
        )
        yield Drawing("features", "Features", caption, lambda: figures.features(found, data.scheme), wide=True)


def _view(view: MapView, data: ReportData) -> dict[str, object]:
    height, width = view.codes.shape
    nodata = view.codes == 0
    scene = np.where(nodata[..., None], np.uint8(255), view.scene)
    wide, tall = view.pixel_m
    bar_m = scale_bar_m(width * wide, share=0.2)
    return {
        "name": view.name,
        "scene": _png_uri(scene),
        "facts": view.facts,
        "map": _png_uri(np.round(255 * coloured(view.codes, data.scheme)).astype(np.uint8)),
        "width": width,
        "height": height,
        "proportion": f"{width * wide:.6g} / {height * tall:.6g}",
        "bar_share": 100 * bar_m / (width * wide),
        "bar_text": length_text(bar_m),
    }


def _png_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
    return _uri(buffer.getvalue(), "image/png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{html.escape(kind)};base64,{base64.b64encode(content).decode()}"


# Columns come in this order where a ledger has them; others follow.
_FIRST = ("band", "file", "index", "gsd_m", "scale", "offset", "unit", "nodata", "resampling", "provenance")


@dataclass(frozen=True)
class LedgerTable:
    """What a page shows of one ledger."""

    title: str  # The scene
    facts: tuple[tuple[str, str], ...]  # (what, value) of the scene
    columns: tuple[str, ...]  # Heads of the bands' table
    rows: tuple[tuple[str, ...], ...]  # Its cells
    rest: tuple[tuple[str, str], ...]  # (name, JSON text) of what is neither


def ledger_table(ledger: Mapping[str, Any]) -> LedgerTable:
    """A ledger, JSON-ready, as tables; what it has per band (such as the darkest value) becomes a column."""
    bands = ledger.get("bands")
    tabular = isinstance(bands, Sequence) and bool(bands) and all(isinstance(band, Mapping) for band in bands)
    rows: list[dict[str, Any]] = [dict(band) for band in bands] if tabular and bands else []
    names = {str(row.get("band")) for row in rows}
    facts: dict[str, str] = {}
    rest: dict[str, str] = {}
    for key, value in ledger.items():
        if key == "scene" or (key == "bands" and tabular) or value is None or value in ("", [], {}, ()):
            continue
        if isinstance(value, Mapping) and set(value) <= names:
            for row in rows:
                row[key] = value.get(str(row.get("band")))
        elif isinstance(value, Mapping) and set(value) == {"state", "reason"}:
            facts[_words(key)] = f"{value['state']}: {value['reason']}"
        elif isinstance(value, (Mapping, list, tuple)):
            rest[_words(key)] = json.dumps(value, indent=2, default=str)
        else:
            facts[_words(key)] = _cell(value, key)
    used = dict.fromkeys(key for row in rows for key in row)
    columns = tuple(key for key in _FIRST if key in used) + tuple(key for key in used if key not in _FIRST)
    return LedgerTable(
        title=str(ledger.get("scene", "scene")),
        facts=tuple(facts.items()),
        columns=tuple(_words(key) for key in columns),
        rows=tuple(tuple(_cell(row.get(key), key) for key in columns) for row in rows),
        rest=tuple(rest.items()),
    )


def _words(key: str) -> str:
    """A key as a person reads it.

    >>> _words("acquired_utc"), _words("gsd_m"), _words("masked_share")
    ('acquired (UTC)', 'GSD (m)', 'masked share')
    """
    units = {"_utc": " (UTC)", "_m": " (m)"}
    for ending, unit in units.items():
        if key.endswith(ending):
            key = key.removesuffix(ending) + unit
    return key.replace("gsd", "GSD").replace("_", " ")


def _cell(value: object, key: str) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float) and key.endswith("_share"):
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
