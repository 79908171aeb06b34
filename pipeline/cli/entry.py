"""``landcover``: parse, call one workflow function, print, exit code.

Exit status: 0 done; 2 a user's error, in one line; 3 some scenes of several could not be mapped; 130 interrupted;
anything else is a bug and shows its traceback. Nothing that takes time to import is imported before a command runs, so
that every ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.cli import judge, make, reuse
from pipeline.errors import ConfigError, InputError, OutputError, PipelineError
from pipeline.process import share_one_heap, silence_libtiff

if TYPE_CHECKING:
    from typer._click import HelpFormatter
    from typer._click.core import Context

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# A disk that takes no more: full, beyond a quota or the largest file, read-only, or failing.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
GDAL_CACHE_MB = 128  # as pipeline.inference.memory counts it; that module takes torch with it

# Group -> command -> an example, which a test parses.
GROUPS: dict[str, dict[str, str]] = {
    "Make a map": {
        "demo": "landcover demo",
        "init": "landcover init --scene S2.tif --labels polygons.gpkg --field class",
        "check": "landcover check config.yaml",
        "run": "landcover run config.yaml",
        "chips": "landcover chips config.yaml",
        "train": "landcover train config.yaml --resume",
        "search": "landcover search earth-search -c sentinel-2-l2a --area 11,47,12,48 --dates 2024-05-01/2024-09-30",
    },
    "Judge it": {
        "view": "landcover view landcover-run",
        "crossval": "landcover crossval config.yaml --folds 5",
        "labels audit": "landcover labels audit config.yaml",
        "labels next": "landcover labels next config.yaml --count 30",
        "design": "landcover design landcover-run/maps/S2_lc.tif -o sample.gpkg --size 400",
        "assess": "landcover assess landcover-run/maps/S2_lc.tif --reference sample.gpkg --field reference --design "
        "sample_design.json",
        "compare": "landcover compare S2_lc.tif forest.tif --reference sample.gpkg --field reference",
        "zone": "landcover zone S2_lc.tif --reference sample.gpkg --field reference --design sample_design.json",
        "zonal": "landcover zonal landcover-run/maps/S2_value.tif districts.gpkg -o zonal.gpkg",
        "change": "landcover change 2020_lc.tif 2024_lc.tif -o change.tif",
        "series": "landcover series maps/*_lc.tif -o series --costs costs.csv",
        "crosswalk": "landcover crosswalk esa_worldcover --map S2_lc.tif -o crosswalk.csv",
    },
    "Use it again": {
        "predict": "landcover predict --model landcover-run/model/model.safetensors --scene next_year.tif -o next_year",
        "forecast": "landcover forecast ndvi.tif --ahead 6 -o forecast",
        "model show": "landcover model show landcover-run/model/model.safetensors",
        "objects": "landcover objects landcover-run/maps/aerial_lc.tif --class building -o buildings.gpkg",
        "export": "landcover export landcover-run/model/model.safetensors --format onnx",
        "weights list": "landcover weights list --sensor sentinel-2",
        "weights get": "landcover weights get imagenet",
        "weights show": "landcover weights show imagenet",
        "pretrain": "landcover pretrain config.yaml --steps 2000",
    },
}


# The command whose example stands for its group.
_FOREMOST = ("run", "design", "predict")


class GroupedCommands(TyperGroup):
    """The command line's own help: commands by group, not in one long list."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for every group; a command that is in none would be missing, which a test forbids."""
        for (title, examples), foremost in zip(GROUPS.items(), _FOREMOST, strict=True):
            rows = []
            for name in dict.fromkeys(name.split()[0] for name in examples):
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    rows.append((name, command.get_short_help_str(formatter.width - 14)))
            with formatter.section(title):
                formatter.write_dl(rows)
                formatter.write(f"\n  Example: {examples[foremost]}\n")


def add_examples(app: typer.Typer, *, prefix: str = "") -> None:
    """Give every command of the command line its example, shown at the end of its help."""
    known = {name: example for examples in GROUPS.values() for name, example in examples.items()}
    for info in app.registered_commands:
        example = known.get(f"{prefix}{info.name}")
        if example is not None:
            info.epilog = f"\b\nExample:\n  {example}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, prefix=f"{prefix}{group.name} ")


app = typer.Typer(
    name="landcover",
    cls=GroupedCommands,
    help="From satellite scenes and a few hundred polygons to a land-cover map with publishable accuracy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (make, judge, reuse):
    part.register(app)
add_examples(app)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        import pyogrio
        import rasterio

        print(f"landcover {__version__}")
        print(f"Python {sys.version.split()[0]}, torch {version('torch')}")
        print(f"GDAL {rasterio.__gdal_version__} for rasters (rasterio {rasterio.__version__})")
        print(f"GDAL {pyogrio.__gdal_version_string__} for vectors (pyogrio {pyogrio.__version__})")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show versions, of GDAL too."
    ),
) -> None:
    """From satellite scenes and a few hundred polygons to a land-cover map with publishable accuracy."""


def _say_error(err: PipelineError | typer.TyperException, *, as_json: bool) -> None:
    """One line on stderr, and JSON on stdout where it is asked for; the help where a command was given nothing."""
    if isinstance(err, typer.TyperException):
        context = getattr(err, "ctx", None)
        if context is not None and err.format_message() == context.get_help():
            print(err.format_message(), file=sys.stderr)
            return
        command = context.command_path if context is not None else "landcover"
        err = ConfigError(err.format_message().rstrip("."), fix=f"see {command} --help")
    text = " ".join(str(err).split())
    if as_json:
        print(json.dumps({"errors": [text]}))
    print(f"landcover: error: {text}", file=sys.stderr)


def _of_the_system(err: BaseException) -> PipelineError | None:
    """What a user can mend behind the error of a library: a full disk, no access, a damaged raster."""
    cause: BaseException | None = err
    damaged: BaseException | None = None
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return OutputError("cannot write", path=cause.filename, got=cause.strerror)
        if isinstance(cause, PermissionError):
            fix = "check the permissions of it and of the folders above it"
            return InputError("no access", path=cause.filename, got=cause.strerror, fix=fix)
        below = cause.__cause__ or cause.__context__
        if type(cause).__name__ == "RasterioIOError":  # by name: rasterio takes a second to import
            damaged = below or cause  # GDAL's own words, which name the file
        cause = below
    if damaged is None:
        return None
    return InputError("raster cannot be read", got=damaged, fix="it may be damaged or cut short: write it again")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives the exit status (and is the console script's entry)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Threads that wait should sleep: beside other programs, spinning ones make the network two to ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Megabytes. GDAL would take a twentieth of the machine's memory and never give it back, and it asks only once: at
    # the first block that anything reads.
    os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_MB))
    share_one_heap()
    silence_libtiff()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        status = app(args=given, prog_name="landcover", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except Exception as err:
        known = err if isinstance(err, PipelineError | typer.TyperException) else _of_the_system(err)
        if known is None:
            raise
        _say_error(known, as_json="--json" in (sys.argv if arguments is None else arguments))
        return 2
    if status == INTERRUPTED:  # typer gives KeyboardInterrupt back as this status
        print("landcover: interrupted; the same command continues where it stopped", file=sys.stderr)
    return status if isinstance(status, int) else 0
