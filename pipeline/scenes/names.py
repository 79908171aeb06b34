"""Names of scenes: the files of a map begin with them, so they hold nothing that a file system or a pattern reads."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from pipeline.errors import SceneWarning
from pipeline.files import hash_bytes

if TYPE_CHECKING:
    from pathlib import Path

# Bytes in UTF-8: file systems take 255 for the name of a file, which is the scene's and what is made of it.
MAX_BYTES = 100
EXPECTED = f"letters, digits, spaces and . _ - + ( ) after a letter or digit, {MAX_BYTES} bytes at most"
# Files of a run folder, which an item of the same name would replace.
TAKEN = frozenset({"accuracy", "areas", "collection", "ledger", "learning_curve", "run"})
_NAME = re.compile(r"[^\W_](?:[\w .+()-]*[\w+()-])?")
_OTHER = re.compile(r"[^\w .+()-]+")


def is_name(text: str) -> bool:
    """Whether a scene may be called so.

    >>> is_name("S2B_MSIL2A_20240601"), is_name("Zürich (2)"), is_name("../a"), is_name("-a"), is_name("a" * 300)
    (True, True, False, False, False)
    """
    return bool(_NAME.fullmatch(text)) and len(text.encode()) <= MAX_BYTES and text.lower() not in TAKEN


def name_of(text: str, *, path: Path | str) -> str:
    """A name that a scene may have, from that of its file or product; warns where it is another one.

    >>> name_of("field_7", path="field_7.tif")
    'field_7'
    """
    if is_name(text):
        return text
    name = _OTHER.sub("_", text).lstrip(" ._+()-").rstrip(" .")
    if len(name.encode()) > MAX_BYTES:
        digest = hash_bytes(text.encode())[:8]
        name = f"{name.encode()[: MAX_BYTES - 9].decode(errors='ignore').rstrip(' .')}_{digest}"
    if not is_name(name):
        name = f"scene_{name}".rstrip("_ .")
    shown = text if len(text) <= MAX_BYTES else f"{text[:MAX_BYTES]}..."
    warnings.warn(f"{path}: files are called after {name!r}, not {shown!r}; set id to choose a name", SceneWarning, 2)
    return name
