"""Models: show, export, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_commands, performed
from pipeline.cli.options import ConfigFile, Overwrite, Seed


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    model = typer.Typer(help="What a model file knows of itself.", no_args_is_help=True, rich_markup_mode=None)
    model.command("show")(performed(show_model))
    app.add_typer(model, name="model")
    add_commands(app, export, pretrain)


def show_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
) -> Work:
    """Print what a model knows of itself: bands, classes, scaling, training, figures."""
    from pipeline.workflow import models

    return lambda _: models.show_model(model)


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
) -> Work:
    """Write a model for other programs: ONNX (QGIS plugin Deepness) or torch.export."""
    from pipeline.workflow.models import export_model

    return lambda _: export_model(
        model, form=form, output=output, tile_px=tile_px, scale=scale, offset=offset, overwrite=overwrite
    )


def pretrain(
    config: ConfigFile,
    *,
    encoder: Annotated[str | None, typer.Option(help="Another encoder than the configuration's.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches.")] = 1000,
    batch: Annotated[int, typer.Option(min=2, help="Chips in a batch.")] = 16,
    chip_px: Annotated[int, typer.Option(min=32, help="Side of a chip in pixels.")] = 64,
    time_limit_s: Annotated[float, typer.Option(min=0, help="Stops after this many seconds.")] = 1800.0,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Weights file (.safetensors); default in the run folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Let an encoder learn from the scenes themselves, without labels: it fills in bands that are taken away."""
    from pipeline.training.settings import PretrainSettings
    from pipeline.workflow.pretraining import pretrain_job

    settings = PretrainSettings(steps=steps, batch=batch, chip_px=chip_px, time_limit_s=time_limit_s, seed=seed)
    return lambda progress: pretrain_job(
        config, settings=settings, encoder=encoder, output=output, overwrite=overwrite, progress=progress
    )
