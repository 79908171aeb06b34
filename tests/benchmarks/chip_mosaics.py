"""Real chips with real classes side by side as one scene with small polygons: sets on which nothing was chosen.

Each chip keeps its pixels; the polygon in its middle has its class. The surroundings that the default network and the
forest with neighbourhoods see (four pixels) stay within the chip. Neighbouring chips of the files come from all over
their area, so folds of blocks are folds of chips.
"""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin
from shapely import box

# Chips of a row of the mosaic.
_ACROSS = 60
_TOKYO = ("water", "golf course", "park", "buildings", "forest", "farm")


def make_mosaic(name: str, shared: Path, *, scene: Path, labels: Path) -> None:
    """Write the scene and the polygons of one of MOSAICS."""
    chips, classes, bands, pixel_m, marked_px = MOSAICS[name](shared)
    count, _, side, _ = chips.shape
    rows = -(-count // _ACROSS)
    cells = np.zeros((rows * _ACROSS, *chips.shape[1:]), dtype=chips.dtype)
    cells[:count] = chips
    pixels = cells.reshape(rows, _ACROSS, len(bands), side, side).transpose(2, 0, 3, 1, 4)
    pixels = pixels.reshape(len(bands), rows * side, _ACROSS * side)
    transform = from_origin(500_000.0, 4_000_000.0, pixel_m, pixel_m)
    scene.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": chips.dtype, "count": len(bands), "crs": CRS.from_epsg(32654)}
    profile |= {"height": pixels.shape[1], "width": pixels.shape[2], "transform": transform, "nodata": 0, "tiled": True}
    with rasterio.open(scene, "w", **profile) as target:
        target.write(pixels)
        target.descriptions = bands
    row, col = np.divmod(np.arange(count), _ACROSS)
    first = (side - marked_px) // 2
    x = 500_000.0 + (col * side + first) * pixel_m
    y = 4_000_000.0 - (row * side + first) * pixel_m
    marked = box(x, y - marked_px * pixel_m, x + marked_px * pixel_m, y)
    geopandas.GeoDataFrame({"class": classes}, geometry=marked, crs="EPSG:32654").to_file(labels)


Chips = tuple[NDArray[np.generic], list[str], tuple[str, ...], float, int]


def _stacked(path: Path, side: int) -> NDArray[np.generic]:
    """Chips [chip, band, row, col] of a file that has them one below the other."""
    with rasterio.open(path) as dataset:
        pixels = dataset.read()
    return pixels.reshape(len(pixels), -1, side, side).transpose(1, 0, 2, 3)


def _tokyo(shared: Path, patches: str, labels: str, bands: tuple[str, ...], *, side: int, pixel_m: float) -> Chips:
    folder = shared / "tokyo_chips"
    with rasterio.open(folder / labels) as dataset:
        classes = [_TOKYO[code] for code in dataset.read(1).ravel()]
    return _stacked(folder / patches, side), classes, bands, pixel_m, 2


def _tokyo_20m(shared: Path) -> Chips:
    bands = ("B8A", "B12", "B07", "B05", "B06", "B11")
    return _tokyo(shared, "s2_20m_patches_A.tif", "s2_labels_A.tif", bands, side=8, pixel_m=20.0)


def _tokyo_10m(shared: Path) -> Chips:
    names = ("Sentinel-2_B4328_10m_patches_A.jp2", "Sentinel-2_B4328_10m_labels_A.tif")
    return _tokyo(shared, *names, ("B04", "B03", "B02", "B08"), side=16, pixel_m=10.0)


def _eurosat(shared: Path) -> Chips:
    files = sorted((shared / "eurosat_ms_1pct" / "data").rglob("*.tif"))
    # Chips of a class lie side by side in the folders; mixed, so that blocks hold several classes.
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    chips = []
    for path in files:
        with rasterio.open(path) as dataset:
            chips.append(dataset.read())
    bands = (*(f"B{number:02d}" for number in range(1, 13)), "B8A")
    return np.stack(chips), [path.parent.name for path in files], bands, 10.0, 32


MOSAICS = {"tokyo_20m": _tokyo_20m, "tokyo_10m": _tokyo_10m, "eurosat": _eurosat}
