"""Clouds without a mask, embeddings, and the Zarr of EOPF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from tests.situations.case import situation
from tests.situations.files import PLACES, SIDE, opened, pixels, same, write

# --- 10. clouds where the product has no mask


@situation("10", "clouds asked of a network for a scene of counts")
def _(folder: Path) -> str:
    path = write(folder / "s.tif", np.stack([PLACES] * 4), names=("blue", "green", "red", "nir"))
    try:
        from pipeline.scenes.clouds import with_clouds
    except ImportError:
        return "wrong: clouds are not masked"
    try:
        with_clouds(opened(path), "network", folder=folder)
    except PipelineError as err:
        return f"said: {err.what}"
    return "wrong: looked for in counts"


# --- 11. embeddings


def embeddings(folder: Path) -> tuple[Path, NDArray[np.int8]]:
    """64 bands of int8 as Google writes them: each pixel its own, -128 in the first row."""
    stored = ((PLACES[None] * 7 + np.arange(64)[:, None, None] * 13) % 255 - 127).astype(np.int8)
    stored[:, 0] = -128
    return write(folder / "aef.tif", stored, names=tuple(f"A{number:02d}" for number in range(64))), stored


@situation("11", "AlphaEarth: int8, -128 no data, the signed square")
def _(folder: Path) -> str:
    path, stored = embeddings(folder)
    raster = pixels(opened(path))
    truth = np.sign(stored) * (stored / np.float64(127.5)) ** 2
    if raster.valid[0].any():
        return "wrong: -128 is a value"
    return same(np.round(raster.values[:, 1:], 5), np.round(truth[:, 1:], 5).astype(np.float32), "values")


@situation("11", "TESSERA: two versions in one run")
def _(folder: Path) -> str:
    from pipeline.scenes.opening import check_treatment

    paths = [folder / "one.tif", folder / "other.tif"]
    for path, version in zip(paths, ("1.0", "1.1"), strict=True):
        names = tuple(f"Tessera_Band_{number}" for number in range(3))
        write(path, np.ones((3, SIDE, SIDE), np.float32), names=names)
        with rasterio.open(path, "r+") as file:
            file.update_tags(TESSERA_DATASET_VERSION=version)
    try:
        check_treatment([opened(path) for path in paths])
    except PipelineError as err:
        return f"said: {err.what}"
    return "wrong: mixed"


# --- 12. EOPF Zarr


@situation("12", "Sentinel-2 L2A in the Zarr of EOPF: scale and offset from attributes, SCL masks")
def _(folder: Path) -> str:
    from tests.fakes.eopf import LEFT, TOP, Eopf, write_eopf
    from tests.fakes.safe import ramp

    raster = pixels(opened(write_eopf(folder, Eopf(cloud_px=3))))
    x, y = np.meshgrid(LEFT + (np.arange(120) + 0.5) * 10, TOP - (np.arange(120) + 0.5) * 10)
    if np.abs(raster.band("red") - ramp("B04", x, y))[6:, 6:].max() > 1e-4:
        return "wrong: reflectance"
    return same(raster.valid[:6, :6], np.zeros((6, 6), dtype=bool), "the mask")
