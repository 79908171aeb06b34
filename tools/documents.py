"""The documents that are generated from the code: the configuration's schema, and the keys, commands and names.

``python tools/documents.py`` writes them; a test fails where they are not current.
"""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined

import pipeline
from pipeline.cli.entry import GROUPS, app
from pipeline.config import Config, schema_json
from pipeline.files import write_text
from pipeline.forecast.settings import ForecastSettings
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Path("configs/landcover.schema.json")
CONFIG_REFERENCE = Path("docs/config.md")
COMMAND_REFERENCE = Path("docs/commands.md")
API_REFERENCE = Path("docs/api.md")
_HELP_WIDTH = 100
_COMMANDS_HEAD = """# Commands

Generated from the code. Every command takes `--quiet` (only errors) and `--json` (one JSON document on stdout). Nothing
is overwritten without `--overwrite`, a file appears under its name only when all of it is written, and the same command
goes on where an interruption stopped it.

| exit status | means |
| --- | --- |
| 0 | done |
| 2 | a user's error, in one line |
| 3 | some scenes of several could not be mapped |
| 130 | interrupted (Ctrl-C) |
| anything else | a bug, with its traceback |
"""


def config_reference() -> str:
    """``docs/config.md``: every key with its type, default and meaning."""
    head = (
        "# The configuration file\n\n"
        "Written by `landcover init`, read by every other command. Generated from the code; unknown keys are errors.\n"
        "Paths are relative to the folder of the file. Editors that know JSON Schema complete and check it with\n"
        "`configs/landcover.schema.json`.\n\n"
    )
    table = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
    forecasts = (
        "\n## forecast.yaml\n\nRead by `landcover forecast`; `configs/forecast/ndvi.yaml` is an example.\n\n" + table
    )
    return (
        head + table + "\n".join(_rows(Config, prefix="")) + "\n"
        + forecasts + "\n".join(_rows(ForecastSettings, prefix="")) + "\n"
    )  # fmt: skip


def _rows(model: type[Settings], *, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner, many = _section_in(field.annotation)
        key = f"{prefix}{name}{'[]' if many else ''}"
        if inner is not None:
            meaning = field.description or (inner.__doc__ or "").split("\n")[0]
            yield f"| `{key}` | | | {meaning} |"
            yield from _rows(inner, prefix=f"{key}.")
            continue
        default = "required" if field.default is PydanticUndefined and field.default_factory is None else field.default
        shown = "" if default in (None, PydanticUndefined, ()) else f"`{default}`" if default != "required" else default
        yield f"| `{key}` | {_kind(field.annotation)} | {shown} | {field.description} |"


def _section_in(annotation: Any) -> tuple[type[Settings] | None, bool]:
    """The section a key holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation, False
    if get_origin(annotation) is tuple:
        found = _section_in(get_args(annotation)[0])[0]
        return found, found is not None
    for arg in get_args(annotation):
        found, many = _section_in(arg)
        if found is not None:
            return found, many
    return None, False


def _kind(annotation: Any) -> str:
    """A type in words."""
    arguments = [arg for arg in get_args(annotation) if arg is not type(None)]
    if get_origin(annotation) is tuple:
        return f"list of {_kind(arguments[0])}"
    if get_origin(annotation) is dict:
        return "mapping of text to text"
    if arguments and all(isinstance(arg, str | int) for arg in arguments):
        return ", ".join(f"`{arg}`" for arg in arguments)
    if arguments and isinstance(annotation, UnionType):
        return ", or ".join(dict.fromkeys(_kind(arg) for arg in arguments))
    if arguments:
        return _kind(arguments[0])
    words = {
        "str": "text", "int": "integer", "float": "number", "bool": "true or false", "datetime": "time", "date": "day"
    }  # fmt: skip
    return words.get(getattr(annotation, "__name__", ""), str(annotation))


def command_reference() -> str:
    """``docs/commands.md``: the help of every command, in the groups of ``landcover --help``."""
    parts = [_COMMANDS_HEAD]
    root = typer.main.get_command(app)
    for title, examples in GROUPS.items():
        parts.append(f"## {title}\n")
        parts.extend(_command(root, name) for name in examples)
    return "\n".join(parts)


def _command(root: Any, name: str) -> str:
    context, command = root.make_context("landcover", [], resilient_parsing=True), root
    for word in name.split():
        command = command.get_command(context, word)
        context = type(context)(command, info_name=word, parent=context, max_content_width=_HELP_WIDTH)
        context.terminal_width = _HELP_WIDTH
    return f"### landcover {name}\n\n```text\n{command.get_help(context).strip()}\n```\n"


def api_reference() -> str:
    """``docs/api.md``: the public names, each with its docstring where the site is built."""
    head = (
        "# Python names\n\n`import pipeline as lc` gives the names below, each imported when it is first used; "
        "`notebooks/04_python_api.ipynb`\ngoes from a scene to a map with them. Generated from `pipeline.__all__`; "
        "what is not listed may change between versions.\n"
    )
    homes = pipeline._HOMES  # noqa: SLF001 - the table is what is documented
    return head + "".join(f"\n## {name}\n\n::: {home.replace(':', '.')}\n" for name, home in homes.items())


def write_documents(root: Path) -> tuple[Path, ...]:
    """Write all of them below ``root``, the project's folder."""
    return (
        write_text(root / SCHEMA, schema_json()),
        write_text(root / CONFIG_REFERENCE, config_reference()),
        write_text(root / COMMAND_REFERENCE, command_reference()),
        write_text(root / API_REFERENCE, api_reference()),
    )


if __name__ == "__main__":
    write_documents(Path.cwd())
