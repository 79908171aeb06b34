"""What analysts have on disk is read right, or they are told in words that help; the documents say what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.situations import SITUATIONS
from tests.situations.case import Situation, result_of

TABLE = Path(__file__).resolve().parents[1] / "docs" / "inputs.md"


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case.name)
def test_a_situation_is_right_or_told(case: Situation) -> None:
    assert result_of(case).startswith(("right", "said"))


def test_the_table_in_the_documents_has_every_situation() -> None:
    tried = TABLE.read_text(encoding="utf-8").partition("## Tried")[2]
    rows = [row.split(" | ") for row in tried.splitlines() if row.startswith("| ")][2:]
    assert [row[1].replace("&#124;", "|") for row in rows] == [case.name for case in SITUATIONS]
    assert all(row[3].startswith(("right", "said")) for row in rows)
