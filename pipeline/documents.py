"""JSON, YAML and XML read with limits: the only place where the structure of any of them enters the project.

A document is a regular file of limited size, nested to a limited depth, in which every key occurs once. Aliases of YAML
may not make it larger than it could have been written out. What breaks one of these rules is an error in one line; no
input makes the parser slow or deep.
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import defusedxml.ElementTree as SafeXml
import yaml
from defusedxml import DefusedXmlException

from pipeline.errors import ConfigError, InputError, PipelineError

MAX_JSON_BYTES = 256 * 1024 * 1024  # a GeoJSON of labels, a STAC collection of all items of a year
MAX_YAML_BYTES = 1024 * 1024  # the parser takes some seconds for this
MAX_XML_BYTES = 64 * 1024 * 1024  # the largest metadata of a product seen has 2 MB
MAX_DEPTH = 64
# Nodes of a YAML document once its aliases are written out.
MAX_NODES = 200_000


def read_json(path: Path | str, *, what: str = "the file", error: type[PipelineError] = InputError) -> Any:
    """What a JSON file holds.

    ``what`` names it in the message ("the design"); ``error`` is the class of the error.

    Raises:
        PipelineError: of the class given: it cannot be read, is no regular file, too large, not JSON, nested too
            deeply, or has a key twice in one object.
    """
    return parse_json(
        read_file(Path(path), what=what, limit=MAX_JSON_BYTES, error=error), what=what, path=path, error=error
    )


def parse_json(
    data: bytes | str,
    *, what: str = "the text", path: Path | str | None = None, error: type[PipelineError] = InputError,
) -> Any:  # fmt: skip
    """What JSON text holds, for answers of servers and texts inside other files; see :func:`read_json`.

    >>> parse_json('{"a": [1, 2]}')
    {'a': [1, 2]}

    Raises:
        PipelineError: of the class given.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise _too_deep(what, path, error) from None
    except ValueError as err:  # not UTF-8, not JSON, a number of too many digits, a key twice
        raise error(f"{what} cannot be read as JSON", path=path, got=err) from err
    if _depth(found) > MAX_DEPTH:
        raise _too_deep(what, path, error)
    return found


class _Shallow(ET.TreeBuilder):
    """Builds a tree down to the deepest level that a document may have."""

    level = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self.level += 1
        if self.level > MAX_DEPTH:
            raise RecursionError
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self.level -= 1
        return super().end(tag)


def parse_xml(
    data: bytes | str,
    *, what: str = "the text", path: Path | str | None = None, error: type[PipelineError] = InputError,
    fix: str | None = None,
) -> ET.Element:  # fmt: skip
    """The root of XML text, without entities of its own.

    >>> parse_xml("<a><b>1</b></a>").findtext("b")
    '1'

    Raises:
        PipelineError: of the class given: not XML, too large, nested too deeply, or with entities.
    """
    if len(data) > MAX_XML_BYTES:
        raise error(f"{what} is too large", path=path, expected=f"at most {MAX_XML_BYTES // 1024**2} MiB")
    parser = SafeXml.DefusedXMLParser(target=_Shallow())
    try:
        parser.feed(data)
        root: ET.Element = parser.close()
    except RecursionError:
        raise _too_deep(what, path, error) from None
    # LookupError, ValueError: an encoding that nobody knows, or another than it says.
    except (ET.ParseError, DefusedXmlException, LookupError, ValueError) as err:
        raise error(f"{what} is not well-formed XML", path=path, got=err, fix=fix) from err
    return root


def finite(value: object) -> float | None:
    """A number that a document states, as text or as one; None for what is none, NaN and infinity among it.

    >>> finite("1e-4"), finite(3), finite("NaN"), finite(True), finite(None)
    (0.0001, 3.0, None, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what float does not take is caught
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_yaml(path: Path | str) -> Any:
    """What a configuration holds: plain mappings, lists and scalars.

    Raises:
        ConfigError: it cannot be read, is no regular file, too large, not YAML, nested too deeply, has a key twice in
            one mapping, or has aliases that make it too large.
    """
    what = "the configuration"
    text = read_file(Path(path), what=what, limit=MAX_YAML_BYTES, error=ConfigError)
    try:
        return yaml.load(text.decode("utf-8-sig"), Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except _NotAllowedError as err:
        raise ConfigError(f"{what}: {err}", path=path) from err
    except yaml.MarkedYAMLError as err:
        line = "" if err.problem_mark is None else f"on line {err.problem_mark.line + 1}: "
        got = f"{line}{err.problem or err.context}"
        raise ConfigError(f"{what} cannot be read as YAML", path=path, got=got) from err
    except (yaml.YAMLError, ValueError) as err:  # ValueError: not UTF-8, a day 31 of February, too many digits
        raise ConfigError(f"{what} cannot be read as YAML", path=path, got=err) from err


def read_file(
    path: Path, *, what: str = "the file", limit: int = MAX_XML_BYTES, error: type[PipelineError] = InputError
) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes; a pipe or device is refused before it is opened.

    Raises:
        PipelineError: of the class given: it cannot be read, is no regular file, or too large.
    """
    try:
        if path.exists() and not path.is_file():
            got = "a folder" if path.is_dir() else "a pipe or device"
            raise error(f"{what} is not a regular file", path=path, got=got)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as err:  # ValueError: a path with a NUL
        got = (err.strerror if isinstance(err, OSError) else None) or str(err)
        raise error(f"cannot read {what}", path=path, got=got) from err
    if len(data) > limit:
        raise error(f"{what} is too large", path=path, expected=f"at most {limit // 1024**2} MiB")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name!r} twice in one object")
        found[name] = value
    return found


def _depth(data: Any) -> int:
    """How deeply lists and mappings are nested; 0 for a scalar."""
    depth, level = 0, [data]
    while level := [
        child
        for item in level
        if isinstance(item, dict | list)
        for child in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            break
    return depth


def _too_deep(what: str, path: Path | str | None, error: type[PipelineError]) -> PipelineError:
    return error(f"{what} is nested too deeply", path=path, expected=f"at most {MAX_DEPTH} levels")


class _NotAllowedError(Exception):
    """What YAML allows and a document here may not have."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that stops at the limits while it parses, and refuses keys that occur twice."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        # (nodes, depth) of every finished node by id, with what its aliases stand for written out.
        self._sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node; an alias gives the node that it stands for, which is not finished where it holds itself."""
        is_alias = self.check_event(yaml.AliasEvent)
        self._level += 1
        self._limit(self._level)
        node = super().compose_node(parent, index)
        self._level -= 1
        if is_alias and id(node) not in self._sizes:
            raise _NotAllowedError(f"the alias on line {self.line + 1} holds itself")
        if node is not None and not is_alias:
            inner = [self._sizes[id(child)] for child in _children(node)]
            nodes = 1 + sum(size for size, _ in inner)
            depth = 1 + max((deep for _, deep in inner), default=0)
            self._limit(depth)
            if nodes > MAX_NODES:
                raise _NotAllowedError(f"too many values, with its aliases written out; expected at most {MAX_NODES:,}")
            self._sizes[id(node)] = (nodes, depth)
        return node

    def _limit(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _NotAllowedError(f"line {self.line + 1} is nested too deeply; expected at most {MAX_DEPTH} levels")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - as PyYAML has it
        """A mapping whose keys differ."""
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise _NotAllowedError(f"key {key.value!r} on line {lines[name]} again on line {line}")
                lines[name] = line
        return super().construct_mapping(node, deep=deep)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
