"""What all settings share: each is declared once, beside the function that it steers, and ``config`` composes them.

A settings type is a frozen pydantic model: its fields have a default, a range, a unit in their name where a bare number
could be read two ways, and one line of text. The configuration file, the command line's ``--set``, the JSON Schema and
``docs/config.md`` are made from that declaration; functions take the type itself.
"""

from __future__ import annotations

import copy
import csv
import difflib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, create_model

from pipeline.documents import parse_json
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# How GDAL spells a raster inside a file. A drive of Windows has one letter.
INSIDE_FILE = re.compile(r'(?P<driver>[A-Z][A-Z0-9_]{2,}):"?(?P<file>[^":]+)"?(?P<name>:.*)?')
_COMMENT_WIDTH = 96
# Rows of these lists are written on one line each: a legend of eight classes is eight lines.
_ONE_LINE = frozenset({"classes"})
Fraction = Annotated[float, Field(ge=0, le=1)]
COLOR = r"^#[0-9a-fA-F]{6}$"
NAME = r"^\w[\w.-]*( [\w.-]+)*$"
# What pydantic says of a value, by its kind of error, in the words of who writes the file.
_TIME, _INTEGER, _KEYS = "a time such as 2024-06-01T10:21:00Z", "a whole number", "keys with values"
_EXPECTED = {
    "string_type": "text, in quotes where it looks like something else",
    "model_type": _KEYS, "dict_type": _KEYS, "tuple_type": "a list",
    "int_type": _INTEGER, "int_parsing": _INTEGER, "int_from_float": _INTEGER,
    "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "datetime_type": _TIME, "datetime_parsing": _TIME, "datetime_from_date_parsing": _TIME,
    COLOR: "#rrggbb in hexadecimal, in quotes, such as '#0072b2'",
    NAME: "letters, digits, '.', '_', '-' and single blanks after a letter or digit, 100 at most",
}  # fmt: skip


class Settings(BaseModel):
    """No unknown keys, no change after loading, and numbers that are numbers: not NaN, nor infinite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse(wrong: Mapping[str, object]) -> None:
    """ValueError, as validators raise it, with the first of the texts whose value is true."""
    if text := next((text for text, holds in wrong.items() if holds), ""):
        raise ValueError(text)


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


Checked = TypeVar("Checked", bound=Settings)


def checked(kind: type[Checked], data: Mapping[str, Any], *, path: Path | None = None) -> Checked:
    """Settings of a kind from nested keys; relative paths are relative to the folder of ``path``.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a value that does not fit.
    """
    context = {"folder": path.resolve().parent} if path is not None else None
    try:
        return kind.model_validate(data, context=context)
    except ValidationError as err:
        raise _explain(err, kind, path) from err


def section_of(
    section: str, kind: type[Checked], changes: Sequence[str] | None, given: Mapping[str, object] | None = None
) -> Checked:
    """Settings of one section, from options that were given (None: not given) and keys as ``design.size=400``.

    Raises:
        ConfigError: see :func:`checked`; or a text that sets nothing.
    """
    around = create_model("_Section", __base__=Settings, **{section: (kind, ...)})  # type: ignore[call-overload]  # the name is the section's
    known = {section: {key: value for key, value in (given or {}).items() if value is not None}}
    found: Checked = getattr(checked(around, changed(known, changes or ())), section)
    return found


def changed(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Nested keys with those set that ``changes`` name; their paths are relative to the working folder.

    Raises:
        ConfigError: a text that is not KEY=VALUE.
    """
    made: dict[str, Any] = copy.deepcopy(dict(data))
    for text in changes:
        key, equals, value = text.partition("=")
        *sections, last = key.strip().split(".")
        if not equals or not last:
            raise ConfigError("option --set", got=repr(text), expected="KEY=VALUE, such as map.memory=1GB")
        section = made
        for name in sections:
            inner = section.get(name)
            section[name] = inner if isinstance(inner, dict) else {}
            section = section[name]
        section[last] = _value(value.strip())
    return made


def _value(text: str) -> Any:
    """A list, an object of JSON's, None for null, else the text, which each key reads as its own type.

    >>> _value("[red, nir]"), _value('{"water": 0.5}'), _value("1GB")
    (['red', 'nir'], {'water': 0.5}, '1GB')
    """
    if text in {"", "null"}:
        return None
    if text.startswith("{"):
        return parse_json(text, what="option --set", error=ConfigError)
    if text.startswith("[") and text.endswith("]"):
        parts = next(csv.reader([text[1:-1]], skipinitialspace=True), [])
        return [part.strip().strip("'") for part in parts if part.strip()]
    path = Path(text).expanduser()
    return str(path.resolve()) if path.suffix and path.exists() else text


def _explain(err: ValidationError, kind: type[Settings], path: Path | None) -> ConfigError:
    """The first thing wrong, in one sentence."""
    errors = err.errors()
    first = errors[0]
    if first["type"] == "missing":  # because another key is misspelt, if one is
        first = next((item for item in errors if item["type"] == "extra_forbidden"), first)
    key = _key_of(first)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_beside(kind, first["loc"]))
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else None
        return ConfigError(f"unknown key {key!r}", path=path, expected="one of " + ", ".join(known), fix=fix)
    if first["type"] == "missing":
        return ConfigError(f"key {key!r} is missing", path=path)
    if first["type"] == "value_error" and not key:
        return ConfigError(_words(first), path=path)
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return ConfigError(f"key {key!r}: {_words(first)}", path=path)
    # A key with several types has an error for each.
    expected = dict.fromkeys(_words(error) for error in err.errors() if _key_of(error) == key)
    return ConfigError(f"key {key!r}", path=path, got=repr(first["input"])[:80], expected=" or ".join(expected))


def _key_of(error: ErrorDetails) -> str:
    """The key as it is in the file: pydantic adds the type it tried, and whether it means a key of a mapping."""
    added = re.compile(r"\[key\]|constrained-\w+|(literal|tuple|function-\w+)\[.*\]")
    return ".".join(str(part) for part in error["loc"] if not added.fullmatch(str(part)))


def _words(error: ErrorDetails) -> str:
    """What was expected, without the words of the library that checks."""
    kind = error["ctx"]["pattern"] if error["type"] == "string_pattern_mismatch" else error["type"]
    stripped = re.sub(r"^(Value error, |[A-Z]\w+ should (be |have )?)", "", error["msg"])
    return _EXPECTED.get(kind, stripped.replace(" after validation", ""))


def _keys_beside(kind: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section of an unknown key has."""
    section: Any = kind
    for part in location[:-1]:
        if isinstance(part, str):
            section = _inner(section.model_fields[part].annotation)
    return list(section.model_fields)
