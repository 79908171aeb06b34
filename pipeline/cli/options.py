"""Options that several commands share, with the same words everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if its inputs have not changed.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="config.yaml", help="Configuration; landcover init writes one.")]
Memory = Annotated[str | None, typer.Option(help="Memory that mapping may take, for example 2GB.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the configuration, such as map.tile_px=512; repeatable."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed: the same seed gives the same result.")]
