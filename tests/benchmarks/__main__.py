"""``python -m tests.benchmarks [names...] [--seconds N]``: run benchmarks, print their figures as a table and as JSON.

Each ``bench_<name>.py`` has ``run() -> dict[str, float]``. Each runs in a process of its own, so that peak memory is
its own, and for a bounded time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 900


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run_one(name: str, *, seconds: int) -> dict[str, float] | str:
    """Figures of one benchmark, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "tests.benchmarks", "--child", name, "--out", str(out)]
        try:
            done = subprocess.run(command, cwd=HERE.parents[1], timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds} s"
        return json.loads(out.read_text()) if done.returncode == 0 and out.exists() else f"exit {done.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(names()))
    parser.add_argument("--seconds", type=int, default=SECONDS, help="limit for each benchmark")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        figures = importlib.import_module(f"tests.benchmarks.bench_{asked.child}").run()
        asked.out.write_text(json.dumps(figures))
        return 0
    unknown = sorted(set(asked.names) - set(names()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(names())}")
    results = {name: run_one(name, seconds=asked.seconds) for name in asked.names or names()}
    for name, figures in results.items():
        if isinstance(figures, str):
            print(f"{name:12} {figures}")
            continue
        for key, value in figures.items():
            print(f"{name:12} {key:44} {value:12.4g}")
    print(json.dumps(results))
    return 0 if not any(isinstance(figures, str) for figures in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
