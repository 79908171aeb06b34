"""Files beside a map: ``.aux.xml`` with names and attribute table for GDAL and QGIS >= 3.30, whole or not at all.

TIFF has no place for class names: GDAL keeps category names and raster attribute tables in ``<file>.aux.xml``.
Source: GDAL, persistent auxiliary metadata (PAM) and raster attribute tables, GDALRATFieldType and GDALRATFieldUsage.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement

from pipeline.errors import OutputError
from pipeline.maps.style import xml_text

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.legend import ClassScheme
    from pipeline.maps.counts import ClassCounts

# (name; type: 0 integer, 1 real, 2 text; usage: 0 generic, 1 pixel count, 2 name, 5 class value, 6-9 RGBA)
_FIELDS = (
    ("Value", 0, 5),
    ("Count", 0, 1),
    ("Class", 2, 2),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
    ("Area_ha", 1, 0),
)


def sidecar_paths(path: Path) -> tuple[Path, Path]:
    """(``map.tif.aux.xml``, ``map.qml``) of ``map.tif``."""
    return path.with_name(path.name + ".aux.xml"), path.with_suffix(".qml")


def category_names(scheme: ClassScheme) -> Element:
    """CategoryNames: position is the pixel value, so codes that are no class are empty."""
    names = {item.code: item.name for item in scheme.classes}
    root = Element("CategoryNames")
    for code in range(max(names) + 1):
        SubElement(root, "Category").text = "nodata" if code == 0 else names.get(code, "")
    return root


def attribute_table(scheme: ClassScheme, counts: ClassCounts | None) -> Element:
    """Raster attribute table: value, count, class, colour, area in ha; no row for nodata, so no line in the legend."""
    root = Element("GDALRasterAttributeTable", tableType="thematic")
    fields = _FIELDS if counts else tuple(f for f in _FIELDS if f[0] not in {"Count", "Area_ha"})
    for index, definition in enumerate(fields):
        field = SubElement(root, "FieldDefn", index=str(index))
        for tag, content in zip(("Name", "Type", "Usage"), definition, strict=True):
            SubElement(field, tag).text = str(content)
    for number, item in enumerate(scheme.classes):
        row = SubElement(root, "Row", index=str(number))
        count = [counts.pixels[number]] if counts else []
        area = [f"{counts.area_ha[number]:.4f}"] if counts else []
        for value in (item.code, *count, item.name, *item.rgb, 255, *area):
            SubElement(row, "F").text = str(value)
    return root


def aux_xml(scheme: ClassScheme, counts: ClassCounts) -> str:
    """The text of ``map.tif.aux.xml``."""
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    SubElement(band, "Description").text = "land cover"
    band.append(category_names(scheme))
    band.append(attribute_table(scheme, counts))
    return xml_text(root)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that its name appears only when it is whole.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that its name appears only when it is whole; OutputError where that fails."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)  # noqa: PTH105 - same as Path.replace, and atomic by its name
    except OSError as err:
        remove(part)
        raise cannot_write(path, err) from err


def cannot_write(path: Path, err: Exception) -> OutputError:
    """The OutputError of a failed write."""
    return OutputError("cannot write the file", path=path, got=err, fix="check the free space and rights of its folder")


def remove(*paths: Path) -> None:
    """Delete files where they exist; what cannot be deleted stays."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue
