"""A case: what is on disk, and what comes of it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Situation:
    """One case: the item of the list that it belongs to, what is on disk, and what builds and judges it."""

    kind: str
    name: str
    judge: Callable[[Path], str]


SITUATIONS: list[Situation] = []


def situation(kind: str, name: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Put a case on the list; its function gives "right", or "said: ..." where the user is told what was changed."""

    def add(judge: Callable[[Path], str]) -> Callable[[Path], str]:
        SITUATIONS.append(Situation(kind, name, judge))
        return judge

    return add


def result_of(case: Situation) -> str:
    """What came of a case: "right", "said: ...", "refused: ...", "wrong: ..." or "traceback: ..."."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return case.judge(Path(name))
        except PipelineError as err:
            return f"refused: {err}".replace(name, "")
        except Exception as err:  # noqa: BLE001 - a traceback is a result
            return f"traceback: {type(err).__name__}: {err}".replace(name, "")
