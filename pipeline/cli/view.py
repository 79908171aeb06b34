"""Look at maps in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Json, Quiet

if TYPE_CHECKING:
    from pipeline.view.server import ViewServer
    from pipeline.workflow.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("view")(view)


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
    from pipeline.workflow.viewing import ViewRequest, open_viewer

    request = ViewRequest(tuple(scene or ()), port, basemap, credit)
    opened: list[ViewServer] = []

    def start(_: object) -> Outcome:
        server, outcome = open_viewer(paths, request)
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
