"""Stacks and composites of dates, against reading their dates one by one over the same windows.

The single reads open the same scenes and read the same windows, and do nothing with them. Both run in turns, so that a
busy machine slows both.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.joining import composite_scenes
from pipeline.scenes.settings import SceneOptions
from pipeline.scenes.stack import stack_scenes
from tests.fakes.rasters import write_raster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.scenes.scene import Scene, Source

BANDS = ("blue", "green", "red", "nir")
DATES, SIDE_PX, TILE_PX, ROUNDS = 5, 1536, 512, 2


def run() -> dict[str, float]:
    """Ratios and figures, printed and returned."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        scenes = _season(Path(folder))
        sources: dict[str, Source] = {"stack, linear": stack_scenes(scenes)}
        sources |= {method: composite_scenes(scenes, method=method) for method in ("median", "medoid", "greenest")}
        single, joined = [], {name: [] for name in sources}
        memory = []
        for _ in range(ROUNDS):
            single.append(_timed(scenes))
            for name, source in sources.items():
                joined[name].append(_timed([source]))
            memory.append(psutil.Process().memory_info().rss / 2**20)
    for name, times in joined.items():
        figures[f"{name} / single reads of {DATES} dates"] = min(times) / min(single)
    megapixels = SIDE_PX**2 * DATES * len(BANDS) / 1e6
    figures["single reads, million values per s"] = megapixels / min(single)
    figures["growth of memory from the first round to the last, MiB"] = memory[-1] - memory[0]
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


def _season(folder: Path) -> list[Scene]:
    """Dates of random reflectance, a fifth of each without data in blocks of 64 pixels."""
    rng = np.random.default_rng(0)
    scenes = []
    for number in range(DATES):
        dn = rng.integers(1, 6000, (len(BANDS), SIDE_PX, SIDE_PX), dtype=np.uint16)
        clouded = np.kron(rng.random((SIDE_PX // 64, SIDE_PX // 64)) < 0.2, np.ones((64, 64), dtype=bool))
        dn[:, clouded] = 0
        options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
        path = write_raster(folder / f"d{number}.tif", dn, nodata=0, names=BANDS, options=options)
        when = datetime(2024, 4, 1, 10, tzinfo=UTC) + timedelta(days=30 * number)
        scenes.append(open_geotiff(path, options=SceneOptions(scale=1e-4, offset=0.0, acquired_utc=when)))
    return scenes


def _timed(sources: Sequence[Source]) -> float:
    start = time.perf_counter()
    for source in sources:
        with source.open() as reader:
            for window in source.grid.tiles(TILE_PX):
                reader.read(window)
    return time.perf_counter() - start


if __name__ == "__main__":
    run()
