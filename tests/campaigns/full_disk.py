"""Commands on a disk that is too small: ``python -m tests.campaigns.full_disk`` (as root, who may mount one).

Each command that writes is given disks of growing size. Until one is large enough it says so in one line, leaves no
part of a file under its name, and ends with status 2. On the same disk, enlarged, the same command ends well and its
files are those of a disk that was never full. Without root the size of single files is limited instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.campaigns.jobs import digests, finish, import_all, one_scene, two_scenes, unlike

if TYPE_CHECKING:
    from collections.abc import Iterator

# torch.export writes another file each time, cross-validation its seconds.
UNLIKE = ("export torch", "crossval")


@dataclass
class Report:
    """What a campaign found: how often each command was starved, and what it did wrong."""

    tries: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, wrong: str) -> None:
        """Note what was wrong, and say it at once: a campaign takes an hour."""
        self.wrong.append(wrong)
        sys.stderr.write(f"WRONG {wrong}\n")

    def lines(self) -> list[str]:
        """In words."""
        counts = ", ".join(f"{name} {count}" for name, count in self.tries.items())
        return [f"{sum(self.tries.values())} full disks ({counts}): {len(self.wrong)} wrong", *self.wrong]


class Disk:
    """A folder with a limit: a file system of its own for root, a limit on every file for others."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder, self.mounted, self._limit = folder, mounted, resource.RLIM_INFINITY

    @contextmanager
    def small(self, size: int) -> Iterator[None]:
        """The folder on a disk of ``size`` bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.mounted:
            _call("mount", "-t", "tmpfs", "-o", f"size={max(size // 4096, 1) * 4096}", "tmpfs", str(self.folder))
        self._limit = size
        try:
            yield
        finally:
            if self.mounted:
                _call("umount", str(self.folder))
            shutil.rmtree(self.folder)

    def enlarge(self) -> None:
        """As much room as anybody needs."""
        if self.mounted:
            _call("mount", "-o", "remount,size=1G", str(self.folder))
        self._limit = resource.RLIM_INFINITY

    def limit(self) -> None:
        """Limit files of this process, where the folder has no disk of its own."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, resource.RLIM_INFINITY))


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def starve(name: str, command: list[str], disk: Disk, log: Path, *, sizes: int, report: Report) -> None:
    """One command on disks of several sizes, beside what it leaves on one that is large enough."""
    with disk.small(1 << 30):
        if finish(command, log):
            report.add(f"{name}: {log.read_text(encoding='utf-8')[-500:]}")
            return
        expected = Left.of(disk.folder)
    starve_below(name, command, disk, log, sizes=sizes, report=report, expected=expected)


@dataclass(frozen=True)
class Left:
    """What a command leaves: digests of its files, and the bytes of each."""

    digests: dict[str, str]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> Left:
        """What is in a folder."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        return cls(digests(folder), tuple(path.stat().st_size for path in files))


def starve_below(
    name: str, command: list[str], disk: Disk, log: Path, *, sizes: int, report: Report, expected: Left
) -> None:  # fmt: skip
    """One command on disks smaller than what it leaves."""
    most = sum(expected.sizes) if disk.mounted else max(expected.sizes)
    for number in range(sizes):
        size = int(most * (number + 0.5) / sizes)
        sys.stderr.write(f"{name}: {size} bytes ({len(report.wrong)} wrong so far)\n")
        with disk.small(size):
            status = finish(command, log, before=disk.limit)
            report.tries[name] = report.tries.get(name, 0) + 1
            where = f"{name} with {size} bytes"
            if status == 0 and not unlike(expected.digests, digests(disk.folder)):
                continue  # what was measured is more than is needed
            for wrong in _wrongs(name, status, log, folder=disk.folder, expected=expected.digests):
                report.add(f"{where}{wrong}")
            disk.enlarge()
            if finish(command, log) or (unlike(expected.digests, digests(disk.folder)) and name not in UNLIKE):
                text = log.read_text(encoding="utf-8")[-500:]
                report.add(f"{where}, then enlarged: {unlike(expected.digests, digests(disk.folder))} {text}")


def _wrongs(name: str, status: int, log: Path, *, folder: Path, expected: dict[str, str]) -> Iterator[str]:
    """What a command without the disk it needs said wrongly, and which parts of files it left."""
    said, left = log.read_text(encoding="utf-8").splitlines(), digests(folder)
    if status != 2 or len(said) != 1 or not said[0].startswith("landcover: error: "):
        yield f": status {status}, {len(said)} lines: {' | '.join(said)[-600:]}"
    parts = [file for file in unlike(expected, left) if file in left and (name not in UNLIKE or ".part" in file)]
    if parts:
        yield f": left {', '.join(parts)}"


def commands(config: Path, out: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command that writes, into ``out``; those after the first need a finished run."""
    run = config.parent / "run"
    model, mapped = str(run / "model" / "model.safetensors"), str(run / "maps" / "scene_lc.tif")
    labels = str(config.parent / "labels.gpkg")
    yield "export onnx", ["export", model, "-o", str(out / "m.onnx"), "--tile-px", "64"]
    yield "export torch", ["export", model, "--format", "torch", "-o", str(out / "m.pt2"), "--tile-px", "64"]
    yield "design", ["design", mapped, "-o", str(out / "sample.gpkg"), "--size", "60"]
    reference = ["--reference", labels, "--field", "class"]
    yield "assess", ["assess", mapped, *reference, "-o", str(out / "figures.json")]
    yield "change", ["change", mapped, str(run / "maps" / "other_lc.tif"), "-o", str(out / "change.tif")]
    apart = config.with_name("crossval.yaml")
    apart.write_text(config.read_text(encoding="utf-8").replace("output: run", f"output: {out / 'crossval'}"))
    folds = ["--folds", "2", "--methods", "forest", "--random-folds", "0"]
    yield "crossval", ["crossval", str(apart), *folds, "-o", str(out / "folds.json")]
    small = ["--steps", "4", "--batch", "2", "--chip-px", "32"]
    yield "pretrain", ["pretrain", str(config), *small, "-o", str(out / "encoder.safetensors")]
    yield "labels audit", ["labels", "audit", str(config), "-o", str(out / "audit.gpkg"), "--count", "3"]
    scene = str(config.parent / "scene.tif")
    yield "predict", ["predict", "--model", model, "--scene", scene, "-o", str(out / "maps"), "--polygons"]
    yield "init", ["init", "--scene", scene, "--labels", labels, "--field", "class", "-o", str(out / "job.yaml")]


def campaign(folder: Path, *, sizes: int, mounted: bool, only: str = "", small: bool = False) -> Report:
    """Starve every command in a folder."""
    import_all()
    config = one_scene(folder) if small else two_scenes(folder)
    report, log = Report(), folder / "log.txt"
    everything, run, kept = ["run", str(config)], folder / "run", folder / "kept"
    if finish(everything, log):  # at once where another campaign has done so
        sys.exit(log.read_text(encoding="utf-8"))
    if only in "run":
        expected = Left.of(run)
        run.rename(kept)
        disk = Disk(run, mounted=mounted)
        starve_below("run", everything, disk, log, sizes=sizes, report=report, expected=expected)
        kept.rename(run)
    starving = partial(starve, log=log, sizes=sizes, report=report)
    out = folder / "out"
    for name, command in commands(config, out):
        if only in name and (not small or name in ("design", "init")):
            starving(name, command, Disk(out, mounted=mounted))
    return report


def main(arguments: list[str] | None = None) -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=20, help="Disks that each command is given.")
    parser.add_argument("--only", default="", help="Commands whose names hold this.")
    parser.add_argument("--limit-files", action="store_true", help="Mount nothing, limit the size of files.")
    parser.add_argument("--small", action="store_true", help="One scene, and no command but run, design and init.")
    asked = parser.parse_args(arguments)
    mounted = os.geteuid() == 0 and not asked.limit_files
    with tempfile.TemporaryDirectory(prefix="disk-") as folder:
        report = campaign(Path(folder), sizes=asked.sizes, mounted=mounted, only=asked.only, small=asked.small)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
