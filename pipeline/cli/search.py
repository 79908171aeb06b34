"""Find and fetch scenes from a STAC API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Json, Quiet


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("search")(search)


def search(
    api: Annotated[str, typer.Argument(metavar="URL", help="STAC API, or earth-search or planetary-computer.")],
    *,
    collection: Annotated[list[str], typer.Option("--collection", "-c", help="Collection; repeatable.")],
    area: Annotated[str, typer.Option("--area", help="west,south,east,north in degrees, or a polygon file.")],
    dates: Annotated[str, typer.Option("--dates", help="2024-05-01/2024-09-30.")],
    max_cloud: Annotated[float, typer.Option(help="Largest cloud cover in per cent.")] = 20.0,
    limit: Annotated[int, typer.Option(help="Most scenes to list.")] = 10,
    bands: Annotated[str | None, typer.Option(help="Comma-separated bands to download; default: all optical.")] = None,
    download: Annotated[
        Path | None, typer.Option("--download", help="Folder to download into; default: list only.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Who serves the items, where they do not tell.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Find scenes by area, dates and cloud cover; download only the bands and the window needed."""
    from pipeline.workflow.searching import search_scenes

    return Console(quiet, as_json).perform(
        lambda progress: search_scenes(
            api,
            collections=collection,
            area=area,
            dates=dates,
            max_cloud=max_cloud,
            limit=limit,
            bands=tuple(bands.split(",")) if bands else None,
            download=download,
            progress=progress,
            mirror=mirror,
        )
    )
