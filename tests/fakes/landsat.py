"""Fake Landsat Collection 2 products: real folder and file names, real MTL groups, a few hundred pixels."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

Truth = Callable[[str, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(common name, x, y of pixel centres in metres) -> reflectance; kelvin for lwir11, radiance for lwir12."""

ULX, ULY = 399_960, 5_800_020
SPACECRAFT = {
    "LT04": ("LANDSAT_4", "TM"),
    "LT05": ("LANDSAT_5", "TM"),
    "LE07": ("LANDSAT_7", "ETM"),
    "LC08": ("LANDSAT_8", "OLI_TIRS"),
    "LC09": ("LANDSAT_9", "OLI_TIRS"),
}
OLI = {"coastal": "1", "blue": "2", "green": "3", "red": "4", "nir08": "5", "swir16": "6", "swir22": "7"}
TM = {"blue": "1", "green": "2", "red": "3", "nir08": "4", "swir16": "5", "swir22": "7"}
NUMBERS = {"LT04": TM, "LT05": TM, "LE07": TM, "LC08": OLI, "LC09": OLI}
THERMAL = {"LT04": "6", "LT05": "6", "LE07": "6", "LC08": "10", "LC09": "10"}
SR, ST, L1 = (2.75e-5, -0.2), (0.00341802, 149.0), (2.0e-5, -0.1)
RADIANCE = (3.342e-4, 0.1)


def ramp(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values that encode the ground coordinates, differently for each band."""
    if name == "lwir11":
        return 280.0 + (x - ULX) * 1e-3
    if name == "lwir12":
        return 8.0 + (x - ULX) * 1e-4
    if name == "pan":
        return 0.3 + (x - ULX) * 1e-5
    order = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "cirrus")
    return 0.02 + 0.02 * order.index(name) + (x - ULX) * 1e-5 + (ULY - y) * 2e-5


@dataclass(frozen=True)
class Landsat:
    """What product to fake."""

    mission: Literal["LT04", "LT05", "LE07", "LC08", "LC09"] = "LC08"
    level: Literal["L2SP", "L2SR", "L1TP", "L1GT"] = "L2SP"
    pixels: int = 40
    truth: Truth = ramp
    date: str = "20230625"
    sun_elevation: float = 40.0
    epsg: int = 32633
    qa: dict[tuple[int, int], int] = field(default_factory=dict)
    """QA_PIXEL by (row, col); 21824, clear, elsewhere."""
    radsat: dict[tuple[int, int], int] = field(default_factory=dict)
    gap_columns: tuple[int, ...] = ()
    """Columns that are fill in every band, as the failed scan-line corrector leaves them."""
    mtl: tuple[str, ...] = ("txt", "json", "xml")
    leave_out: tuple[str, ...] = ()
    edit: dict[str, str] = field(default_factory=dict)
    """Replacements in every MTL."""

    @property
    def name(self) -> str:
        return f"{self.mission}_{self.level}_193024_{self.date}_20230707_02_T1"


def write_landsat(folder: Path, what: Landsat | None = None) -> Path:
    """Write the product below ``folder``; gives its folder."""
    what = what or Landsat()
    root = folder / what.name
    root.mkdir(parents=True)
    contents = {
        "ORIGIN": "Image courtesy of the U.S. Geological Survey",
        "LANDSAT_PRODUCT_ID": what.name,
        "PROCESSING_LEVEL": what.level,
        "COLLECTION_NUMBER": "02",
        "COLLECTION_CATEGORY": "T1",
        "OUTPUT_FORMAT": "GEOTIFF",
    }
    scaling: dict[str, dict[str, str]] = {}
    for name, number, suffix, (group, quantity, (mult, add)) in _bands(what):
        file = f"{what.name}_{suffix}.TIF"
        contents[f"FILE_NAME_BAND_{number}"] = file
        entries = scaling.setdefault(group, {})
        entries[f"{quantity}_MULT_BAND_{number}"] = f"{mult:g}" if mult != ST[0] else str(mult)
        entries[f"{quantity}_ADD_BAND_{number}"] = f"{add}"
        if suffix not in what.leave_out:
            _write_band(root / file, what, name, quantity, mult, add)
    for key, suffix, codes, clear in (
        ("PIXEL", "QA_PIXEL", what.qa, 21824),
        ("RADIOMETRIC_SATURATION", "QA_RADSAT", what.radsat, 0),
    ):
        file = f"{what.name}_{suffix}.TIF"
        contents[f"FILE_NAME_QUALITY_L1_{key}"] = file
        layer = np.full((what.pixels, what.pixels), clear, np.uint16)
        for place, code in codes.items():
            layer[place] = code
        if suffix not in what.leave_out:
            _save(root / file, what, layer, 30, nodata=None)
    _write_mtl(root, what, {"PRODUCT_CONTENTS": contents, **_attributes(what), **scaling})
    return root


def tar_landsat(root: Path) -> Path:
    """The same product as the tar that USGS delivers, beside it."""
    target = root.with_suffix(".tar")
    with tarfile.open(target, "w") as archive:
        for file in sorted(root.iterdir()):
            archive.add(file, file.name)
    shutil.rmtree(root)
    return target


def _bands(what: Landsat) -> list[tuple[str, str, str, tuple[str, str, tuple[float, float]]]]:
    """(common name, number in the MTL, file suffix, (group, quantity, scaling)) of every band."""
    optical = NUMBERS[what.mission]
    if what.level.startswith("L2"):
        group = ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE", SR)
        bands = [(name, number, f"SR_B{number}", group) for name, number in optical.items()]
        if what.level == "L2SP":
            number = f"ST_B{THERMAL[what.mission]}"
            bands.append(("lwir11", number, number, ("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", "TEMPERATURE", ST)))
        return bands
    reflectance = ("LEVEL1_RADIOMETRIC_RESCALING", "REFLECTANCE", L1)
    radiance = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIANCE", RADIANCE)
    bands = [(name, number, f"B{number}", reflectance) for name, number in optical.items()]
    if what.mission[:2] != "LT":
        bands.append(("pan", "8", "B8", reflectance))
    if what.mission[:2] == "LC":
        bands += [("cirrus", "9", "B9", reflectance), ("lwir12", "11", "B11", radiance)]
    thermal = "6_VCID_1" if what.mission == "LE07" else THERMAL[what.mission]
    return [*bands, ("lwir11", thermal, f"B{thermal}", radiance)]


def _write_band(path: Path, what: Landsat, name: str, quantity: str, mult: float, add: float) -> None:
    metres = 15 if name == "pan" else 30
    steps = (np.arange(what.pixels * 30 // metres) + 0.5) * metres
    x, y = np.meshgrid(ULX + steps, ULY - steps)
    # Level 1 has thermal radiance, whichever band it is.
    value = what.truth("lwir12" if quantity == "RADIANCE" else name, x, y)
    if quantity == "REFLECTANCE" and what.level.startswith("L1"):
        value = value * np.sin(np.radians(what.sun_elevation))
    dn = np.round((value - add) / mult).astype(np.uint16)
    for column in what.gap_columns:
        dn[:, column * 30 // metres : (column + 1) * 30 // metres] = 0
    _save(path, what, dn, metres, nodata=0)


def _save(path: Path, what: Landsat, layer: NDArray[np.generic], metres: int, *, nodata: int | None) -> None:
    height, width = layer.shape
    place = Affine(metres, 0, ULX, 0, -metres, ULY)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype=layer.dtype,
        crs=f"EPSG:{what.epsg}",
        transform=place,
        nodata=nodata,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    ) as file:
        file.write(layer, 1)


def _attributes(what: Landsat) -> dict[str, dict[str, str]]:
    spacecraft, sensor = SPACECRAFT[what.mission]
    right, bottom = ULX + what.pixels * 30, ULY - what.pixels * 30
    corners = {"UL": (ULX, ULY), "UR": (right, ULY), "LL": (ULX, bottom), "LR": (right, bottom)}
    projection = {"MAP_PROJECTION": "UTM", "DATUM": "WGS84", "UTM_ZONE": "33", "GRID_CELL_SIZE_REFLECTIVE": "30.00"}
    for corner, (x, y) in corners.items():
        # The MTL states the centres of the corner pixels.
        inward = (15 if corner[1] == "L" else -15, -15 if corner[0] == "U" else 15)
        projection[f"CORNER_{corner}_PROJECTION_X_PRODUCT"] = f"{x + inward[0]:.3f}"
        projection[f"CORNER_{corner}_PROJECTION_Y_PRODUCT"] = f"{y + inward[1]:.3f}"
    date = f"{what.date[:4]}-{what.date[4:6]}-{what.date[6:]}"
    return {
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": spacecraft,
            "SENSOR_ID": sensor,
            "WRS_PATH": "193",
            "WRS_ROW": "24",
            "DATE_ACQUIRED": date,
            "SCENE_CENTER_TIME": "10:02:35.9783990Z",
            "SUN_ELEVATION": f"{what.sun_elevation:.8f}",
        },
        "PROJECTION_ATTRIBUTES": projection,
    }


def _write_mtl(root: Path, what: Landsat, groups: dict[str, dict[str, str]]) -> None:
    body = "".join(
        f"  GROUP = {group}\n" + "".join(f'    {k} = "{v}"\n' for k, v in items.items()) + f"  END_GROUP = {group}\n"
        for group, items in groups.items()
    )
    xml = "".join(
        f"<{group}>" + "".join(f"<{k}>{v}</{k}>" for k, v in items.items()) + f"</{group}>\n"
        for group, items in groups.items()
    )
    texts = {
        "txt": f"GROUP = LANDSAT_METADATA_FILE\n{body}END_GROUP = LANDSAT_METADATA_FILE\nEND\n",
        "json": json.dumps({"LANDSAT_METADATA_FILE": groups}),
        "xml": f'<?xml version="1.0"?>\n<LANDSAT_METADATA_FILE>{xml}</LANDSAT_METADATA_FILE>\n',
    }
    for suffix in what.mtl:
        text = texts[suffix]
        for old, new in what.edit.items():
            text = text.replace(old, new)
        (root / f"{what.name}_MTL.{suffix}").write_text(text)
