"""Class names, colours and counts in and beside a map: written for GDAL and QGIS, and read back from the file alone.

TIFF has no place for class names: GDAL keeps category names and raster attribute tables in ``<file>.aux.xml``, which
QGIS reads from 3.30. Source: GDAL, persistent auxiliary metadata (PAM) and raster attribute tables, GDALRATFieldType
and GDALRATFieldUsage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio

from pipeline.documents import parse_json, parse_xml, read_file
from pipeline.errors import InputError, LegendError
from pipeline.legend import NODATA, UNLABELLED, ClassScheme, LandClass, scheme_for
from pipeline.maps.pixels import ClassCounts
from pipeline.maps.style import from_template
from pipeline.raster import as_error

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LEGEND_TAG = "LANDCOVER_LEGEND"
LEGEND_HASH_TAG = "LANDCOVER_LEGEND_HASH"
_NAME, _VALUE, _RED = 2, 5, 6  # GDALRATFieldUsage: Name, MinMax, Red (then Green, Blue)


def sidecar_paths(path: Path) -> tuple[Path, Path]:
    """(``map.tif.aux.xml``, ``map.qml``) of ``map.tif``."""
    return path.with_name(path.name + ".aux.xml"), path.with_suffix(".qml")


def aux_xml(scheme: ClassScheme, counts: ClassCounts) -> str:
    """The text of ``map.tif.aux.xml``."""
    return from_template("aux.xml.jinja", scheme=scheme, counts=counts)


def read_scheme(path: Path | str) -> ClassScheme:
    """The classes of a class map: from its tags, else its attribute table, else category names with a palette.

    Raises:
        InputError: the file cannot be opened.
        LegendError: nothing in or beside the file names its classes.
    """
    path = Path(path)
    with as_error(InputError, "cannot open the map", path=path), rasterio.open(path) as dataset:
        tags: dict[str, str] = dataset.tags()
        palette: dict[int, Any] = dataset.colormap(1) if _has_palette(dataset) else {}
    if LEGEND_TAG in tags:
        text = tags[LEGEND_TAG]
        return ClassScheme.from_json(parse_json(text, what=f"tag {LEGEND_TAG}", path=path, error=LegendError))
    aux = sidecar_paths(path)[0]
    source = aux if aux.exists() else path if path.suffix.lower() == ".vrt" else None
    band = _band_element(source) if source is not None else None
    classes = () if band is None else _from_table(band) or _from_names(band, palette)
    if not classes:
        expected = f"tag {LEGEND_TAG}, or an attribute table or category names in {aux.name}"
        fix = "give its legend with --legend"
        raise LegendError("the map does not say what its codes mean", path=path, expected=expected, fix=fix)
    return ClassScheme(classes)


def names_classes(dataset: rasterio.DatasetReader) -> bool:
    """Whether a raster of any integer type is one of classes by what lies in or beside it: a palette, or names."""
    if _has_palette(dataset) or LEGEND_TAG in dataset.tags():
        return True
    aux = sidecar_paths(Path(dataset.name))[0]
    band = _band_element(aux) if aux.exists() else None
    if band is None:
        return False
    usages = {field.findtext("Usage") for field in band.findall("GDALRasterAttributeTable/FieldDefn")}
    return str(_NAME) in usages or band.find("CategoryNames") is not None


def read_counts(path: Path | str) -> ClassCounts | None:
    """Pixels and ha per class from the attribute table beside a map; None where there is none.

    Raises:
        InputError: the map cannot be opened.
        LegendError: nothing in or beside the file names its classes.
    """
    path = Path(path)
    scheme, aux = read_scheme(path), sidecar_paths(path)[0]
    band = _band_element(aux) if aux.exists() else None
    table = None if band is None else band.find("GDALRasterAttributeTable")
    if table is None:
        return None
    heads = [field.findtext("Name", "") for field in table.findall("FieldDefn")]
    if not {"Value", "Count", "Area_ha"} <= set(heads):
        return None
    rows = {
        int(cells["Value"]): cells
        for row in table.findall("Row")
        if (cells := dict(zip(heads, (cell.text or "0" for cell in row.findall("F")), strict=True)))
    }
    pixels = tuple(int(rows.get(code, {}).get("Count", 0)) for code in scheme.codes)
    with rasterio.open(path) as dataset:
        nodata = dataset.width * dataset.height - sum(pixels)
    return ClassCounts(scheme, pixels, tuple(float(rows.get(c, {}).get("Area_ha", 0)) for c in scheme.codes), nodata)


def check_same_legend(paths: Sequence[Path | str]) -> ClassScheme:
    """The legend that all maps share.

    Raises:
        LegendError: two maps differ in a code, name or colour; they must not be put together silently.
    """
    if not paths:
        raise LegendError("no maps to compare", expected="at least one")
    first = read_scheme(paths[0])
    for path in paths[1:]:
        other = read_scheme(path)
        if other.hash != first.hash:
            what, got = f"maps have different legends: {paths[0]} and {path}", _difference(first, other)
            raise LegendError(what, got=got, fix="translate one legend into the other first")
    return first


def _difference(first: ClassScheme, other: ClassScheme) -> str:
    ours, theirs = ({f"{c.code} {c.name} {c.color}" for c in s.classes} for s in (first, other))
    only = [f"only the first has {', '.join(sorted(ours - theirs))}"] if ours - theirs else []
    only += [f"only the second has {', '.join(sorted(theirs - ours))}"] if theirs - ours else []
    return "; ".join(only) or "the same classes in another order"


def _has_palette(dataset: rasterio.DatasetReader) -> bool:
    return bool(dataset.colorinterp[0] == rasterio.enums.ColorInterp.palette)


def _band_element(path: Path) -> Element | None:
    data = read_file(path, what="the class names", error=LegendError)
    root = parse_xml(data, what="the file of class names", path=path, error=LegendError)
    bands = [*root.findall("PAMRasterBand"), *root.findall("VRTRasterBand")]
    return bands[0] if bands else None


def _from_table(band: Element) -> tuple[LandClass, ...]:
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return ()
    usages = [int(field.findtext("Usage", "0")) for field in table.findall("FieldDefn")]
    if not {_NAME, _VALUE} <= set(usages):
        return ()
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    named = [row for row in rows if NODATA < int(float(row[usages.index(_VALUE)])) < UNLABELLED]
    names = [row[usages.index(_NAME)] for row in named]
    colors = [item.color for item in scheme_for(names)[0].classes] if names else []
    if {_RED, _RED + 1, _RED + 2} <= set(usages):
        columns = [usages.index(_RED + k) for k in range(3)]
        colors = ["#" + "".join(f"{int(float(row[c])):02x}" for c in columns) for row in named]
    codes = [int(float(row[usages.index(_VALUE)])) for row in named]
    return tuple(LandClass(*item) for item in zip(codes, names, colors, strict=True))


def _from_names(band: Element, palette: dict[int, Any]) -> tuple[LandClass, ...]:
    texts = [item.text or "" for item in band.findall("CategoryNames/Category")]
    named = {code: text for code, text in enumerate(texts) if NODATA < code < UNLABELLED and text}
    if not named:
        return ()
    spare = [item.color for item in scheme_for(list(named.values()))[0].classes]
    rgb = [palette.get(code) for code in named]
    colors = [f"#{c[0]:02x}{c[1]:02x}{c[2]:02x}" if c else s for c, s in zip(rgb, spare, strict=True)]
    return tuple(LandClass(code, name, color) for (code, name), color in zip(named.items(), colors, strict=True))
