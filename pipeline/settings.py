"""What all settings share: each is declared once, beside the function that it steers, and ``config`` composes them.

A settings type is a frozen pydantic model: its fields have a default, a range, a unit in their name where a bare number
could be read two ways, and one line of text. The configuration file, the command line's ``--set``, the JSON Schema and
``docs/config.md`` are made from that declaration; functions take the type itself.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# How GDAL spells a raster inside a file. A drive of Windows has one letter.
INSIDE_FILE = re.compile(r'(?P<driver>[A-Z][A-Z0-9_]{2,}):"?(?P<file>[^":]+)"?(?P<name>:.*)?')
_COMMENT_WIDTH = 96
# Rows of these lists are written on one line each: a legend of eight classes is eight lines.
_ONE_LINE = frozenset({"classes"})
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """No unknown keys, no change after loading, and numbers that are numbers: not NaN, nor infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def absolute(value: str, info: ValidationInfo) -> str:
    """A path made absolute against the configuration's folder, or the working folder where there is none.

    GDAL's virtual paths and URLs stay as they are; of a raster inside a file (NETCDF:"a.nc":ndvi) it is the file's.
    """
    if value.startswith(("/vsi", "http://", "https://")):
        return value
    folder = Path((info.context or {}).get("folder", "."))
    inside = INSIDE_FILE.fullmatch(value)
    if inside is not None:
        file = (folder / inside["file"]).expanduser().resolve()
        return f'{inside["driver"]}:"{file}"{inside["name"] or ""}'
    return str((folder / value).expanduser().resolve())


def odd(value: int) -> int:
    """A number with a middle, or 0."""
    if value and value % 2 == 0:
        raise ValueError("an odd number, so that what is meant lies in the middle")
    return value


AbsolutePath = Annotated[str, AfterValidator(absolute)]
Odd = Annotated[int, AfterValidator(odd)]


@dataclass(frozen=True)
class Off:
    """A key that is written as a comment, with an example of its value, to be switched on by who needs it."""

    example: Any


def commented_yaml(data: Mapping[str, Any], *, head: Sequence[str], model: type[Settings]) -> str:
    """YAML of (a part of) a configuration with comments.

    Keys come in the order of the schema, with plain values or :class:`Off`.
    """
    lines = [*(f"# {line}".rstrip() for line in head), ""]
    lines.extend(_section(model, data, indent=0))
    return "\n".join(lines) + "\n"


def _section(model: type[Settings], data: Mapping[str, Any], *, indent: int) -> Iterator[str]:
    pad = " " * indent
    for key, field in model.model_fields.items():
        if key not in data:
            continue
        if indent == 0:
            yield ""
        text = field.description or (_inner(field.annotation).__doc__ or "").split("\n")[0]
        for line in textwrap.wrap(text, _COMMENT_WIDTH - indent):
            yield f"{pad}# {line}"
        yield from _entry(key, data[key], annotation=field.annotation, indent=indent)


def _entry(key: str, value: Any, *, annotation: Any, indent: int) -> Iterator[str]:
    pad = " " * indent
    inner = _inner(annotation)
    if isinstance(value, Off):
        yield f"{pad}#{key}: {_inline(value.example)}"
    elif isinstance(value, dict) and issubclass(inner, Settings):
        yield f"{pad}{key}:"
        yield from _section(inner, value, indent=indent + 2)
    elif isinstance(value, list) and value and issubclass(inner, Settings):
        yield f"{pad}{key}:"
        for item in value:
            if key in _ONE_LINE:
                yield f"{pad}  - {_inline(item)}"
            else:
                yield f"{pad}  -"
                yield from _section(inner, item, indent=indent + 4)
    else:
        yield f"{pad}{key}: {_inline(value)}"


def _inline(value: Any) -> str:
    """A value on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
        .removesuffix("\n...\n")
        .strip()
    )


def _inner(annotation: Any) -> type:
    """The Settings inside an annotation, or ``object``."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Settings) else object
    for arg in getattr(annotation, "__args__", ()):
        found = _inner(arg)
        if found is not object:
            return found
    return object
