from __future__ import annotations

import pytest

from pipeline.errors import OutputError
from pipeline.files import write_text
from pipeline.runs import RunFolder, environment


def test_a_stage_is_current_until_its_key_or_its_output_changes(tmp_path):
    run = RunFolder(tmp_path)
    with run.stage("chips", key="a") as outputs:
        outputs.append(write_text(tmp_path / "chips.txt", "x"))
    assert run.is_current("chips", key="a")
    assert not run.is_current("chips", key="b")
    assert not run.is_current("train", key="a")
    (tmp_path / "chips.txt").unlink()
    assert not run.is_current("chips", key="a")


def test_a_stage_that_fails_is_not_recorded(tmp_path):
    run = RunFolder(tmp_path)

    def fail() -> None:
        with run.stage("train", key="a"):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fail()
    assert run.record() == {"stages": {}}


def test_a_damaged_record_says_so(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        RunFolder(tmp_path).record()


def test_facts_are_added_to_the_record(tmp_path):
    run = RunFolder(tmp_path)
    run.note(a=1)
    run.note(b=2)
    assert run.record() == {"stages": {}, "a": 1, "b": 2}


def test_the_environment_names_versions():
    found = environment()
    assert found["packages"]["numpy"] != "not installed"
    assert found["landcover"]
