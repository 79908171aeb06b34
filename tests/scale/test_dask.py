"""A real scheduler and real workers on loopback: one is killed, one is sick, and the maps are those of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.scale.scenes import Done
    from tests.scale.conftest import World

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no kill -9")]
HERE = Path(__file__).parent
WAIT_S = 300.0


@contextmanager
def cluster(folder: Path, *preloads: str) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and a worker per preload, each a process; the address, and the workers."""
    file = folder / "scheduler.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    with ExitStack() as stack:
        log = stack.enter_context((folder / "cluster.log").open("wb"))

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=environment, cwd=folder, stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(file),
        )  # fmt: skip
        until(file.exists)
        address = json.loads(file.read_text())["address"]
        workers = [
            start(
                "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard",
                "--host", "127.0.0.1", "--memory-limit", "0", "--preload", str(HERE / preload),
            )
            for preload in preloads
        ]  # fmt: skip
        from distributed import Client

        with Client(address, timeout="60s", set_as_default=False) as client:
            client.wait_for_workers(len(preloads), timeout=WAIT_S)
        yield address, workers


def until(happened: Callable[[], bool]) -> None:
    stop = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < stop
        time.sleep(0.05)


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
                workers[0].send_signal(signal.SIGKILL)
                killed.append(done / total)

        over = map_world(world, "over", dask=address, progress=progress)
        assert workers[0].wait() == -signal.SIGKILL
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
