"""Objects: one polygon per building, or per object of any class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import Overwrite


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_commands(app, objects)


def objects(
    source: Annotated[Path, typer.Argument(metavar="MAP | POLYGONS", help="Class map, mask, or raw polygons.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to write.")] = Path("objects.gpkg"),
    class_name: Annotated[
        list[str] | None, typer.Option("--class", help="Class of objects, by name or code; repeatable.")
    ] = None,
    min_area: Annotated[float | None, typer.Option(min=0, help="Smallest object in m2; default nine pixels.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="How far outlines may be moved, in m; default 1.5 pixels.")
    ] = None,
    right_angles: Annotated[bool, typer.Option(help="Give outlines right angles where these fit.")] = True,
    separate: Annotated[bool, typer.Option(help="Separate objects that touch.")] = True,
    confidence: Annotated[Path | None, typer.Option(help="Confidence of the map in per cent.")] = None,
    legend: Annotated[
        str | None, typer.Option(help="Legend of a map that carries none: JSON, or a public one.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """One polygon per object of a class map or mask: separated, with few corners and right angles."""
    from pipeline.config import checked
    from pipeline.maps.settings import ObjectSettings
    from pipeline.workflow.accuracy import told_legend
    from pipeline.workflow.objects import objects_of

    settings = checked(
        ObjectSettings,
        {
            "classes": tuple(class_name or ()),
            "min_area_m2": min_area,
            "tolerance_m": tolerance,
            "right_angles": right_angles,
            "separate": separate,
        },
    )
    return lambda _: objects_of(
        source, settings, output=output, confidence=confidence, scheme=told_legend(legend), overwrite=overwrite
    )
