"""Which engine maps a scene: what was measured of engines is kept per model, machine and software, so that runs agree.

``auto`` decides by timing, and timings vary: two runs of one command might pick different engines, and their maps
differ in some pixels. So what the first run measured is written to ``engines.json`` in the user's cache folder
(``$LANDCOVER_CACHE``, else ``$XDG_CACHE_HOME/landcover``, else ``~/.cache/landcover``) and taken by all later runs of
the same model on the same machine; memory and halo, which depend on the run, are looked at anew. Delete the file to
measure again; name an engine and a type to depend on neither.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.inference.demand import total_stride_px
from pipeline.inference.engine import EXTRAS, Choice
from pipeline.inference.journal import digest
from pipeline.inference.trials import Trial, agrees, best_of, calibrate, candidates
from pipeline.inference.versions import engine_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.inference.fitting import Fitting

log = logging.getLogger(__name__)
FILE = "engines.json"
# On a scene of fewer pixels nothing is measured, and of fewer than the second number only torch is: its two types take
# some 2 s on two cores, extras (which convert and compile the network) 3 to 6 s for each type, in which torch maps as
# much (docs/scale.md: 2 to 5 Mpx a second).
SMALL_SCENE_PX = 4_000_000
SCENE_FOR_EXTRAS_PX = 40_000_000


def pick_engine(fitting: Fitting) -> tuple[Choice, list[Trial]]:
    """The only choice, or the one that writes pixels the fastest by what is measured, now or before; and that.

    Choices that the memory does not allow are left out where there are others.

    Raises:
        ConfigError: what was asked for is not installed, or no engine can run the network.
    """
    settings = fitting.settings
    choices = candidates(engine=settings.engine, dtype=settings.dtype, device=settings.device)
    if len(choices) == 1:
        trials = _measured(fitting, choices) if choices[0].dtype == "int8" else []
        return (best_of(trials).choice if trials else choices[0]), trials
    key = pick_key(fitting.engines.bundle.hash, threads=fitting.threads, device=choices[0].device)
    known = recall(key)
    new = [choice for choice in _worthwhile(fitting, choices) if choice not in known]
    new = [choice for choice in new if choice == choices[0] or fitting.allows(choice)]
    if new and (len(new) > 1 or known):
        known |= {trial.choice: trial for trial in _measured(fitting, new)}
        remember(key, list(known.values()))
    trials = [known[choice] for choice in choices if choice in known]
    if not trials:
        return choices[0], []
    picked = best_of(trials, fitting.overlap).choice
    others = [trial for trial in trials if trial.choice.dtype != "int8"]
    # How well int8 agrees depends on the scene: what was measured on another holds where it does here too.
    again = picked.dtype == "int8" and picked not in new and bool(others)
    if again and not agrees(_measured(fitting, [picked])[-1]):
        log.info("engine %s is left out: it agrees too little on this scene", picked)
        picked = best_of(others, fitting.overlap).choice
    log.info("engine picked: %s", picked)
    return picked, trials


def _worthwhile(fitting: Fitting, choices: Sequence[Choice]) -> list[Choice]:
    """Choices that a scene of this size is worth to be measured."""
    grid = fitting.engines.source.grid
    pixels = grid.height * grid.width
    if pixels < SMALL_SCENE_PX:
        return []
    return [choice for choice in choices if pixels >= SCENE_FOR_EXTRAS_PX or choice.engine not in EXTRAS]


def _measured(fitting: Fitting, choices: Sequence[Choice]) -> list[Trial]:
    make = partial(fitting.engines, threads=fitting.threads)
    stride = total_stride_px(fitting.engines.bundle)
    return calibrate(make, choices, fitting.sample, threads=fitting.threads, stride_px=stride)


def cache_folder() -> Path:
    """Where picks are kept."""
    own = os.environ.get("LANDCOVER_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "landcover"


def pick_key(model_hash: str, *, threads: int, device: str) -> str:
    """What measurements hold for: model, threads, device, machine and versions of the engines."""
    machine = [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability(), os.cpu_count()]
    if device.startswith("cuda"):
        machine.append(torch.cuda.get_device_name())
    return digest([model_hash, threads, device, machine, engine_versions()])


def recall(key: str) -> dict[Choice, Trial]:
    """What earlier runs measured."""
    try:
        found = [Trial(Choice(**item.pop("choice")), **item) for item in _read().get(key, [])]
    except (AttributeError, KeyError, TypeError):
        return {}
    if found:
        log.info("engines were measured by an earlier run on this machine (%s)", cache_folder() / FILE)
    return {trial.choice: trial for trial in found}


def remember(key: str, trials: Sequence[Trial]) -> None:
    """Keep what was measured; a cache that cannot be written costs a calibration, not the run."""
    folder = cache_folder()
    part = folder / f"{FILE}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_read() | {key: [asdict(trial) for trial in trials]}, indent=1), encoding="utf-8")
        part.replace(folder / FILE)
    except OSError as err:
        log.warning("what was measured of engines cannot be kept in %s: %s", folder, err.strerror)


def _read() -> dict[str, Any]:
    try:
        items = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return items if isinstance(items, dict) else {}
