"""The run folder: resolved settings, versions, input hashes, timings; and which stages are still current.

A stage is current when the hash of all that it depends on equals the one written when it finished, and its products
have the size and content that were recorded then. Seconds and times of the day are in ``run.json`` and in no other
file, so that a job done twice gives the same bytes twice.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import __version__
from pipeline.documents import read_json
from pipeline.errors import InputError, OutputError, PipelineWarning
from pipeline.files import hash_content, relative_path, write_json, write_text
from pipeline.process import hold_folder, peak_rss_mb, release_folder, reset_peak

RECORD, RESOLVED = "run.json", "config.yaml"
LOCK = ".run.lock"
PACKAGES = ("numpy", "rasterio", "geopandas", "scikit-learn", "torch", "torchvision", "torchgeo", "lightning")


def environment() -> dict[str, Any]:
    """Versions and machine, for the record."""
    return {
        "landcover": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


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


class Stamp(BaseModel):
    """A product as it was written: bytes, time of change in ns, :func:`pipeline.files.hash_content` of its content."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Of a file as it is."""
        stat = path.stat()
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=hash_content(path))

    def fits(self, path: Path, *, verify: bool = False) -> bool:
        """Whether a file is what was written: by size and time of change, or by content where that differs.

        A QGIS project is its user's, who saves it: any that can be opened fits.
        """
        if not path.is_file():
            return False
        if path.suffix == ".qgz":
            return zipfile.is_zipfile(path)
        stat = path.stat()
        if stat.st_size != self.size:
            return False
        return (stat.st_mtime_ns == self.mtime_ns and not verify) or hash_content(path) == self.sha256


class StageRecord(BaseModel):
    """What is known of a stage that ended well; further figures are kept as they are."""

    model_config = ConfigDict(extra="allow")

    key: str
    outputs: list[str]
    stamps: dict[str, Stamp] = Field(default_factory=dict)


class RunRecord(BaseModel):
    """``run.json``: finished stages, stages that were begun (with their key), and facts of the run."""

    model_config = ConfigDict(extra="allow")

    stages: dict[str, StageRecord] = Field(default_factory=dict)
    begun: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run and the record in it (``run.json``)."""

    path: Path

    @property
    def record_path(self) -> Path:
        """Where the record is."""
        return self.path / RECORD

    def record(self) -> dict[str, Any]:
        """What is known of the run; empty before its first stage.

        Raises:
            OutputError: it is not what a run writes.
        """
        if not os.path.lexists(self.record_path):
            return RunRecord().model_dump()
        try:
            return RunRecord.model_validate(read_json(self.record_path)).model_dump()
        except (InputError, ValidationError) as err:
            raise OutputError("record of the run is damaged", path=self.record_path, fix="delete it") from err

    def note(self, **facts: object) -> None:  # each keyword is a top-level key of the record
        """Add facts to the record."""
        write_json(self.record_path, self.record() | facts)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other runs.

        Raises:
            OutputError: another run holds it.
        """
        lock = hold_folder(self.path, name=LOCK)
        try:
            yield
        finally:
            release_folder(lock)

    def changed(self, stage: str, *, verify: bool = False) -> list[Path]:
        """The products of a finished stage that are missing, or not as they were written."""
        done = self.record()["stages"][stage]
        stamps = {name: Stamp(**done["stamps"][name]) for name in done["outputs"] if name in done["stamps"]}
        paths = [(self.path / name, stamps.get(name)) for name in done["outputs"]]
        return [path for path, stamp in paths if stamp is None or not stamp.fits(path, verify=verify)]

    def is_current(self, stage: str, *, key: str, verify: bool = False) -> bool:
        """Whether ``stage`` finished with the same inputs and what it wrote is still there as it was written."""
        done = self.record()["stages"].get(stage)
        return bool(done) and done["key"] == key and not self.changed(stage, verify=verify)

    @contextmanager
    def stage(
        self, name: str, *, key: str, facts: Mapping[str, float] | None = None, resume_key: str | None = None
    ) -> Iterator[list[Path]]:
        """Measure a stage and record it when it ends well; the caller appends what it wrote to the list it is given.

        From the beginning on the record says that the stage is under way: products that are found when it is done
        again are its own.

        ``facts`` are read when the stage has ended; ``resume_key`` is a hash of what jobs must share to go on with what
        the stage has done.
        """
        record = self.record()
        record["stages"].pop(name, None)
        record["begun"][name] = key
        write_json(self.record_path, record)
        outputs: list[Path] = []
        reset_peak()
        started, cpu = time.perf_counter(), sum(os.times()[:4])
        with _heard() as said:
            yield outputs
        record = self.record()
        record["begun"].pop(name, None)
        record["stages"][name] = {
            "key": key,
            **({"resume_key": resume_key} if resume_key else {}),
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(sum(os.times()[:4]) - cpu, 2),
            "peak_rss_mb": peak_rss_mb(),
            **(facts or {}),
            "warnings": said,
            **self._products(outputs),
        }
        write_json(self.record_path, record)

    def _products(self, outputs: Sequence[Path]) -> dict[str, Any]:
        names = {relative_path(path, self.path): path for path in outputs}
        return {"outputs": list(names), "stamps": {name: Stamp.of(path).model_dump() for name, path in names.items()}}

    def write_resolved(self, config: Mapping[str, Any]) -> Path:
        """The settings as they were used, defaults filled in."""
        import yaml

        return write_text(self.path / RESOLVED, yaml.safe_dump(dict(config), sort_keys=False))
