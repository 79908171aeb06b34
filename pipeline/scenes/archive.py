"""A product's files in a folder, a zip or a tar, read in place: nothing is ever unpacked.

Archives come from the network, so they are looked at before they are believed: paths that leave the archive, members
that inflate beyond reason and archives that end too early are refused by name.
"""

from __future__ import annotations

import fnmatch
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.documents import read_file
from pipeline.errors import ProductError

# The largest product XML seen has 2 MB; metadata is read whole, so a member that claims more is not metadata.
MAX_METADATA_BYTES = 64 * 2**20
# Deflate reaches 1:1032 at most on constant data (Source: zlib technical details, "maximum compression factor"); XML of
# products reaches 1:30 and their JP2 and GeoTIFF, compressed already, hardly 1:2.
MAX_INFLATION = 200
SMALL_BYTES = 2**20
# A SAFE has some 200 files and below 2 GB; an old one with fifteen tiles some 8 GB.
MAX_MEMBERS = 20_000
MAX_TOTAL_BYTES = 64 * 2**30
TAR_BLOCK = 512
# More than the boxes of a JPEG 2000 file take that stand before its pixels.
HEAD_BYTES = 65_536
ARCHIVE_SUFFIXES = frozenset({".zip", ".tar"})


@dataclass(frozen=True)
class ProductFiles:
    """The files of one product, wherever they lie."""

    path: Path  # The folder or archive that the user pointed at
    names: tuple[str, ...]  # Paths of all files in it, relative, with slashes, sorted
    kind: str = "folder"  # "folder", "zip" or "tar"

    def find(self, pattern: str) -> tuple[str, ...]:
        """Names that match a shell pattern, letter case aside; ``*`` also matches slashes."""
        return tuple(name for name in self.names if fnmatch.fnmatchcase(name.lower(), pattern.lower()))

    def gdal(self, name: str) -> str:
        """What GDAL opens to read the file ``name``."""
        prefix = {"folder": "", "zip": "/vsizip/", "tar": "/vsitar/"}[self.kind]
        return f"{prefix}{self.path.resolve() if prefix else self.path}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a metadata file.

        Raises:
            ProductError: it cannot be read, or is too large to be metadata.
        """
        return read_bytes(self.gdal(name))


def list_product(path: Path) -> ProductFiles:
    """The files of a folder, zip or tar.

    Raises:
        ProductError: nothing there, not an archive, damaged, or unsafe.
    """
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return ProductFiles(path, tuple(names))
    if not path.exists():
        raise ProductError("no such file or folder", path=path)
    if path.suffix.lower() == ".zip":
        return ProductFiles(path, _zip_names(path), "zip")
    if path.suffix.lower() == ".tar":
        return ProductFiles(path, _tar_names(path), "tar")
    what = "not a folder, zip or tar"
    raise ProductError(what, path=path, fix="gunzip it first" if path.suffix.lower() in {".gz", ".tgz"} else None)


def _zip_names(path: Path) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if not item.is_dir()]
    except (zipfile.BadZipFile, OSError) as err:
        raise ProductError("not a whole zip", path=path, got=err, fix="download it again") from err
    if len(members) > MAX_MEMBERS or sum(item.file_size for item in members) > MAX_TOTAL_BYTES:
        what = "zip is larger than any product"
        total = sum(item.file_size for item in members) / 2**30
        raise ProductError(what, path=path, got=f"{len(members)} files, {total:.0f} GiB when unpacked")
    for item in members:
        if item.file_size > max(SMALL_BYTES, MAX_INFLATION * item.compress_size):
            what = f"zip member {item.filename!r} inflates beyond reason"
            got = f"{item.compress_size} bytes that unpack to {item.file_size}"
            raise ProductError(what, path=path, got=got, fix="do not use this file")
        if item.flag_bits & 1:
            what = f"zip member {item.filename!r} is encrypted"
            raise ProductError(what, path=path, fix="unpack it with its password and give the folder")
    return _safe_names(path, [item.filename for item in members])


def _tar_names(path: Path) -> tuple[str, ...]:
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            members = [item for item in archive.getmembers() if item.isfile()]
    except (tarfile.TarError, EOFError, OSError) as err:
        raise ProductError("not a whole tar", path=path, got=err, fix="download it again") from err
    cut = [item.name for item in members if item.offset_data + item.size > size]
    if cut or _without_end(path, size):
        got = f"{cut[0]} ends beyond the file" if cut else "no mark of its end"
        raise ProductError("tar is cut off", path=path, got=got, fix="download it again")
    return _safe_names(path, [item.name for item in members])


def _without_end(path: Path, size: int) -> bool:
    """Whether a tar lacks the zero blocks at its end, as one cut between two members does.

    Source: POSIX.1-2017, pax, "ustar Interchange Format": an archive ends with two blocks of 512 zero bytes.
    """
    with path.open("rb") as file:
        file.seek(max(size - TAR_BLOCK, 0))
        return any(file.read(TAR_BLOCK)) or size < TAR_BLOCK


def _safe_names(path: Path, names: list[str]) -> tuple[str, ...]:
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise ProductError(f"archive holds a path that leaves it: {name!r}", path=path, fix="do not use this file")
    return tuple(sorted(names))


def read_bytes(gdal_path: str) -> bytes:
    """The bytes of a metadata file by the path that :meth:`ProductFiles.gdal` gives.

    Raises:
        ProductError: it cannot be read, or is too large to be metadata.
    """
    try:
        for prefix, suffix in (("/vsizip/", ".zip/"), ("/vsitar/", ".tar/")):
            if gdal_path.startswith(prefix):
                at = gdal_path.lower().index(suffix) + len(suffix) - 1
                return _member(gdal_path[len(prefix) : at], gdal_path[at + 1 :])
        return read_file(Path(gdal_path), what="metadata", limit=MAX_METADATA_BYTES, error=ProductError)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, tarfile.TarError) as err:
        raise ProductError("cannot read metadata", path=gdal_path, got=err, fix="download the product again") from err


def zip_head(gdal_path: str) -> bytes | None:
    """The first HEAD_BYTES of an image in a zip; None of an image anywhere else.

    Drivers look at a file's end when they open it, and the end of a compressed member is reached through all of it.

    Raises:
        ProductError: it cannot be read.
    """
    if not gdal_path.startswith("/vsizip/"):
        return None
    inside = gdal_path.removeprefix("/vsizip/")
    at = inside.lower().index(".zip/") + len(".zip")
    try:
        with zipfile.ZipFile(inside[:at]) as file, file.open(inside[at + 1 :]) as stream:
            return stream.read(HEAD_BYTES)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as err:
        what = "cannot read the head of an image"
        raise ProductError(what, path=gdal_path, got=err, fix="download the product again") from err


def _member(archive: str, name: str) -> bytes:
    if archive.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as file, file.open(name) as stream:
            return _capped(stream.read(MAX_METADATA_BYTES + 1), name)
    with tarfile.open(archive, "r:") as tar:
        member = tar.extractfile(name)
        return _capped(member.read(MAX_METADATA_BYTES + 1) if member is not None else None, name)


def _capped(data: bytes | None, name: str) -> bytes:
    if data is None or len(data) > MAX_METADATA_BYTES:
        what = "file is too large to be metadata"
        raise ProductError(what, path=name, expected=f"at most {MAX_METADATA_BYTES // 2**20} MiB")
    return data
