"""Layers that come beside the bands: those that mask pixels, and those that are neither a band nor a mask.

They are known by their names, in files of their own as among the bands of one file, so that no classifier learns from
the producer's clouds, and so that the clouds are masked wherever the product is kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.bands import TABLES, is_optical
from pipeline.scenes import quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.scenes.scene import QualitySource

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
    (ASIDE, r"[SV][AZ]A|(SUN|SOLAR|SENSOR|VIEW(ING)?|MEAN_\w+)_?(AZIMUTH|ZENITH)(_ANGLES?)?(_B\w+)?|\w+_?ANGLES?"),
)
# Roles of files with a band per reason -> number of the last band that masks: a single band of one says nothing.
BAND_PER_REASON = {"udm2": max(quality.UDM2_BANDS.values()), "classi": max(quality.CLASSI_BANDS.values())}
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

    Args:
        role: As :func:`role_of` gives it.
        path: What GDAL opens.
        reasons: Of ``quality.REASONS``.
        index: The layer's band in the file; of those in ``BAND_PER_REASON`` the whole file counts.
        sensor: A key of ``TABLES``, or "".
        bands: Names of the scene's bands, of which saturation counts.
    """
    if role == "fmask" and sensor.startswith("hls"):
        return quality.by_bits("Fmask", path, reasons, bits=quality.HLS_FMASK_BITS, index=index, fill=(255,))
    if role in quality.BITS:
        return quality.by_bits(role.upper(), path, reasons, bits=quality.BITS[role], index=index)
    if role in quality.CODES:
        return quality.by_codes(role.upper(), path, reasons, codes=quality.CODES[role], index=index)
    found: tuple[QualitySource, ...] = ()
    if role == "qa_pixel":
        found = (quality.qa_pixel(path, reasons, index=index),)
    elif role == "classi":
        found = quality.classi(path, reasons)
    elif role == "udm2":
        found = quality.by_bands("UDM2", path, reasons, numbers=quality.UDM2_BANDS)
    elif role == "qa_radsat" and "saturated" in reasons and sensor in quality.RADSAT_DROPPED:
        numbers = [int(s.key[1:]) for s in TABLES[sensor] if s.name in bands and is_optical(s.name) and s.name != "pan"]
        found = (quality.qa_radsat(path, sensor=sensor, band_numbers=numbers, index=index),)
    return found
