"""The help of ``landcover``: its commands in groups by what they are for, each with an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    import typer
    from typer._click import HelpFormatter
    from typer._click.core import Context

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
