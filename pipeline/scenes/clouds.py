"""Clouds where the product has no mask: a network finds clouds and their shadows, window by window, into a raster.

The network is ukis-csmask (Wieland, Li & Martinis 2019, Multi-sensor cloud and cloud shadow segmentation with a
convolutional neural network, Remote Sensing of Environment 230; extra ``clouds``), which ships its weights: made for
reflectance of Landsat 5 to 9 and Sentinel-2, top of atmosphere or surface, at about 30 m, from blue, green, red, nir,
swir16 and swir22, or the first four. The raster is read like any other quality layer from then on.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from pipeline.errors import ConfigError, SceneError, SceneWarning
from pipeline.files import fingerprint, hash_of, whole_file
from pipeline.grid import Grid, Window
from pipeline.scenes.quality import DEFAULT_MASK
from pipeline.scenes.sources import QualitySource

if TYPE_CHECKING:
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Scene

Clouds = Literal["auto", "product", "network", "none"]
SIX, FOUR = ("blue", "green", "red", "nir", "swir16", "swir22"), ("blue", "green", "red", "nir")
# Pixel size that the network was made for; its own buffer around clouds and shadows, in pixels.
GSD_M, BUFFER_PX = 30.0, 4
# Side of the windows, and what is read around each: more than a cell of the network's coarsest layer.
SIDE_PX, HALO_PX = 1024, 64
# Sensors whose products have a layer of clouds.
_WITH_QUALITY = ("sentinel-2", "landsat", "hls")
CLOUDY = frozenset({"cloud", "cloud_medium", "cirrus", "shadow", "dilated"})
CODES = {1: "cloud", 2: "shadow", 3: "dilated"}
_TAG = "LANDCOVER_CLOUDS"


def product_mask(mask: Sequence[str] | None, clouds: Clouds) -> tuple[str, ...] | None:
    """The reasons that the product's own layers mask for: without those of clouds where they are not wanted.

    >>> product_mask(("nodata", "cloud", "snow"), "none")
    ('nodata', 'snow')
    """
    if clouds not in {"none", "network"}:
        return None if mask is None else tuple(mask)
    return tuple(reason for reason in (DEFAULT_MASK if mask is None else mask) if reason not in CLOUDY)


def masks_clouds(scene: Scene) -> bool:
    """Whether a layer of the product says where clouds are."""
    return any("cloud" in reason.lower() for layer in scene.quality for reason in layer.reasons)


def warn_of_clouds(
    scenes: Sequence[Scene],
    *, clouds: Clouds, mask: Sequence[str] | None, fix: str, sensors: Collection[str] = (),
) -> None:  # fmt: skip
    """SceneWarning of optical scenes that say nothing of clouds, where products of their sensor do.

    ``sensors`` are those of a scene that does not say its own; ``fix`` is what to do without the product.
    """
    if clouds != "product" or not CLOUDY.intersection(mask or CLOUDY):
        return
    silent = [
        scene.path
        for scene in scenes
        if any(sensor.startswith(_WITH_QUALITY) for sensor in ((scene.sensor,) if scene.sensor else sensors))
        and not (masks_clouds(scene) or any("clouds are not masked" in note for note in scene.notes))
    ]
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        text = f"{silent[0]}{more}: no layer says where clouds are (SCL, QA_PIXEL, Fmask): they are mapped as a class"
        warnings.warn(f"{text}; give the folder of the product, or {fix}", SceneWarning, stacklevel=3)


def with_clouds(scene: Scene, clouds: Clouds, *, folder: Path, make: bool = True) -> Scene:
    """The scene with a mask of clouds, where it is to have one of the network's.

    "network" always asks it, "auto" where the product has no mask. The mask's raster lies in ``folder``; one that is
    there for the same files is taken as it is. Without ``make`` the scene stays without one, and a note says so.

    Raises:
        ConfigError: ukis-csmask is not installed.
        SceneError: the scene lacks a band that the network needs, or its values are no reflectance.
    """
    if clouds in {"product", "none"} or (clouds == "auto" and masks_clouds(scene)):
        return scene
    if find_spec("ukis_csmask") is None:
        fix = "pip install 'landcover-pipeline[clouds]', or set inputs.clouds to product or none"
        raise ConfigError("a mask of clouds by the network needs ukis-csmask", fix=fix)
    names = _common(scene)
    bands = next((bands for bands in (SIX, FOUR) if set(names) >= set(bands)), None)
    if bands is None:
        got, expected, fix = ", ".join(scene.band_names), ", ".join(FOUR), "set inputs.clouds to product or none"
        raise SceneError("clouds cannot be found in this scene", path=scene.path, got=got, expected=expected, fix=fix)
    chosen = replace(scene.select([names[band] for band in bands]), quality=())
    strange = [unit for unit in chosen.units if unit != "reflectance"]
    if strange:
        got, fix = (
            strange[0] or "values without a unit",
            "give scale and offset, or set inputs.clouds to product or none",
        )
        raise SceneError("clouds can be found in reflectance only", path=scene.path, got=got, fix=fix)
    level = "l2a" if scene.level.startswith("L2") else "l1c"
    read = [(band.band, band.path, band.index, band.scale, band.offset, band.nodata) for band in chosen.bands]
    key = hash_of([fingerprint(chosen.files), read, repr(scene.grid), level, bands, version("ukis-csmask")])
    path = folder / f"{scene.id}_clouds.tif"
    share = _share(path, key)
    if share is None and not make:
        return replace(scene, notes=(*scene.notes, "clouds and shadows are not masked yet: the run asks the network"))
    if share is None:
        share = _write_mask(path, chosen, bands, level=level, key=key)
    reasons = tuple(f"{code}: {why}" for code, why in CODES.items())
    layer = QualitySource("ukis-csmask", str(path), bad_values=tuple(CODES), reasons=reasons)
    model = f"ukis-csmask {version('ukis-csmask')}, {len(bands)} bands, {level.upper()}"
    note = f"clouds and shadows by the network {model}: {100 * share:.1f} % of the scene"
    return replace(scene, quality=(*scene.quality, layer), notes=(*scene.notes, note))


def _common(scene: Scene) -> dict[str, str]:
    """Name the network knows -> name of the scene's band; nir08 (Landsat, narrow) stands for nir where that lacks."""
    names = {name: name for name in scene.band_names}
    if "nir" not in names and "nir08" in names:
        names["nir"] = "nir08"
    return names


def _share(path: Path, key: str) -> float | None:
    """Share of the scene that a mask of the same key masks, 0..1; None where there is none."""
    if not path.exists():
        return None
    try:
        with rasterio.open(path) as mask:
            tags = mask.tags()
    except RasterioError:
        return None
    return float(tags["LANDCOVER_CLOUD_SHARE"]) if tags.get(_TAG) == key else None


def _write_mask(path: Path, scene: Scene, bands: Sequence[str], *, level: str, key: str) -> float:
    """Write the mask on pixels of about 30 m; gives the share of valid pixels that it masks."""
    factor = max(round(GSD_M / max(scene.grid.pixel_size_m)), 1)
    height, width = (max(-(-size // factor), 1) for size in scene.grid.shape)
    grid = Grid(scene.grid.crs, scene.grid.transform @ Affine.scale(factor), height, width)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 255, "crs": grid.crs, "transform": grid.transform,
        "height": height, "width": width, "tiled": True, "compress": "deflate",
    }  # fmt: skip
    masked = seen = 0
    with (
        whole_file(path, what="the mask of clouds", failures=(RasterioError,)) as part,
        rasterio.open(part, "w", **profile) as target,
        scene.open() as reader,
    ):
        for window in grid.tiles(SIDE_PX):
            codes = _codes(reader, window, factor, bands, level=level)
            target.write(codes, 1, window=window.to_rasterio())
            masked += int(np.isin(codes, tuple(CODES)).sum())
            seen += int((codes != 255).sum())  # noqa: PLR2004 - nodata
        share = masked / max(seen, 1)
        target.update_tags(**{_TAG: key, "LANDCOVER_CLOUD_SHARE": repr(share)})
    return share


def _codes(reader: Reader, window: Window, factor: int, bands: Sequence[str], *, level: str) -> NDArray[np.uint8]:
    """Codes uint8 [row, col] of a window of coarse pixels: 0 clear, 1 cloud, 2 shadow, 3 near them, 255 nodata."""
    from ukis_csmask.mask import CSmask

    around = window.expand(HALO_PX)
    values = np.zeros((len(bands), *around.shape), dtype=np.float32)
    valid = np.zeros(around.shape, dtype=np.bool_)
    step = 128
    for top in range(0, around.height, step):
        high = min(step, around.height - top)
        fine = Window((around.row + top) * factor, around.col * factor, high * factor, around.width * factor)
        raster = reader.read(fine)
        cells = (high, factor, around.width, factor)
        count = raster.valid.reshape(cells).sum((1, 3))
        total = raster.values.reshape(len(bands), *cells).sum((2, 4))  # 0 where not valid
        values[:, top : top + high] = total / np.maximum(count, 1)
        valid[top : top + high] = count > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CSmask(np.moveaxis(values, 0, -1).copy(), list(bands), level, invalid_buffer=BUFFER_PX)
    codes = np.where(found.valid[..., 0] > 0, 0, 3).astype(np.uint8)
    raw = found.csm[..., 0]
    codes[raw > 0] = raw[raw > 0]
    codes[~valid] = 255
    inner = slice(HALO_PX, HALO_PX + window.height), slice(HALO_PX, HALO_PX + window.width)
    return codes[inner]
