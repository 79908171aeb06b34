"""A small world to map: a scene of three classes in four bands, and polygons on some of its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely
import yaml

from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDS = ("blue", "green", "red", "nir")
CRS = "EPSG:32633"
SIDE = 96
# Blocks of 16 pixels hold one class each and, in their middle, one polygon of 4 x 4 pixels: 12 pixels from the next.
BLOCK, POLYGON = 16, 4
CLASSES = ("Cropland", "Tree cover", "Permanent water bodies")
# Reflectance of each class by band; apart by many deviations of the noise.
SPECTRA = np.array([[0.10, 0.12, 0.14, 0.25], [0.04, 0.06, 0.04, 0.35], [0.06, 0.05, 0.03, 0.02]], dtype=np.float32)


def truth(side: int = SIDE) -> NDArray[np.intp]:
    """Index of the class of every pixel: blocks in a Latin-square pattern."""
    block = np.arange(side) // BLOCK
    return np.asarray((block[:, None] + 2 * block[None, :] + block[:, None] // 3) % len(CLASSES), dtype=np.intp)


def reflectance(side: int = SIDE, *, seed: int = 0) -> NDArray[np.float32]:
    """The scene, float32 [band, row, col]."""
    rng = np.random.default_rng(seed)
    clean = SPECTRA[truth(side)].transpose(2, 0, 1)
    return np.asarray(np.maximum(clean + rng.normal(0, 0.01, clean.shape), 0.001), dtype=np.float32)


def write_scene(path: Path, values: NDArray[Any] | None = None, **options: Any) -> Path:
    """The scene as a GeoTIFF with named bands."""
    values = reflectance() if values is None else values
    names = options.pop("names", BANDS[: len(values)] if values.ndim == 3 else ("red",))
    return write_raster(path, values, names=names, **options)


def squares(side: int = SIDE) -> gpd.GeoDataFrame:
    """One polygon in the middle of every block, with its class by name and by number."""
    cells = truth(side)
    rows = []
    start = (BLOCK - POLYGON) // 2
    for row in range(start, side, BLOCK):
        for col in range(start, side, BLOCK):
            left, top = TRANSFORM @ (col, row)
            right, bottom = TRANSFORM @ (col + POLYGON, row + POLYGON)
            rows.append((CLASSES[cells[row, col]], shapely.box(left, bottom, right, top)))
    names = [name for name, _ in rows]
    frame = {"class": names, "number": [CLASSES.index(name) + 1 for name in names]}
    return gpd.GeoDataFrame(frame, geometry=[shape for _, shape in rows], crs=CRS)


def write_labels(path: Path, frame: gpd.GeoDataFrame | None = None) -> Path:
    """Polygons as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (squares() if frame is None else frame).to_file(path, engine="pyogrio")
    return path


def quick_training(**changes: Any) -> dict[str, Any]:
    """Training of a second; ``changes`` replace or add keys of its sections, as "context.steps"."""
    training: dict[str, Any] = {"experts": {"trees": 10, "soft_pixels": 2000}, "pixels": {"steps": 40}}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (training.setdefault(section, {}) if section else training)[name] = value
    return training


def settings(**changes: Any) -> dict[str, Any]:
    """A configuration that learns in a second; ``changes`` replace whole keys."""
    colors = ("#f096ff", "#006400", "#0064c8")
    return {
        "version": 2,
        "name": "small",
        "output": "run",
        "scenes": [{"path": "scene.tif"}],
        "labels": {"path": "labels.gpkg", "field": "class"},
        "classes": [
            {"code": i, "name": n, "color": c} for i, (n, c) in enumerate(zip(CLASSES, colors, strict=True), 1)
        ],
        "chips": {"size_px": 16, "unlabelled": 8},
        "training": quick_training(),
        "map": {"engine": "torch", "dtype": "float32", "device": "cpu"},
        "assessment": {"forest_trees": 10, "features": False},
    } | changes


def write_settings(folder: Path, **changes: Any) -> Path:
    """``config.yaml`` in a folder."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(**changes), sort_keys=False), encoding="utf-8")
    return path


def write_world(folder: Path, **changes: Any) -> Path:
    """Scene, labels and configuration in a folder; gives the configuration."""
    write_scene(folder / "scene.tif")
    write_labels(folder / "labels.gpkg")
    return write_settings(folder, **changes)
