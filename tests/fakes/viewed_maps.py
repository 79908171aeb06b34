"""A class map with confidence, probabilities and its scene, in metres or in degrees, to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine

from pipeline.grid import Grid
from pipeline.legend import ClassScheme, scheme_for
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE
from tests.fakes.pixels import ArrayPixels
from tests.fakes.rasters import write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BANDS = ("blue", "green", "red", "nir", "swir16")
SIDE = (180, 240)
METRES = Grid(CRS.from_epsg(32633), Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0), *SIDE)
DEGREES = Grid(CRS.from_epsg(4326), Affine(1e-4, 0.0, -56.4, 0.0, -1e-4, -1.4), *SIDE)
GRIDS = {"metres": METRES, "degrees": DEGREES}
SCHEME: ClassScheme = scheme_for(["water", "wood <b>", "field"])[0]
# affine 3 notes an operator that rasterio and rio-tiler use, and rasterio's own silencing of the other note is undone
# where several threads warp at once; neither is ours to mend.
LIBRARY_NOTES = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


@dataclass(frozen=True)
class World:
    """What was written, and the arrays it was written from."""

    grid: Grid
    class_map: Path
    scene: Path
    codes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.uint8]
    reflectance: NDArray[np.float64]
    seen: NDArray[np.bool_]


def write_world(folder: Path, name: str, *, grid: Grid = METRES, seed: int = 0) -> World:
    """``<name>_lc.tif``, ``_conf.tif``, ``_probabilities.tif`` in ``folder/maps`` and the scene ``folder/<name>.tif``.

    The scene is stored as DN of 0.0001 with nodata 0; the first 20 rows of its left half were not observed.
    """
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 4, (grid.height // 12, grid.width // 12))
    codes = np.kron(blocks, np.ones((12, 12), int)).astype(np.uint8)
    seen = np.ones(grid.shape, dtype=np.bool_)
    seen[:20, : grid.width // 2] = False
    codes[~seen] = 0
    confidence = np.where(seen, rng.integers(34, 101, grid.shape), 255).astype(np.uint8)
    others = np.where(seen, (100 - confidence.astype(int)) // 2, 255)
    probabilities = np.stack([np.where(codes == c, confidence, others) for c in SCHEME.codes]).astype(np.uint8)
    spectra = np.array([[300, 250, 200, 150, 100], [400, 600, 300, 3500, 1500], [900, 1200, 1500, 2600, 2800]])
    smooth = np.add.outer(np.arange(grid.height), np.arange(grid.width)) // 4
    dn = spectra[np.maximum(codes, 1) - 1].transpose(2, 0, 1) + smooth + rng.integers(0, 60, (5, *grid.shape))
    dn = np.where(seen, dn, 0).astype(np.uint16)
    maps = folder / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    class_map = maps / f"{name}_lc.tif"
    write_class_map(class_map, ArrayPixels(codes), grid=grid, scheme=SCHEME)
    write_percent(maps / f"{name}_conf.tif", ArrayPixels(confidence), grid=grid, layer=CONFIDENCE)
    write_percent(maps / f"{name}_probabilities.tif", ArrayPixels(probabilities), grid=grid, layer=SCHEME)
    scene = write_scene(folder / f"{name}.tif", dn, grid)
    return World(grid, class_map, scene, codes, confidence, probabilities, dn * 0.0001, seen)


def write_scene(path: Path, dn: NDArray[np.uint16], grid: Grid) -> Path:
    """A scene that says its own scaling."""
    import rasterio

    write_raster(path, dn, crs=grid.crs.to_string(), transform=grid.transform, nodata=0, names=BANDS[: len(dn)])
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.0001,) * len(dn)
    return path
