"""Archives from the network: read in place, never believed."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import ProductError
from pipeline.scenes import archive
from pipeline.scenes.archive import list_product, read_bytes
from pipeline.scenes.opening import open_scene


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "folder"])
def test_files_are_listed_and_read_wherever_they_lie(tmp_path: Path, name: str) -> None:
    members = {"X.SAFE/a.xml": b"<a/>", "X.SAFE/GRANULE/b.txt": b"b" * 10}
    path = tmp_path / name
    if name.endswith("zip"):
        make_zip(path, members)
    elif name.endswith("tar"):
        make_tar(path, members)
    else:
        for member, data in members.items():
            (path / member).parent.mkdir(parents=True, exist_ok=True)
            (path / member).write_bytes(data)
    files = list_product(path)
    assert files.names == ("X.SAFE/GRANULE/b.txt", "X.SAFE/a.xml")
    assert files.find("*A.XML") == ("X.SAFE/a.xml",)
    assert {name: files.read(name) for name in files.names} == members


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/evil.xml", "X.SAFE/../../evil", "C:/evil.xml", "..\\evil.xml"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_archive_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    (make_zip if kind == "zip" else make_tar)(path, {"X.SAFE/a.xml": b"a", name: b"b"})
    with pytest.raises(ProductError, match=r"archive holds a path that leaves it.*do not use this file"):
        open_scene(path)


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "bomb.zip", {"X.SAFE/MTD_MSIL2A.xml": bytes(30 * 2**20)})
    with pytest.raises(ProductError, match=r"inflates beyond reason; got \d+ bytes that unpack to 31457280"):
        open_scene(path)


def test_a_zip_of_more_than_any_product_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "many.zip", {f"{i}.txt": b"" for i in range(6)})
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    with pytest.raises(ProductError, match="larger than any product; got 6 files"):
        list_product(path)


def test_metadata_larger_than_any_metadata_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_METADATA_BYTES", 5)
    in_zip = list_product(make_zip(tmp_path / "a.zip", {"a.xml": b"123456"}))
    in_tar = list_product(make_tar(tmp_path / "a.tar", {"a.xml": b"123456"}))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.xml").write_bytes(b"123456")
    for files in (in_zip, in_tar, list_product(tmp_path / "f")):
        with pytest.raises(ProductError, match="too large"):
            files.read("a.xml")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_what_is_no_archive_or_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"not an archive at all" * 100)
    with pytest.raises(ProductError, match=r"not a whole (zip|tar).*download it again"):
        open_scene(path)
    members = {"a.xml": bytes(range(256)) * 400}
    (make_zip if name == "a.zip" else make_tar)(path, members)
    path.write_bytes(path.read_bytes()[:-60000] if name == "a.tar" else path.read_bytes()[:-30])
    with pytest.raises(ProductError, match=r"not a whole|cut off"):
        open_scene(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_archives_without_a_product_say_what_they_hold(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (make_zip if name == "a.zip" else make_tar)(path, {"holiday.jpg": b"x"})
    with pytest.raises(ProductError, match=r"no Sentinel-2 SAFE, Landsat or HLS product; got holiday\.jpg"):
        open_scene(path)


def test_missing_and_compressed_tars_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="no such file"):
        list_product(tmp_path / "gone.tar")
    (tmp_path / "a.gz").write_bytes(b"x")
    with pytest.raises(ProductError, match="gunzip it first"):
        list_product(tmp_path / "a.gz")
    with pytest.raises(ProductError, match="cannot read metadata"):
        read_bytes(str(tmp_path / "gone.xml"))
