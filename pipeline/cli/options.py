"""Options that several commands share, with the same words everywhere."""

from __future__ import annotations

from collections.abc import Sequence
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
# Options of ``predict`` that stand for a setting: ``--engine openvino`` is ``--set map.engine=openvino``.
STAND_FOR = {
    **{f"--{name.replace('_', '-')}": f"map.{name}" for name in (
        "engine", "dtype", "aoi", "mask", "mosaic", "mosaic_crs", "mosaic_pixel",
        "probabilities", "applicability", "polygons", "seam_figure",
    )},
    **{f"--{name}": f"scene.{name}" for name in ("bands", "date", "scale", "offset", "mirror")},
    "--layer": "scene.layers",
    "--resolution": "scene.resolution_m",
}  # fmt: skip
_SWITCHES = frozenset({"--probabilities", "--applicability", "--polygons", "--seam-figure"})
Seed = Annotated[int, typer.Option(help="Seed: the same seed gives the same result.")]


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``predict`` with what stands for settings as ``--set``; those of other commands as they are.

    >>> spelled_out(["predict", "--date", "2024-06-01", "--date=2024-07-01", "--polygons"])
    ['predict', '--set', 'scene.date=2024-06-01,2024-07-01', '--set', 'map.polygons=true']
    """
    if not arguments or arguments[0] != "predict":
        return list(arguments)
    made: dict[str, list[str]] = {}
    kept, left = [], iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name not in STAND_FOR:
            kept.append(argument)
            continue
        if name in _SWITCHES:
            value = "true"
        elif not equals:
            value = next(left, "")
        made.setdefault(STAND_FOR[name], []).append(value)
    return [*kept, *(part for key, values in made.items() for part in ("--set", f"{key}={','.join(values)}"))]
