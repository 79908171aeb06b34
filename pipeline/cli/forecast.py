"""Forecast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import Overwrite, Set

if TYPE_CHECKING:
    from collections.abc import Sequence


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    add_commands(app, forecast)


def forecast(
    series: Annotated[
        list[Path],
        typer.Argument(
            metavar="SERIES...",
            help="GeoTIFFs with a date in each band, or folders of dated GeoTIFFs, one a channel; or a YAML.",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")] = Path("forecast"),
    ahead: Annotated[int | None, typer.Option(help="Steps to forecast; 6 by default.")] = None,
    known: Annotated[Path | None, typer.Option(help="CSV of time and numbers known ahead, such as holidays.")] = None,
    changes: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """Forecast the next steps of a series of rasters, tested on its last steps beside simple rules."""
    from pipeline.workflow.forecast import forecast_series, forecast_settings

    given: Sequence[str] = [
        f"{key}={value}" for key, value in (("ahead", ahead), ("known", known)) if value is not None
    ]
    settings = forecast_settings(series, changes=[*given, *(changes or [])])
    return lambda progress: forecast_series(settings, output=output, overwrite=overwrite, progress=progress)
