"""STAC JSON from files, folders and URLs as pystac items, checked before use: it comes from anywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pystac

from pipeline.documents import parse_json
from pipeline.errors import ProductError
from pipeline.scenes.remote import ITEM_FILE, is_url, plain_url, read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

# A static collection of more scenes than this is a catalogue to search, not a job.
MOST_ITEMS = 1000

Document = dict[str, Any]
# What the fields that are used later must be, as a type and as words; a field that is absent or null passes.
_TEXT, _OBJECT = (str, "text"), (dict, "an object")
_LIST = (list, "a list")
_ITEM_FIELDS: dict[str, tuple[type, str]] = {
    "id": _TEXT,
    "stac_version": _TEXT,
    "properties": _OBJECT,
    "links": _LIST,
    "stac_extensions": _LIST,
}
_COMMON_FIELDS = dict.fromkeys(("bands", "eo:bands", "raster:bands", "roles", "instruments"), (list, "a list"))
_ASSET_FIELDS: dict[str, tuple[type, str]] = {"href": _TEXT, "type": _TEXT}
_PLACE_NUMBERS = {"proj:shape": (2, 2), "proj:transform": (6, 9)}


def read_item(document: Document, *, href: str | None = None) -> pystac.Item:
    """A pystac item with absolute addresses, checked for what a scene needs.

    Raises:
        ProductError: not a STAC item.
    """
    name = plain_url(href) if href else str(document.get("id"))
    _check(document, name)
    links, extensions = _links(document, keep_self=href is None), document.get("stac_extensions") or []
    try:
        item = pystac.Item.from_dict(document | {"links": links, "stac_extensions": extensions})
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise ProductError("not a STAC item", path=name, got=err, expected="STAC 1.0 or 1.1") from err
    if href is not None:
        item.set_self_href(href)
    return item


def _check(document: Document, name: str) -> None:
    """Refuse an item whose fields are of another kind than STAC says."""
    _check_fields(document, _ITEM_FIELDS, name)
    for key in ("id", "properties"):
        if not document.get(key):
            raise ProductError(f"not a STAC item: no {key}", path=name)
    assets = document.get("assets")
    if not isinstance(assets, dict):
        raise ProductError("not a STAC item: assets", path=name, got=_short(assets), expected="an object")
    for key, fields in [("properties", document["properties"]), *assets.items()]:
        if not isinstance(fields, dict):
            raise ProductError(f"asset {key} of a STAC item", path=name, got=_short(fields), expected="an object")
        kinds = _COMMON_FIELDS | (_ASSET_FIELDS if fields is not document["properties"] else {})
        _check_fields(fields, kinds, f"{name}, {key}")
        _check_place(fields, f"{name}, {key}")
    for key, asset in assets.items():
        _check_href(asset.get("href"), f"{name}, {key}")


def _check_fields(fields: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]], where: str) -> None:
    for key, (kind, words) in kinds.items():
        value = fields.get(key)
        if value is not None and not isinstance(value, kind):
            raise ProductError(f"STAC item with a wrong {key}", path=where, got=_short(value), expected=words)
        if isinstance(value, list) and key in {"roles", "instruments"} and not all(isinstance(v, str) for v in value):
            raise ProductError(f"STAC item with a wrong {key}", path=where, got=_short(value), expected="texts")


def _check_place(fields: Mapping[str, Any], where: str) -> None:
    for key, counts in _PLACE_NUMBERS.items():
        value = fields.get(key)
        if not value:
            continue
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value
        )
        if not numbers or len(value) not in counts:
            expected = " or ".join(str(count) for count in dict.fromkeys(counts))
            raise ProductError(
                f"STAC item with a wrong {key}", path=where, got=_short(value), expected=f"{expected} numbers"
            )


def _check_href(href: object, where: str) -> None:
    try:
        urlsplit(str(href))
    except ValueError as err:
        raise ProductError("asset with an address that is none", path=where, got=_short(href)) from err
    if not href:
        raise ProductError("asset without an address", path=where)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line


def _links(document: Document, *, keep_self: bool) -> list[Document]:
    """Links that pystac need not follow: it would fetch a root or collection from anywhere, without a time limit."""
    found = document.get("links") or []
    addresses = [link for link in found if isinstance(link, dict) and is_url(str(link.get("href", "")))]
    return [
        {"rel": "self" if keep_self and link.get("rel") == "self" else "via", "href": link["href"]}
        for link in addresses
        if str(link.get("rel")) in {"self", "root", "parent", "collection", "canonical", "via", "derived_from"}
    ]


def items_of(source: Path | str | Document | pystac.Item) -> list[pystac.Item]:
    """The items of a file, folder, URL, JSON object, collection or item collection, in order.

    Raises:
        ProductError: nothing of that, not reachable, or more items than ``MOST_ITEMS``.
    """
    if isinstance(source, pystac.Item):
        return [source]
    if isinstance(source, dict):
        return _from_document(source, href=None)
    if isinstance(source, str) and is_url(source):
        return _from_document(_document(source), href=source)
    path = Path(source)
    path = path / ITEM_FILE if path.is_dir() else path
    return _from_document(_document(str(path)), href=str(path.absolute()))


def reachable(href: str, *, of: str) -> str:
    """An address that a document names, if it may: one that came over http may lead to http only.

    Raises:
        ProductError: a file, another file system or driver of GDAL, named by what came over http.
    """
    if is_url(of) and not is_url(href):
        what = "address that a document from the network may not name"
        raise ProductError(what, path=plain_url(of), got=_short(href), expected="http or https")
    return href


def _document(href: str) -> Document:
    document = parse_json(read_metadata(href), what="STAC document", path=plain_url(href), error=ProductError)
    if not isinstance(document, dict):
        raise ProductError("not a STAC item or collection", path=plain_url(href))
    return document


def _kind(document: Document) -> str:
    kind = str(document.get("type"))
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        return "features"
    if kind == "Feature" and "assets" in document:
        return "item"
    if kind in {"Collection", "Catalog"} and "links" in document:
        return "links"
    return ""


def _from_document(document: Document, *, href: str | None) -> list[pystac.Item]:
    kind = _kind(document)
    if kind == "item":
        return [read_item(document, href=href)]
    if kind == "features":
        return [read_item(feature, href=href) for feature in document["features"][:MOST_ITEMS]]
    if kind == "links" and href is not None:
        links = [link.get("href", "") for link in document["links"] if link.get("rel") == "item"]
        if not 0 < len(links) <= MOST_ITEMS:
            what = f"STAC {document['type'].lower()} with {len(links)} links to items"
            fix = "search it instead" if any(link.get("rel") == "items" for link in document["links"]) else None
            raise ProductError(what, path=plain_url(href), expected=f"1 to {MOST_ITEMS}", fix=fix)
        targets = [reachable(urljoin(href, link), of=href) for link in links]
        return [read_item(_document(target), href=target) for target in targets]
    name = plain_url(href) if href else document.get("id")
    raise ProductError("not a STAC item or collection", path=name, got=f"type {document.get('type')!r}")


def shown(source: Path | str | Document | pystac.Item) -> str:
    """What a source is called in a Scene's path and in errors."""
    if isinstance(source, pystac.Item):
        return plain_url(source.get_self_href() or source.id)
    return str(source.get("id", "")) if isinstance(source, dict) else plain_url(str(source))
