"""Which band lies in which asset of a STAC item, in the spelling of STAC 1.0 (eo:bands, raster:bands) or 1.1 (bands).

Sources: STAC 1.1.0 common metadata, "Bands"; EO extension v1.1.0 and v2.0.0; raster extension v1.1.0 and v2.0.0;
projection extension v1.1.0 (proj:epsg) and v2.0.0 (proj:code).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from pipeline.bands import TABLES, common_name, find_band
from pipeline.documents import finite
from pipeline.errors import ProductError
from pipeline.grid import Grid
from pipeline.scenes.geotiff import RASTER_SUFFIXES
from pipeline.scenes.quality import role_of
from pipeline.scenes.remote import plain_url

if TYPE_CHECKING:
    import pystac

# Pictures for the eye, not measurements; Planetary Computer gives "visual" the role "data".
_PICTURES = frozenset({"visual", "thumbnail", "overview", "preview", "rendered_preview", "browse", "tilejson"})
_RESOLUTION = re.compile(r"[_-](10|20|60)m$", re.IGNORECASE)
_INSTRUMENT = re.compile(r"^(OLI|TIRS|ETM|TM|MSI)[_-]?", re.IGNORECASE)
_AFFINE_NUMBERS = 6


@dataclass(frozen=True)
class AssetBand:
    """One band of one asset, with what the item says about it; None where it says nothing."""

    key: str  # The asset's key
    href: str  # Absolute address
    index: int  # Band number in the file, from 1
    name: str | None  # Our name of the band, None where it is not a band of the sensor
    bands_in_asset: int  # How many bands the asset has
    scale: float | None  # raster:scale
    offset: float | None  # raster:offset
    nodata: float | None  # DN that means no data
    data_type: str | None  # "uint16", "float32", ...
    gsd_m: float | None  # Ground sample distance in metres
    unit: str | None  # Of the value, "kelvin" for temperatures
    grid: Grid | None  # From proj:code, proj:shape, proj:transform


def asset_bands(item: pystac.Item, *, sensor: str) -> list[AssetBand]:
    """All bands of all raster assets, in the item's order."""
    found: list[AssetBand] = []
    for key, asset in item.assets.items():
        if _is_raster(key, asset):
            found += _bands_of(key, asset, item, sensor)
    return found


def find_asset(item: pystac.Item, *names: str) -> str | None:
    """Absolute address of the first asset that is called one of ``names``, apart from case, "-" and resolution."""
    wanted = {name.lower().replace("-", "_") for name in names}
    for key, asset in item.assets.items():
        plain = _RESOLUTION.sub("", key.rpartition("/")[2]).lower().removesuffix(".tif").replace("-", "_")
        if plain in wanted:
            return asset.get_absolute_href() or asset.href
    return None


def mask_assets(item: pystac.Item) -> dict[str, str]:
    """Addresses of the assets that may mask pixels, by their role."""
    found: dict[str, str] = {}
    for key, asset in item.assets.items():
        role = role_of(key.rpartition("/")[2].removesuffix(".tif").replace("-", "_"))
        if role:
            found.setdefault(role, asset.get_absolute_href() or asset.href)
    return found


def choose(found: Sequence[AssetBand], *, sensor: str) -> dict[str, AssetBand]:
    """The best asset for each band name: a file of its own before one of many, native resolution, COG before JP2."""
    chosen: dict[str, AssetBand] = {}
    for candidate in sorted((band for band in found if band.name), key=lambda band: _rank(band, sensor)):
        chosen.setdefault(str(candidate.name), candidate)
    order = [spec.name for spec in TABLES.get(sensor, ())]
    return {name: chosen[name] for name in sorted(chosen, key=lambda n: order.index(n) if n in order else len(order))}


def _rank(band: AssetBand, sensor: str) -> tuple[int, float, int]:
    spec = find_band(band.name or "", sensor=sensor) if sensor else None
    gsd = band.grid.pixel_size_m[0] if band.grid else band.gsd_m
    away = abs(gsd - spec.gsd_m) if spec and gsd else 0.0
    return band.bands_in_asset, away, int(plain_url(band.href).lower().endswith(".jp2"))


def _is_raster(key: str, asset: pystac.Asset) -> bool:
    if key.lower() in _PICTURES or _PICTURES & set(asset.roles or ()) or role_of(key) is not None:
        return False
    media = (asset.media_type or "").lower()
    if media:
        return "tiff" in media or "jp2" in media or "jpeg2000" in media or "vrt" in media
    return PurePosixPath(plain_url(asset.href)).suffix.lower() in RASTER_SUFFIXES


def _bands_of(key: str, asset: pystac.Asset, item: pystac.Item, sensor: str) -> list[AssetBand]:
    fields = asset.to_dict()
    listed = [_as_mapping(entry, item) for entry in fields.get("bands") or fields.get("eo:bands") or ()]
    raster = [_as_mapping(entry, item) for entry in fields.get("raster:bands") or ()]
    count = max(len(listed), len(raster), 1)
    href = asset.get_absolute_href() or asset.href
    grid = _grid(fields, item)
    found = []
    for position in range(count):
        own = listed[position] if position < len(listed) else {}
        old = raster[position] if position < len(raster) else {}
        merged = {**item.properties, **fields, **_prefixed(old), **own}
        found.append(
            AssetBand(
                key=key,
                href=href,
                index=position + 1,
                name=_name(key if count == 1 else "", own, sensor),
                bands_in_asset=count,
                scale=finite(merged.get("raster:scale")),
                offset=finite(merged.get("raster:offset")),
                nodata=_number(merged.get("nodata")),
                data_type=merged.get("data_type"),
                gsd_m=_number(merged.get("raster:spatial_resolution", merged.get("gsd"))),
                unit=merged.get("unit"),
                grid=grid,
            )
        )
    return found


def _as_mapping(entry: object, item: pystac.Item) -> Mapping[str, Any]:
    """A band object; STAC before 1.0 gives its position in the item's list of bands."""
    if isinstance(entry, dict):
        return entry
    listed = item.properties.get("eo:bands") or []
    if isinstance(entry, int) and 0 <= entry < len(listed) and isinstance(listed[entry], dict):
        return dict(listed[entry])
    return {}


def _prefixed(raster: Mapping[str, Any]) -> dict[str, Any]:
    """A raster:bands object of STAC 1.0 in the names of 1.1."""
    renamed = {"scale": "raster:scale", "offset": "raster:offset", "spatial_resolution": "raster:spatial_resolution"}
    return {renamed.get(key, key): value for key, value in raster.items()}


def _number(value: object) -> float | None:
    """JSON has no NaN: STAC spells it as text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _name(key: str, band: Mapping[str, Any], sensor: str) -> str | None:
    common = band.get("eo:common_name", band.get("common_name"))
    texts = [text for text in (key, band.get("name"), common) if isinstance(text, str) and text]
    if any(role_of(text) is not None for text in texts):
        return None
    if not sensor:
        return common_name(str(common)) if common else (common_name(texts[-1]) if texts else None)
    plain = [_RESOLUTION.sub("", text.removesuffix(".TIF").removesuffix("-jp2")) for text in texts]
    found = (find_band(t, sensor=sensor) or find_band(_INSTRUMENT.sub("", t), sensor=sensor) for t in plain)
    return next((spec.name for spec in found if spec is not None), None)


def _grid(fields: Mapping[str, Any], item: pystac.Item) -> Grid | None:
    known = {**item.properties, **fields}
    shape, transform = known.get("proj:shape"), known.get("proj:transform")
    code = known.get("proj:code") or known.get("proj:epsg") or known.get("proj:wkt2")
    if not shape or not transform or not code or len(transform) < _AFFINE_NUMBERS:
        return None
    try:
        crs = CRS.from_user_input(code)
    except CRSError as err:
        raise ProductError("STAC item has a CRS that is not known", path=item.id, got=code) from err
    affine = Affine(*(float(number) for number in transform[:_AFFINE_NUMBERS]))
    return Grid(crs, affine, int(shape[0]), int(shape[1])).north_up()
