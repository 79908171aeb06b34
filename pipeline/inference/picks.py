"""Which engine was picked before: a measured pick is kept per model, machine and software, so that runs agree.

``auto`` decides by timing, and timings vary: two runs of one command might pick different engines, and their maps
differ in some pixels. So the first pick is written to ``engines.json`` in the user's cache folder
(``$LANDCOVER_CACHE``, else ``$XDG_CACHE_HOME/landcover``, else ``~/.cache/landcover``) and taken by all later runs of
the same model with the same settings on the same machine. Delete the file to measure again; name an engine and a type
to depend on neither.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.inference.engine import Choice
from pipeline.inference.journal import digest
from pipeline.inference.versions import engine_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)
FILE = "engines.json"


def cache_folder() -> Path:
    """Where picks are kept."""
    own = os.environ.get("LANDCOVER_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "landcover"


def pick_key(model_hash: str, choices: Sequence[Choice], *, threads: int) -> str:
    """What a pick holds for: model, what was tried, threads, machine and versions of the engines."""
    machine = [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability(), os.cpu_count()]
    if any(choice.device.startswith("cuda") for choice in choices):
        machine.append(torch.cuda.get_device_name())
    tried = [asdict(choice) for choice in choices]
    return digest([model_hash, tried, threads, machine, engine_versions()])


def recall(key: str, choices: Sequence[Choice]) -> Choice | None:
    """The pick of an earlier run, if it is one of ``choices``."""
    try:
        found = Choice(**_read()[key])
    except (KeyError, TypeError):
        return None
    if found not in choices:
        return None
    log.info("engine %s: picked by an earlier run on this machine (%s)", found, cache_folder() / FILE)
    return found


def remember(key: str, choice: Choice) -> None:
    """Keep a pick; a cache that cannot be written costs a calibration, not the run."""
    folder = cache_folder()
    part = folder / f"{FILE}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_read() | {key: asdict(choice)}, indent=1), encoding="utf-8")
        part.replace(folder / FILE)
    except OSError as err:
        log.warning("the picked engine cannot be kept in %s: %s", folder, err.strerror)


def _read() -> dict[str, Any]:
    try:
        items = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return items if isinstance(items, dict) else {}
