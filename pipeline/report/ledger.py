"""A scene's ledger as tables: what holds for the scene, and a row per band; anything else stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Columns come in this order where a ledger has them; others follow.
_FIRST = ("band", "file", "index", "gsd_m", "scale", "offset", "unit", "nodata", "resampling", "provenance")


@dataclass(frozen=True)
class LedgerTable:
    """What a page shows of one ledger.

    Attributes:
        title: The scene.
        facts: (what, value) of the scene.
        columns: Heads of the bands' table.
        rows: Its cells.
        rest: (name, JSON text) of what is neither.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rest: tuple[tuple[str, str], ...]


def ledger_table(ledger: Mapping[str, Any]) -> LedgerTable:
    """A ledger, JSON-ready, as tables; what it has per band (such as the darkest value) becomes a column."""
    bands = ledger.get("bands")
    tabular = isinstance(bands, Sequence) and bool(bands) and all(isinstance(band, Mapping) for band in bands)
    rows: list[dict[str, Any]] = [dict(band) for band in bands] if tabular and bands else []
    names = {str(row.get("band")) for row in rows}
    facts: dict[str, str] = {}
    rest: dict[str, str] = {}
    for key, value in ledger.items():
        if key == "scene" or (key == "bands" and tabular) or not _said(value):
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


def _said(value: object) -> bool:
    return value is not None and value not in ("", [], {}, ())


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
