"""Sentinel-2 L1C and L2A as EOPF delivers them, in Zarr, the successor of SAFE -> Scene; read by GDAL's Zarr driver.

A folder ``S2B_MSIL2A_..._T32TPT_....zarr`` with consolidated metadata (Zarr 2, ``.zmetadata``): bands are arrays below
``measurements/reflectance/r10m``, ``r20m`` and ``r60m``, with scale and offset in their attributes; the CRS stands in
the attributes of the root, and their x and y are the centres of pixels. Source: EOPF, Zarr product specification,
Sentinel-2 L1C and L2A; the attributes as EOPF-Sample-Service/xarray-eopf and EOPF-Explorer/data-model read them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.bands import SENTINEL2, BandSpec
from pipeline.documents import read_json
from pipeline.errors import ProductError
from pipeline.grid import Grid
from pipeline.raster import open_raster
from pipeline.scenes import quality
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import name_of
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource, resampling_for

METADATA, ZARR3 = ".zmetadata", "zarr.json"
RESOLUTIONS = {"r10m": 10, "r20m": 20, "r60m": 60}
SCL = "conditions/mask/l2a_classification/r20m/scl"
CLASSIFICATION = "conditions/mask/l1c_classification/r60m/b00"
# Words of the flags of an L1C classification -> reason.
_FLAGS = {"opaque": "cloud", "cirrus": "cirrus", "snow": "snow"}
_NAME = re.compile(r"(?P<name>S2[A-D]_MSIL(?P<level>1C|2A)_(?P<time>\d{8}T\d{6})_N(?P<base>\d{4})_\w+)")
_REFLECTANCE = "measurements/reflectance"


def looks_like_eopf(names: Sequence[str]) -> bool:
    """Whether files and folders (relative paths) are those of an EOPF product."""
    return bool({METADATA, ZARR3} & set(names)) and any(name.partition("/")[0] == "measurements" for name in names)


def open_eopf(path: Path | str, *, resolution_m: float | None = None, mask: Sequence[str] | None = None) -> Scene:
    """The scene of an EOPF product of Sentinel-2; metadata and headers only.

    Arguments as of :func:`pipeline.scenes.opening.open_scene`.

    Raises:
        ProductError: not Sentinel-2, Zarr 3, or without CRS, bands, scale or offset.
    """
    path = Path(path)
    if not (path / METADATA).is_file():
        what, fix = ("EOPF product without consolidated metadata of Zarr 2", "take it as Zarr 2, or as SAFE")
        raise ProductError(what, path=path, got=ZARR3, expected=METADATA, fix=fix)
    found = read_json(path / METADATA, what="metadata", error=ProductError)
    arrays: Any = found.get("metadata") if isinstance(found, dict) else None
    named = _NAME.search(path.name) or _NAME.search(str(_discovery(arrays).get("id", "")) if arrays else "")
    if not isinstance(arrays, dict) or named is None:
        raise ProductError("not an EOPF product of Sentinel-2", path=path, expected="S2?_MSIL1C_... or S2?_MSIL2A_...")
    crs = _crs(arrays, path)
    size = float(resolution_m or min(RESOLUTIONS.values()))
    bands = tuple(
        _band(spec, key, metres, arrays, path, crs=crs, size=size)
        for spec in SENTINEL2
        if (where := _array_of(spec, arrays)) is not None
        for key, metres in [where]
    )
    if not bands:
        raise ProductError("EOPF product has no bands", path=path, expected=f"arrays below {_REFLECTANCE}")
    first = min(bands, key=lambda band: band.gsd_m or 0)
    with open_raster(first.path, error=ProductError, what="bands cannot be opened", fix="download it again") as image:
        grid = Grid(image.crs, image.transform, *image.shape).north_up().with_pixel_size(size)
    reasons = quality.check_mask(mask)
    layers = _quality(arrays, path, reasons, crs=crs) if reasons else ()
    base = named["base"]
    return Scene(
        id=name_of(named["name"], path=path),
        path=str(path),
        grid=grid,
        bands=bands,
        quality=layers,
        sensor="sentinel-2",
        level=f"L{named['level']}",
        baseline=f"{base[:2]}.{base[2:]}",
        acquired_utc=datetime.strptime(named["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        notes=() if layers else ("no quality mask applied",),
    )


def _attributes(arrays: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Attributes of an array, "" for the root; those that EOPF keeps apart among them."""
    own = arrays.get(f"{name}/.zattrs" if name else ".zattrs")
    own = own if isinstance(own, dict) else {}
    apart = own.get("_eopf_attrs")
    return (apart if isinstance(apart, dict) else {}) | own


def _discovery(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _attributes(arrays, "").get("stac_discovery")
    return found if isinstance(found, dict) else {}


def _crs(arrays: Mapping[str, Any], path: Path) -> str:
    other, properties = _attributes(arrays, "").get("other_metadata"), _discovery(arrays).get("properties")
    other, properties = ({} if not isinstance(one, dict) else one for one in (other, properties))
    code = str(other.get("horizontal_CRS_code") or properties.get("proj:code") or properties.get("proj:epsg") or "")
    number = code.rpartition(":")[2]
    if not number.isdigit():
        what = "EOPF product without a CRS"
        raise ProductError(what, path=path, got=repr(code), expected="other_metadata.horizontal_CRS_code or proj:code")
    return f"EPSG:{number}"


def _array_of(spec: BandSpec, arrays: Mapping[str, Any]) -> tuple[str, int] | None:
    """The array of a band nearest to its native resolution, and its resolution in metres; None where there is none."""
    key = spec.key.lower()
    found = [
        (abs(metres - spec.gsd_m), f"{_REFLECTANCE}/{group}/{key}", metres)
        for group, metres in RESOLUTIONS.items()
        if f"{_REFLECTANCE}/{group}/{key}/.zarray" in arrays
    ]
    return min(found)[1:] if found else None


def _gdal(path: Path, array: str, *, crs: str) -> str:
    """What GDAL opens for an array; its driver finds the coordinates, not the CRS."""
    return f'vrt://ZARR:"{path.resolve()}":/{array}?a_srs={crs}'


def _band(
    spec: BandSpec, array: str, metres: int, arrays: Mapping[str, Any], path: Path, *, crs: str, size: float
) -> BandSource:
    about = _attributes(arrays, array)
    scale, offset = _number(about, "scale_factor", array, path), _number(about, "add_offset", array, path)
    stored: Any = arrays[f"{array}/.zarray"]
    if not isinstance(stored, dict):
        raise ProductError(f"array {array} is not described", path=path, got=repr(stored), fix="download it again")
    fill = about.get("_FillValue", about.get("fill_value", stored.get("fill_value")))
    return BandSource(
        band=spec.name,
        path=_gdal(path, array, crs=crs),
        scale=scale,
        offset=offset,
        nodata=float(fill) if isinstance(fill, int | float) else 0.0,
        resampling=resampling_for(metres, size),
        gsd_m=spec.gsd_m,
        unit=REFLECTANCE,
        provenance=f"{METADATA}: {array} scale_factor {scale:g}, add_offset {offset:g}",
    )


def _number(about: Mapping[str, Any], key: str, array: str, path: Path) -> float:
    value = about.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProductError(f"array {array} has no {key}", path=path, got=repr(value), expected="a number")
    return float(value)


def _quality(arrays: Mapping[str, Any], path: Path, reasons: Sequence[str], *, crs: str) -> tuple[QualitySource, ...]:
    if f"{SCL}/.zarray" in arrays:
        return (quality.scl(_gdal(path, SCL, crs=crs), reasons),)
    about = _attributes(arrays, CLASSIFICATION)
    words, masks = str(about.get("flag_meanings", "")).lower().split(), about.get("flag_masks")
    if f"{CLASSIFICATION}/.zarray" not in arrays or not isinstance(masks, list) or len(masks) != len(words):
        return ()
    bits = {
        reason: int(value).bit_length() - 1
        for word, value in zip(words, masks, strict=True)
        for start, reason in _FLAGS.items()
        if word.startswith(start)
    }
    return quality.by_bits("L1C_CLASSIFICATION", _gdal(path, CLASSIFICATION, crs=crs), reasons, bits=bits)
