"""One simulated landscape as Earth Search, Planetary Computer and Landsat items with their COGs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from pipeline.bands import LANDSAT_OLI, SENTINEL2
from tests.fakes.rasters import write_raster

if TYPE_CHECKING:
    from pathlib import Path

EPSG = 32633
LEFT, TOP = 399_960.0, 5_800_020.0  # of the fake SAFE and Landsat products too
SIZE_M = 2_400
COG = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
CLOUD = (slice(10, 20), slice(30, 50))  # of the 20 m pixels
ES_KEYS = {"rededge071": "rededge1", "rededge075": "rededge2", "rededge078": "rededge3"}
ES_COMMON = {"rededge071": "rededge", "rededge075": "rededge", "rededge078": "rededge"}


def truth(name: str, metres: float) -> NDArray[np.float64]:
    """Reflectance of a band at a resolution: smooth, 0.01 to 0.6, the same field for every resolution."""
    count = int(SIZE_M / metres)
    centres = (np.arange(count) + 0.5) * metres / SIZE_M
    phase = sum(map(ord, name)) % 7
    field = np.sin(2 * np.pi * (centres[None] + 0.1 * phase)) * np.cos(2 * np.pi * centres[:, None])
    return 0.305 + 0.295 * field


Field = Callable[[str, float], NDArray[np.float64]]
"""(band, pixel size in metres) -> reflectance [row,col] of the whole item."""


def field_of(landscape: Callable[..., NDArray[np.float64]]) -> Field:
    """A function of (band, x, y), as the SAFE and Landsat fakes take it, as pixels of the items here."""

    def pixels(name: str, metres: float) -> NDArray[np.float64]:
        steps = (np.arange(int(SIZE_M / metres)) + 0.5) * metres
        x, y = np.meshgrid(LEFT + steps, TOP - steps)
        return landscape(name, x, y)

    return pixels


def scl(metres: float = 20) -> NDArray[np.uint8]:
    """Vegetation (4) with one cloud (9)."""
    count = int(SIZE_M / metres)
    codes = np.full((count, count), 4, dtype=np.uint8)
    codes[CLOUD] = 9
    return codes


def footprint() -> tuple[list[float], dict[str, Any]]:
    """(bbox, GeoJSON polygon) in degrees."""
    to_degrees = Transformer.from_crs(EPSG, 4326, always_xy=True)
    left, bottom, right, top = to_degrees.transform_bounds(LEFT, TOP - SIZE_M, LEFT + SIZE_M, TOP)
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    return [left, bottom, right, top], {"type": "Polygon", "coordinates": [ring]}


def place(metres: float) -> tuple[Affine, dict[str, Any]]:
    """(transform, proj fields of an asset)."""
    transform = Affine(metres, 0, LEFT, 0, -metres, TOP)
    count = int(SIZE_M / metres)
    return transform, {"proj:shape": [count, count], "proj:transform": [*transform[:6]], "gsd": metres}


def write_cog(path: Path, dn: NDArray[Any], metres: float, *, nodata: float | None = 0) -> None:
    write_raster(path, dn, crs=f"EPSG:{EPSG}", transform=place(metres)[0], nodata=nodata, options=COG)


def _item(
    name: str, collection: str, properties: dict[str, Any], assets: dict[str, Any], links: list[dict[str, str]]
) -> dict[str, Any]:
    bbox, geometry = footprint()
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "bbox": bbox,
        "geometry": geometry,
        "properties": {"datetime": "2025-03-02T09:50:29Z", "eo:cloud_cover": 3.5, **properties},
        "assets": assets,
        "links": links,
    }


def earth_search_item(
    folder: Path, href: Callable[[str], str], *, name: str = "S2B_33TVN_20250302_0_L2A", field: Field = truth
) -> dict[str, Any]:
    """Sentinel-2 L2A at Earth Search: the offset is out of the DN, raster:offset still says -0.1."""
    assets: dict[str, Any] = {}
    for spec in SENTINEL2:
        if spec.key == "B10":
            continue
        key = ES_KEYS.get(spec.name, spec.name)
        dn = np.round(field(spec.name, spec.gsd_m) * 10_000).astype(np.uint16)
        write_cog(folder / name / f"{spec.key}.tif", dn, spec.gsd_m)
        raster = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "scale": 0.0001, "offset": -0.1}
        assets[key] = {
            "href": href(f"{name}/{spec.key}.tif"),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "eo:bands": [{"name": key, "common_name": ES_COMMON.get(spec.name, spec.name)}],
            "raster:bands": [raster],
            "roles": ["data", "reflectance"],
            **place(spec.gsd_m)[1],
        }
        assets[f"{key}-jp2"] = assets[key] | {"href": f"s3://sentinel-s2-l2a/{spec.key}.jp2", "type": "image/jp2"}
    write_cog(folder / name / "SCL.tif", scl(), 20)
    assets["scl"] = {
        "href": href(f"{name}/SCL.tif"),
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data", "reflectance"],
        **place(20)[1],
    }
    assets["visual"] = assets["red"] | {"eo:bands": [{"common_name": c} for c in ("red", "green", "blue")]}
    properties = {
        "platform": "sentinel-2b",
        "constellation": "sentinel-2",
        "proj:epsg": EPSG,
        "s2:processing_baseline": "05.11",
        "s2:product_type": "S2MSI2A",
        "earthsearch:boa_offset_applied": True,
    }
    self_link = f"https://earth-search.aws.element84.com/v1/collections/sentinel-2-l2a/items/{name}"
    return _item(name, "sentinel-2-l2a", properties, assets, [{"rel": "self", "href": self_link}])


def planetary_computer_item(
    folder: Path,
    href: Callable[[str], str],
    *,
    name: str = "S2B_MSIL2A_20250302T095029_R079_T33TVN_20250302T104753",
    baseline: str = "05.11",
    field: Field = truth,
) -> dict[str, Any]:
    """Sentinel-2 L2A at Planetary Computer: ESA's DN, nothing said about scale and offset."""
    added = 1000 if baseline >= "04.00" else 0
    assets: dict[str, Any] = {}
    media = "image/tiff; application=geotiff; profile=cloud-optimized"
    for spec in SENTINEL2:
        if spec.key == "B10":
            continue
        dn = np.round(field(spec.name, spec.gsd_m) * 10_000 + added).astype(np.uint16)
        write_cog(folder / name / f"{spec.key}.tif", dn, spec.gsd_m)
        assets[spec.key] = {
            "href": href(f"{name}/{spec.key}.tif"),
            "type": media,
            "eo:bands": [{"name": spec.key, "common_name": ES_COMMON.get(spec.name, spec.name)}],
            "roles": ["data"],
            **place(spec.gsd_m)[1],
        }
    write_cog(folder / name / "SCL.tif", scl(), 20)
    assets["SCL"] = {"href": href(f"{name}/SCL.tif"), "type": media, "roles": ["data"], **place(20)[1]}
    rgb = [{"name": key, "common_name": common} for key, common in (("B04", "red"), ("B03", "green"), ("B02", "blue"))]
    assets["visual"] = assets["B04"] | {"eo:bands": rgb}
    properties = {
        "platform": "Sentinel-2B",
        "constellation": "Sentinel 2",
        "proj:epsg": EPSG,
        "s2:processing_baseline": baseline,
        "s2:product_type": "S2MSI2A",
    }
    self_link = f"https://planetarycomputer.microsoft.com/api/stac/v1/collections/sentinel-2-l2a/items/{name}"
    return _item(name, "sentinel-2-l2a", properties, assets, [{"rel": "self", "href": self_link}])


def landsat_item(
    folder: Path, href: Callable[[str], str], *, name: str = "LC08_L2SP_190028_20250302_02_T1", field: Field = truth
) -> dict[str, Any]:
    """Landsat 8 Collection 2 Level 2 in STAC 1.1 spelling."""
    assets: dict[str, Any] = {}
    media = "image/tiff; application=geotiff; profile=cloud-optimized"
    for spec in LANDSAT_OLI[:7]:
        dn = np.round((field(spec.name, 30) + 0.2) / 2.75e-5).astype(np.uint16)
        write_cog(folder / name / f"SR_{spec.key}.tif", dn, 30)
        band = {"name": f"OLI_{spec.key}", "eo:common_name": spec.name, "raster:scale": 2.75e-05, "raster:offset": -0.2}
        assets[spec.name] = {
            "href": href(f"{name}/SR_{spec.key}.tif"),
            "type": media,
            "bands": [band],
            "nodata": 0,
            "data_type": "uint16",
            "roles": ["data", "reflectance"],
            **place(30)[1],
        }
    qa = np.full((80, 80), 21824, dtype=np.uint16)  # clear
    qa[5:9, 5:9] = 22280  # cloud, high confidence
    write_cog(folder / name / "QA_PIXEL.tif", qa, 30, nodata=1)
    write_cog(folder / name / "QA_RADSAT.tif", np.zeros((80, 80), np.uint16), 30, nodata=None)
    for key in ("qa_pixel", "qa_radsat"):
        assets[key] = {"href": href(f"{name}/{key.upper()}.tif"), "type": media, "roles": [key], **place(30)[1]}
    properties = {
        "platform": "landsat-8",
        "instruments": ["oli", "tirs"],
        "proj:code": f"EPSG:{EPSG}",
        "landsat:collection_number": "02",
        "landsat:correction": "L2SP",
    }
    item = _item(name, "landsat-c2-l2", properties, assets, [])
    return item | {"stac_version": "1.1.0"}
