"""Files written whole, and the hashes by which files and settings are known again.

A file appears under its name only when all of it is on the disk: it is written beside that name, flushed, and renamed.
An interruption, a full disk or a lost power supply leaves what was there before. Nothing else in the project renames.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import io
import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from pipeline.documents import parse_xml, read_file
from pipeline.errors import InputError, OutputError

# Of a SQLite database, and the fields in it that opening it changes.
_HEAD_BYTES, _HEAD_OF_OPENING = 100, ((18, 20), (24, 28), (92, 100))
SMALL_FILE_BYTES = 16 * 1024 * 1024
# What else a vector file consists of; spatial indices and what a program keeps of its own are not read.
COMPANIONS = {".shp": (".shx", ".dbf", ".prj", ".cpg"), ".tab": (".dat", ".map", ".id"), ".mif": (".mid",)}
# Source: SQLite, Write-Ahead Logging: what was written last is in this file until it is copied into the database.
WRITE_AHEAD = "-wal"
_INSIDE = re.compile(r':"([^"]+)"')
# How many VRTs may read one another.
VRT_DEPTH = 8


class Closing(ABC):
    """What is closed at the end of a ``with``."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


@contextlib.contextmanager
def whole_file(
    path: Path, *, what: str = "the file", failures: tuple[type[Exception], ...] = (), overwrite: bool = True
) -> Iterator[Path]:
    """A path to write to; what is there when the block ends well becomes ``path``, and otherwise it is removed.

    It lies in the folder of ``path``, which is made, begins with a dot, holds the number of this process, and keeps the
    suffix, by which drivers know formats. What a process that was killed left beside the same name goes first.

    ``what`` is written, for the message: "the labels"; ``failures`` are exceptions of the writing library that mean the
    file cannot be written, OSError aside.

    Raises:
        OutputError: it cannot be written, the disk is full, the name belongs to something that is not a regular file,
            or to a file that is not to be replaced.
    """
    check_target(path, overwrite=overwrite)
    part = _part(path, os.getpid())
    known: tuple[type[Exception], ...] = (OSError, *failures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    except known as err:
        got = (err.strerror if isinstance(err, OSError) else None) or err
        raise OutputError(f"cannot write {what}", path=path, got=got) from err
    finally:
        for left in part.parent.glob(f"{glob.escape(part.name)}*"):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def check_target(path: Path, *, overwrite: bool, inputs: Iterable[Path | str] = ()) -> None:
    """Refuse a name that may not be written to.

    ``inputs`` are what is read: never replaced.

    Raises:
        OutputError: a folder, device or pipe has that name, or a file that is not to be replaced.
    """
    if not os.path.lexists(path):
        return
    if path.exists() and not path.is_file():
        raise OutputError("not a regular file", path=path, fix="choose another name")
    if any(Path(file).exists() and path.samefile(file) for file in inputs):
        raise OutputError("would replace what it is made from", path=path, fix="choose another name")
    if not overwrite:
        raise OutputError("the file exists", path=path, fix="add --overwrite, or choose another name")


def write_bytes(path: Path, data: bytes, *, what: str = "the file") -> Path:
    """Write a file whole or not at all.

    Raises:
        OutputError: see :func:`whole_file`.
    """
    with whole_file(path, what=what) as part:
        part.write_bytes(data)
    return path


def write_text(path: Path, text: str, *, what: str = "the file") -> Path:
    """Write text as UTF-8; see :func:`write_bytes`."""
    return write_bytes(path, text.encode(), what=what)


def csv_text(rows: Iterable[Iterable[object]], *, ends: str = "\n") -> str:
    """Rows as the text of a CSV, whose lines end with ``ends``."""
    text = io.StringIO()
    csv.writer(text, lineterminator=ends).writerows(rows)
    return text.getvalue()


def write_json(path: Path, data: object, *, what: str = "the file") -> Path:
    """Write JSON, indented; see :func:`write_bytes`."""
    return write_text(path, json.dumps(data, indent=2, default=str) + "\n", what=what)


def relative_path(path: Path, folder: Path) -> str:
    """A path as seen from a folder, with forward slashes; the whole path where there is no way, as between drives.

    >>> relative_path(Path("a/maps/x.tif"), Path("a")), relative_path(Path("b.tif"), Path("a"))
    ('maps/x.tif', '../b.tif')
    """
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows: another drive
        return path.absolute().as_posix()


def prepare_folder(folder: Path) -> Path:
    """Make a folder that can be written into.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as err:
        raise OutputError(
            "output folder cannot be written", path=folder, got=err.strerror or err, fix="choose another folder"
        ) from err
    return folder


def flush(path: Path) -> None:
    """Have what was written to a file or folder on the disk before anything relies on it; see fsync(2)."""
    folder = path.is_dir()
    # Windows opens no folders, and some file systems do not flush them.
    with contextlib.suppress(OSError) if folder else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder for drafts of a file, beside it and gone at the end; what killed processes left is removed.

    Raises:
        OSError: it cannot be made.
    """
    name = path.with_name(f"{path.name}.scratch")
    _sweep(name)
    folder = _part(name, os.getpid())
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _part(path: Path, process: int) -> Path:
    return path.with_name(f".{path.stem}.{process}.part{path.suffix}")


def _sweep(path: Path) -> None:
    """Remove what processes that are no more have left beside a file's name, and what drivers keep beside that.

    What bears the number of this process is of an earlier one: in a container every run may have the same number.
    """
    start, end = re.escape(f".{path.stem}."), re.escape(f".part{path.suffix}")
    name = re.compile(rf"{start}(\d+){end}([-.].*)?", re.ASCII)
    for file in path.parent.glob(".*"):
        found = name.fullmatch(file.name)
        if found and (int(found[1]) == os.getpid() or not _lives(int(found[1]))):
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # signal 0 would be Ctrl-C there: what was left stays
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_content(path: Path) -> str:
    """SHA-256 of what a file holds, 64 hexadecimal digits: of a GeoPackage without what looking at it changes.

    Programs that open a SQLite database, QGIS among them, write its journal mode, change counter and library version
    into its head. Source: SQLite, Database File Format, sect. 1.3.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = bytearray(file.read(_HEAD_BYTES))
        if head.startswith(b"SQLite format 3"):
            for start, stop in _HEAD_OF_OPENING:
                head[start:stop] = bytes(len(head[start:stop]))
        digest.update(head)
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def hash_bytes(data: bytes) -> str:
    """SHA-256 of bytes, its first 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def hash_of(data: object) -> str:
    """SHA-256 of JSON-ready data, its first 16 hexadecimal digits; the order of keys does not matter."""
    return hash_bytes(json.dumps(data, sort_keys=True, default=str).encode())


def fingerprint(paths: Sequence[str | Path]) -> dict[str, str]:
    """A short hash per input file; folders by the names, sizes and times of what is in them.

    Files up to 16 MiB by content; larger ones by size and time of change. A Shapefile is hashed with the files that
    hold its attributes and its CRS, a GeoPackage with what a program that has it open has not yet written into it, a
    VRT with the files that it reads.
    """
    return {str(path): _fingerprint_one(str(path)) for path in paths}


def _fingerprint_one(path: str) -> str:
    digest = hashlib.sha256()
    inside = _INSIDE.search(path)  # a raster inside a file: NETCDF:"a.nc":ndvi
    target = Path(inside[1] if inside else path)
    if not target.exists():
        digest.update(path.encode())
    alone = [target, *_companions(target), *_sources(target)]
    for file in sorted(target.rglob("*")) if target.is_dir() else alone:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.name}:{stat.st_size}".encode())
            small = target.is_file() and stat.st_size <= SMALL_FILE_BYTES
            digest.update((hash_content(file) if small else str(stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def _companions(path: Path) -> list[Path]:
    """The files beside one that hold a part of its data, in whatever case; an empty write-ahead log holds nothing."""
    suffixes = COMPANIONS.get(path.suffix.lower(), ())
    beside = path.parent.iterdir() if suffixes and path.is_file() else ()
    found = [file for file in beside if file.stem == path.stem and file.suffix.lower() in suffixes]
    ahead = path.with_name(path.name + WRITE_AHEAD)
    return sorted(found) + ([ahead] if ahead.is_file() and ahead.stat().st_size else [])


def _sources(path: Path, *, depth: int = VRT_DEPTH) -> list[Path]:
    """The files that a VRT reads, and those that VRTs among them read; none of any other file.

    Source: GDAL, VRT driver (SourceFilename, relativeToVRT) and warped VRTs (SourceDataset).
    """
    if path.suffix.lower() != ".vrt" or not path.is_file() or not depth:
        return []
    try:
        root = parse_xml(read_file(path))
    except InputError:
        return []  # whoever reads the scene says what is damaged
    named = [item for item in root.iter() if item.tag in {"SourceFilename", "SourceDataset"}]
    found = {
        (path.parent if item.get("relativeToVRT") == "1" else Path()) / (item.text or "").strip() for item in named
    }
    return sorted(found | {inner for file in found for inner in _sources(file, depth=depth - 1)})
