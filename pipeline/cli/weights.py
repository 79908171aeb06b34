"""Pretrained weights: list, show, get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_commands, performed

Config = Annotated[Path | None, typer.Option("--config", help="Configuration whose bands are matched.")]
Scene = Annotated[str | None, typer.Option("--scene", help="Scene whose bands are matched.")]
Encoder = Annotated[str, typer.Option(help="Encoder that imagenet is meant for.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(help="Pretrained encoder weights.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(performed(list_command))
    add_commands(group, show, get)
    app.add_typer(group, name="weights")


def list_command(
    *,
    encoder: Annotated[str | None, typer.Option(help="Only those of resnet18, resnet50 ...")] = None,
    sensor: Annotated[str | None, typer.Option(help="Only those of sentinel-2, landsat-oli ...")] = None,
    config: Config = None,
    scene: Scene = None,
) -> Work:
    """List weights with bands, licence and whether they are here, and the order of the search; needs no network."""
    from pipeline.workflow.weights import list_weights

    return lambda _: list_weights(encoder=encoder, sensor=sensor, config=config, scene=scene)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in the list, imagenet, or a weights file.")],
    *,
    encoder: Encoder = "resnet18",
    config: Config = None,
    scene: Scene = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download them now, as weights get does.")] = False,
) -> Work:
    """Show what one set of weights expects, and from which of its bands each band of a scene would start."""
    from pipeline.workflow.weights import show_weights

    return lambda progress: show_weights(
        name, encoder=encoder, config=config, scene=scene, fetch=fetch, progress=progress
    )


def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in the list, or imagenet.")],
    *,
    encoder: Encoder = "resnet18",
) -> Work:
    """Download one set of weights, check it by its hash, and show its licence; nothing else ever downloads any."""
    from pipeline.workflow.weights import get_weights

    return lambda progress: get_weights(name, encoder=encoder, progress=progress)
