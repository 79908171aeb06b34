"""Write a sample for those who interpret it: QGIS, AcATaMa, Collect Earth Online; and the design for the estimators."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from pipeline.errors import OutputError
from pipeline.files import flush
from pipeline.maps.style import xml_text
from pipeline.maps.vectors import FAILURES, add_layer_style, undated

if TYPE_CHECKING:
    from pipeline.accuracy.sample_design import SampleDesign
    from pipeline.legend import ClassScheme

LAYER = "sample"
REFERENCE_FIELD = "reference"
CERTAINTY = ("sure", "fairly sure", "unsure")
_HIDDEN = ("inclusion_probability",)


@dataclass(frozen=True)
class DesignFiles:
    """What was written.

    Attributes:
        geopackage: Points with a blank reference field, its list of classes and a style; for QGIS.
        acatama: The same points as AcATaMa writes its own samples: one field ``id``.
        collect_earth: LON, LAT, PLOTID in WGS84, as Collect Earth Online asks for.
        design: What the estimators need, the map's classes included: not for the interpreters.
    """

    geopackage: Path
    acatama: Path
    collect_earth: Path
    design: Path

    @property
    def all(self) -> tuple[Path, Path, Path, Path]:
        """The four of them."""
        return (self.geopackage, self.acatama, self.collect_earth, self.design)


def design_paths(geopackage: Path) -> DesignFiles:
    """The files that belong to ``sample.gpkg``."""
    stem = geopackage.stem
    return DesignFiles(
        geopackage,
        geopackage.with_name(f"{stem}_acatama.gpkg"),
        geopackage.with_name(f"{stem}_collect_earth.csv"),
        geopackage.with_name(f"{stem}_design.json"),
    )


def write_design(path: Path, design: SampleDesign, *, blind: bool = True, overwrite: bool = False) -> DesignFiles:
    """Write a sample as GeoPackage, AcATaMa copy, Collect Earth CSV and design JSON beside each other.

    Args:
        path: The GeoPackage, ending in ``.gpkg``.
        design: The sample.
        blind: Keep map class and stratum out of all files but the design JSON.
        overwrite: Replace files of the same name.

    Raises:
        OutputError: a file exists or cannot be written, or the name is not a GeoPackage's.
    """
    files = check_design_target(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sample-") as folder, undated():
            drafts = design_paths(Path(folder) / path.name)
            _write_points(drafts.geopackage, design, blind=blind)
            _write_acatama(drafts.acatama, design)
            _write_collect_earth(drafts.collect_earth, design)
            drafts.design.write_text(json.dumps(design.to_json(), ensure_ascii=False), encoding="utf-8")
            # What is replaced may hold interpreted units: it goes once all that takes its place is whole.
            for draft, target in zip(drafts.all, files.all, strict=True):
                flush(draft)
                draft.replace(target)
    except (OSError, *FAILURES) as err:
        raise OutputError("sample cannot be written", path=path, got=err, fix="choose another place with -o") from err
    return files


def check_design_target(path: Path, *, overwrite: bool) -> DesignFiles:
    """The files of a sample, none of which is there unless it is to be replaced.

    Raises:
        OutputError: a file exists, or the name is not a GeoPackage's.
    """
    if path.suffix.lower() != ".gpkg":
        raise OutputError("a sample is a GeoPackage", path=path, expected="a name that ends in .gpkg")
    files = design_paths(path)
    for target in files.all:
        if target.exists() and not overwrite:
            raise OutputError("file exists; it may hold interpreted units", path=target, fix="pass --overwrite")
    return files


def _points(design: SampleDesign) -> Any:
    import geopandas

    x, y = design.xy
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(x, y), crs=design.grid.crs.to_wkt())
    frame.insert(0, "id", np.arange(1, len(design) + 1, dtype=np.int32))
    return frame


def _write_points(path: Path, design: SampleDesign, *, blind: bool) -> None:
    import pandas as pd

    frame = _points(design)
    for name in (REFERENCE_FIELD, "certainty", "comment"):
        frame[name] = pd.array([None] * len(frame), dtype="string")
    frame["inclusion_probability"] = design.inclusion
    if not blind:
        frame["map_class"] = [design.scheme.by_code(int(code)).name for code in design.map_code]
        frame["stratum"] = [design.strata[int(index)].name for index in design.stratum]
    frame.to_file(path, layer=LAYER, driver="GPKG", engine="pyogrio")
    add_layer_style(path, layer=LAYER, style=sample_style(design.scheme))


def _write_acatama(path: Path, design: SampleDesign) -> None:
    """AcATaMa keeps one integer field ``id`` from 1 (its core/sampling_design.py); labels live in its own session."""
    _points(design).to_file(path, layer=path.stem, driver="GPKG", engine="pyogrio")


def _write_collect_earth(path: Path, design: SampleDesign) -> None:
    """Collect Earth Online manual, "Adding plots using .csv": LON, LAT, PLOTID first, in EPSG:4326."""
    points = _points(design).to_crs("EPSG:4326")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["LON", "LAT", "PLOTID"])
        for number, point in zip(points["id"], points.geometry, strict=True):
            writer.writerow([f"{point.x:.8f}", f"{point.y:.8f}", number])


def sample_style(scheme: ClassScheme) -> str:
    """QML of the sample: colours by reference class, a list of classes to choose from, hidden columns hidden."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology|Fields|Forms|AttributeTable")
    root.append(_renderer(scheme))
    fields = SubElement(root, "fieldConfiguration")
    choices = {REFERENCE_FIELD: scheme.names, "certainty": CERTAINTY}
    for name, values in choices.items():
        _value_map(_widget(fields, name, "ValueMap"), values)
    _widget(fields, "comment", "TextEdit")
    for name in _HIDDEN:
        _widget(fields, name, "Hidden")
    table = SubElement(root, "attributetableconfig", sortOrder="0", actionWidgetStyle="dropDown", sortExpression="")
    columns = SubElement(table, "columns")
    for name in _HIDDEN:
        SubElement(columns, "column", type="field", name=name, hidden="1", width="-1")
    editable = SubElement(root, "editable")
    for name in ("id", *_HIDDEN):
        SubElement(editable, "field", name=name, editable="0")
    return xml_text(root)


def _widget(fields: Element, name: str, kind: str) -> Element:
    field = SubElement(fields, "field", name=name, configurationFlags="None")
    config = SubElement(SubElement(field, "editWidget", type=kind), "config")
    return SubElement(config, "Option", type="Map")


def _value_map(options: Element, values: tuple[str, ...]) -> None:
    """Config of QGIS's ValueMap widget: a list of one-entry maps, label to stored value."""
    entries = SubElement(options, "Option", type="List", name="map")
    for value in values:
        SubElement(SubElement(entries, "Option", type="Map"), "Option", type="QString", name=value, value=value)


def _renderer(scheme: ClassScheme) -> Element:
    renderer = Element(
        "renderer-v2", type="categorizedSymbol", attr=REFERENCE_FIELD, symbollevels="0", forceraster="0",
        enableorderby="0",
    )  # fmt: skip
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    rows = [(item.name, item.name, item.color) for item in scheme.classes] + [("", "to interpret", None)]
    for number, (value, label, color) in enumerate(rows):
        SubElement(categories, "category", value=value, symbol=str(number), label=label, render="true", type="string")
        symbol = SubElement(symbols, "symbol", type="marker", name=str(number), alpha="1")
        layer = SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "locked": "0", "pass": "0"})
        rgb = "255,255,255,0" if color is None else ",".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5)) + ",255"
        options = SubElement(layer, "Option", type="Map")
        for key, text in {
            "name": "square", "size": "3", "color": rgb, "outline_color": "255,0,255,255", "outline_width": "0.5",
        }.items():  # fmt: skip
            SubElement(options, "Option", name=key, type="QString", value=text)
    return renderer
