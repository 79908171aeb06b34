"""Outcome: what a workflow function gives back, for the terminal and for machines alike."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

# (what is being done, units done, units in all)
Progress = Callable[[str, int, int], None]
# How the name of a whole stage of a run begins.
STAGE = "stage "


def no_progress(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Table:
    """A small table for the terminal: a title, column heads, rows of text, and notes below them."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()  # Lines below it


@dataclass(frozen=True)
class Outcome:
    """What was done."""

    summary: str  # One sentence
    written: tuple[Path, ...] = ()  # Files and folders that the user may open, the most useful one first
    hint: str = ""  # How to open or go on
    tables: tuple[Table, ...] = ()  # Figures worth a look in the terminal
    data: dict[str, Any] = field(default_factory=dict)  # The same for machines (``--json``), JSON-ready
    failed: tuple[str, ...] = ()  # Errors that the command found and lists together (``check``, ``predict``)
    status: int = 2  # Exit status where something failed: 3 where some scenes of several could not be mapped


def next_run(config: Path, changes: Sequence[str]) -> str:
    """The command that comes after a check, with the keys that were set for it."""
    return f"next: landcover run {shlex.join([str(config), *chain(*(('--set', text) for text in changes))])}"
