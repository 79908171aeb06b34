"""How DN of a STAC item's asset become physical values, decided from the item and never from the date.

Sentinel-2 DN carry an offset since processing baseline 04.00, which some mirrors have taken out again and some have
not, and an item's raster:offset says nothing reliable about that. In order:

1. what the user says;
2. ``earthsearch:boa_offset_applied`` true: no offset, whatever raster:offset says. Source: Element84, earth-search
   issue 9: "offset ... may be incorrectly set to -0.1 even when it has been applied";
3. a baseline before 04.00: no offset. Source: ESA, "Copernicus Sentinel-2 processing baseline 04.00", January 2022;
4. a raster:offset that is not 0: that one;
5. the product's own XML, where the item has it as an asset: BOA_ADD_OFFSET or RADIO_ADD_OFFSET;
6. a mirror known to serve ESA's pixels unchanged: -1000 DN. Source: Planetary Computer, "Sentinel-2 Level-2A", and
   issue 134 of microsoft/PlanetaryComputer; ESA as above for the -1000 of all bands.

Anything else cannot be decided, and says so. Rule 4 trusts an item that may be wrong: some Earth Search items say that
the offset is still in the DN though it is not (Element84, earth-search issues 66 and 71); dark pixels tell.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.bands import TABLES, is_optical, sensor_named
from pipeline.errors import ProductError, ProductWarning
from pipeline.scenes.geotiff import LANDSAT_SR, LANDSAT_ST
from pipeline.scenes.hls import LEVEL, SCALE, THERMAL_SCALE
from pipeline.scenes.remote import plain_url, read_metadata, sign_planetary
from pipeline.scenes.safe_metadata import SafeMetadata, parse_product
from pipeline.scenes.sources import REFLECTANCE
from pipeline.scenes.stac_assets import AssetBand, find_asset
from pipeline.scenes.stac_documents import reachable

if TYPE_CHECKING:
    import pystac


EARTH_SEARCH = "earth-search"
PLANETARY_COMPUTER = "planetary-computer"
COPERNICUS = "copernicus"
MIRRORS = (EARTH_SEARCH, PLANETARY_COMPUTER, COPERNICUS)
MIRROR_PROPERTY = "landcover:mirror"
"""In a downloaded item, whose own addresses no longer tell where it came from."""
# Mirrors that serve ESA's DN as they are.
_UNCHANGED = frozenset({PLANETARY_COMPUTER, COPERNICUS})
_HOSTS = {
    "earth-search.aws.element84.com": EARTH_SEARCH,
    "sentinel-cogs.s3.us-west-2.amazonaws.com": EARTH_SEARCH,
    "planetarycomputer.microsoft.com": PLANETARY_COMPUTER,
    "sentinel2l2a01.blob.core.windows.net": PLANETARY_COMPUTER,
    "stac.dataspace.copernicus.eu": COPERNICUS,
    "eodata.dataspace.copernicus.eu": COPERNICUS,
}
S2_SCALE = 1e-4
S2_OFFSET_DN = -1000.0
OFFSET_SINCE = (4, 0)


@dataclass(frozen=True)
class Scaling:
    """value = DN x scale + offset, the unit of the value, and where that was read."""

    scale: float
    offset: float
    unit: str
    provenance: str


@dataclass(frozen=True)
class ItemFacts:
    """What an item is, read once."""

    item: pystac.Item  # The item
    sensor: str  # A key of ``pipeline.bands.TABLES``, or ""
    level: str  # "L1C", "L2A", "L2SP", ..., or ""
    baseline: str  # "05.09", Landsat's collection "02", or ""
    mirror: str  # One of ``MIRRORS``, or ""
    offset_applied: bool | None  # What the mirror says about the Sentinel-2 offset, None where it says nothing


def read_facts(item: pystac.Item, *, mirror: str | None) -> ItemFacts:
    """Sensor, level, baseline and mirror of an item."""
    applied = item.properties.get("earthsearch:boa_offset_applied", item.properties.get("sentinel:boa_offset_applied"))
    sensor = _sensor(item)
    return ItemFacts(
        item=item,
        sensor=sensor,
        level=_level(item, sensor),
        baseline=_baseline(item, sensor),
        mirror=mirror if mirror is not None else _mirror(item),
        offset_applied=applied if isinstance(applied, bool) else None,
    )


def decide(facts: ItemFacts, band: AssetBand, *, metadata: Callable[[], SafeMetadata | None]) -> Scaling:
    """Scale and offset of one band.

    ``metadata`` is :func:`product_metadata` of the item, called only where it is needed.

    Raises:
        ProductError: the item does not say enough; the message tells what to add.
    """
    if facts.sensor == "sentinel-2":
        return _sentinel2(facts, band, metadata)
    unit = REFLECTANCE if is_optical(band.name or "") else (band.unit or "DN")
    if band.scale is not None or band.offset is not None:
        source = f"STAC asset {band.key}: raster:scale, raster:offset"
        return Scaling(band.scale if band.scale is not None else 1.0, band.offset or 0.0, unit, source)
    if facts.sensor.startswith("landsat") and facts.baseline == "02" and facts.level.startswith("L2"):
        scale, offset = LANDSAT_SR if unit == REFLECTANCE else LANDSAT_ST
        where = "Landsat Collection 2 Level 2 (LSDS-1619); the item has no raster:scale"
        return Scaling(scale, offset, REFLECTANCE if unit == REFLECTANCE else "kelvin", where)
    if facts.sensor.startswith("hls"):
        thermal = unit != REFLECTANCE
        scale, unit = (THERMAL_SCALE, "degree Celsius") if thermal else (SCALE, unit)
        return Scaling(scale, 0.0, unit, "HLS v2.0 User Guide; the item has no raster:scale")
    if unit == REFLECTANCE and not (band.data_type or "").startswith("float"):
        raise _undecided(facts, band, "it has no raster:scale and its values are not floating point")
    return Scaling(1.0, 0.0, unit, "none: values as stored")


def _sentinel2(facts: ItemFacts, band: AssetBand, metadata: Callable[[], SafeMetadata | None]) -> Scaling:
    scale = band.scale if band.scale is not None else S2_SCALE
    applied = facts.offset_applied
    if applied:
        return Scaling(scale, 0.0, REFLECTANCE, "STAC item: boa_offset_applied is true, so no offset is left")
    if facts.baseline and tuple(map(int, facts.baseline.split("."))) < OFFSET_SINCE:
        where = f"STAC item: processing baseline {facts.baseline} is before 04.00 and has no offset"
        return Scaling(scale, 0.0, REFLECTANCE, where)
    if band.offset:
        return Scaling(scale, band.offset, REFLECTANCE, f"STAC asset {band.key}: raster:offset")
    meta = metadata()
    if meta is not None:
        key = next(spec.key for spec in TABLES["sentinel-2"] if spec.name == band.name)
        offset = meta.offsets.get(key, 0.0) / meta.quantification
        return Scaling(1.0 / meta.quantification, offset, REFLECTANCE, f"product metadata asset: {meta.source}")
    if facts.mirror in _UNCHANGED and facts.baseline:
        where = f"{facts.mirror} serves ESA's DN; processing baseline {facts.baseline} has an offset of -1000 DN"
        return Scaling(scale, S2_OFFSET_DN * scale, REFLECTANCE, where)
    reason = f"processing baseline is {facts.baseline or 'not given'} and nothing says whether the offset was applied"
    raise _undecided(facts, band, reason)


def _undecided(facts: ItemFacts, band: AssetBand, reason: str) -> ProductError:
    what = f"cannot decide how DN of band {band.name} (asset {band.key}) become reflectance: {reason}"
    fix = f"give scale and offset (--scale, --offset), or the mirror ({', '.join(MIRRORS)})"
    return ProductError(what, path=facts.item.id, fix=fix)


def read_signed(href: str, *, mirror: str) -> bytes:
    """A small file of a mirror, whose address is signed where the mirror asks for that.

    Raises:
        ProductError: it cannot be read.
    """
    return read_metadata(sign_planetary(href) if mirror == PLANETARY_COMPUTER else href)


def product_metadata(facts: ItemFacts) -> SafeMetadata | None:
    """The product's own XML where the item has it as an asset; None where it has not, or a documented rule can do.

    Raises:
        ProductError: it is there but cannot be read, and nothing else can decide.
    """
    href = find_asset(facts.item, "product_metadata")
    if href is None:
        return None
    own = facts.item.get_self_href() or ""
    try:
        return parse_product(read_signed(reachable(href, of=own), mirror=facts.mirror), path=plain_url(href))
    except ProductError as err:
        if facts.mirror not in _UNCHANGED or not facts.baseline:
            raise
        what = f"{facts.item.id}: product metadata cannot be read ({err}); the mirror's documented rule is used"
        warnings.warn(what, ProductWarning, stacklevel=2)
        return None


def _sensor(item: pystac.Item) -> str:
    properties = item.properties
    texts = [properties.get("platform"), properties.get("eo:platform"), properties.get("constellation")]
    text = " ".join(str(t) for t in (*texts, item.collection_id) if t).lower().replace("_", "-")
    if (hls := sensor_named([f"{item.id} {text}"])) in {"hls-s30", "hls-l30"}:
        return str(hls)
    if re.search(r"sentinel-?2|\bs2[a-d]?\b", text):
        return "sentinel-2"
    if "mss" in (properties.get("instruments") or ()) or item.id.startswith("LM"):
        return ""
    match = re.search(r"landsat-?([4-9])", text)
    by_number = dict.fromkeys("45", "landsat-tm") | {"7": "landsat-etm"} | dict.fromkeys("89", "landsat-oli")
    return by_number.get(match[1], "") if match else ""


def _level(item: pystac.Item, sensor: str) -> str:
    properties = item.properties
    if sensor.startswith("hls"):
        return LEVEL
    if sensor.startswith("landsat"):
        match = re.match(r"L[A-Z]\d{2}_(L[12][A-Z]{2})_", item.id)
        return str(properties.get("landsat:correction") or (match[1] if match else ""))
    texts = (properties.get("s2:product_type"), properties.get("s2:product_uri"), item.collection_id, item.id)
    for text in texts:
        match = re.search(r"L(1C|2A)(?![0-9A-Z])", str(text or "").upper().replace("-", "_"))
        if match is None:
            match = re.search(r"MSI(1C|2A)", str(text or "").upper())
        if match is not None:
            return f"L{match[1]}"
    return ""


def _baseline(item: pystac.Item, sensor: str) -> str:
    properties = item.properties
    if sensor.startswith("landsat"):
        return str(properties.get("landsat:collection_number") or "")
    if sensor != "sentinel-2":
        return ""
    for key in ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version"):
        match = re.fullmatch(r"(\d{2})\.(\d{2})", str(properties.get(key) or ""))
        if match is not None:
            return match[0]
    named = re.search(r"_N(\d{2})(\d{2})_", f"{properties.get('s2:product_uri', '')} {item.id}")
    return f"{named[1]}.{named[2]}" if named else ""


def _mirror(item: pystac.Item) -> str:
    noted = item.properties.get(MIRROR_PROPERTY)
    if noted in MIRRORS:
        return str(noted)
    if any(key.startswith("earthsearch:") for key in item.properties):
        return EARTH_SEARCH
    hrefs = [link.href for link in item.links] + [asset.href for asset in item.assets.values()]
    hosts = (urlsplit(str(href)).hostname or "" for href in hrefs)
    return next((_HOSTS[host] for host in hosts if host in _HOSTS), "")
