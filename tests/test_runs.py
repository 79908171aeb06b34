from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing

import pytest

from pipeline.errors import OutputError
from pipeline.files import write_text
from pipeline.runs import RunFolder, environment
from tests.fakes.small_world import write_labels


def test_a_stage_is_current_until_its_key_or_its_output_changes(tmp_path):
    run = RunFolder(tmp_path)
    with run.stage("chips", key="a") as outputs:
        outputs.append(write_text(tmp_path / "chips.txt", "x"))
    assert run.is_current("chips", key="a")
    assert not run.is_current("chips", key="b")
    assert not run.is_current("train", key="a")
    (tmp_path / "chips.txt").unlink()
    assert not run.is_current("chips", key="a")


@pytest.mark.parametrize("left", [b"", b"012", b"0123456789X", b"X123456789"])
def test_a_stage_whose_product_was_changed_is_not_current(tmp_path, left):
    run, product = RunFolder(tmp_path), tmp_path / "map.tif"
    with run.stage("predict", key="a") as outputs:
        outputs.append(write_text(product, "0123456789"))
    product.write_bytes(left)
    assert run.changed("predict") == [product]
    assert not run.is_current("predict", key="a")
    product.write_text("0123456789")  # another time of change, the same content
    assert run.is_current("predict", key="a")


def test_only_verifying_sees_a_change_that_kept_size_and_time(tmp_path):
    run, product = RunFolder(tmp_path), tmp_path / "map.tif"
    with run.stage("predict", key="a") as outputs:
        outputs.append(write_text(product, "0123456789"))
    stat = product.stat()
    product.write_text("9876543210")
    os.utime(product, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run.is_current("predict", key="a")
    assert not run.is_current("predict", key="a", verify=True)


def test_a_geopackage_that_was_looked_at_is_as_it_was_written(tmp_path):
    run, product = RunFolder(tmp_path), tmp_path / "labels.gpkg"
    with run.stage("chips", key="a") as outputs:
        outputs.append(write_labels(product))
    before = product.read_bytes()
    with closing(sqlite3.connect(product)) as file:  # as QGIS does
        file.execute("PRAGMA journal_mode = wal")
        file.execute("SELECT count(*) FROM gpkg_contents").fetchall()
        file.execute("PRAGMA journal_mode = delete")
    assert product.read_bytes() != before
    assert run.is_current("chips", key="a", verify=True)
    with closing(sqlite3.connect(product)) as file, file:
        file.execute("UPDATE gpkg_contents SET description = 'edited'")
    assert not run.is_current("chips", key="a")


def test_a_project_that_its_user_saved_is_kept(tmp_path):
    run, project = RunFolder(tmp_path), tmp_path / "run.qgz"
    with run.stage("report", key="a") as outputs:
        with zipfile.ZipFile(project, "w") as archive:
            archive.writestr("run.qgs", "<qgis/>")
        outputs.append(project)
    with zipfile.ZipFile(project, "w") as archive:
        archive.writestr("run.qgs", "<qgis saved='by its user'/>")
    assert run.is_current("report", key="a")
    project.write_bytes(project.read_bytes()[:40])
    assert not run.is_current("report", key="a")


def test_a_second_run_is_told_who_holds_the_folder(tmp_path):
    words = rf"another run works.*process {os.getpid()} on .*, since 20.* UTC"
    with RunFolder(tmp_path).lock(), pytest.raises(OutputError, match=words), RunFolder(tmp_path).lock():
        pytest.fail("held twice")
    with RunFolder(tmp_path).lock():
        pass


def test_a_dead_process_holds_nothing(tmp_path):
    code = """
import os, pathlib, sys
from pipeline.runs import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    with RunFolder(tmp_path).lock():
        pass


def test_a_stage_that_fails_is_not_recorded(tmp_path):
    run = RunFolder(tmp_path)

    def fail() -> None:
        with run.stage("train", key="a"):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fail()
    assert run.record() == {"stages": {}, "begun": {"train": "a"}}


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"stages": []}', '{"stages": {"chips": {}}}', "[" * 100_000])
def test_a_damaged_record_says_so(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match="damaged"):
        RunFolder(tmp_path).record()


def test_facts_are_added_to_the_record(tmp_path):
    run = RunFolder(tmp_path)
    run.note(a=1)
    run.note(b=2)
    assert run.record() == {"stages": {}, "begun": {}, "a": 1, "b": 2}


def test_the_environment_names_versions():
    found = environment()
    assert found["packages"]["numpy"] != "not installed"
    assert found["landcover"]
