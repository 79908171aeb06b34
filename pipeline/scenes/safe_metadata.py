"""What a Sentinel-2 product says about itself in its two XML files: product and tile.

Reflectance = (DN + ADD_OFFSET) / QUANTIFICATION_VALUE, the offset per band and only where the XML states one.
Sources: Sentinel-2 Products Specification Document (PSD) 14.9, S2-PDGS-TAS-DI-PSD, User Product and Tile metadata;
ESA, "Copernicus Sentinel-2 processing baseline 04.00", January 2022 (the offsets).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.documents import finite, parse_xml
from pipeline.errors import ProductError, ProductWarning

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

BAND_KEYS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Band keys in the order of the XML's band_id 0 .. 12 (PSD, "BAND_ID")."""

# Source: ESA Sentinel Online, "Sentinel-2 processing baseline" history; 05.00 and 05.10 to 05.12 are also what
# Collection-1 and later processing carry.
KNOWN_BASELINES = frozenset(
    {f"02.{minor:02d}" for minor in range(15)} | {"03.00", "03.01", "04.00"} | {f"05.{m:02d}" for m in range(13)}
)
OFFSET_SINCE = (4, 0)


@dataclass(frozen=True)
class SafeMetadata:
    """The product's XML."""

    product: str  # Name of the product
    level: str  # "L1C" or "L2A"
    baseline: str  # Processing baseline, "05.09"
    tile: str  # MGRS tile with its T, "T33UUU"; "" where no image is listed
    acquired_utc: datetime  # Start of the acquisition
    quantification: float  # DN per unit of reflectance
    offsets: Mapping[str, float]  # DN added before dividing, by band key; empty where the XML states none
    nodata: float  # DN that means no data
    saturated: float | None  # DN that means saturated, None where the XML states none
    images: tuple[str, ...]  # Image files without suffix, as listed
    source: str  # Which elements the scale and offset were read from, for the ledger


@dataclass(frozen=True)
class TileMetadata:
    """The granule's XML: tile, CRS ("EPSG:32633"), upper left corner in metres, shape by resolution in metres."""

    tile: str
    crs: str
    upper_left: tuple[float, float]
    shapes: Mapping[int, tuple[int, int]]


def parse_product(data: bytes, *, path: str) -> SafeMetadata:
    """Read MTD_MSIL1C.xml, MTD_MSIL2A.xml or their older forms.

    Raises:
        ProductError: not XML, not a Sentinel-2 user product, or without what is needed to make reflectance.
    """
    root = parse_xml(data, what="metadata", path=path, error=ProductError, fix="download the product again")
    level = _level(root, path)
    name = {"L1C": "QUANTIFICATION_VALUE", "L2A": "BOA_QUANTIFICATION_VALUE"}[level]
    # Sen2Cor before 2.5 wrote L2A_BOA_QUANTIFICATION_VALUE.
    quantification = _number(root, (name, f"L2A_{name}") if level == "L2A" else (name,), path)
    if not quantification > 0:
        raise ProductError(f"{name} is not positive", path=path, got=quantification)
    offsets, tag = _offsets(root, level, path)
    baseline = _text(root, "PROCESSING_BASELINE", path)
    _check_baseline(baseline, has_offsets=bool(offsets), path=path)
    index = "SPECIAL_VALUE_INDEX"
    special = {
        (item.findtext("SPECIAL_VALUE_TEXT") or "").strip(): _float(item.findtext(index), index, path)
        for item in root.iter("Special_Values")
    }
    images = tuple((e.text or "").strip() for e in root.iter() if e.tag in {"IMAGE_FILE", "IMAGE_ID", "IMAGE_FILE_2A"})
    tiles = re.findall(r"[_/](T\d{2}[A-Z]{3})_", " ".join(images))
    values = [f"{value:g}" for value in sorted(set(offsets.values()))]
    brief = values[0] if len(values) == 1 else f"{values[0]}..{values[-1]} by band" if values else ""
    stated = f"{tag} {brief}" if offsets else f"no {tag}"
    return SafeMetadata(
        product=_product_name(root, path),
        level=level,
        baseline=baseline,
        tile=tiles[0] if tiles else "",
        acquired_utc=_time(_text(root, "PRODUCT_START_TIME", path), path),
        quantification=quantification,
        offsets=offsets,
        nodata=special.get("NODATA", 0.0),
        saturated=special.get("SATURATED"),
        images=images,
        source=f"{path.rsplit('/', 1)[-1]}: {name} {quantification:g}, {stated}",
    )


def parse_tile(data: bytes, *, path: str) -> TileMetadata:
    """Read MTD_TL.xml or its older form.

    Raises:
        ProductError: not XML, or without the tile's geocoding.
    """
    root = parse_xml(data, what="metadata", path=path, error=ProductError, fix="download the product again")
    shapes: dict[int, tuple[int, int]] = {}
    for size in root.iter("Size"):
        rows, cols = (int(_float(size.findtext(tag), tag, path)) for tag in ("NROWS", "NCOLS"))
        shapes[int(_float(size.get("resolution"), "resolution", path))] = rows, cols
    if not shapes or root.find(".//Geoposition") is None:
        raise ProductError("tile metadata has no geocoding", path=path, expected="Size and Geoposition per resolution")
    tile = re.search(r"_(T\d{2}[A-Z]{3})_", _text(root, "TILE_ID", path) + "_")
    return TileMetadata(
        tile=tile.group(1) if tile else "",
        crs=_text(root, "HORIZONTAL_CS_CODE", path),
        upper_left=(_number(root, ("ULX",), path), _number(root, ("ULY",), path)),
        shapes=shapes,
    )


def _level(root: Element, path: str) -> str:
    match = re.search(r"Level-(1C|2A)_User_Product$", root.tag)
    if match is None:
        what = "not the metadata of a Sentinel-2 L1C or L2A product"
        raise ProductError(what, path=path, got=root.tag.rsplit("}", 1)[-1])
    return f"L{match.group(1)}"


def _text(root: Element, tag: str, path: str) -> str:
    text = (root.findtext(f".//{tag}") or "").strip()
    if not text:
        raise ProductError(f"metadata lacks {tag}", path=path, fix="download the product again")
    return text


def _number(root: Element, tags: tuple[str, ...], path: str) -> float:
    tag = next((tag for tag in tags if root.find(f".//{tag}") is not None), tags[0])
    return _float(_text(root, tag, path), tag, path)


def _float(text: str | None, tag: str, path: str) -> float:
    number = finite(text)
    if number is None:
        raise ProductError(f"{tag} in the metadata is not a number", path=path, got=repr(text))
    return number


def _offsets(root: Element, level: str, path: str) -> tuple[dict[str, float], str]:
    tag = {"L1C": "RADIO_ADD_OFFSET", "L2A": "BOA_ADD_OFFSET"}[level]
    offsets: dict[str, float] = {}
    for element in root.iter(tag):
        number = int(_float(element.get("band_id"), "band_id", path))
        if not 0 <= number < len(BAND_KEYS):
            what = f"{tag} of an unknown band"
            raise ProductError(what, path=path, got=f"band_id {number}", expected=f"0..{len(BAND_KEYS) - 1}")
        offsets[BAND_KEYS[number]] = _float(element.text, tag, path)
    return offsets, tag


def _product_name(root: Element, path: str) -> str:
    text = root.findtext(".//PRODUCT_URI") or root.findtext(".//PRODUCT_URI_2A") or root.findtext(".//PRODUCT_URI_1C")
    name = (text or "").strip() or path.rsplit("/", 1)[-1]
    return name.removesuffix(".SAFE").removesuffix(".xml")


def _time(text: str, path: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as err:
        raise ProductError("time of acquisition in the metadata", path=path, got=text) from err
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _check_baseline(baseline: str, *, has_offsets: bool, path: str) -> None:
    """Warn of what is unknown or contradictory; the XML's own numbers are used in any case."""
    if baseline not in KNOWN_BASELINES:
        what = f"processing baseline {baseline} is unknown; scale and offset are taken from its XML as they stand"
        warnings.warn(f"{path}: {what}", ProductWarning, stacklevel=4)
        return
    major, minor = baseline.split(".")
    if ((int(major), int(minor)) >= OFFSET_SINCE) != has_offsets:
        said = "states an offset" if has_offsets else "states no offset"
        what = f"{path}: baseline {baseline} but the XML {said}; the XML is followed"
        warnings.warn(what, ProductWarning, stacklevel=4)
