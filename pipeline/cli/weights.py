"""Pretrained weights: list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Json, Quiet

Config = Annotated[Path | None, typer.Option("--config", help="Configuration whose bands are matched.")]
Scene = Annotated[str | None, typer.Option("--scene", help="Scene whose bands are matched.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(help="Pretrained encoder weights.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_command)
    group.command("show")(show)
    app.add_typer(group, name="weights")


def list_command(
    *,
    encoder: Annotated[str | None, typer.Option(help="Only those of resnet18, resnet50 ...")] = None,
    sensor: Annotated[str | None, typer.Option(help="Only those of sentinel-2, landsat-oli ...")] = None,
    config: Config = None,
    scene: Scene = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """List published weights with their bands, scaling and licence, and which are downloaded; needs no network."""
    from pipeline.workflow.weights import list_weights

    return Console(quiet, as_json).perform(
        lambda _: list_weights(encoder=encoder, sensor=sensor, config=config, scene=scene)
    )


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in the list, imagenet, or a weights file.")],
    *,
    encoder: Annotated[str, typer.Option(help="Encoder that imagenet is meant for.")] = "resnet18",
    config: Config = None,
    scene: Scene = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download them now, and check them.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Show what one set of weights expects, and from which of its bands each band of a scene would start."""
    from pipeline.workflow.weights import show_weights

    return Console(quiet, as_json).perform(
        lambda _: show_weights(name, encoder=encoder, config=config, scene=scene, fetch=fetch)
    )
