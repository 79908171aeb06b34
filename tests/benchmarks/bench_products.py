"""What writing the products of a scene costs, beside a bare COG of the same pixels, and the memory that polygons need.

A scene has 4096 x 4096 pixels; ``LANDCOVER_BENCH_PX=10980 python -m tests.benchmarks products --seconds 3600`` takes
those of a whole Sentinel-2 tile. What the products are of the time of mapping is in the benchmark ``mapping``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.legends import read_scheme
from pipeline.maps.pixels import FilePixels
from pipeline.maps.style import CONFIDENCE
from pipeline.maps.vectorise import PolygonRules
from pipeline.maps.vectors import write_polygons
from pipeline.process import peak_rss_mb
from tests.fakes.pixels import ArrayPixels

SIDE_PX = int(os.environ.get("LANDCOVER_BENCH_PX", "4096"))


def make_map(side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """(codes 1..6, confidence) with patches of some hectares and ragged edges, as maps have."""
    rng = np.random.default_rng(0)
    coarse = ndimage.zoom(rng.random((side_px // 16 + 2,) * 2, dtype=np.float32), 16, order=1)[:side_px, :side_px]
    values = coarse * 6 + rng.random((side_px, side_px), dtype=np.float32) * 0.3
    codes = (np.clip(values, 0, 5.99) + 1).astype(np.uint8)
    return codes, (40 + 60 * np.abs(values % 1 - 0.5)).astype(np.uint8)


def bare_cog(path: Path, codes: np.ndarray, grid: Grid) -> None:
    """The same pixels through rasterio's COG driver: no palette, names, counts, tags or style."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": 0,
    }
    draft = path.with_suffix(".draft.tif")
    with rasterio.open(draft, "w", height=grid.height, width=grid.width, tiled=True, **profile) as target:
        target.write(codes, 1)
    rasterio.shutil.copy(
        draft, path, driver="COG", compress="DEFLATE", overview_resampling="MODE", num_threads="ALL_CPUS"
    )


def run() -> dict[str, float]:
    """Seconds per product and ratios to a bare COG, best of three."""
    codes, confidence = make_map(SIDE_PX)
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 330000, 0, -10, 5822040), SIDE_PX, SIDE_PX)
    scheme, _ = scheme_for(["a", "b", "c", "d", "e", "f"])
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = {
            "bare_cog_s": lambda k: bare_cog(folder / f"bare{k}.tif", codes, grid),
            "class_map_s": lambda k: write_class_map(
                folder / f"m{k}_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme
            ),
            "confidence_s": lambda k: write_percent(
                folder / f"m{k}_c.tif", ArrayPixels(confidence), grid=grid, layer=CONFIDENCE
            ),
        }
        for repeat in range(3):
            for key, step in steps.items():
                started = time.perf_counter()
                step(repeat)
                times.setdefault(key, []).append(time.perf_counter() - started)
        peak = _polygons_in_a_process(folder / "m0_lc.tif", folder / "m0_c.tif")
    best = {key: min(values) for key, values in times.items()}
    best["class_map_to_bare_cog"] = best["class_map_s"] / best["bare_cog_s"]
    best["class_map_and_confidence_s"] = best["class_map_s"] + best["confidence_s"]
    best |= peak
    best["us_per_pixel"] = best["class_map_and_confidence_s"] / SIDE_PX**2 * 1e6
    return best


def _polygons_in_a_process(class_map: Path, confidence: Path) -> dict[str, float]:
    """Seconds, peak memory in MB and number of polygons of a fresh process, which holds nothing of the map before."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_products", str(class_map), str(confidence)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def polygons_of(class_map: Path, confidence: Path) -> dict[str, float]:
    """Polygons of half a hectare and more, smoothed, with their mean confidence."""
    started = time.perf_counter()
    with FilePixels(class_map) as codes, FilePixels(confidence) as sure:
        count = write_polygons(
            class_map.with_suffix(".gpkg"), codes, grid=codes.grid, scheme=read_scheme(class_map),
            rules=PolygonRules(mmu_ha=0.5, smoothing=2), confidence=sure,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    return {"polygons_s": seconds, "polygons_peak_mb": peak_rss_mb() or 0.0, "polygons": float(count)}


if __name__ == "__main__" and len(sys.argv) > 1:
    print(json.dumps(polygons_of(Path(sys.argv[1]), Path(sys.argv[2]))))
elif __name__ == "__main__":
    for key, value in run().items():
        print(f"{key:28s} {value:8.3f}")
