from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.errors import OutputError
from pipeline.files import (
    fingerprint,
    hash_bytes,
    hash_file,
    hash_of,
    prepare_folder,
    scratch_folder,
    whole_file,
    write_json,
    write_text,
)


def test_a_changed_file_changes_its_fingerprint(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("1")
    before = fingerprint([file])
    file.write_text("2")
    assert fingerprint([file]) != before


@pytest.mark.parametrize(
    ("name", "beside"),
    [("a.shp", "a.dbf"), ("a.shp", "a.prj"), ("A.SHP", "A.DBF"), ("a.tab", "a.dat"), ("a.gpkg", "a.gpkg-wal")],
)
def test_a_file_beside_with_its_data_changes_the_fingerprint(tmp_path, name, beside):
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


def test_nothing_half_written_is_left_under_the_final_name(tmp_path):
    target = tmp_path / "a" / "b.json"
    write_json(target, {"x": 1})
    assert target.read_text() == '{\n  "x": 1\n}\n'
    assert [path.name for path in target.parent.iterdir()] == ["b.json"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_folder(tmp_path / "file" / "folder")


def test_equal_data_have_equal_hashes_whatever_the_order():
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})


def test_a_file_appears_whole_and_nothing_is_left_beside_it(tmp_path):
    with whole_file(tmp_path / "new" / "a.gpkg") as part:
        part.write_text("x")
        assert part.suffix == ".gpkg"
        assert not (tmp_path / "new" / "a.gpkg").exists()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.gpkg"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    target = write_text(tmp_path / "a.txt", "before")

    def fail(error: Exception) -> None:
        with whole_file(target, what="the labels", failures=(KeyError,)) as part:
            part.write_text("half")
            raise error

    for error in (OSError(28, "No space left on device"), KeyError("broken")):
        with pytest.raises(OutputError, match="cannot write the labels"):
            fail(error)
    with pytest.raises(RuntimeError, match="a bug"):
        fail(RuntimeError("a bug"))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = [tmp_path / f".a.{int(ended.stdout)}.part.txt{beside}" for beside in ("", "-journal", ".aux.xml")]
    alive = [tmp_path / f".a.{os.getppid()}.part.txt{beside}" for beside in ("", "-journal")]
    others = [tmp_path / ".a.notes.part.txt", tmp_path / f".a.{int(ended.stdout)}.part.txt2"]
    for file in (*left, *alive, *others):
        file.write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*alive, *others, tmp_path / "a.txt"])


def test_what_drivers_keep_beside_a_part_goes_with_it(tmp_path):
    with whole_file(tmp_path / "a.gpkg") as part:
        for beside in ("", "-journal", ".aux.xml"):
            part.with_name(f"{part.name}{beside}").write_text("half")
    (tmp_path / "a.gpkg").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_not_a_regular_file_is_never_replaced(tmp_path, make):
    make(tmp_path / "a.txt")
    with pytest.raises(OutputError, match="not a regular file"):
        write_text(tmp_path / "a.txt", "x")


def test_a_file_is_replaced_only_when_allowed(tmp_path):
    target = write_text(tmp_path / "a.txt", "before")
    with pytest.raises(OutputError, match="exists"), whole_file(target, overwrite=False):
        pytest.fail("nothing may be written")
    assert target.read_text() == "before"


def test_hashes_are_those_of_sha256(tmp_path):
    write_text(tmp_path / "a.txt", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert hash_file(tmp_path / "a.txt") == known
    assert hash_bytes(b"abc") == known[:16]


def test_a_vrt_is_known_by_the_files_that_it_reads(tmp_path):
    (tmp_path / "data").mkdir()
    read, inner, outer = tmp_path / "data" / "a.tif", tmp_path / "data" / "inner.vrt", tmp_path / "outer.vrt"
    read.write_bytes(b"one")
    for vrt, name in ((inner, "a.tif"), (outer, "data/inner.vrt")):
        source = f'<SourceFilename relativeToVRT="1">{name}</SourceFilename>'
        vrt.write_text(f"<VRTDataset><VRTRasterBand><SimpleSource>{source}</SimpleSource></VRTRasterBand></VRTDataset>")
    before = fingerprint([outer])
    assert fingerprint([outer]) == before
    read.write_bytes(b"two")
    assert fingerprint([outer]) != before


def test_a_damaged_or_circular_vrt_has_a_fingerprint(tmp_path):
    itself, damaged = tmp_path / "a.vrt", tmp_path / "b.vrt"
    itself.write_text('<VRTDataset><SourceFilename relativeToVRT="1">a.vrt</SourceFilename></VRTDataset>')
    damaged.write_text("<VRTDataset>")
    assert len(set(fingerprint([itself, damaged]).values())) == 2


def test_scratch_of_killed_processes_is_swept(tmp_path):
    target = tmp_path / "map.gpkg"
    code = "import os; print(os.getpid(), end='')"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    left, other = (tmp_path / f".{name}.{gone}.part.scratch" for name in ("map.gpkg", "else.gpkg"))
    for folder in (left, other):
        folder.mkdir()
        (folder / "draft").write_text("half")
    # In a container every run may have this process's number.
    mine = tmp_path / f".map.gpkg.{os.getpid()}.part.scratch"
    mine.mkdir()
    (mine / "draft").write_text("half")
    with scratch_folder(target) as own:
        assert not left.exists()
        assert not list(own.iterdir())
        (own / "draft").write_text("half")
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
