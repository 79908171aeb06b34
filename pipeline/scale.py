"""Many scenes, one after another or over Dask; one machine is a cluster of one.

A job is small and complete (model file, scene manifest, output folder), so any worker that sees the files can do it,
and do it again: results are in stores with a journal, so a job that is repeated after a lost worker continues.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pipeline.inference.plan import PredictSettings
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)

# Times that a job is tried again when its worker is lost or fails for no fault of the scene's.
RETRIES = 2
WORK_FOLDER = ".work"


@dataclass(frozen=True)
class SceneJob:
    """One scene to map.

    Attributes:
        model: The model file, readable by the worker.
        source: The scene's manifest.
        out: Folder of ``<id>_lc.tif`` and ``<id>_conf.tif``.
        settings: How; the number of threads is set by :func:`map_scenes`.
        overwrite: Replace maps of the same name.
    """

    model: Path
    source: Source
    out: Path
    settings: PredictSettings
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a job: figures and the maps written, or the one-line reason why not.

    Attributes:
        scene: The scene's id.
        maps: Files written.
        figures: Those of ``Prediction``.
        error: "" where all went well.
    """

    scene: str
    maps: tuple[Path, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    error: str = ""


def map_scene(job: SceneJob) -> Outcome:
    """Do one job in this process; a user's error becomes its outcome, so that the other scenes go on."""
    try:
        return _map(job)
    except PipelineError as err:
        return Outcome(job.source.id, error=str(err))


def map_scenes(
    jobs: Sequence[SceneJob],
    *,
    dask: str | None = None,
    workers: int | None = None,
    report: Callable[[Outcome], None] | None = None,
    task: Callable[[SceneJob], Outcome] = map_scene,
) -> list[Outcome]:
    """Map scenes; one that fails does not stop the others.

    Args:
        jobs: Scenes with different ids per output folder.
        dask: None for a plain loop in this process, "local" for worker processes on this machine, or the address of a
            scheduler ("tcp://host:port").
        workers: Processes for "local"; by default one per two cores. Threads are shared out so that all workers
            together use each core once.
        report: Called with each outcome as it comes.
        task: What is done with a job.

    Returns:
        Outcomes in the order of the jobs.

    Raises:
        ConfigError: Dask is not installed, the scheduler does not answer, or two jobs would write the same files.
    """
    names = [(str(job.out), job.source.id) for job in jobs]
    twice = sorted({scene for out, scene in names if names.count((out, scene)) > 1})
    if twice:
        raise ConfigError(f"scene id used twice: {', '.join(twice)}", fix="rename one, or give it another folder")
    outcomes: dict[str, Outcome] = {}
    done = _loop(jobs, task) if dask is None else _over_dask(jobs, task, dask=dask, workers=workers)
    for key, outcome in done:
        outcomes[key] = outcome
        if outcome.error:
            log.warning("%s: %s", outcome.scene, outcome.error)
        if report is not None:
            report(outcome)
    return [outcomes[_key(job)] for job in jobs]


def _map(job: SceneJob) -> Outcome:
    from pipeline.inference.predict import predict_scene
    from pipeline.maps.geotiff import check_target, write_class_map, write_confidence
    from pipeline.model.bundle import load_bundle

    bundle = load_bundle(job.model)
    source = bundle.check(job.source)
    targets = tuple(job.out / f"{source.id}_{kind}.tif" for kind in ("lc", "conf"))
    for target in targets:
        check_target(target, overwrite=job.overwrite)
    with predict_scene(bundle, source, out=job.out / WORK_FOLDER / source.id, settings=job.settings) as mapped:
        tags = mapped.tags() | {"LANDCOVER_MODEL": bundle.hash, "LANDCOVER_LEDGER": source.ledger()}
        write_class_map(
            targets[0], mapped.codes, grid=mapped.grid, scheme=mapped.scheme, tags=tags, overwrite=job.overwrite
        )
        write_confidence(targets[1], mapped.confidence, grid=mapped.grid, tags=tags, overwrite=job.overwrite)
    mapped.remove()
    return Outcome(source.id, targets, mapped.figures)


def _key(job: SceneJob) -> str:
    return f"{job.out}|{job.source.id}"


def _loop(jobs: Sequence[SceneJob], task: Callable[[SceneJob], Outcome]) -> Iterator[tuple[str, Outcome]]:
    for job in jobs:
        yield _key(job), task(job)


def _over_dask(
    jobs: Sequence[SceneJob], task: Callable[[SceneJob], Outcome], *, dask: str, workers: int | None
) -> Iterator[tuple[str, Outcome]]:
    if find_spec("distributed") is None:
        raise ConfigError("dask is not installed", fix="pip install 'landcover-pipeline[scale]' or leave out --dask")
    from distributed import as_completed

    with _cluster(dask, workers=workers, jobs=len(jobs)) as client:
        futures = {client.submit(task, job, pure=False, retries=RETRIES): job for job in jobs}
        for future in as_completed(list(futures), loop=client.loop):  # type: ignore[no-untyped-call]
            job = futures[future]
            if future.status == "finished":
                yield _key(job), future.result()
            else:
                error = future.exception()
                yield _key(job), Outcome(job.source.id, error=f"failed on every worker: {error!r}")


def _cluster(dask: str, *, workers: int | None, jobs: int) -> Any:
    """A client: of a new cluster on this machine, or of a scheduler that runs already."""
    from distributed import Client

    if dask != "local":
        try:
            return Client(dask, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as err:
            raise ConfigError(f"Dask scheduler {dask!r} does not answer", got=err, expected="tcp://host:port") from err
    cores = os.cpu_count() or 1
    number = min(workers or max(cores // 2, 1), max(jobs, 1))
    threads = str(max(cores // number, 1))
    # OpenMP reads its number of threads when torch is imported: it must stand in the workers' environment.
    from dask import config

    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return Client(  # type: ignore[no-untyped-call]
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            set_as_default=False,
        )
