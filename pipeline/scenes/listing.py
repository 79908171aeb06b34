"""What ``--scenes`` stands for: a text file of paths, a folder of scenes, or STAC items -> one path per scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import InputError, OutputError
from pipeline.scenes.archive import ARCHIVE_SUFFIXES
from pipeline.scenes.geotiff import RASTER_SUFFIXES
from pipeline.scenes.landsat import looks_like_landsat
from pipeline.scenes.remote import ITEM_FILE, is_url
from pipeline.scenes.sentinel2 import looks_like_safe
from pipeline.scenes.stac_documents import items_of

if TYPE_CHECKING:
    import pystac

LISTS = frozenset({".txt", ".lst", ".csv"})
STAC = frozenset({".json", ".geojson"})


def list_scenes(given: Path | str, *, items: Path) -> list[str]:
    """The scenes that ``given`` stands for, in order.

    Args:
        given: A text file (a path or URL per line, relative to the file; empty lines and lines that start with # do not
            count); a folder (of products, of files with several bands, or itself a scene); a STAC item, item
            collection, collection or catalogue, as a file or URL.
        items: Folder into which the items of a STAC collection are written, one by one.

    Raises:
        InputError: nothing there, or nothing in it.
        ProductError: not STAC.
    """
    if is_url(str(given)):
        return _stac(str(given), items)
    path = Path(given)
    if path.is_dir():
        found = _folder(path)
    elif not path.exists():
        raise InputError("no such list of scenes", path=path, expected="a text file, a folder, or STAC items")
    elif path.suffix.lower() in LISTS:
        found = _lines(path)
    elif path.suffix.lower() in STAC:
        found = _stac(str(path), items)
    else:
        found = [str(path)]
    if not found:
        raise InputError(
            "no scene in it", path=path, expected="paths, products, rasters of several bands or STAC items"
        )
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise InputError("list of scenes cannot be read", path=path, got=err, expected="a path per line") from err
    return [_from(path.parent, line) for line in lines if line and not line.startswith("#")]


def _from(folder: Path, line: str) -> str:
    return line if is_url(line) or line.startswith("/vsi") else str(folder / line)


def _stac(given: str, folder: Path) -> list[str]:
    found = items_of(given)
    return [given] if len(found) == 1 else [_write_item(item, folder) for item in found]


def _write_item(item: pystac.Item, folder: Path) -> str:
    """A file of its own for one item of a collection, with absolute addresses."""
    item.make_asset_hrefs_absolute()
    target = folder / f"{item.id.replace('/', '_')}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(item.to_dict(include_self_link=False))
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
    except OSError as err:
        raise OutputError("cannot write a STAC item", path=target, got=err.strerror) from err
    return str(target)


def _folder(path: Path) -> list[str]:
    """The folder itself where it is a product or holds the bands of one; else what it holds."""
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    names = [child.name for child in children]
    if path.name.upper().endswith(".SAFE") or looks_like_safe(names) or looks_like_landsat(names) or ITEM_FILE in names:
        return [str(path)]
    rasters = [child for child in children if child.is_file() and child.suffix.lower() in RASTER_SUFFIXES]
    whole = [child for child in rasters if _several_bands(child)]
    if rasters and not whole:
        return [str(path)]
    others = [child for child in children if child not in rasters and _may_be_scene(child)]
    return [str(child) for child in sorted([*whole, *others])]


def _several_bands(path: Path) -> bool:
    """Whether a raster may be a scene by itself; one that cannot be opened is listed and reported as broken."""
    try:
        with rasterio.open(path) as dataset:
            return bool(dataset.count > 1)
    except RasterioError:
        return True


def _may_be_scene(path: Path) -> bool:
    if path.is_dir():
        return any(True for _ in path.iterdir())
    return path.suffix.lower() in ARCHIVE_SUFFIXES | STAC
