"""The run folder: resolved settings, versions, git state, input hashes, timings; and which stages are still current.

A stage is current when the hash of all that it depends on equals the one written when it finished. The hash of an input
file is of its path, size and time of change (content for small files), so checking a run of large scenes takes no time.
"""

from __future__ import annotations

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
from pipeline.files import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RESOLVED = "config.yaml"
PACKAGES = ("numpy", "rasterio", "geopandas", "scikit-learn", "torch", "torchvision", "torchgeo", "lightning")


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
