"""Self-supervised pretraining: pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import ConfigFile, Json, Overwrite, Quiet, Seed


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("pretrain")(pretrain)


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
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Let an encoder learn from the scenes themselves, without labels: it fills in bands that are taken away."""
    from pipeline.training.settings import PretrainSettings
    from pipeline.workflow.pretraining import pretrain_job

    settings = PretrainSettings(steps=steps, batch=batch, chip_px=chip_px, time_limit_s=time_limit_s, seed=seed)
    return Console(quiet, as_json).perform(
        lambda progress: pretrain_job(
            config, settings=settings, encoder=encoder, output=output, overwrite=overwrite, progress=progress
        )
    )
