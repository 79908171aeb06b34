"""Layers beside the bands: which they are, by their names, and what in them makes a pixel unusable.

A mask is a set of reasons. Each sensor's layers say them differently: Sentinel-2 L2A by a class per pixel (SCL), L1C by
a raster or by polygons of clouds, Landsat by bits (QA_PIXEL) and bits of saturation (QA_RADSAT).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.bands import TABLES, is_optical
from pipeline.documents import parse_xml
from pipeline.errors import ConfigError, ProductError
from pipeline.scenes.archive import read_bytes
from pipeline.scenes.settings import REASONS
from pipeline.scenes.sources import QualitySource

# Snow, water, dark and unclassified ground can be mapped; clouds, their shadows and what the sensor did not see cannot.
DEFAULT_MASK = ("nodata", "saturated", "cloud", "cirrus", "shadow", "dilated")

# Scene classification codes. Source: Sentinel-2 Level-2A Algorithm Theoretical Basis Document, table "Scene
# classification": 0 no data, 1 saturated or defective, 2 dark area, 3 cloud shadow, 4 vegetation, 5 not vegetated,
# 6 water, 7 unclassified, 8 cloud medium probability, 9 cloud high probability, 10 thin cirrus, 11 snow or ice.
SCL_CODES: dict[str, tuple[int, ...]] = {
    "nodata": (0,),
    "saturated": (1,),
    "dark": (2,),
    "shadow": (3,),
    "water": (6,),
    "unclassified": (7,),
    "cloud": (8, 9),
    "cloud_medium": (8, 9),
    "cirrus": (10,),
    "snow": (11,),
}

# Bands of MSK_CLASSI. Source: Sentinel-2 Products Specification Document (PSD) 14.9, Level-1C classification mask.
CLASSI_BANDS = {"cloud": 1, "cirrus": 2, "snow": 3}

# QA_PIXEL bits. Source: USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), table 6-2; the same
# for TM and ETM+ (LSDS-1618), which have no cirrus band.
QA_PIXEL_BITS = {"nodata": 0, "dilated": 1, "cirrus": 2, "cloud": 3, "shadow": 4, "snow": 5, "water": 7}
# Two-bit confidence of clouds in bits 8-9: 1 low, 2 medium, 3 high (same source). Clear pixels have low confidence, so
# there is no reason "cloud_low"; shadow, snow and cirrus are low or high only, as their single bits say.
CLOUD_CONFIDENCE_SHIFT = 8
CLOUD_CONFIDENCE = {"cloud_medium": (2, 3)}
# QA_RADSAT: bit n-1 is saturation of band n; bit 9 is a dropped pixel for TM and ETM+ (LSDS-1618, table 6-3), bit 11
# terrain occlusion for OLI (LSDS-1619, table 6-3).
RADSAT_DROPPED = {"landsat-tm": 1 << 9, "landsat-etm": 1 << 9, "landsat-oli": 1 << 11}


# Source: HLS v2.0 User Guide, table 9 (Fmask quality layer); 255 is fill.
HLS_FMASK_BITS = {"cirrus": 0, "cloud": 1, "dilated": 2, "shadow": 3, "snow": 4, "water": 5}
BITS: dict[str, dict[str, int]] = {
    # Landsat Collection 1. Source: USGS Landsat 8 Surface Reflectance Code Product Guide (LSDS-1368), table 7-1.
    "pixel_qa": {"nodata": 0, "water": 2, "shadow": 3, "snow": 4, "cloud": 5},
    # Source: Google Earth Engine Data Catalog, Sentinel-2 MSI, band QA60.
    "qa60": {"cloud": 10, "cirrus": 11},
}
CODES: dict[str, dict[str, tuple[int, ...]]] = {
    "scl": SCL_CODES,
    # Source: Zhu & Woodcock (2012), Remote Sensing of Environment 118:83-94, as Fmask and CFMask write them.
    "fmask": {"nodata": (255,), "water": (1,), "shadow": (2,), "snow": (3,), "cloud": (4,)},
    # Source: Sentinel Hub, Sentinel-2 L2A, band CLM (s2cloudless): 1 cloud, 255 no data; dataMask: 0 no data.
    "clm": {"nodata": (255,), "cloud": (1,)},
    "datamask": {"nodata": (0,)},
}
# Source: Planet, Usable Data Mask 2: band 2 snow, 3 shadow, 4 light haze, 5 heavy haze, 6 cloud.
UDM2_BANDS = {"snow": 2, "shadow": 3, "cirrus": 4, "dilated": 5, "cloud": 6}


def check_mask(mask: Sequence[str] | None) -> tuple[str, ...]:
    """The reasons asked for; DEFAULT_MASK for None.

    Raises:
        ConfigError: a reason that no sensor knows.
    """
    if mask is None:
        return DEFAULT_MASK
    unknown = [reason for reason in mask if reason not in REASONS]
    if unknown:
        raise ConfigError(f"mask: unknown reason {', '.join(unknown)}", expected="some of " + ", ".join(REASONS))
    return tuple(mask)


def scl(path: str, mask: Sequence[str]) -> QualitySource:
    """The Sentinel-2 L2A scene classification as a mask."""
    found = by_codes("SCL", path, mask, codes=SCL_CODES)
    return found[0] if found else QualitySource("SCL", path)


def by_codes(
    name: str, path: str, mask: Sequence[str], *, codes: Mapping[str, tuple[int, ...]], index: int = 1
) -> tuple[QualitySource, ...]:
    """A layer with a code per pixel as a mask; none where ``mask`` asks for nothing that it knows."""
    known = {code: reason for reason in mask for code in codes.get(reason, ())}
    texts = tuple(f"{name} {code}: {known[code]}" for code in sorted(known))
    return (QualitySource(name, path, index=index, bad_values=tuple(sorted(known)), reasons=texts),) if known else ()


def by_bits(
    name: str, path: str, mask: Sequence[str], *, bits: Mapping[str, int], index: int = 1, fill: tuple[int, ...] = ()
) -> tuple[QualitySource, ...]:
    """A layer with a bit per reason as a mask; ``fill`` are values without an observation."""
    wanted = {reason: bit for reason, bit in bits.items() if reason in mask}
    empty = fill if "nodata" in mask else ()
    if not wanted and not empty:
        return ()
    texts = [f"bit {bit}: {reason}" for reason, bit in wanted.items()] + [f"{value}: nodata" for value in empty]
    bad = sum(1 << bit for bit in wanted.values())
    return (QualitySource(name, path, index=index, bad_values=empty, bad_bits=bad, reasons=tuple(texts)),)


def by_bands(name: str, path: str, mask: Sequence[str], *, numbers: Mapping[str, int]) -> tuple[QualitySource, ...]:
    """A file with a band of 0 and 1 per reason as masks."""
    return tuple(
        QualitySource(name, path, index=band, bad_values=(1,), reasons=(f"band {band}: {reason}",))
        for reason, band in numbers.items()
        if reason in mask
    )


def cloud_polygons(path: str, mask: Sequence[str]) -> tuple[QualitySource, ...]:
    """The Sentinel-2 L1C cloud polygons (baselines before 04.00)."""
    kinds = {"cloud": "OPAQUE", "cirrus": "CIRRUS"}
    wanted = tuple(kind for reason, kind in kinds.items() if reason in mask)
    return (QualitySource("MSK_CLOUDS", path, reasons=wanted, vector=True),) if wanted else ()


def qa_pixel(path: str, mask: Sequence[str], *, index: int = 1) -> QualitySource:
    """Landsat QA_PIXEL as a mask: bits, and the confidence of clouds where ``mask`` asks for it."""
    bits = {reason: bit for reason, bit in QA_PIXEL_BITS.items() if reason in mask}
    levels = {level for reason in mask for level in CLOUD_CONFIDENCE.get(reason, ())}
    fields = tuple((0b11 << CLOUD_CONFIDENCE_SHIFT, level << CLOUD_CONFIDENCE_SHIFT) for level in sorted(levels))
    texts = [f"bit {bit}: {reason}" for reason, bit in bits.items()]
    texts += [f"bits 8-9 = {level}: cloud confidence" for level in sorted(levels)]
    bad = sum(1 << bit for bit in bits.values())
    return QualitySource("QA_PIXEL", path, index=index, bad_bits=bad, bad_fields=fields, reasons=tuple(texts))


def qa_radsat(path: str, *, sensor: str, bands: Sequence[str], index: int = 1) -> QualitySource:
    """Landsat QA_RADSAT as a mask: saturation in any of the reflective bands but pan, dropped and occluded pixels."""
    numbers = [int(s.key[1:]) for s in TABLES[sensor] if s.name in bands and is_optical(s.name) and s.name != "pan"]
    bits = RADSAT_DROPPED[sensor] | sum(1 << (number - 1) for number in numbers)
    reasons = (f"saturated in band {', '.join(map(str, numbers))}", "dropped or occluded")
    return QualitySource("QA_RADSAT", path, index=index, bad_bits=bits, reasons=reasons)


def bad_pixels(layer: NDArray[np.integer], quality: QualitySource) -> NDArray[np.bool_]:
    """Where a quality layer says that pixels cannot be used, bool of the layer's shape."""
    bad = np.isin(layer, quality.bad_values) if quality.bad_values else np.zeros(layer.shape, dtype=np.bool_)
    if not quality.bad_bits and not quality.bad_fields:
        return np.asarray(bad, dtype=np.bool_)
    codes = layer if layer.dtype == np.uint16 else layer.astype(np.int64)
    if quality.bad_bits:
        bad |= (codes & quality.bad_bits) != 0
    for field, value in quality.bad_fields:
        bad |= (codes & field) == value
    return np.asarray(bad, dtype=np.bool_)


def read_polygons(quality: QualitySource) -> list[dict[str, object]]:
    """GeoJSON polygons of the mask types in ``quality.reasons``, in the tile's CRS.

    An empty mask file is a GML without features: no clouds.

    Raises:
        ProductError: the file cannot be read or is not GML.
    """
    fix = "open the scene with an empty mask"
    data = read_bytes(quality.path)
    root = parse_xml(data, what="cloud mask", path=quality.path, error=ProductError, fix=fix)
    shapes: list[dict[str, object]] = []
    for feature in root.iter():
        if not feature.tag.endswith("}MaskFeature"):
            continue
        kind = next((e.text or "" for e in feature.iter() if e.tag.endswith("}maskType")), "")
        if kind.strip().upper() in quality.reasons:
            shapes += [_polygon(e) for e in feature.iter() if e.tag.endswith("}Polygon")]
    return shapes


def _polygon(element: object) -> dict[str, object]:
    rings = []
    for ring in element.iter():  # type: ignore[attr-defined]
        if ring.tag.endswith("}posList"):
            numbers = [float(text) for text in (ring.text or "").split()]
            step = int(ring.get("srsDimension", "2"))
            rings.append([(numbers[i], numbers[i + 1]) for i in range(0, len(numbers) - 1, step)])
    return {"type": "Polygon", "coordinates": rings}


ASIDE = ""
"""Role of a layer that masks nothing: a picture, an angle, a probability, an atmospheric quantity."""
# Name (a file's last word or a band's description, without resolution) -> role; the first that matches.
_ROLES: tuple[tuple[str, str], ...] = (
    ("scl", r"SCL"),
    ("qa_pixel", r"QA_?PIXEL"),
    ("qa_radsat", r"QA_?RADSAT"),
    ("pixel_qa", r"PIXEL_?QA"),
    ("fmask", r"C?FMASK4?"),
    ("udm2", r"UDM2"),
    ("qa60", r"QA60"),
    ("clm", r"CLM"),
    ("classi", r"MSK_?CLASSI(_B00)?"),
    ("datamask", r"DATA_?MASK"),
    (ASIDE, r"MSK_?\w+|CLD(PRB)?|SNW(PRB)?|CLP|DDV|AOT|WVP|TCI|PVI|BQA|SR_QA(_AEROSOL)?|QA_AEROSOL|RADSAT_QA|UDM"),
    (ASIDE, r"SR_(AEROSOL|CLOUD_QA|ATMOS_OPACITY)|ST_(QA|CDIST|ATRAN|DRAD|EMIS|EMSD|TRAD|URAD)|QA(10|20)"),
    (ASIDE, r"[SV][AZ]A|(SUN|SOLAR|SENSOR|VIEW(ING)?|MEAN_\w+)_?(AZIMUTH|ZENITH)(_ANGLES?)?(_B\w+)?|(\w+_)?ANGLES?"),
)
# Pictures of a product that somebody may want to map all the same: red, green, blue, in eight bits.
PICTURES = re.compile(r"(.*[._ ])?(TCI|PVI)([_-](10|20|60)m)?", re.IGNORECASE)
# Roles of files with a band per reason -> number of the last band that masks: a single band of one says nothing.
BAND_PER_REASON = {"udm2": max(UDM2_BANDS.values()), "classi": max(CLASSI_BANDS.values())}
_RESOLUTION = re.compile(r"[_-](10|20|60)m$", re.IGNORECASE)
_LAST_WORDS = re.compile(r"[._ ]")


def role_of(name: str) -> str | None:
    """Role of a layer by its name, whatever stands before it; None where it may be a band.

    >>> role_of("HLS.S30.T33UUU.2024153T101031.v2.0.Fmask"), role_of("T33UUU_20240601T102021_SCL_20m"), role_of("B04")
    ('fmask', 'scl', None)
    """
    text = _RESOLUTION.sub("", name.strip())
    starts = [0, *(match.end() for match in _LAST_WORDS.finditer(text))]
    words = [text[start:] for start in starts]
    for role, pattern in _ROLES:
        if any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words):
            return role
    return None


def masks_of(
    role: str, path: str, reasons: Sequence[str], *, index: int = 1, sensor: str, bands: Sequence[str]
) -> tuple[QualitySource, ...]:
    """What a layer masks, with the same reasons as in full products; nothing for one that is set aside.

    ``role`` is as :func:`role_of` gives it; saturation counts in ``bands``. Of layers in ``BAND_PER_REASON`` the whole
    file counts, of others the band ``index``.
    """
    if role == "fmask" and sensor.startswith("hls"):
        return by_bits("Fmask", path, reasons, bits=HLS_FMASK_BITS, index=index, fill=(255,))
    if role in BITS:
        return by_bits(role.upper(), path, reasons, bits=BITS[role], index=index)
    if role in CODES:
        return by_codes(role.upper(), path, reasons, codes=CODES[role], index=index)
    found: tuple[QualitySource, ...] = ()
    if role == "qa_pixel":
        found = (qa_pixel(path, reasons, index=index),)
    elif role == "classi":
        found = by_bands("MSK_CLASSI", path, reasons, numbers=CLASSI_BANDS)
    elif role == "udm2":
        found = by_bands("UDM2", path, reasons, numbers=UDM2_BANDS)
    elif role == "qa_radsat" and "saturated" in reasons and sensor in RADSAT_DROPPED:
        found = (qa_radsat(path, sensor=sensor, bands=bands, index=index),)
    return found
