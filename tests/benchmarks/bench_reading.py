"""Reading ten bands of a SAFE tile window by window, against a bare rasterio loop over the same files and windows.

The bare loop reads the native pixels of each window, of the ten bands and the scene classification, and does nothing
else: no resampling to 10 m, no scaling, no mask. Both run in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import rasterio
from rasterio.windows import Window as RasterioWindow

from pipeline.scenes.opening import open_scene
from tests.fakes.safe import KEYS, Safe, write_safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.scenes.scene import Scene

BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
# A real tile has 109800 m; 30720 m keep the making of the fake below half a minute.
SIZE_M = int(os.environ.get("LANDCOVER_BENCH_SIZE_M", "30720"))
TILE_PX, HALO_PX = 512, 32
ROUNDS = 3


def texture(key: str, x: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance whose JPEG 2000 takes about 8 bits a pixel, as that of a real tile does."""
    noise = np.random.default_rng(KEYS.index(key)).normal(0, 0.0025, x.shape)
    return 0.2 + 0.1 * np.sin(x / 500) + noise


def run() -> dict[str, float]:
    """Ratios and figures, printed and returned."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_safe(Path(folder), Safe(size_m=SIZE_M, truth=texture))
        open_scene(path)
        start = time.perf_counter()
        scene = open_scene(path)
        opening_ms = 1e3 * (time.perf_counter() - start)
        scene = scene.select(BANDS)
        windows = [window.expand(HALO_PX) for window in scene.grid.tiles(TILE_PX)]
        ours, bare = [], []
        memory = []
        for _ in range(ROUNDS):
            bare.append(_timed(_bare_loop, scene, windows))
            ours.append(_timed(_our_loop, scene, windows))
            memory.append(_memory_mib())
    figures = {
        "reading ten bands / bare rasterio loop": min(ours) / min(bare),
        "opening a SAFE, ms": opening_ms,
        "growth of memory from the first round to the last, MiB": memory[-1] - memory[0],
        "one round of reading, s": min(ours),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")  # noqa: T201 - a benchmark reports
    return figures


def _timed(loop: object, scene: Scene, windows: Sequence[Window]) -> float:
    start = time.perf_counter()
    loop(scene, windows)  # type: ignore[operator]
    return time.perf_counter() - start


def _our_loop(scene: Scene, windows: Sequence[Window]) -> None:
    with scene.open() as reader:
        for window in windows:
            reader.read(window)


def _bare_loop(scene: Scene, windows: Sequence[Window]) -> None:
    paths = [source.path for source in scene.bands] + [layer.path for layer in scene.quality]
    files = [rasterio.open(path) for path in paths]
    for window in windows:
        inside = window.intersect(scene.grid.window)
        if inside is None:
            continue
        for file in files:
            step = round(file.transform.a / scene.grid.transform.a)
            row, col = inside.row // step, inside.col // step
            height, width = -(-inside.row_stop // step) - row, -(-inside.col_stop // step) - col
            file.read(1, window=RasterioWindow(col, row, width, height))
    for file in files:
        file.close()


def _memory_mib() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


if __name__ == "__main__":
    run()
