"""``landcover init --kind forecast``: look at a series and write a commented configuration of its forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import check_target, write_text
from pipeline.forecast.settings import ForecastSettings
from pipeline.settings import Off, checked, commented_yaml
from pipeline.workflow.forecast import check_series
from pipeline.workflow.init import seen_from

if TYPE_CHECKING:
    from pipeline.workflow.outcome import Outcome

# Shown as comments: layers beside the series, and cycles where none is seen.
_EXAMPLES = {"known": Off("known.csv"), "layers": Off(["elevation.tif"])}


def write_forecast_config(series: Sequence[str], *, output: Path, overwrite: bool) -> Outcome:
    """Write a configuration that runs as it is, and say what the series holds.

    Raises:
        OutputError: ``output`` exists and is not to be overwritten.
        SceneError: a series that cannot be forecast.
    """
    check_target(output, overwrite=overwrite, inputs=series)
    settings = checked(ForecastSettings, {"series": tuple(series)})
    found = check_series(settings)
    held = [f"{name}: {value}" for name, value in found.tables[0].rows]
    head = ["Configuration of a forecast, written by landcover init --kind forecast. It runs as it is:",
            f"  landcover check {output.name}", f"  landcover run {output.name}", "",
            "What the series holds:", *(f"  {line}" for line in held)]  # fmt: skip
    plain = settings.model_dump(mode="json") | {
        "series": [seen_from(path, output.parent) for path in settings.series],
        "seasons": found.data["seasons"] or Off([12]),
        "test_steps": found.data["tested"],
        **_EXAMPLES,
    }
    checked(ForecastSettings, {key: value for key, value in plain.items() if not isinstance(value, Off)}, path=output)
    write_text(output, commented_yaml(plain, head=head, model=ForecastSettings), what="the configuration")
    summary = found.summary.replace("no error found; ", "")
    return replace(found, summary=f"{output}: {summary}", written=(output,), hint=f"next: landcover run {output}")
