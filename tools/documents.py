"""The documents that are generated from the code: the configuration's schema and reference, the commands' reference.

``python tools/documents.py`` writes them; a test fails where they are not current.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from pipeline.config import Config, schema_json
from pipeline.files import write_text
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Path("configs/landcover.schema.json")
CONFIG_REFERENCE = Path("docs/config.md")


def config_reference() -> str:
    """``docs/config.md``: every key with its type, default and meaning."""
    head = (
        "# The configuration file\n\n"
        "Written by `landcover init`, read by every other command. Generated from the code; unknown keys are errors.\n"
        "Paths are relative to the folder of the file. Editors that know JSON Schema complete and check it with\n"
        "`configs/landcover.schema.json`.\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(_rows(Config, prefix="")) + "\n"


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
    if arguments:
        return _kind(arguments[0])
    words = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "datetime": "time"}
    return words.get(getattr(annotation, "__name__", ""), str(annotation))


def write_documents(root: Path) -> tuple[Path, ...]:
    """Write all of them below ``root``, the project's folder."""
    return (
        write_text(root / SCHEMA, schema_json()),
        write_text(root / CONFIG_REFERENCE, config_reference()),
    )


if __name__ == "__main__":
    write_documents(Path.cwd())
