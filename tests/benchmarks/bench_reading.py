"""Reading ten bands of a SAFE tile window by window, against a bare rasterio loop over the same files and windows.

The bare loop reads the native pixels of each window, of the ten bands and the scene classification, and does nothing
else: no resampling to 10 m, no scaling, no mask. Both run in turns, so that a busy machine slows both. Then the tile is
mapped in the order of the plan, and row by row with the usual cache: ``LANDCOVER_BENCH_SIZE_M=109800 python -m
tests.benchmarks reading --seconds 3600`` does so for a whole one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import rasterio
import torch
from rasterio.windows import Window as RasterioWindow

from pipeline.inference.plan import Plan, engine_of, make_plan
from pipeline.inference.predict import open_run
from pipeline.inference.settings import MapSettings
from pipeline.inference.tiles import GDAL_CACHE_BYTES
from pipeline.scenes.opening import open_scene
from tests.benchmarks.landscape import trained_bundle
from tests.conftest import SHARED
from tests.fakes.landsat import Landsat, tar_landsat, write_landsat
from tests.fakes.real_safe import with_sparse_images
from tests.fakes.safe import KEYS, Safe, write_safe, zip_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Scene, Source

BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
# A real tile has 109800 m: some 2 GB of files and a quarter of an hour; 30720 m keep the making of the fake below half
# a minute on a quiet machine.
SIZE_M = int(os.environ.get("LANDCOVER_BENCH_SIZE_M", "30720"))
# JP2 of twelve bands in all resolutions, and a zip of them.
BYTES_PER_10_M_PIXEL = 20
REAL = SHARED / "data" / "s2_safe_metadata" / "S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE"
TILE_PX, HALO_PX = 512, 32
# What a memory of 1.5 GB allows the default network.
LARGEST_PX = 1664
ROUNDS = 3


def texture(key: str, x: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflectance whose JPEG 2000 takes about 8 bits a pixel, as that of a real tile does."""
    noise = np.random.default_rng(KEYS.index(key)).normal(0, 0.0025, x.shape)
    return 0.2 + 0.1 * np.sin(x / 500) + noise


def run() -> dict[str, float]:
    """Ratios and figures, printed and returned."""
    with tempfile.TemporaryDirectory() as folder:
        _check_room(Path(folder))
        path = write_safe(Path(folder), Safe(size_m=SIZE_M, truth=texture))
        figures = _reading(path) | _mapping(path, Path(folder)) | _opening(path, Path(folder))
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


def _check_room(folder: Path) -> None:
    needed = BYTES_PER_10_M_PIXEL * (SIZE_M / 10) ** 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"{needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free: set TMPDIR"
        raise SystemExit(message)


def _reading(path: Path) -> dict[str, float]:
    scene = open_scene(path).select(BANDS)
    windows = [window.expand(HALO_PX) for window in scene.grid.tiles(TILE_PX)]
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    memory = []
    for _ in range(ROUNDS):
        bare.append(_timed(_bare_loop, scene, windows))
        ours.append(_timed(_our_loop, scene, windows))
        memory.append(_memory_mib())
    return {
        "reading ten bands / bare rasterio loop": min(ours)[0] / min(bare)[0],
        "the same in CPU time, as on a quiet machine": min(cpu for _, cpu in ours) / min(cpu for _, cpu in bare),
        "growth of memory from the first round to the last, MiB": memory[-1] - memory[0],
        "memory of the process after reading, MiB": memory[-1],
        "one round of reading, s": min(ours)[0],
    }


def _opening(safe: Path, folder: Path) -> dict[str, float]:
    """Milliseconds that opening takes this process, whoever else keeps the machine busy."""
    landsat = write_landsat(folder / "landsat", Landsat(pixels=SIZE_M // 30))
    products = {"a SAFE": safe, "a Landsat folder": landsat}
    figures = {f"opening {name}, ms of CPU": _opened_ms(path) for name, path in products.items()}
    figures["opening a Landsat tar, ms of CPU"] = _opened_ms(tar_landsat(landsat))
    figures["opening a SAFE zip, ms of CPU"] = _opened_ms(zip_safe(safe))
    if REAL.is_dir():
        figures["opening a SAFE with real metadata, ms of CPU"] = _opened_ms(with_sparse_images(REAL, folder / "real"))
    return figures


def _mapping(path: Path, folder: Path) -> dict[str, float]:
    """Seconds of mapping with the default network, tiles and cache as planned against the largest tiles row by row."""
    scene, bundle = open_scene(path).select(BANDS), trained_bundle(names=BANDS)

    def by_rows(bundle: ModelBundle, source: Source, settings: MapSettings) -> Plan:
        plan = make_plan(bundle, source, settings.model_copy(update={"tile_px": LARGEST_PX}))
        return replace(plan, columns=0, cache_bytes=GDAL_CACHE_BYTES)

    seconds = {}
    for name, planner in {"as planned": make_plan, "row by row": by_rows}.items():
        settings = MapSettings(engine="torch")
        run = open_run(bundle, scene, out=folder / name, settings=settings, planner=planner)
        engine = engine_of(bundle, run.steps.plan.choice, threads=torch.get_num_threads())
        start = time.perf_counter()
        with run.writing(None) as writing:
            run.steps.map(engine, run.left, writing)
        seconds[name] = time.perf_counter() - start
        run.finish().close()
    ratio = seconds["as planned"] / seconds["row by row"]
    return {"mapping as planned, s": seconds["as planned"], "mapping as planned / row by row": ratio}


def _opened_ms(path: Path) -> float:
    open_scene(path)
    start = time.process_time()
    for _ in range(ROUNDS):
        open_scene(path)
    return 1e3 * (time.process_time() - start) / ROUNDS


def _timed(
    loop: Callable[[Scene, Sequence[Window]], None], scene: Scene, windows: Sequence[Window]
) -> tuple[float, float]:
    """(seconds, seconds of CPU)."""
    start, cpu = time.perf_counter(), time.process_time()
    loop(scene, windows)
    return time.perf_counter() - start, time.process_time() - cpu


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
