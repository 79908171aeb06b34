"""Kill ``landcover run`` at random moments and run the same command again: ``python -m tests.campaigns.kills``.

Moments are drawn stage by stage, so that short stages are hit as often as long ones. The files of a run that was killed
and finished are those of one that was not, byte by byte; ``run.json`` alone holds times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.campaigns.jobs import digests, finish, import_all, one_scene, start, two_scenes, unlike

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGES = ("chips", "train", "predict", "assess", "report")
_SLICE_S = 0.002


@dataclass
class Report:
    """What a campaign found.

    Attributes:
        kills: How often a run was killed, by the stage it was in.
        failed: Commands after a kill that did not end well: where, and what was said.
        different: Runs with files unlike those of a run that was not killed: where, and which files.
    """

    kills: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """In words."""
        hits = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        runs = sum(self.kills.values())
        return [
            f"{runs} kills ({hits}): {len(self.failed)} commands failed, {len(self.different)} runs differ",
            *self.failed,
            *self.different,
        ]


def kill_in(config: Path, stage: str, after_s: float, log: Path) -> str:
    """Start a run and kill it some seconds after a stage has begun; gives the stage, "" where the run had ended."""
    record, child = config.parent / "run" / "run.json", start(["run", str(config)], log)
    reached = STAGES.index(stage) == 0
    while not reached:
        if os.waitpid(child, os.WNOHANG)[0]:
            return ""
        reached = _at(record) in STAGES[STAGES.index(stage) :]
        time.sleep(_SLICE_S)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) >= 0
    return "" if ended else _at(record) or stage


def _at(record: Path) -> str:
    """The stage that a run is in, by its record."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    begun = [name for name in STAGES if name in found.get("begun", {})]
    return begun[-1] if begun else ""


def moments(seconds: dict[str, float], count: int, *, seed: int) -> Iterator[tuple[str, float]]:
    """Stages in turn, and when to kill in each."""
    rng = random.Random(seed)  # noqa: S311 - a campaign that can be done again
    for number in range(count):
        stage = STAGES[number % len(STAGES)]
        yield stage, rng.uniform(0.0, seconds[stage] + 0.05)


def campaign(folder: Path, *, kills: int, seed: int, small: bool = False) -> Report:
    """Kill runs in a folder and compare what is left when they have been finished."""
    import_all()
    config = one_scene(folder) if small else two_scenes(folder)
    command = ["run", str(config)]
    run, log = folder / "run", folder / "log.txt"
    if finish(command, log):
        sys.exit(log.read_text(encoding="utf-8"))
    expected = digests(run)
    stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"]
    seconds = {name: stages[name]["seconds"] for name in STAGES}
    report = Report()
    for number, (stage, after_s) in enumerate(moments(seconds, kills, seed=seed)):
        where = f"kill {number + 1}: {after_s:.2f} s into {stage}"
        sys.stderr.write(f"{where} ({len(report.failed)} failed, {len(report.different)} differ so far)\n")
        shutil.rmtree(run, ignore_errors=True)
        hit = kill_in(config, stage, after_s, log)
        report.kills[hit or "ended before"] = report.kills.get(hit or "ended before", 0) + 1
        if finish(command, log):
            report.failed.append(f"{where}: {log.read_text(encoding='utf-8').strip()}")
            continue
        if names := unlike(expected, digests(run)):
            report.different.append(f"{where}: {', '.join(names)}")
    return report


def main(arguments: list[str] | None = None) -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="One scene and fewer products.")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        report = campaign(Path(folder), kills=asked.kills, seed=asked.seed, small=asked.small)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return int(bool(report.failed or report.different))


if __name__ == "__main__":
    sys.exit(main())
