from __future__ import annotations

import pytest

from pipeline.errors import OutputError
from pipeline.runs import RunFolder, environment, fingerprint, hash_of, prepare_folder, write_json, write_text


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


def test_a_changed_file_changes_its_fingerprint(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("1")
    before = fingerprint([file])
    file.write_text("2")
    assert fingerprint([file]) != before


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.shp", "a.dbf"),
        ("a.shp", "a.prj"),
        ("A.SHP", "A.DBF"),
        ("a.tab", "a.dat"),
        ("a.gpkg", "a.gpkg-wal"),
    ],
)
def test_a_file_beside_it_that_holds_its_data_changes_its_fingerprint(tmp_path, name, beside):
    (tmp_path / name).write_text("shapes")
    alone = fingerprint([tmp_path / name])
    (tmp_path / beside).write_text("1")
    before = fingerprint([tmp_path / name])
    (tmp_path / beside).write_text("2")
    assert len({*alone.values(), *before.values(), *fingerprint([tmp_path / name]).values()}) == 3


def test_other_files_of_its_name_do_not_change_its_fingerprint(tmp_path):
    files = [tmp_path / "a.shp", tmp_path / "a.gpkg"]
    for file in files:
        file.write_text("shapes")
    before = fingerprint(files)
    for name in ("a.qml", "a.sbn", "a.gpkg-shm", "b.dbf"):
        (tmp_path / name).write_text("1")
    (tmp_path / "a.gpkg-wal").touch()
    assert fingerprint(files) == before


def test_a_folder_is_its_files(tmp_path):
    (tmp_path / "scene").mkdir()
    before = fingerprint([tmp_path / "scene"])
    (tmp_path / "scene" / "B02.tif").write_text("x")
    assert fingerprint([tmp_path / "scene"]) != before


def test_a_damaged_record_says_so(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        RunFolder(tmp_path).record()


def test_nothing_half_written_is_left_under_the_final_name(tmp_path):
    target = tmp_path / "a" / "b.json"
    write_json(target, {"x": 1})
    assert target.read_text() == '{\n  "x": 1\n}\n'
    assert [path.name for path in target.parent.iterdir()] == ["b.json"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_folder(tmp_path / "file" / "folder")


def test_facts_are_added_to_the_record(tmp_path):
    run = RunFolder(tmp_path)
    run.note(a=1)
    run.note(b=2)
    assert run.record() == {"stages": {}, "a": 1, "b": 2}


def test_the_environment_names_versions():
    found = environment()
    assert found["packages"]["numpy"] != "not installed"
    assert found["landcover"]


def test_equal_data_have_equal_hashes_whatever_the_order():
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
