"""Small rasters on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.transform import Affine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def write_raster(
    path: Path,
    values: NDArray[np.generic],
    *,
    crs: str = "EPSG:32633",
    transform: Affine = TRANSFORM,
    nodata: float | None = None,
    names: tuple[str, ...] = (),
    driver: str = "GTiff",
    options: dict[str, Any] | None = None,
) -> Path:
    """Write [band,row,col] (or [row,col]) and give the path."""
    layers = values if values.ndim == 3 else values[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"count": len(layers), "height": layers.shape[1], "width": layers.shape[2], "dtype": layers.dtype}
    with rasterio.open(
        path, "w", driver=driver, crs=crs, transform=transform, nodata=nodata, **profile, **(options or {})
    ) as dataset:
        dataset.write(layers)
        for number, name in enumerate(names, start=1):
            dataset.set_band_description(number, name)
    return path
