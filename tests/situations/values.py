"""Fill, alpha, the order of bands and codes of classes that the files say wrongly or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from tests.situations.case import situation
from tests.situations.files import (
    COLS,
    NORTH_UP,
    PLACES,
    SIDE,
    UTM,
    command,
    init,
    labels_in,
    opened,
    pixels,
    same,
    squares,
    two_bands,
    write,
)

# --- 5. fill that nobody declared


def filled(folder: Path, value: float) -> Path:
    values = two_bands()
    values[:, :, :20] = value
    return write(folder / "scene.tif", values, names=("red", "nir"))


@situation("5", "-9999 over a third of the scene that no tag declares")
def _(folder: Path) -> str:
    status, text, written = init(folder, filled(folder, -9999), labels_in(folder))
    proposed = [scene.get("nodata") for scene in written.get("scenes", [])]
    if proposed == [-9999]:
        return "said: looks like fill, nodata proposed"
    return "wrong: nothing said" if status == 0 else f"refused: {text}"


@situation("5", "0 under labels: run")
def _(folder: Path) -> str:
    scene, labels = filled(folder, 0), labels_in(folder)
    _, _, written = init(folder, scene, labels)
    for item in written["scenes"]:
        item.pop("nodata", None)
    (folder / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    status, text = command("chips", folder / "config.yaml")
    return "said: run refuses, as it looks like fill" if status == 2 and "fill" in text else "wrong: learned from"


@situation("5", "true zeros of single bands")
def _(folder: Path) -> str:
    values = two_bands()
    values[1, :, :20] = 0
    scene = opened(write(folder / "scene.tif", values, names=("red", "nir")))
    with contextlib.suppress(ImportError):
        from pipeline.scenes.fill import find_fill

        if find_fill(scene) is not None:
            return "wrong: taken for fill"
    return same(pixels(scene).valid, np.ones((SIDE, SIDE), bool), "the mask")


# --- 6. alpha believed without a look


def four_bands(folder: Path, fourth: NDArray[np.uint8]) -> Path:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.integers(20, 200, (3, SIDE, SIDE), dtype=np.uint8), fourth[None]])
    path = write(folder / "a.tif", values, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return path


@situation("6", "near infrared of 8-bit R, G, B, NIR that is tagged alpha")
def _(folder: Path) -> str:
    nir = np.random.default_rng(2).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    scene = opened(four_bands(folder, nir))
    if len(scene.band_names) != 4:
        return "wrong: near infrared masks"
    raster = pixels(scene)
    return same(raster.values[3], nir) if raster.valid.all() else "wrong: near infrared masks"


@situation("6", "a real alpha channel")
def _(folder: Path) -> str:
    scene = opened(four_bands(folder, np.where(COLS < 8, 0, 255).astype(np.uint8)))
    return same(pixels(scene).valid, COLS >= 8, "the mask") if len(scene.band_names) == 3 else "wrong: alpha is a band"


# --- 7. bands matched by position


@situation("7", "a VRT of files whose names say the bands")
def _(folder: Path) -> str:
    files = [write(folder / f"x_{key}.tif", PLACES) for key in ("B02", "B03")]
    source = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{file.name}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, file in enumerate(files, 1)
    )
    place = ", ".join(str(value) for value in NORTH_UP.to_gdal())
    vrt = folder / "scene.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS><GeoTransform>{place}</GeoTransform>'
        f"{source}</VRTDataset>"
    )
    names = opened(vrt).band_names
    return "right" if names == ("blue", "green") else f"wrong: bands are {', '.join(names)}"


# --- 8. codes


@situation("8", "classes called 0, 7 and 300")
def _(folder: Path) -> str:
    labels = labels_in(folder, squares(names=("0", "7", "300")))
    status, text, written = init(folder, write(folder / "scene.tif", two_bands(), names=("red", "nir")), labels)
    codes = {item["name"]: item["code"] for item in written.get("classes", [])}
    if status or codes.get("7") != 7:
        return f"refused: {text}" if status else f"wrong: codes are {codes}"
    return "said: which codes changed" if "300 becomes" in text else "wrong: codes changed without a word"
