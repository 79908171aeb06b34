"""The run folder: resolved settings, versions, git state, input hashes, timings; and which stages are still current.

A stage is current when the hash of all that it depends on equals the one written when it finished. The hash of an input
file is of its path, size and time of change (content for small files), so checking a run of large scenes takes no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline import __version__
from pipeline.errors import OutputError, PipelineWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SMALL_FILE_BYTES = 16 * 1024 * 1024
# What else a vector file consists of; spatial indices and what a program keeps of its own are not read.
COMPANIONS = {
    ".shp": (".shx", ".dbf", ".prj", ".cpg"),
    ".tab": (".dat", ".map", ".id"),
    ".mif": (".mid",),
}
# Source: SQLite, Write-Ahead Logging: what was written last is in this file until it is copied into the database.
WRITE_AHEAD = "-wal"
RESOLVED = "config.yaml"
PACKAGES = ("numpy", "rasterio", "geopandas", "scikit-learn", "torch", "torchvision", "torchgeo", "lightning")


def write_text(path: Path, text: str) -> Path:
    """Write a file that appears under its name only when whole."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as err:
        raise OutputError("cannot write", path=path, got=err.strerror or err) from err
    return path


def write_json(path: Path, data: object) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_text(path, json.dumps(data, indent=2, default=str) + "\n")


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


def fingerprint(paths: Sequence[str | Path]) -> dict[str, str]:
    """A short hash per input file; folders by the names, sizes and times of what is in them.

    Files up to 16 MiB by content; larger ones by size and time of change. A Shapefile is hashed with the files that
    hold its attributes and its CRS, a GeoPackage with what a program that has it open has not yet written into it.
    """
    return {str(path): _fingerprint_one(str(path)) for path in paths}


def _fingerprint_one(path: str) -> str:
    digest = hashlib.sha256()
    target = Path(path)
    if not target.exists():
        digest.update(path.encode())
    for file in sorted(target.rglob("*")) if target.is_dir() else [target, *_companions(target)]:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.name}:{stat.st_size}".encode())
            small = target.is_file() and stat.st_size <= SMALL_FILE_BYTES
            digest.update(file.read_bytes() if small else str(stat.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def _companions(path: Path) -> list[Path]:
    """The files beside one that hold a part of its data, in whatever case; an empty write-ahead log holds nothing."""
    suffixes = COMPANIONS.get(path.suffix.lower(), ())
    beside = path.parent.iterdir() if suffixes and path.is_file() else ()
    found = [file for file in beside if file.stem == path.stem and file.suffix.lower() in suffixes]
    ahead = path.with_name(path.name + WRITE_AHEAD)
    return sorted(found) + ([ahead] if ahead.is_file() and ahead.stat().st_size else [])


def hash_of(data: object) -> str:
    """16 hexadecimal digits of JSON-ready data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Versions, machine and git state, for the record."""
    return {
        "landcover": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_state() -> str | None:
    """Commit of the working folder, with "+changes" when it is not clean; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)  # noqa: S607 - the user's git
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=5)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def reset_peak() -> None:
    """Start a new peak of this process's memory, where the system can (Linux 4.0 and later)."""
    # Source: proc(5), /proc/pid/clear_refs: writing 5 resets the peak resident set size (VmHWM).
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_rss_mb() -> float | None:
    """Peak memory of this process in MB since :func:`reset_peak`; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return round(int(line.split()[1]) * 1024 / 1e6, 1) if line else None


@contextmanager
def _heard() -> Iterator[list[str]]:
    """The project's own warnings while something is done, each once; whoever shows them still does."""
    said: list[str] = []
    original = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        if issubclass(category, PipelineWarning) and str(message) not in said:
            said.append(str(message))
        original(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield said
    finally:
        warnings.showwarning = original


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run and the record in it (``run.json``)."""

    path: Path

    @property
    def record_path(self) -> Path:
        """Where the record is."""
        return self.path / "run.json"

    def record(self) -> dict[str, Any]:
        """What is known of the run; empty before its first stage."""
        if not self.record_path.exists():
            return {"stages": {}}
        try:
            data: dict[str, Any] = json.loads(self.record_path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as err:
            raise OutputError("record of the run is damaged", path=self.record_path, fix="delete it") from err
        return data

    def note(self, **facts: object) -> None:  # each keyword is a top-level key of the record
        """Add facts to the record."""
        write_json(self.record_path, self.record() | facts)

    def is_current(self, stage: str, *, key: str) -> bool:
        """Whether ``stage`` finished with the same inputs and what it wrote is still there."""
        done = self.record()["stages"].get(stage)
        return bool(done) and done["key"] == key and all((self.path / name).exists() for name in done["outputs"])

    @contextmanager
    def stage(
        self, name: str, *, key: str, facts: Mapping[str, float] | None = None, resume_key: str | None = None
    ) -> Iterator[list[Path]]:
        """Measure a stage and record it when it ends well; the caller appends what it wrote to the list it is given.

        Args:
            name: Of the stage.
            key: What it depends on, as a hash.
            facts: Further figures, read when the stage has ended.
            resume_key: What jobs must share to go on with what the stage has done, as a hash.
        """
        outputs: list[Path] = []
        reset_peak()
        started, cpu = time.perf_counter(), sum(os.times()[:4])
        with _heard() as said:
            yield outputs
        record = self.record()
        record["stages"][name] = {
            "key": key,
            **({"resume_key": resume_key} if resume_key else {}),
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(sum(os.times()[:4]) - cpu, 2),
            "peak_rss_mb": peak_rss_mb(),
            **(facts or {}),
            "warnings": said,
            "outputs": [os.path.relpath(path, self.path) for path in outputs],
        }
        write_json(self.record_path, record)

    def write_resolved(self, config: Mapping[str, Any]) -> Path:
        """The settings as they were used, defaults filled in."""
        import yaml

        return write_text(self.path / RESOLVED, yaml.safe_dump(dict(config), sort_keys=False))
