"""The MTL file of a Landsat Collection 2 product, in its three spellings (txt, json, xml) -> one mapping.

Source: USGS, Landsat Collection 2 Level-1 and Level-2 Data Format Control Books (LSDS-1414, LSDS-1822).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import defusedxml.ElementTree as SafeXml
from defusedxml import DefusedXmlException

from pipeline.errors import ProductError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "LANDSAT_METADATA_FILE"
COLLECTION_1_ROOT = "L1_METADATA_FILE"
MTL_NAME = re.compile(r".+_MTL\.(txt|json|xml)", re.IGNORECASE)
_LINE = re.compile(r'\s*(\w+)\s*=\s*(?:"([^"]*)"|(.*?))\s*')

Mtl = dict[str, dict[str, str]]
"""Group -> key -> text, as written, without quotes. Keys repeat between groups, so the group belongs to the key."""


def parse_mtl(data: bytes, *, path: str) -> Mtl:
    """The groups of an MTL file; the suffix of ``path`` says how it is spelt.

    Raises:
        ProductError: not an MTL, cut off, of Collection 1, or without the groups every product has.
    """
    suffix = path.rsplit(".", 1)[-1].lower()
    try:
        text = data.decode("utf-8")
        root, groups = {"txt": _from_txt, "json": _from_json, "xml": _from_xml}[suffix](text)
    except (KeyError, ValueError, TypeError, AttributeError, SafeXml.ParseError, DefusedXmlException) as err:
        what = "not a whole MTL file"
        raise ProductError(what, path=path, got=err or type(err).__name__, fix="download the product again") from err
    if root == COLLECTION_1_ROOT or groups.get("PRODUCT_CONTENTS", {}).get("COLLECTION_NUMBER") == "01":
        what = "product is of Landsat Collection 1, whose calibration and quality bits differ"
        raise ProductError(what, path=path, expected="Collection 2", fix="order the same scene from Collection 2")
    if root != ROOT or "PRODUCT_CONTENTS" not in groups:
        what = "not the MTL of a Landsat Collection 2 product"
        raise ProductError(what, path=path, got=f"group {root}", expected=ROOT)
    return groups


def text_of(mtl: Mapping[str, Mapping[str, str]], group: str, key: str, *, path: str) -> str:
    """One entry; ProductError where it is missing."""
    try:
        return mtl[group][key]
    except KeyError as err:
        raise ProductError(f"MTL lacks {key} in {group}", path=path, fix="download the product again") from err


def number_of(mtl: Mapping[str, Mapping[str, str]], group: str, key: str, *, path: str) -> float:
    """One entry as a number; ProductError where it is missing or is none."""
    text = text_of(mtl, group, key, path=path)
    try:
        return float(text)
    except ValueError as err:
        raise ProductError(f"{key} in {group} of the MTL is not a number", path=path, got=repr(text)) from err


def _from_txt(text: str) -> tuple[str, Mtl]:
    root, group = "", ""
    groups: Mtl = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        key, value = match[1], match[2] if match[2] is not None else match[3]
        if key == "GROUP" and not root:
            root = value
        elif key == "GROUP":
            group = value
            groups[group] = {}
        elif key == "END_GROUP" and value == root:
            return root, groups
        elif key != "END_GROUP":
            groups[group][key] = value
    raise ValueError(f"it ends before END_GROUP = {root or ROOT}")


def _from_json(text: str) -> tuple[str, Mtl]:
    root, content = next(iter(json.loads(text).items()))
    groups = {group: {key: str(value) for key, value in items.items()} for group, items in content.items()}
    return str(root), groups


def _from_xml(text: str) -> tuple[str, Mtl]:
    root = SafeXml.fromstring(text)
    return root.tag, {group.tag: {item.tag: (item.text or "").strip() for item in group} for group in root}
