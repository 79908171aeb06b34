"""The journal: what of a scene has been mapped, so that the same command continues after any kind of end.

A text file of JSON lines beside the stores. The first line says of which model, input and settings the rows are; each
further line names steps whose pixels are on the disk: the stores are synced first, the line is synced after. A line
that was cut off by a crash is ignored, its steps are done again, and as every step is deterministic the bytes come out
the same. A file's existence is never taken for its being finished.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import OutputError
from pipeline.files import hash_of, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

VERSION = 1


@dataclass(frozen=True)
class Key:
    """What rows depend on: name of a part -> hash of it ("model", "input", "settings", "software")."""

    parts: Mapping[str, str]

    @classmethod
    def of(cls, parts: Mapping[str, object]) -> Self:
        """The key of JSON-ready parts."""
        return cls({name: hash_of(part) for name, part in parts.items()})

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of all parts."""
        return hash_of(dict(self.parts))

    def differs_in(self, other: Mapping[str, str]) -> list[str]:
        """Names of the parts that are not the same."""
        names = dict.fromkeys([*self.parts, *other])
        return [name for name in names if self.parts.get(name) != other.get(name)]


@dataclass
class Journal:
    """The open journal of one scene."""

    path: Path  # The file
    # Settings that were decided when the run began (tile, engine): a resumed run takes them as they are
    resolved: dict[str, Any]
    done: set[int] = field(default_factory=set)  # Indices of finished steps
    why_fresh: str = ""  # Why nothing was continued, "" where there was nothing or everything fits
    finished: bool = False  # Whether all steps are done
    seconds: float = 0.0  # What the steps took, in all runs together

    def begin(self, key: Key, *, resolved: dict[str, Any]) -> None:
        """Start afresh: the file is replaced by one with only the first line."""
        self.resolved, self.done, self.finished, self.seconds = resolved, set(), False, 0.0
        line = {"version": VERSION, "key": dict(key.parts), "resolved": resolved}
        write_text(self.path, json.dumps(line) + "\n", what="the journal")

    def add(self, steps: Iterable[int], *, seconds: float = 0.0, finished: bool = False) -> None:
        """Note steps whose pixels are on the disk."""
        new = sorted(steps)
        line = {"done": new, "seconds": round(seconds, 3)} | ({"finished": True} if finished else {})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as err:
            raise OutputError("cannot write the journal", path=self.path, got=err.strerror) from err
        self.done.update(new)
        self.finished = self.finished or finished
        self.seconds += seconds


def open_journal(path: Path, key: Key) -> Journal:
    """The journal at ``path`` as far as it is of ``key``; an empty one that says why otherwise."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Journal(path, {})
    except (OSError, UnicodeDecodeError):
        return Journal(path, {}, why_fresh="the journal cannot be read")
    lines = list(_lines(text))
    if not lines or lines[0].get("version") != VERSION or not isinstance(lines[0].get("key"), dict):
        return Journal(path, {}, why_fresh="the journal is of another version or damaged")
    changed = key.differs_in(lines[0]["key"])
    if changed:
        verb = "has" if len(changed) == 1 and changed[0] != "settings" else "have"
        return Journal(path, {}, why_fresh=f"{' and '.join(changed)} {verb} changed since the last run")
    journal = Journal(path, lines[0].get("resolved", {}))
    for line in lines[1:]:
        journal.done.update(line.get("done", []))
        journal.seconds += line.get("seconds", 0.0)
        journal.finished = journal.finished or line.get("finished", False)
    _drop_torn_end(path, text)
    return journal


def _lines(text: str) -> Iterable[dict[str, Any]]:
    """The whole lines; what follows the last line end was cut off by a crash."""
    for line in text.split("\n")[:-1]:
        try:
            item = json.loads(line)
        except json.JSONDecodeError:
            return
        if not isinstance(item, dict):
            return
        yield item


def _drop_torn_end(path: Path, text: str) -> None:
    """Cut off a torn last line, so that the next line does not grow onto it."""
    whole = "".join(json.dumps(line) + "\n" for line in _lines(text))
    if whole != text:
        write_text(path, whole, what="the journal")
