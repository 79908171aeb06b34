"""Models: show, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Json, Overwrite, Quiet


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(help="What a model file knows of itself.", no_args_is_help=True, rich_markup_mode=None)
    group.command("show")(show)
    app.add_typer(group, name="model")
    app.command("export")(export)


def show(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    *,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Print what a model knows of itself: bands, classes, scaling, training, figures."""
    from pipeline.workflow.models import show_model

    return Console(quiet, as_json).perform(lambda _: show_model(model))


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    *,
    form: Annotated[str, typer.Option("--format", help="onnx or torch.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    tile_px: Annotated[int, typer.Option(help="Side of the fixed input tile in pixels.")] = 512,
    scale: Annotated[
        float | None,
        typer.Option(
            help="value = number x scale + offset of the rasters it will be fed. Default: as the files of the training "
            "scenes store them; 1 for values as they are."
        ),
    ] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Write a model for other programs: ONNX (QGIS plugin Deepness) or torch.export."""
    from pipeline.workflow.models import export_model

    return Console(quiet, as_json).perform(
        lambda _: export_model(
            model, form=form, output=output, tile_px=tile_px, scale=scale, offset=offset, overwrite=overwrite
        )
    )
