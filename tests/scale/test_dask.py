"""A real scheduler and real workers on loopback: one is killed, one is sick, and the maps are those of one process."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import ConfigError
from pipeline.inference.settings import MapSettings
from pipeline.inference.stream import Writing
from pipeline.model.bundle import load_bundle
from pipeline.scenes.settings import SceneRequest
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.predict import map_all
from pipeline.workflow.scene_maps import MapOrder
from tests.fakes.forks import fork_server, forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from pipeline.scale.scenes import Done
    from tests.scale.conftest import World

config = pytest.importorskip("dask.config")
pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no kill -9")]
HERE = Path(__file__).parent
WAIT_S = 300.0


@contextmanager
def cluster(folder: Path, *preloads: str) -> Iterator[tuple[str, list[BaseProcess]]]:
    """A scheduler and a worker per preload, each worker a process; the address, and the workers."""
    from distributed import Client, LocalCluster

    local = LocalCluster(n_workers=0, processes=True, host="127.0.0.1", dashboard_address=None)
    with local as scheduler, ExitStack() as stack:
        address, log = scheduler.scheduler_address, folder / "cluster.log"
        where = {"OMP_NUM_THREADS": "1"}
        workers = [
            stack.enter_context(forked(work, address, str(HERE / name), str(folder), log=log, environment=where))
            for name in preloads
        ]
        with Client(address, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(len(preloads), timeout=WAIT_S)
        yield address, workers


def work(address: str, preload: str, folder: str) -> None:
    """What the command ``dask worker`` does."""
    from distributed.cli.dask_worker import main

    main(
        [
            address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "0",
            "--local-directory", folder, "--preload", preload,
        ],
        standalone_mode=False,
    )  # fmt: skip


def map_world(
    world: World, out: str, *, dask: str | None = None,
    progress: Callable[[str, int, int], None] = no_progress,
) -> list[Done]:  # fmt: skip
    section = MapSettings.model_validate({"engine": "torch", "dtype": "float32", "tile_px": 32})
    (world.folder / out).mkdir(exist_ok=True)
    paths = [str(path) for path in sorted(world.scenes.iterdir())]
    return map_all(
        world.model, load_bundle(world.model), paths, MapOrder(world.folder / out, section),
        dask=dask, words=SceneRequest(), progress=progress,
    )  # fmt: skip


def steps_done(world: World, out: str) -> list[int]:
    """Steps that the journal of the only scene under way names."""
    (journal,) = (world.folder / out / ".work").rglob("journal.jsonl")
    return [step for line in journal.read_text().splitlines()[1:] for step in json.loads(line)["done"]]


def steps_noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with the steps that are mapped from now on."""
    noted: list[int] = []
    real = Writing.done

    def done(self: Writing, step: int, *, pixels: int) -> None:
        noted.append(step)
        real(self, step, pixels=pixels)

    monkeypatch.setattr(Writing, "done", done)
    return noted


def test_a_killed_worker_and_a_broken_scene_stop_nobody(world: World) -> None:
    for name in ("a", "c"):
        world.add_scene(name, height=224, width=192)
    (world.scenes / "b.tif").write_bytes(b"not a raster")
    alone = map_world(world, "alone")
    killed: list[float] = []
    with cluster(world.folder, "slow_worker.py", "slow_worker.py") as (address, workers):

        def progress(what: str, done: int, total: int) -> None:
            if what == "mapping a" and not killed and 0 < done < total:
                workers[0].kill()
                killed.append(done / total)

        over = map_world(world, "over", dask=address, progress=progress)
        workers[0].join()
        assert workers[0].exitcode == -signal.SIGKILL
    assert killed
    assert killed[0] < 0.9
    assert [(item.name, bool(item.error)) for item in alone] == [(item.name, bool(item.error)) for item in over]
    assert [bool(item.error) for item in over] == [False, True, False]
    assert "b.tif" in over[1].error
    assert world.products("over") == world.products("alone")
    assert len([name for name in world.products("over") if name.endswith("_lc.tif")]) == 2


def test_blocks_that_fail_on_one_machine_are_done_on_another(world: World) -> None:
    world.add_scene("a", height=160, width=128)
    map_world(world, "alone")
    with cluster(world.folder, "slow_worker.py", "sick_worker.py") as (address, _):
        (done,) = map_world(world, "over", dask=address)
    assert done.error == ""
    assert b"this machine is broken" in (world.folder / "cluster.log").read_bytes()
    assert world.products("over") == world.products("alone")


def test_a_scene_that_fails_keeps_what_was_mapped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add_scene("a", height=96, width=96)
    with cluster(world.folder, "tired_worker.py") as (address, _):
        (done,) = map_world(world, "over", dask=address)
    assert "this machine is broken" in done.error
    assert not list((world.folder / "over").glob("*.tif"))
    before, now = steps_done(world, "over"), steps_noted(monkeypatch)
    assert before
    (again,) = map_world(world, "over")
    assert again.error == ""
    assert now
    assert sorted([*before, *now]) == list(range(9))


def test_local_workers_go_on_where_one_process_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.stream.SYNC_SECONDS", 0.0)
    world.add_scene("a", height=224, width=160)
    map_world(world, "alone")

    def stop(what: str, done: int, total: int) -> None:
        if what == "mapping a" and done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_world(world, "over", progress=stop)
    before, now = steps_done(world, "over"), steps_noted(monkeypatch)
    assert before
    fork_server()  # the local workers are forks of it
    with config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        (done,) = map_world(world, "over", dask="local:2")
    assert done.error == ""
    assert now
    assert sorted([*before, *now]) == list(range(len(before) + len(now)))
    assert world.products("over") == world.products("alone")


def test_other_versions_are_refused_before_mapping(world: World) -> None:
    world.add_scene("a", height=96, width=96)
    with (
        cluster(world.folder, "other_worker.py") as (address, _),
        pytest.raises(ConfigError, match=r"another version; got 0\.0\.0"),
    ):
        map_world(world, "over", dask=address)
    assert not list((world.folder / "over").rglob("journal.jsonl"))
