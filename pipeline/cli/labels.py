"""Labels: audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import ConfigFile, Overwrite, Seed


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(help="What the training labels are worth.", no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_group)
    add_commands(group, audit)
    app.add_typer(group, name="labels")


def _group() -> None:
    """What the training labels are worth."""


def audit(
    config: ConfigFile,
    *,
    count: Annotated[int, typer.Option(min=0, help="How many places to label next.")] = 30,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="GeoPackage; default in the run folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Find doubtful polygons and the places whose labels would teach most, as a GeoPackage for QGIS."""
    from pipeline.workflow.labels_audit import audit_labels

    return lambda progress: audit_labels(
        config, count=count, seed=seed, output=output, overwrite=overwrite, progress=progress
    )
