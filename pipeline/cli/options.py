"""Options that several commands share, and options that are settings: declared, and described, beside what they steer.

A command of settings shows the options that most users need. All others are given as ``--set SECTION.KEY=VALUE``, or
``--KEY VALUE`` for short.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin

import typer
from typer.core import TyperCommand

from pipeline.errors import ConfigError
from pipeline.files import csv_text

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from typer._click import HelpFormatter
    from typer._click.core import Context

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if its inputs have not changed.")]
ConfigFile = Annotated[Path, typer.Argument(metavar="config.yaml", help="Configuration; landcover init writes one.")]
_ANY = "A setting, such as map.tile_px=512; repeatable."
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_ANY)]
SetOfJob = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE",
        help="A setting below, or a key of the configuration, such as training.experts.trees=50; repeatable.",
    ),
]  # fmt: skip
Seed = Annotated[int, typer.Option(min=0, help="Seed: the same seed gives the same result.")]


def out(text: str) -> Any:
    """The option of the file or folder to write."""
    return typer.Option("--output", "-o", help=text)


# Sections of settings -> where their type is defined.
Sections = Mapping[str, str]
# Options that are not called after their key.
_CALLED = {"--layer": "--layers", "--resolution": "--resolution-m", "--block": "--block-m"}


class SettingsCommand(TyperCommand):
    """A command whose options are settings: help from their declaration, and short forms for ``--set``."""

    sections: ClassVar[Sections] = {}

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse, with options that stand for settings as ``--set``."""
        own = {name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
        return super().parse_args(ctx, self.spelled_out(args, own=own))

    def spelled_out(self, args: list[str], *, own: set[str]) -> list[str]:
        """The arguments with those that stand for settings as ``--set``; ``own`` are the command's own options.

        Raises:
            ConfigError: an option that stands for a setting, without a value.
        """
        made: dict[str, list[str]] = {}
        many: set[str] = set()
        kept, left = [], iter(args)
        for argument in left:
            name, equals, value = argument.partition("=")
            found = self._found(name) if name.startswith("--") and name != "--" and name not in own else None
            if found is None:
                kept.append(argument)
                continue
            key, field = found
            if not equals:
                value = "true" if field.annotation is bool else next(left, "")
                if not value:
                    raise ConfigError(f"option {name} without a value", fix=f"give one: {name} VALUE")
            made.setdefault(key, []).append(value)
            if _holds_many(field.annotation):
                many.add(key)
        for key, values in made.items():
            kept += ["--set", f"{key}={_as_list(values) if key in many else values[-1]}"]
        return kept

    def _found(self, name: str) -> tuple[str, FieldInfo] | None:
        """Key and declaration of the setting that an option stands for."""
        option = _CALLED.get(name, name)
        return next(((key, field) for known, key, field in self._settings() if known == option), None)

    def _settings(self) -> list[tuple[str, str, FieldInfo]]:
        """Option, key and declaration of every setting."""
        found = []
        for section, place in self.sections.items():
            module, _, kind = place.partition(":")
            for name, field in getattr(importlib.import_module(module), kind).model_fields.items():
                found.append((f"--{name.replace('_', '-')}", f"{section}.{name}", field))
        return found

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """The command's own options, described as their settings are, and then the other settings."""
        known = {option: (key, field) for option, key, field in self._settings()}
        for param in self.get_params(ctx):
            option = next((name for name in param.opts if name in known), None)
            if option is not None and not getattr(param, "help", ""):
                param.help = _text(known[option][1])  # type: ignore[attr-defined]  # options have one
            if getattr(param, "help", "") == _ANY:
                param.help = "A setting of those below; repeatable."  # type: ignore[attr-defined]  # likewise
            known.pop(option or "", None)
        super().format_options(ctx, formatter)
        if known:
            rows = [(key, _text(field)) for key, field in known.values()]
            with formatter.section("Settings: --set KEY=VALUE, or for short --NAME VALUE"):
                formatter.write_dl(rows, col_max=32)


def _text(field: FieldInfo) -> str:
    """What a setting is for, and its default."""
    default = field.default
    shown = default not in (None, False, (), "") and type(default).__name__ in {"str", "int", "float", "bool", "tuple"}
    listed = ",".join(map(str, default)) if isinstance(default, tuple) else default
    text = field.description or (getattr(field.annotation, "__doc__", None) or "").partition("\n")[0]
    return text + (f"  [default: {listed}]" if shown else "")


def _holds_many(annotation: Any) -> bool:
    """Whether a value is a list or a mapping, which several options of one name make together."""
    if get_origin(annotation) in {tuple, list, dict}:
        return True
    return get_origin(annotation) is not None and any(_holds_many(item) for item in get_args(annotation))


def _as_list(values: list[str]) -> str:
    """Values, or one with commas, as a list of ``--set``."""
    return f"[{values[0] if len(values) == 1 else csv_text([values], ends='')}]"
