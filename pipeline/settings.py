"""What all settings share: each is declared once, beside the function that it steers, and ``config`` composes them.

A settings type is a frozen pydantic model: its fields have a default, a range, a unit in their name where a bare number
could be read two ways, and one line of text. The configuration file, the command line's ``--set``, the JSON Schema and
``docs/config.md`` are made from that declaration; functions take the type itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

# How GDAL spells a raster inside a file. A drive of Windows has one letter.
INSIDE_FILE = re.compile(r'(?P<driver>[A-Z][A-Z0-9_]{2,}):"?(?P<file>[^":]+)"?(?P<name>:.*)?')
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """No unknown keys, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def absolute(value: str, info: ValidationInfo) -> str:
    """A path made absolute against the configuration's folder, or the working folder where there is none.

    GDAL's virtual paths and URLs stay as they are; of a raster inside a file (NETCDF:"a.nc":ndvi) it is the file's.
    """
    if value.startswith(("/vsi", "http://", "https://")):
        return value
    folder = Path((info.context or {}).get("folder", "."))
    inside = INSIDE_FILE.fullmatch(value)
    if inside is not None:
        file = (folder / inside["file"]).expanduser().resolve()
        return f'{inside["driver"]}:"{file}"{inside["name"] or ""}'
    return str((folder / value).expanduser().resolve())
