"""What a tile of ``landcover view`` costs on a 4096 x 4096 map and a scene without overviews, in processor time."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import write_class_map
from pipeline.scenes.opening import open_scene
from pipeline.view.answers import Answers, open_viewed
from pipeline.view.tiles import file_tile, tile_grid
from tests.fakes.pixels import ArrayPixels
from tests.fakes.viewed_maps import write_scene

SIDE_PX = 4096
ZOOMS = (10, 12, 14, 16)


def tile_at(grid: Grid, zoom: int) -> Grid:
    """The tile in the middle of a grid."""
    to_web = Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True)
    x, y = to_web.transform(*grid.xy(grid.height // 2, grid.width // 2))
    half = 20_037_508.342789244
    per_m = 2**zoom / (2 * half)
    return tile_grid(zoom, int((x + half) * per_m), int((half - y) * per_m))


def cost(work: object, *, times: int = 5) -> float:
    """Milliseconds of processor time, the median of some."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()  # type: ignore[operator]
        found.append((time.process_time() - started) * 1e3)
    return float(np.median(found))


def run() -> dict[str, float]:
    """Milliseconds per warm tile, the first tile of the scene, and what opening the file for every tile would add."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 330000, 0, -10, 5822040), SIDE_PX, SIDE_PX)
    codes = np.kron(rng.integers(1, 7, (SIDE_PX // 16,) * 2), np.ones((16, 16), int)).astype(np.uint8)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scheme, _ = scheme_for(["a", "b", "c", "d", "e", "f"])
        write_class_map(folder / "a_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme)
        bright = codes.astype(np.uint16) * 400
        dn = np.stack([bright + rng.integers(0, 200, codes.shape) for _ in range(4)]).astype(np.uint16)
        scene = open_scene(write_scene(folder / "a.tif", dn, grid))
        answers = Answers([open_viewed(folder / "a_lc.tif", name="a", scene=scene)], title="")
        started = time.process_time()
        answers.tile(0, "true", tile_at(grid, ZOOMS[0]))
        figures["scene, first tile (ms)"] = (time.process_time() - started) * 1e3

        def anew() -> None:
            with rasterio.open(folder / "a_lc.tif") as dataset:
                file_tile(dataset, tile_at(grid, 14), band=1, nodata=0)

        for zoom in ZOOMS:
            tile = tile_at(grid, zoom)
            for layer, what in (("lc", "map"), ("true", "scene")):
                answers.tile(0, layer, tile)
                figures[f"{what}, zoom {zoom} (ms)"] = cost(lambda layer=layer, tile=tile: answers.tile(0, layer, tile))
        figures["opening anew / kept open"] = cost(anew) / figures["map, zoom 14 (ms)"]
        answers.close()
    return figures
