"""How the command line speaks: progress and warnings on stderr, one summary on stdout, errors in one line."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.cli.options import Json, Quiet, Sections, SettingsCommand
from pipeline.errors import ConfigError
from pipeline.workflow.outcome import STAGE, Outcome, Progress, Table, no_progress

if TYPE_CHECKING:
    import typer
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


LINE_EVERY_S = 60.0
# Of rasterio, about a file that the error in the next line speaks of; by name, as importing it takes a second.
_NOT_SAID = frozenset({"NotGeoreferencedWarning"})
# What a command does once its options are parsed.
Work = Callable[[Progress], Outcome]


@dataclass
class Console:
    """What the user asked to hear."""

    quiet: bool = False  # Only errors, and JSON where asked for
    as_json: bool = False  # One JSON document on stdout instead of text
    warned: list[str] = field(default_factory=list)  # Warnings shown so far; they are part of the JSON

    def perform(self, work: Work) -> int:
        """Do ``work(progress)`` and print what came of it; gives the exit status."""
        with self._warnings(), self._progress() as progress:
            outcome = work(progress)
        if self.as_json:
            self._print_json(outcome)
        elif not self.quiet:
            print_outcome(outcome)
        for message in outcome.failed:
            print(f"landcover: error: {message}", file=sys.stderr)
        return outcome.status if outcome.failed else 0

    def _print_json(self, outcome: Outcome) -> None:
        document = {
            "summary": outcome.summary,
            "written": [str(path) for path in outcome.written],
            "warnings": self.warned,
            "errors": list(outcome.failed),
        } | outcome.data
        print(json.dumps(document, indent=2, default=str))

    @contextmanager
    def _warnings(self) -> Iterator[None]:
        """Show the project's own warnings in one line each, once; others stay in Python's hands."""
        from pipeline.errors import PipelineWarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if category.__name__ in _NOT_SAID:
                return
            if not issubclass(category, PipelineWarning):
                original(message, category, filename, lineno, file, line)
            elif str(message) not in self.warned:
                self.warned.append(str(message))
                if not self.quiet:
                    print(f"landcover: warning: {message}", file=sys.stderr)

        with warnings.catch_warnings():
            original = warnings.showwarning
            warnings.simplefilter("always", PipelineWarning)
            # Third-party notes (a GDAL driver's, a library's deprecation) are for developers, not for analysts.
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.showwarning = show
            yield

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        """Progress bars on stderr where that is a terminal, a line per stage and minute elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield no_progress if self.quiet else _Lines()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(stderr=True)) as bars:
            yield _Bars(bars)


def performed(command: Callable[..., Work]) -> Callable[..., int]:
    """A command as typer takes it: ``--quiet`` and ``--json`` added; it works, prints and gives the exit status."""

    @functools.wraps(command)
    def perform(*arguments: Any, quiet: bool, as_json: bool, **options: Any) -> int:
        def work(progress: Progress) -> Outcome:
            _require_finite(options)
            return command(*arguments, **options)(progress)  # in here, so that warnings about options are shown too

        return Console(quiet, as_json).perform(work)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("as_json", Json))
    ]
    parameters = [*signature.parameters.values(), *added]
    perform.__signature__ = signature.replace(parameters=parameters, return_annotation=int)  # type: ignore[attr-defined]
    perform.__annotations__ = {item.name: item.annotation for item in parameters}
    return perform


def _require_finite(options: dict[str, Any]) -> None:
    """Refuse NaN and infinity, which Python reads as numbers.

    Raises:
        ConfigError: an option that is one of them.
    """
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"option --{name.replace('_', '-')}", got=value, expected="a finite number")


def add_commands(app: typer.Typer, *commands: Callable[..., Work]) -> None:
    """Add commands to a (part of the) command line, under the names of their functions."""
    for command in commands:
        add_command(app, command)


def add_command(
    app: typer.Typer, command: Callable[..., Work], *, name: str | None = None, settings: Sections | None = None
) -> None:
    """Add one command, with the sections of settings that ``--set`` takes."""
    kind = type("SettingsCommand", (SettingsCommand,), {"sections": settings}) if settings else None
    app.command(name or command.__name__, cls=kind)(performed(command))


class _Bars:
    """One bar per thing being done, made when it is first heard of."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


@dataclass
class _Lines:
    """For logs: a line when a stage of a run begins, and one in every minute; quick commands say nothing."""

    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, float] = field(default_factory=dict)
    _said: float | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self.clock()
        begun = self._begun.setdefault(what, now)
        last = begun if self._said is None else self._said
        if (what.startswith(STAGE) and done == 0) or now - max(last, begun) >= LINE_EVERY_S:
            self._said = now
            part = "" if done == 0 or total == 0 else f" {100 * done // total} %, {now - begun:.0f} s"
            print(f"landcover: {what}{part}", file=sys.stderr, flush=True)


def print_outcome(outcome: Outcome) -> None:
    """The summary that ends every command: what was done, figures, what was written, how to open it."""
    print(outcome.summary)
    for table in outcome.tables:
        print()
        print(format_table(table))
    if outcome.written:
        print("\nwritten:")
        for path in outcome.written:
            print(f"  {path}")
    if outcome.hint:
        print(outcome.hint)


def format_table(table: Table) -> str:
    """A table in plain text: the first column flush left, figures flush right.

    >>> from pipeline.workflow.outcome import Table
    >>> print(format_table(Table("areas", ("class", "ha"), (("water", "12.5"), ("wood", "3.0")))))
    areas
      class    ha
      water  12.5
      wood    3.0
    """
    cells = [*([table.heads] if any(table.heads) else []), *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.heads))]

    def line(row: tuple[str, ...]) -> str:
        rest = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        return "  " + "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()

    return "\n".join([table.title, *(line(row) for row in cells), *(f"  {note}" for note in table.notes)])
