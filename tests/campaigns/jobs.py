"""Commands in child processes that campaigns may kill or starve, and what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.small_world import write_scene, write_world

if TYPE_CHECKING:
    from collections.abc import Callable

# Files of the run itself: times, and who held the folder.
_MAP = {"engine": "torch", "dtype": "float32", "device": "cpu"}
OWN = ("run.json", ".run.lock", ".run.lock.json")


def import_all() -> None:
    """Import what commands use before the first is forked: starting would take most of their time.

    What was imported is left out of collections, which would copy it into every child.
    """
    import pipeline.cli
    import pipeline.workflow.accuracy
    import pipeline.workflow.class_stages
    import pipeline.workflow.init
    import pipeline.workflow.labels_audit
    import pipeline.workflow.stage_report  # noqa: F401

    gc.collect()
    gc.freeze()


def one_scene(folder: Path) -> Path:
    """A job with maps and polygons of one scene, in a folder; gives its configuration, which may be there already."""
    config = folder / "config.yaml"
    return config if config.exists() else write_world(folder, map=_MAP | {"polygons": True})


def two_scenes(folder: Path) -> Path:
    """A job with every kind of product, in a folder; gives its configuration."""
    config = write_world(
        folder,
        scenes=[{"path": "scene.tif"}, {"path": "other.tif"}],
        map=_MAP | {"polygons": True, "mosaic": "first"},
        assessment={"forest_trees": 10, "features": True},
    )
    write_scene(folder / "other.tif")
    return config


def start(arguments: list[str], log: Path, *, before: Callable[[], None] = lambda: None) -> int:
    """A command of ``landcover`` in a forked process; gives its id.

    Args:
        arguments: Of the command line.
        log: Where the process writes what it says.
        before: Done in the process first.
    """
    child = os.fork()
    if child:
        return child
    status = 70
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    warnings.simplefilter("ignore")
    try:
        from pipeline.cli import main

        before()
        status = main([*arguments, "--quiet"])
    except BaseException:  # noqa: BLE001 - a traceback is what campaigns look for
        with contextlib.suppress(OSError):
            log.with_suffix(".traceback").write_text(traceback.format_exc(), encoding="utf-8")
            os.write(2, traceback.format_exc().encode())
    os._exit(status)


def finish(arguments: list[str], log: Path, *, before: Callable[[], None] = lambda: None) -> int:
    """A command to its end; gives its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(start(arguments, log, before=before), 0)[1])


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, records of the run and what mapping goes on from aside."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not {*path.parts} & {*OWN, ".work"})
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unlike(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names of the files that are not the same in both."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
