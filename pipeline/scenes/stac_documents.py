"""STAC JSON from files, folders and URLs as pystac items, checked before use: it comes from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit

import pystac
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.documents import parse_json
from pipeline.errors import ProductError
from pipeline.scenes.remote import ITEM_FILE, is_url, plain_url, read_metadata

# A static collection of more scenes than this is a catalogue to search, not a job.
MOST_ITEMS = 1000

Document = dict[str, Any]


def _address(value: str) -> str:
    urlsplit(value)  # ValueError: brackets that do not close
    return value


def _six_or_nine(value: list[float]) -> list[float]:
    if not 6 <= len(value) <= 9:  # noqa: PLR2004 - rows of an affine matrix
        raise ValueError("6 to 9 numbers")
    return value


_Absent = BeforeValidator(lambda value: value or None)
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Fields(BaseModel):
    """Fields of an item or asset that are used, of the kind that STAC says; others may be anything."""

    model_config = ConfigDict(strict=True)

    bands: list[Any] | None = None
    eo_bands: list[Any] | None = Field(None, alias="eo:bands")
    raster_bands: list[Any] | None = Field(None, alias="raster:bands")
    roles: list[str] | None = None
    instruments: list[str] | None = None
    shape: Annotated[Annotated[list[_Number], Field(min_length=2, max_length=2)] | None, _Absent] = Field(
        None, alias="proj:shape"
    )
    transform: Annotated[Annotated[list[_Number], AfterValidator(_six_or_nine)] | None, _Absent] = Field(
        None, alias="proj:transform"
    )


class _Asset(_Fields):
    href: Annotated[str, Field(min_length=1), AfterValidator(_address)]
    type: str | None = None


class _Item(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str = Field(min_length=1)
    stac_version: str | None = None
    properties: _Fields
    assets: dict[str, _Asset]
    links: list[Any] | None = None
    stac_extensions: list[Any] | None = None


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
    try:
        _Item.model_validate(document)
    except ValidationError as err:
        first = err.errors()[0]
        where = ", ".join(str(part) for part in first["loc"])
        got, expected = _short(first["input"]), first["msg"].removeprefix("Input should be ")
        raise ProductError(f"not a STAC item: {where}", path=name, got=got, expected=expected) from err
    if not document["properties"]:
        raise ProductError("not a STAC item: no properties", path=name)


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


def items_of(source: Path | str | Document) -> list[pystac.Item]:
    """The items of a file, folder, URL, JSON object, collection or item collection, in order.

    Raises:
        ProductError: nothing of that, not reachable, or more items than ``MOST_ITEMS``.
    """
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


def _from_document(document: Document, *, href: str | None) -> list[pystac.Item]:
    kind = str(document.get("type"))
    if kind == "Feature" and "assets" in document:
        return [read_item(document, href=href)]
    if kind == "FeatureCollection" and isinstance(document.get("features"), list):
        return [read_item(feature, href=href) for feature in document["features"][:MOST_ITEMS]]
    if kind in {"Collection", "Catalog"} and "links" in document and href is not None:
        links = [link.get("href", "") for link in document["links"] if link.get("rel") == "item"]
        if not 0 < len(links) <= MOST_ITEMS:
            what = f"STAC {document['type'].lower()} with {len(links)} links to items"
            fix = "search it instead" if any(link.get("rel") == "items" for link in document["links"]) else None
            raise ProductError(what, path=plain_url(href), expected=f"1 to {MOST_ITEMS}", fix=fix)
        targets = [reachable(urljoin(href, link), of=href) for link in links]
        return [read_item(_document(target), href=target) for target in targets]
    name = plain_url(href) if href else document.get("id")
    raise ProductError("not a STAC item or collection", path=name, got=f"type {document.get('type')!r}")


def shown(source: Path | str | Document) -> str:
    """What a source is called in a Scene's path and in errors."""
    return str(source.get("id", "")) if isinstance(source, dict) else plain_url(str(source))
