"""A forecast that is finished is known again: nothing is done where settings and inputs are as they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.documents import read_json
from pipeline.errors import InputError
from pipeline.files import fingerprint, hash_of
from pipeline.forecast.settings import FACTS
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pipeline.forecast.settings import ForecastSettings

STAMP = "stamp"


def stamp_of(settings: ForecastSettings, *, inputs: dict[str, str], files: Sequence[Path]) -> dict[str, Any]:
    """What a finished forecast is known by, JSON-ready: hashes of settings and ``inputs``, and names of its files."""
    return {"settings": _hash(settings), "inputs": inputs, "files": [path.name for path in files]}


def inputs_of(settings: ForecastSettings) -> dict[str, str]:
    """A hash of each file and folder that a forecast is made from; to be taken before they are read."""
    known = [settings.known] if settings.known else []
    return fingerprint([*settings.series, *known, *settings.layers])


def finished(settings: ForecastSettings, *, folder: Path) -> Outcome | None:
    """What lies in the folder of a forecast of these settings and inputs; None where it is another or not whole."""
    try:
        facts = read_json(folder / FACTS)
        stamp = facts[STAMP]
        files = [folder / name for name in stamp["files"]]
        same = stamp["settings"] == _hash(settings) and stamp["inputs"] == inputs_of(settings)
    except (InputError, KeyError, TypeError):
        return None
    # Of what lies elsewhere it cannot be told whether it has changed.
    here = all(Path(path).exists() for path in stamp["inputs"])
    if not (same and here and all(path.is_file() for path in files)):
        return None
    rows = tuple((path.name,) for path in files)
    return Outcome(
        summary=f"{folder}: nothing to do; settings and input files are those of the forecast that is there",
        tables=(Table("there already", ("file",), rows),),
        hint=f"look at it: landcover view {folder}; make it again: --overwrite",
        data=facts,
    )


def _hash(settings: ForecastSettings) -> str:
    return hash_of(settings.model_dump(mode="json"))
