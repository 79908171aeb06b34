"""Look at a map and at its labels: view, crossval, labels audit, labels next."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Console, Work, add_command, add_commands
from pipeline.cli.options import ConfigFile, Json, Overwrite, Quiet, Seed, Set
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.view.server import ViewServer
    from pipeline.workflow.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("view")(view)
    add_command(app, crossval, settings={"crossval": "pipeline.splits.settings:CrossvalSettings"})
    labels = typer.Typer(help="What the training labels are worth.", no_args_is_help=True, rich_markup_mode=None)
    labels.callback()(_labels)
    add_commands(labels, audit)
    add_command(labels, next_places, name="next")
    app.add_typer(labels, name="labels")


def view(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|MAP...", help="Run folders or class maps.")],
    *,
    scene: Annotated[
        list[str] | None, typer.Option("--scene", help="Scene of maps that do not know theirs; repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    basemap: Annotated[
        str | None, typer.Option(help="Address of background tiles with {z}, {x}, {y}; default: none, no network.")
    ] = None,
    credit: Annotated[str | None, typer.Option(help="Who is named for the background.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Look at scene, map and confidence in a browser: swipe, values at a click, lengths and areas. Ctrl-C ends it."""
    from pipeline.workflow.view import open_viewer

    opened: list[ViewServer] = []

    def start(_: object) -> Outcome:
        server, outcome = open_viewer(paths, scenes=scene or (), port=port, basemap=basemap, credit=credit)
        opened.append(server)
        return outcome

    status = Console(quiet, as_json).perform(start)
    sys.stdout.flush()  # whoever reads the address through a pipe wants it now
    for server in opened:
        if not no_browser:
            _open_browser(server.url)
        try:
            server.serve()
        except KeyboardInterrupt:  # the way it is meant to end
            return status
        finally:
            server.close()
    return status


def _open_browser(url: str) -> None:
    """Open the page where there is a screen; without one, Python would start a browser in the terminal."""
    import webbrowser

    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)


def crossval(
    config: ConfigFile,
    *,
    folds: Annotated[int | None, typer.Option()] = None,
    by: Annotated[str | None, typer.Option()] = None,
    leave_one_block_out: Annotated[
        bool, typer.Option("--leave-one-block-out", help="A fold per spatial block: --by block.")
    ] = False,
    leave_one_scene_out: Annotated[
        bool, typer.Option("--leave-one-scene-out", help="A fold per scene: --by scene.")
    ] = False,
    methods: Annotated[str | None, typer.Option()] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Instead: the score against the number of polygons learned from.")
    ] = False,
    settings: Set = None,
    force: Annotated[bool, typer.Option("--force", help="Do folds again that are done.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the figures here.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Cross-validate the network and the random forest on the same folds; goes on where it was interrupted."""
    from pipeline.config import section_of
    from pipeline.splits.settings import CrossvalSettings
    from pipeline.workflow.crossval import cross_validate_job, draw_learning_curve

    asked = {
        "--leave-one-block-out": leave_one_block_out,
        "--leave-one-scene-out": leave_one_scene_out,
        f"--by {by}": by,
    }
    if len(several := [name for name, value in asked.items() if value]) > 1:
        raise ConfigError(" together with ".join(several), fix="give one of them")
    kind = "block" if leave_one_block_out else "scene" if leave_one_scene_out else by
    found = section_of("crossval", CrossvalSettings, settings, {"folds": folds, "by": kind, "methods": methods})
    work = draw_learning_curve if learning_curve else cross_validate_job
    return lambda progress: work(config, found, output=output, force=force, overwrite=overwrite, progress=progress)


def _labels() -> None:
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


def next_places(
    config: ConfigFile,
    *,
    count: Annotated[int, typer.Option(min=1, help="How many places.")] = 30,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="GeoPackage; default beside the configuration.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Find the places of the finished map whose labels teach most, as a layer to digitise in QGIS."""
    from pipeline.workflow.labels_next import next_labels

    return lambda progress: next_labels(config, count=count, output=output, overwrite=overwrite, progress=progress)
