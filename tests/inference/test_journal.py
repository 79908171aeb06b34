from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.inference.rows import Journal, Key, open_journal

if TYPE_CHECKING:
    from pathlib import Path

KEY = Key.of({"model": "a", "input": [1, 2], "settings": {"tile": 3}})


def written(path: Path) -> None:
    journal = open_journal(path, KEY)
    journal.begin(KEY, resolved={"tile_px": 512})
    journal.add([0, 2], seconds=1.5)
    journal.add([1], seconds=0.5, finished=True)


def test_what_was_noted_is_read_back(tmp_path: Path) -> None:
    written(tmp_path / "j")
    journal = open_journal(tmp_path / "j", KEY)
    assert (journal.done, journal.seconds, journal.finished) == ({0, 1, 2}, 2.0, True)
    assert journal.resolved == {"tile_px": 512}
    assert journal.why_fresh == ""


@given(share=st.floats(0, 1))
def test_a_cut_journal_keeps_its_whole_lines_and_grows_again(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    written(path)
    content = path.read_bytes()
    cut = content[: int(len(content) * share)]
    path.write_bytes(cut)
    journal = open_journal(path, KEY)
    assert journal.done == [set(), set(), {0, 2}, {0, 1, 2}][cut.count(b"\n")]
    if journal.resolved:
        journal.add([7])
        assert open_journal(path, KEY).done == journal.done | {7}


def test_what_changed_is_named(tmp_path: Path) -> None:
    written(tmp_path / "j")
    other = Key.of({"model": "b", "input": [1, 2], "settings": {"tile": 4}})
    assert open_journal(tmp_path / "j", other).why_fresh == "model and settings have changed since the last run"
    assert KEY.hash != other.hash


@pytest.mark.parametrize("content", [b"\xff\xfe", b"hello\n", b"[1]\n", b'{"version": 99, "key": {}}\n'])
def test_what_is_no_journal_is_not_trusted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    journal = open_journal(tmp_path / "j", KEY)
    assert journal.why_fresh
    assert not journal.resolved


def test_a_folder_that_is_none_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "gone").write_text("")
    journal = Journal(tmp_path / "gone" / "j", {})
    with pytest.raises(OutputError, match="journal"):
        journal.begin(KEY, resolved={})
    with pytest.raises(OutputError, match="journal"):
        journal.add([1])
