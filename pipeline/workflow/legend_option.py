"""The option ``--legend``, and crosswalk tables to edit: what the codes of a map and of public legends mean."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.accuracy.crosswalk import LEFT_OUT, SHIPPED, read_rows, to_codes
from pipeline.errors import LegendError, OutputError
from pipeline.files import write_text
from pipeline.legend import KNOWN_LEGENDS, ClassScheme, LandClass
from pipeline.maps.legends import read_scheme
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

# Dynamic World's own rasters start at 0 = water, which is nodata in a map: they serve as reference, with a crosswalk.
_PUBLIC = tuple(name for name in KNOWN_LEGENDS if name != "Dynamic World")


def told_legend(told: str | None) -> ClassScheme | None:
    """The legend that ``--legend`` names: a JSON file of {code, name, color}, or a public legend; None if not given.

    Raises:
        LegendError: neither of them, or a file that is no legend.
    """
    if told is None:
        return None
    if told in _PUBLIC:
        return ClassScheme(tuple(LandClass(*row) for row in KNOWN_LEGENDS[told]))
    try:
        items = json.loads(Path(told).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as err:
        public = ", ".join(f'"{name}"' for name in _PUBLIC)
        raise LegendError(
            "legend cannot be read", path=told, got=err, expected=f"JSON of code, name, color, or one of {public}"
        ) from err
    if not isinstance(items, list):
        raise LegendError("legend is not a list of {code, name, color}", path=told)
    return ClassScheme.from_json(items)


def write_crosswalk(table: str, *, output: Path, map_path: Path | None, overwrite: bool) -> Outcome:
    """Copy a crosswalk that comes with the program, to be edited; targets that are no class of the map are emptied.

    Raises:
        LegendError: no such table.
        OutputError: the file exists.
    """
    if table not in SHIPPED:
        raise LegendError("no such crosswalk", got=table, expected=", ".join(SHIPPED))
    if output.exists() and not overwrite:
        raise OutputError("the file exists", path=output, fix="add --overwrite")
    rows = read_rows(table)
    scheme = read_scheme(map_path) if map_path is not None else None
    if scheme is not None:
        rows = [row | {"target": _target((row["target"], row["name"]), scheme)} for row in rows]
    text = io.StringIO()
    note = f"classes of the map: {', '.join(scheme.names)}; " if scheme is not None else ""
    text.write(f"# {table} to the classes of your map. {note}'{LEFT_OUT}' leaves a class out.\n")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    empty = [row["name"] for row in rows if not row["target"]]
    return Outcome(
        summary=f"{output}: {len(rows)} classes of {table}, {len(empty)} of them without a target yet",
        written=(write_text(output, text.getvalue()),),
        tables=(Table("crosswalk", tuple(rows[0]), tuple(_shown(row.values()) for row in rows)),),
        hint="edit the last column; then: landcover assess MAP --reference RASTER --crosswalk FILE",
        data={"classes": rows, "without_target": empty},
    )


def _target(names: tuple[str, ...], scheme: ClassScheme) -> str:
    """The first of some names that is a class of the map, as the map spells it."""
    codes, _ = to_codes(list(names), scheme=scheme)
    return next((scheme.by_code(int(code)).name for code in codes if code > 0), "")


def _shown(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
