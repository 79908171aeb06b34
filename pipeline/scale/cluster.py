"""A Dask client: of worker processes on this machine, or of a cluster that runs already."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = "local"
CONNECT_S = "10s"


def open_client(dask: str, *, workers: int | None = None) -> Any:
    """A client; use it with ``with``, which also ends the workers it started.

    Args:
        dask: "local", or the address of a scheduler ("tcp://host:port").
        workers: Worker processes for "local"; by default one per two cores. Threads are shared out so that all workers
            together use each core once.

    Raises:
        ConfigError: Dask is not installed, the number of workers has no meaning, or the scheduler does not answer.
    """
    if find_spec("distributed") is None:
        raise ConfigError("dask is not installed", fix="pip install 'landcover-pipeline[scale]' or leave out --dask")
    if workers is not None and (workers < 1 or dask != LOCAL):
        raise ConfigError("--workers", got=workers, expected="1 or more, with --dask local")
    return _local(workers) if dask == LOCAL else _existing(dask)


def threads_per_worker(workers: int) -> int:
    """Cores that each of so many processes on this machine has to itself, at least one."""
    return max(_cores() // workers, 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    number = workers or max(_cores() // 2, 1)
    threads = str(threads_per_worker(number))
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
