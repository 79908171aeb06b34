"""Many small scenes over Dask: what scheduling costs, how workers share the work, and a simulation of many more.

Real part: one process against ``--dask local`` with one and two workers on the same scenes. Simulated part: the order
in which blocks are given out (``pipeline.scale.scenes``: blocks in order, two per worker at hand), block times drawn
around a mean, workers that are lost, and the work of the caller per block; it says how long 12,000 scenes take,
where more workers stop helping, and what lost workers cost. ``docs/scale.md`` quotes it.
"""

from __future__ import annotations

import heapq
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inference.settings import MapSettings
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.scenes.settings import SceneRequest
from pipeline.workflow.outcome import no_progress
from pipeline.workflow.predict import map_all
from pipeline.workflow.scene_maps import MapOrder
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pipeline.scale.scenes import Done

SCENES = int(os.environ.get("LANDCOVER_BENCH_SCENES", "6"))
SIDE_PX = 512
# A Sentinel-2 tile of 10980 x 10980 pixels in tiles of 1.2 Mpx: from some 16 workers on each of them is a block.
BLOCKS_PER_TILE = 100
# What the caller does per block: unpacks 2.4 MB and writes them; per scene: opens it and hands out its products.
CALLER_BLOCK_S, CALLER_SCENE_S = 0.0065, 0.3


def run() -> dict[str, float]:
    """Ratios and figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        figures = real(Path(name))
    return figures | simulated()


def real(folder: Path) -> dict[str, float]:
    """The same scenes in one process and over workers of this machine."""
    model = save_bundle(folder / "model.safetensors", small_bundle())
    paths = [folder / f"s{i}.tif" for i in range(SCENES)]
    for number, path in enumerate(paths):
        noise_scene(path, height=SIDE_PX, width=SIDE_PX, seed=number)
    bundle = load_bundle(model)

    def once(out: str, dask: str | None) -> tuple[float, list[Done]]:
        (folder / out).mkdir()
        section = MapSettings.model_validate({"engine": "torch", "dtype": "float32", "tile_px": 128})
        start = time.perf_counter()
        done = map_all(
            model, bundle, [str(path) for path in paths], MapOrder(folder / out, section),
            dask=dask, words=SceneRequest(), progress=no_progress,
        )  # fmt: skip
        return time.perf_counter() - start, done

    alone, first = once("alone", None)
    one, _ = once("one", "local:1")
    two, last = once("two", "local:2")
    same = all(
        (folder / "alone" / f"s{i}_lc.tif").read_bytes() == (folder / "two" / f"s{i}_lc.tif").read_bytes()
        for i in range(SCENES)
    )
    return {
        "scenes": float(SCENES),
        "seconds_alone": alone,
        "seconds_one_worker": one,
        "seconds_two_workers": two,
        "identical": float(same and not any(item.error for item in (*first, *last))),
    }


def simulated() -> dict[str, float]:
    """12,000 tiles on clusters of several sizes; times in hours, efficiency against workers that never wait."""
    figures = {}
    for workers in (16, 64, 256, 1024):
        for lost_per_day in (0.0, 0.2):
            hours, busy = simulate(12_000, workers=workers, tile_s=600.0, lost_per_day=lost_per_day)
            key = f"{workers}_workers" + ("_losing_a_fifth_a_day" if lost_per_day else "")
            figures |= {f"hours_{key}": hours, f"efficiency_{key}": busy}
    return figures


def simulate(scenes: int, *, workers: int, tile_s: float, lost_per_day: float, seed: int = 0) -> tuple[float, float]:
    """Hours until all scenes are mapped, and useful work as a share of what the workers could have done.

    Args:
        scenes: How many, each of BLOCKS_PER_TILE blocks.
        workers: How many, each replaced at once when it is lost.
        tile_s: Mean seconds of a worker per scene.
        lost_per_day: Share of the workers that are lost in a day; the block in hand is done again.
        seed: Of the times.
    """
    rng = np.random.default_rng(seed)
    mean = tile_s / BLOCKS_PER_TILE
    free = [(0.0, number) for number in range(workers)]
    caller = 0.0
    for number in range(scenes * BLOCKS_PER_TILE):
        at, worker = heapq.heappop(free)
        took = float(rng.gamma(16.0, mean / 16.0))
        if lost_per_day and rng.random() < lost_per_day * took / 86_400:
            took += took * rng.random()
        ends = at + took
        # The caller takes results one by one; a worker has a second block at hand, so it waits only if the caller lags
        # more than a block behind.
        caller = max(caller, ends) + CALLER_BLOCK_S + (CALLER_SCENE_S if number % BLOCKS_PER_TILE == 0 else 0.0)
        heapq.heappush(free, (max(ends, caller - mean), worker))
    total = max(caller, *(at for at, _ in free))
    return total / 3600, scenes * tile_s / (workers * total)
