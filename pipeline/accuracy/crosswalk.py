"""From the words of a reference to the classes of a map: names, codes, and tables that the user can edit."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipeline.accuracy.class_maps import BLOCK_PX, byte_profile, open_slots, strips
from pipeline.errors import LegendError, OutputError, PipelineError, SceneError
from pipeline.grid import Grid, Window
from pipeline.legend import NODATA, UNLABELLED, ClassScheme
from pipeline.maps.legends import LEGEND_TAG, read_scheme

# Tables that come with the package: code, name, target; the targets are the classes of "ten common classes".
SHIPPED = ("esa_worldcover", "dynamic_world", "corine", "corine_level2", "nlcd")
# Columns that name a class of the source; CORINE rasters hold either its codes or the numbers 1 to 44 of its grid.
_SOURCES = ("source", "code", "grid_code", "name")
LEFT_OUT = "-"
BLANK, OMITTED, UNKNOWN = 0, -1, -2
_MISSING = frozenset({"", "none", "nan", "<na>", "null"})


def label_text(value: object) -> str:
    """One spelling of a class value: text without blanks around, whole numbers without a decimal point.

    >>> label_text(3.0), label_text(" Water ")
    ('3', 'Water')
    """
    text = str(value).strip()
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def read_crosswalk(path: Path | str) -> dict[str, str]:
    """A crosswalk from CSV with the columns ``source,target`` or ``code,name,target``; ``-`` leaves a class out.

    The name of a shipped table (one of SHIPPED) stands for its file.

    Raises:
        LegendError: no such file, other columns, or one source with two targets.
    """
    table: dict[str, str] = {}
    for row in read_rows(path):
        for key in _SOURCES:
            source, target = label_text(row.get(key) or ""), label_text(row["target"] or "")
            if source and table.setdefault(source, target) != target:
                raise LegendError(
                    f"crosswalk maps {source!r} to two classes", path=path, got=f"{table[source]}, {target}"
                )
    return table


def read_rows(path: Path | str) -> list[dict[str, str]]:
    """The rows of a crosswalk table, as they stand in its file.

    Raises:
        LegendError: no such file, or other columns.
    """
    shipped = str(path) in SHIPPED
    try:
        text = (
            files("pipeline.accuracy").joinpath("crosswalks", f"{path}.csv").read_text(encoding="utf-8")
            if shipped
            else Path(path).read_text(encoding="utf-8-sig")
        )
    except (OSError, UnicodeDecodeError) as err:
        raise LegendError(
            "crosswalk cannot be read", path=path, got=err, expected="a CSV, or " + ", ".join(SHIPPED)
        ) from err
    rows = list(csv.DictReader(line for line in text.splitlines() if line.strip() and not line.startswith("#")))
    if not rows or "target" not in rows[0] or not set(_SOURCES) & set(rows[0]):
        raise LegendError("crosswalk has other columns", path=path, expected="source,target or code,name,target")
    return rows


def to_codes(
    values: Sequence[object],
    *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None = None, names_only: bool = False,
) -> tuple[NDArray[np.int16], list[str]]:  # fmt: skip
    """Class codes int16 [n] of reference values, and the values that are no class.

    A value is looked up among the class names, as they are and then with spelling and case aside, then among the
    codes. With a crosswalk that is true of its targets, and a value that it does not list has to be a name: a code of
    another legend is not one of this. ``names_only`` keeps values without a crosswalk from being codes.
    Blank values give 0, values that the crosswalk leaves out -1, unknown values -2.
    """
    names = {_key(item.name): item.code for item in scheme.classes}
    names |= {item.name.strip(): item.code for item in scheme.classes}
    table = {str(item.code): item.code for item in scheme.classes} | names
    known: dict[str, int] = {}
    unknown: set[str] = set()
    codes = np.empty(len(values), dtype=np.int16)
    for position, value in enumerate(values):
        text = label_text(value)
        text = "" if text.lower() in _MISSING else text
        if text not in known:
            listed = text in crosswalk if crosswalk else not names_only
            known[text] = _code(text, table if listed else names, crosswalk or {})
            if known[text] == UNKNOWN:
                unknown.add(text)
        codes[position] = known[text]
    return codes, sorted(unknown)


def _code(text: str, table: Mapping[str, int], crosswalk: Mapping[str, str]) -> int:
    if not text:
        return BLANK
    target = crosswalk.get(text, text)
    if target == LEFT_OUT:
        return OMITTED
    return table.get(target, table.get(_key(target), UNKNOWN))


def _key(name: str) -> str:
    # Without a letter it is a number: 1.1 is not 11, nor -1 the same as 1.
    return re.sub(r"[\W_]", "", name.lower()) if re.search(r"[^\W\d_]", name) else name


def check_known(unknown: Sequence[str], *, scheme: ClassScheme, path: Path | str) -> None:
    """Refuse reference classes that the map's legend does not have.

    Raises:
        LegendError: names them and says what a crosswalk does.
    """
    if unknown:
        raise LegendError(
            "reference classes that the map does not have: " + ", ".join(unknown),
            path=path,
            expected="one of " + ", ".join(scheme.names),
            fix="give --crosswalk a CSV that lists them (columns source,target; '-' leaves a class out)",
        )


def codes_of_values(
    path: Path | str, values: Sequence[int], *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None
) -> NDArray[np.int16]:
    """Class codes int16 [value] of a raster's values: by crosswalk, else by the names that its own legend gives them.

    A code alone says nothing: 5 is one class in this raster and another in the map. A class that the crosswalk leaves
    out is -1; 0 and 255 are blank (0) unless crosswalk or legend know them.

    Raises:
        LegendError: values without a name, or that lead to no class.
    """
    table = crosswalk or {}
    try:
        names = {item.code: item.name for item in read_scheme(path).classes}
    except PipelineError:
        names = {}
    labels = [str(value) if str(value) in table else names.get(value) for value in values]
    bare = [v for v, label in zip(values, labels, strict=True) if label is None and v not in {NODATA, UNLABELLED}]
    if bare:
        raise LegendError(
            "raster does not say what its values mean: " + ", ".join(map(str, sorted(bare)[:10])),
            path=path,
            expected=f"names in its attribute table or tag {LEGEND_TAG}",
            fix="give --crosswalk a CSV (columns source,target; source is the value, target a class of the map)",
        )
    codes, unknown = to_codes(labels, scheme=scheme, crosswalk=crosswalk, names_only=True)
    check_known(unknown, scheme=scheme, path=path)
    return codes


def translate_map(
    path: Path | str, output: Path, *, scheme: ClassScheme, crosswalk: Mapping[str, str], around: Grid
) -> Path:
    """Write the part of a map that lies under ``around``, on its own pixels, in the codes of ``scheme``.

    Raises:
        SceneError: the map cannot be read, or lies elsewhere.
        LegendError: values that the crosswalk does not lead to a class.
        OutputError: the file cannot be written.
    """
    with open_slots(path) as reader:
        grid, window = _under(path, around)
        table = np.zeros(1, dtype=np.uint8)
        try:
            with rasterio.open(output, "w", **byte_profile(grid, nodata=NODATA)) as target:
                target.update_tags(**{LEGEND_TAG: json.dumps(scheme.to_json())})
                for strip in strips(grid, BLOCK_PX):
                    here = Window(strip.row + window.row, strip.col + window.col, strip.height, strip.width)
                    slots = reader.read(here)
                    if len(reader.values) >= len(table):
                        found = codes_of_values(path, reader.values, scheme=scheme, crosswalk=crosswalk)
                        table = np.concatenate([[NODATA], np.maximum(found, NODATA)]).astype(np.uint8)
                    target.write(table[slots], 1, window=strip.to_rasterio())
        except (RasterioError, OSError) as err:
            raise OutputError("translated map cannot be written", path=output, got=err) from err
    return output


def _under(path: Path | str, around: Grid) -> tuple[Grid, Window]:
    """The grid of the part of a raster under another grid, one pixel wider on all sides, and where it lies."""
    with rasterio.open(path) as dataset:
        if dataset.crs is None:
            raise SceneError("raster has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
        grid = Grid.of(dataset)
    window = grid.window_of_bounds(transform_bounds(around.crs, grid.crs, *around.bounds))
    window = None if window is None else window.expand(1).intersect(grid.window)
    if window is None:
        raise SceneError("the two maps do not overlap", path=path)
    return grid.crop(window), window
