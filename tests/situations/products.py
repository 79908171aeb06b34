"""Sensors guessed from band keys, and quality layers as input bands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from tests.situations.case import situation
from tests.situations.files import COLS, PLACES, ROWS, SIDE, opened, pixels, same, write

# --- 3. a sensor guessed from band keys


@situation("3", "a folder of HLS L30: B05 near infrared, B06 and B07 short-wave, B10 thermal")
def _(folder: Path) -> str:
    hls(folder / "s", "L30", ("B02", "B03", "B04", "B05", "B06", "B07", "B10"))
    scene = opened(folder / "s")
    names = [name for name in ("blue", "nir08", "swir16", "swir22", "lwir11") if name in scene.band_names]
    if len(names) < 5:
        return f"wrong: bands are read as {', '.join(scene.band_names)}"
    return same(pixels(scene).band("nir08")[8:], np.full((SIDE - 8, SIDE), 0.5), "near infrared")


@situation("3", "one model for HLS S30 and L30: the same names for the same bands")
def _(folder: Path) -> str:
    hls(folder / "s", "S30", ("B02", "B03", "B04", "B8A", "B11", "B12"))
    hls(folder / "l", "L30", ("B02", "B03", "B04", "B05", "B06", "B07"))
    one, two = opened(folder / "s"), opened(folder / "l")
    shared = sorted(set(one.band_names) & set(two.band_names))
    wanted = sorted(("blue", "green", "red", "nir08", "swir16", "swir22"))
    return "right" if shared == wanted else f"wrong: in common {', '.join(shared)}"


@situation("3", "a STAC item of HLS L30")
def _(folder: Path) -> str:
    hls(folder, "L30", ("B04", "B05", "B06"))
    name = "HLS.L30.T33UUU.2024153T101031.v2.0"
    assets = {key: {"href": f"{name}.{key}.tif", "type": "image/tiff"} for key in ("B04", "B05", "B06", "Fmask", "SZA")}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "HLSL30_2.0", "geometry": None,
        "links": [], "properties": {"datetime": "2024-06-01T10:10:31Z", "platform": "LANDSAT-8"}, "assets": assets,
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = opened(folder / "item.json")
    if scene.band_names != ("red", "nir08", "swir16"):
        return f"wrong: bands are read as {', '.join(scene.band_names)}"
    return same(pixels(scene).band("nir08")[8:], np.full((SIDE - 8, SIDE), 0.5), "near infrared")


def hls(folder: Path, kind: str, keys: tuple[str, ...]) -> None:
    """An HLS product: 0.5 where near infrared is, 0.1 elsewhere; clouds in the first eight rows."""
    start = f"HLS.{kind}.T33UUU.2024153T101031.v2.0"
    near = {"L30": "B05", "S30": "B8A"}[kind]
    for key in keys:
        write(
            folder / f"{start}.{key}.tif", np.full((SIDE, SIDE), 5000 if key == near else 1000, np.int16), nodata=-9999
        )
    write(folder / f"{start}.Fmask.tif", np.where(ROWS < 8, 2, 0).astype(np.uint8), nodata=255)
    write(folder / f"{start}.SZA.tif", np.full((SIDE, SIDE), 3000, np.uint16), nodata=40000)


# --- 4. quality layers as input bands


def landsat(folder: Path) -> Path:
    """Level 2 files of Landsat 8 without their MTL: reflectance 0.1, fill at the left, clouds in the first rows."""
    start = "LC08_L2SP_193024_20240601_20240610_02_T1"
    dn = np.full((SIDE, SIDE), round((0.1 + 0.2) / 2.75e-5), np.uint16)
    dn[:, :4] = 0
    for key in ("SR_B4", "SR_B5"):
        write(folder / f"{start}_{key}.TIF", dn)
    write(folder / f"{start}_QA_PIXEL.TIF", np.where(ROWS < 8, 1 << 3, 1 << 6).astype(np.uint16))
    write(folder / f"{start}_SR_QA_AEROSOL.TIF", np.zeros((SIDE, SIDE), np.uint8))
    return folder


@situation("4", "Landsat files without an MTL: QA_PIXEL masks and is no band")
def _(folder: Path) -> str:
    scene = opened(landsat(folder / "s"))
    if len(scene.band_names) != 2:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, (ROWS >= 8) & (COLS >= 4), "the mask")


@situation("4", "Landsat files without an MTL: Collection 2 scaling by the name")
def _(folder: Path) -> str:
    raster = pixels(opened(landsat(folder / "s"), mask=()))
    return same(raster.values[0][raster.valid], np.full(int((COLS >= 4).sum()), 0.1), "reflectance")


def safe(folder: Path) -> Path:
    from tests.fakes.safe import Safe, write_safe

    return next(write_safe(folder, Safe(nodata_columns_m=100)).glob("GRANULE/*/IMG_DATA/R10m"))


@situation("4", "R10m of a SAFE: the XML around it, zero is no data")
def _(folder: Path) -> str:
    inside = safe(folder)
    scene = opened(inside, mask=())
    raster, whole = pixels(scene), pixels(opened(inside.parents[3], mask=()))
    if set(scene.band_names) != {"blue", "green", "red", "nir"}:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(raster.band("red") * whole.valid, whole.band("red"), "reflectance")


@situation("4", "a single JP2 of a SAFE: the XML around it, zero is no data")
def _(folder: Path) -> str:
    file = next(safe(folder).glob("*_B04_10m.jp2"))
    raster, whole = pixels(opened(file, mask=())), pixels(opened(file.parents[4], mask=()))
    return same(raster.values[0] * whole.valid, whole.band("red"), "reflectance")


@situation("4", "a file with SCL and AOT among its bands")
def _(folder: Path) -> str:
    layers = np.stack([PLACES, np.where(ROWS < 8, 9, 4), PLACES]).astype(np.uint16)
    scene = opened(write(folder / "a.tif", layers, names=("B4", "SCL", "AOT")))
    if len(scene.band_names) != 1:
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, ROWS >= 8, "the mask")


@situation("4", "a Fmask given as a scene")
def _(folder: Path) -> str:
    path = write(folder / "HLS.S30.T33UUU.2024153T101031.v2.0.Fmask.tif", np.where(ROWS < 8, 2, 0).astype(np.uint8))
    try:
        names = opened(path).band_names
    except PipelineError as err:
        return f"said: {err.what}"
    return f"wrong: learned from as band {', '.join(names)}"


@situation("4", "a STAC item of no known sensor with scl, aot and visual")
def _(folder: Path) -> str:
    write(folder / "red.tif", np.full((SIDE, SIDE), 0.1, np.float32))
    write(folder / "scl.tif", np.where(ROWS < 8, 9, 4).astype(np.uint8))
    write(folder / "aot.tif", np.zeros((SIDE, SIDE), np.uint16))
    assets = {key: {"href": f"{key}.tif", "type": "image/tiff"} for key in ("red", "scl", "aot")}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2024-06-01T10:10:31Z"}, "assets": assets,
    }  # fmt: skip
    assets["red"]["raster:bands"] = [{"data_type": "float32"}]  # type: ignore[assignment]
    (folder / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = opened(folder / "item.json")
    if scene.band_names != ("red",):
        return f"wrong: bands are {', '.join(scene.band_names)}"
    return same(pixels(scene).valid, ROWS >= 8, "the mask")
