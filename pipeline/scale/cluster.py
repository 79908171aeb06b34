"""A Dask client, and what its workers do: plan a scene, and map blocks of it."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline import __version__
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from pipeline.grid import Window
    from pipeline.inference.engine import Choice, Engine
    from pipeline.inference.plan import Plan
    from pipeline.inference.settings import MapSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

LOCAL = "local"
CONNECT_S = "10s"
# A worker on which a block failed takes no other for so long: the scheduler would give the block back to the machine
# that fails at once, as that is free the soonest.
PAUSE_S = 3.0
# One block at a time in a process, however many threads Dask runs in it: the network uses the cores by itself, and each
# further block would double the memory.
_ONE = threading.Lock()


def open_client(dask: str) -> Any:
    """A client; use it with ``with``, which also ends the workers it started.

    ``dask`` is "local" or "local:4" for (so many) worker processes, by default one per two cores, whose threads
    together use each core once; or the address of a scheduler ("tcp://host:port").

    Raises:
        ConfigError: Dask is not installed, not a number of workers, or the scheduler does not answer.
    """
    where, _, number = dask.partition(":")
    if where == LOCAL and number and (not number.isdigit() or not int(number)):
        raise ConfigError("option --dask", got=dask, expected="local, local:4 or tcp://HOST:PORT")
    if find_spec("distributed") is None:
        raise ConfigError("dask is not installed", fix="pip install 'landcover-pipeline[scale]' or leave out --dask")
    return _local(int(number) if number else None) if where == LOCAL else _existing(dask)


def _existing(address: str) -> Any:
    from distributed import Client

    try:
        # distributed has no types
        return Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as err:
        raise ConfigError(f"Dask scheduler {address!r} does not answer", got=err, expected="tcp://host:port") from err


def _local(workers: int | None) -> Any:
    from dask import config
    from distributed import Client

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = workers or max(cores // 2, 1)
    threads = str(max(cores // number, 1))
    # OpenMP reads its number of threads when torch is imported: it must stand in the workers' environment.
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    with config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return Client(  # type: ignore[no-untyped-call]
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            # A block's memory is bounded by its own setting; Dask's limits would kill workers that keep to theirs.
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            set_as_default=False,
        )


def who_sees(client: Any, path: Path) -> bool:
    """Whether all workers there are see a file of this machine and have this version of the package."""
    answers = _looks(client, str(path))
    return bool(answers) and all(seen and version == __version__ for version, seen in answers)


def refuse_other_versions(client: Any) -> None:
    """Refuse a cluster where a worker has another version of the package: what it maps may differ.

    Raises:
        ConfigError: there is one.
    """
    others = {version for version, _ in _looks(client, "")} - {__version__}
    if others:
        raise ConfigError("workers with another version", got=", ".join(sorted(others)), expected=__version__)


def _looks(client: Any, path: str) -> list[tuple[str, bool]]:
    """What each worker says of its version and of a file; workers that cannot say are left out."""
    return list(client.run(_look, path, on_error="ignore").values())


def _look(path: str) -> tuple[str, bool]:
    import pipeline

    return pipeline.__version__, os.path.exists(path)  # noqa: PTH110 - a worker may run another system


@dataclass(frozen=True)
class SceneTask:
    """A scene to map, as every worker must know it."""

    model: Path  # The model file, readable by the worker
    source: Source  # The scene's manifest; its files are readable by the worker
    settings: MapSettings  # How
    version: str = __version__  # Of the package of whoever asks; a worker that has another one refuses


@dataclass
class MappedBlock:
    """Layers of windows, and the steps that are complete with them; a Sink."""

    # Windows of the grid with their layers uint8 [..., row, col]
    windows: list[tuple[Window, Mapping[str, NDArray[np.uint8]]]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)  # (step, pixels), in order

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


def map_block(task: SceneTask, plan: Plan, steps: tuple[int, ...]) -> MappedBlock:
    """Map some steps of a scene; where this fails Dask tries again, on another worker if there is one.

    Raises:
        ConfigError: the worker has another version of the package.
    """
    made = MappedBlock()
    try:
        _refuse_other_version(task)
        with _ONE:
            _map(task, plan, steps, made)
    except Exception:
        _pause_worker()
        raise
    return made


def _pause_worker() -> None:
    """Have Dask give this worker nothing for some seconds."""
    from distributed import Status, get_worker

    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return

    def become(status: Any) -> None:
        if worker.status in {Status.running, Status.paused}:
            worker.status = status

    worker.loop.add_callback(become, Status.paused)
    worker.loop.add_callback(worker.loop.call_later, PAUSE_S, become, Status.running)


def _refuse_other_version(task: SceneTask) -> None:
    import pipeline

    if task.version != pipeline.__version__:
        raise ConfigError("worker with another version", got=pipeline.__version__, expected=task.version)


def _map(task: SceneTask, plan: Plan, steps: tuple[int, ...], made: MappedBlock) -> None:
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
