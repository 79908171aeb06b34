"""Blocks of scenes: what a worker is given and what it gives back; complete, and the same wherever it is done."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.inference.engine import Choice, Engine
    from pipeline.inference.plan import Plan
    from pipeline.inference.settings import MapSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

# One block at a time in a process, however many threads Dask runs in it: the network uses the cores by itself, and each
# further block would double the memory.
_ONE = threading.Lock()
# A worker that declines waits so long before it says so: the others take more of the work meanwhile.
DECLINE_S = 1.0


@dataclass(frozen=True)
class SceneTask:
    """A scene to map, as every worker must know it.

    Attributes:
        model: The model file, readable by the worker.
        source: The scene's manifest; its files are readable by the worker.
        settings: How.
        version: Of the package of whoever asks; a worker that has another one refuses.
    """

    model: Path
    source: Source
    settings: MapSettings
    version: str = __version__


@dataclass
class Mapped:
    """What a block gives: layers of windows, and the steps that are complete with them; a Sink.

    Attributes:
        windows: Windows of the grid with their layers uint8 [..., row, col].
        steps: (step, pixels), in order.
        error: "" where all went well.
        worker: Address of who did it.
        declined: Whether a worker that failed before was given it again, and left it to others.
    """

    windows: list[tuple[Window, Mapping[str, NDArray[np.uint8]]]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    error: str = ""
    worker: str = ""
    declined: bool = False

    def put(self, window: Window, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        """See Sink."""
        self.windows.append((window, layers))

    def done(self, step: int, *, pixels: int) -> None:
        """See Sink."""
        self.steps.append((step, pixels))


def pack(work: Callable[..., Any], *given: object) -> bytes:
    """A call as bytes: the scheduler, which unpacks what it passes on, needs neither torch nor time for it."""
    return pickle.dumps((work, given))


def unpacked(call: bytes) -> Any:
    """Do a call that was packed by :func:`pack` (by this project's own process, over the cluster's connection)."""
    work, given = pickle.loads(call)  # noqa: S301 - Dask itself moves nothing but pickles
    return work(*given)


def plan_task(task: SceneTask) -> Plan:
    """Decide on a worker, whose machine it is, what the settings leave open.

    Raises:
        ConfigError: the worker has another version of the package, or the settings cannot be met.
    """
    from pipeline.inference.plan import make_plan

    _refuse_other_version(task)
    with _ONE:
        bundle = _bundle(str(task.model), task.model.stat().st_mtime_ns)
        return make_plan(bundle, task.source.select(bundle.bands), task.settings)


def map_block(task: SceneTask, plan: Plan, steps: tuple[int, ...], avoid: tuple[str, ...] = ()) -> Mapped:
    """Map some steps of a scene; what goes wrong is told, so that the block can be tried elsewhere.

    Workers whose addresses are in ``avoid`` leave it to others: Dask's work stealing would give a block back to the
    machine where it has just failed, as that machine is free the soonest.
    """
    made = Mapped(worker=_address())
    if made.worker in avoid:
        time.sleep(DECLINE_S)
        return Mapped(worker=made.worker, declined=True)
    try:
        _refuse_other_version(task)
        with _ONE:
            _map(task, plan, steps, made)
    except PipelineError as err:
        return Mapped(error=str(err), worker=made.worker)
    except Exception as err:  # noqa: BLE001 - whatever is wrong with one machine must not end the others' work
        return Mapped(error=f"{type(err).__name__}: {err}", worker=made.worker)
    return made


def _refuse_other_version(task: SceneTask) -> None:
    import pipeline

    if task.version != pipeline.__version__:
        raise ConfigError("worker with another version", got=pipeline.__version__, expected=task.version)


def _map(task: SceneTask, plan: Plan, steps: tuple[int, ...], made: Mapped) -> None:
    from pipeline.inference.areas import read_area
    from pipeline.inference.steps import SceneSteps

    stamp = task.model.stat().st_mtime_ns
    bundle = _bundle(str(task.model), stamp)
    source = task.source.select(bundle.bands)
    area = read_area(source.grid, aoi=task.settings.aoi, mask=task.settings.mask)
    scene = SceneSteps(bundle, source, task.settings, plan, area)
    # Only integers depend on the scene beside the model; anything else serves all scenes.
    own = pickle.dumps(source) if plan.choice.dtype == "int8" else b""
    scene.map(_engine(str(task.model), stamp, plan.choice, plan.threads, own), steps, made)


@lru_cache(maxsize=1)
def _bundle(path: str, stamp: int) -> ModelBundle:  # noqa: ARG001 - a changed file is another model
    from pathlib import Path

    from pipeline.model.bundle import load_bundle

    return load_bundle(Path(path))


@lru_cache(maxsize=1)
def _engine(path: str, stamp: int, choice: Choice, threads: int, source: bytes) -> Engine:
    from pipeline.inference.plan import engine_of

    _engine.cache_clear()  # the memory of the last one goes before another takes some
    own = pickle.loads(source) if source else None  # noqa: S301 - packed by _map, as a key of the cache is hashable
    return engine_of(_bundle(path, stamp), choice, threads=threads, source=own)


def _address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return ""
