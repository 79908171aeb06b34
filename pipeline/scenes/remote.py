"""Files behind a URL: small ones fetched whole, rasters read by range requests through GDAL, windows copied to a file.

Settings travel in GDAL's own path syntax (``/vsicurl?max_retry=3&...&url=``), so a Scene stays self-contained: a reader
in another process needs no environment to behave the same. A window is copied block by block, so that a broken
download can be taken up again.
Source: GDAL documentation, "Virtual File Systems", /vsicurl/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import rasterio
from rasterio.warp import transform_bounds

from pipeline.documents import parse_json, read_file, read_json
from pipeline.errors import InputError, ProductError
from pipeline.files import hash_file, whole_file, write_json
from pipeline.grid import Grid, Window
from pipeline.raster import as_error, open_raster

if TYPE_CHECKING:
    from requests import Session

ITEM_FILE = "item.json"
"""Name of the item in a folder that ``pipeline.scenes.search.download`` wrote."""
JOURNAL_FILE = "download.json"
"""Name of its journal; the item is written last, so a folder with this file alone is not complete."""
CONNECT_S = 10
# A stalled transfer ends after this long without a byte; a whole request may take READ_S.
READ_S = 60
# Of a whole metadata file.
WHOLE_S = 120
ATTEMPTS = 3
RETRY_S = 1
# Item and product metadata are some 10 to 500 kB; a server that sends more by far is not sending metadata.
METADATA_LIMIT_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 16
# Planetary Computer keeps its files private: an address is signed for some minutes by a service that needs no account.
# GDAL asks it by itself and again when a signature has expired. Source: Planetary Computer, "Using tokens for data
# access"; GDAL documentation, "Virtual File Systems", /vsicurl/, pc_url_signing.
SIGNED_HOSTS = (".blob.core.windows.net",)
SIGN_URL = "https://planetarycomputer.microsoft.com/api/sas/v1/sign?href="


def is_url(text: str) -> bool:
    """Whether a string is an http or https address.

    >>> is_url("https://example.org/a.json"), is_url("a.json"), is_url("s3://bucket/a.tif")
    (True, False, False)
    """
    try:
        return urlsplit(text).scheme in {"http", "https"}
    except ValueError:
        return False


def needs_signature(href: str) -> bool:
    """Whether an address of Planetary Computer is one of its private files and not signed yet.

    >>> needs_signature("https://x.blob.core.windows.net/B04.tif"), needs_signature("https://example.org/B04.tif")
    (True, False)
    """
    parts = urlsplit(href)
    return (parts.hostname or "").endswith(SIGNED_HOSTS) and "sig=" not in parts.query


def sign_planetary(href: str) -> str:
    """An address of Planetary Computer that can be read for some minutes; others as they are.

    Raises:
        ProductError: the service does not answer, or not with an address.
    """
    if not needs_signature(href):
        return href
    try:
        return str(parse_json(_fetch(SIGN_URL + quote(href, safe="")))["href"])
    except (InputError, KeyError, TypeError) as err:
        raise ProductError("no signature from Planetary Computer", path=plain_url(href), got=err) from err


def gdal_path(href: str, *, planetary: bool = False) -> str:
    """What GDAL opens for a STAC asset's address; one of Planetary Computer (``planetary``) is signed when read.

    >>> gdal_path("s3://bucket/a.tif")
    '/vsis3/bucket/a.tif'
    """
    parts = urlsplit(href)
    if is_url(href):
        options = (
            f"max_retry={ATTEMPTS}&retry_delay={RETRY_S}&connecttimeout={CONNECT_S}&timeout={READ_S}"
            # A COG is one file: without empty_dir GDAL asks the server for side-car files and folder listings.
            "&empty_dir=yes"
        )
        if planetary and needs_signature(href):
            options += "&pc_url_signing=yes"
        return f"/vsicurl?{options}&url={quote(href, safe=':/')}"
    if parts.scheme in {"s3", "gs"}:
        return f"/vsi{parts.scheme}/{parts.netloc}{parts.path}"
    if parts.scheme == "file":
        return unquote(parts.path)
    return href


def plain_url(text: str) -> str:
    """An address, or a GDAL path of one, without query: what can be shown and logged, as signatures are secrets.

    >>> plain_url(gdal_path("https://example.org/B02.tif?sig=secret"))
    'https://example.org/B02.tif'
    """
    if text.startswith("/vsicurl?"):
        text = unquote(text.rpartition("&url=")[2])
    return text.partition("?")[0] if is_url(text) else text


def session() -> Session:
    """A session of requests that tries again on dropped connections and on 429 and 5xx answers."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=ATTEMPTS, backoff_factor=RETRY_S / 2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
    )
    opened = requests.Session()
    for scheme in ("http://", "https://"):
        opened.mount(scheme, HTTPAdapter(max_retries=retry))
    return opened


def read_metadata(href: str) -> bytes:
    """A small file, local or behind a URL, whole.

    Raises:
        ProductError: not there, not reachable in time after retries, or larger than metadata can be.
    """
    if not is_url(href):
        return read_file(Path(gdal_path(href)), what="metadata", error=ProductError)
    return _fetch(href)


def _fetch(href: str) -> bytes:
    import requests
    from urllib3.exceptions import HTTPError

    shown = plain_url(href)
    try:
        with session() as http, http.get(href, timeout=(CONNECT_S, READ_S), stream=True) as answer:
            if answer.status_code != requests.codes.ok:
                what, got = "cannot fetch metadata", f"HTTP {answer.status_code} {answer.reason}"
                raise ProductError(what, path=shown, got=got, fix="check the address, or sign it where it needs that")
            data, end = bytearray(), time.monotonic() + WHOLE_S
            # read1 gives what has come; a read of a size waits for all of it, however slowly it drips.
            while chunk := answer.raw.read1(_CHUNK, decode_content=True):
                data += chunk
                if time.monotonic() > end:
                    fix = "try again later, or download it first"
                    raise ProductError("metadata comes too slowly", path=shown, expected=f"{WHOLE_S} s", fix=fix)
                if len(data) > METADATA_LIMIT_BYTES:
                    raise ProductError("metadata is too large", path=shown, expected=f"<= {METADATA_LIMIT_BYTES} bytes")
            return bytes(data)
    except (requests.RequestException, HTTPError) as err:
        raise ProductError("cannot fetch metadata", path=shown, got=type(err).__name__, fix="try again later") from err


BLOCK_PX = 1024
TILE_PX = 256
# Bilinear interpolation of a coarser band at the window's edge needs the pixel beyond it.
HALO_PX = 1
AGAIN = "run it again: files that are complete are kept"


@dataclass(frozen=True)
class CopyJob:
    """One file to fetch."""

    path: str  # What GDAL opens
    file: str  # Name of the copy
    keys: tuple[str, ...]  # The item's assets that it serves
    window: Window  # Pixels of the source to copy
    grid: Grid  # Of the copy

    @staticmethod
    def plan(
        path: str, *, file: str, keys: tuple[str, ...], bounds: tuple[float, float, float, float] | None
    ) -> CopyJob:
        """Read the header of ``path`` and find the pixels that ``bounds`` (degrees) touch, with a halo of one.

        Raises:
            ProductError: the file cannot be opened or lies elsewhere.
        """
        what = f"asset {', '.join(keys)} cannot be downloaded"
        with open_raster(path, error=ProductError, what=what, fix=AGAIN) as dataset:
            grid = Grid.of(dataset)
        if bounds is None:
            return CopyJob(path, file, keys, grid.window, grid)
        inside = grid.window_of_bounds(transform_bounds("EPSG:4326", grid.crs, *bounds, densify_pts=21))
        window = inside.expand(HALO_PX).intersect(grid.window) if inside else None
        if window is None:
            raise ProductError("scene lies outside the area", path=plain_url(path), got=f"area {bounds}")
        return CopyJob(path, file, keys, window, grid.crop(window))

    @property
    def blocks(self) -> int:
        """How many blocks are read."""
        return sum(1 for _ in self.grid.tiles(BLOCK_PX))

    @property
    def proj(self) -> dict[str, Any]:
        """proj:shape and proj:transform of the copy."""
        return {"proj:shape": list(self.grid.shape), "proj:transform": list(self.grid.transform)[:6]}

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for, in the journal."""
        window = self.window
        return {"source": plain_url(self.path), "window": [window.row, window.col, window.height, window.width]}


def read_journal(folder: Path) -> dict[str, Any]:
    """File -> what it holds and its checksum; empty where there is none or it is damaged (all is fetched again)."""
    try:
        journal = read_json(folder / JOURNAL_FILE)
    except InputError:
        return {}
    return journal if isinstance(journal, dict) else {}


def is_complete(job: CopyJob, folder: Path, journal: dict[str, Any]) -> bool:
    """Whether the copy is there, of the same source and window, and its content is what was written."""
    entry, file = journal.get(job.file), folder / job.file
    if not isinstance(entry, dict) or not file.is_file():
        return False
    return all(entry.get(key) == value for key, value in job.request.items()) and entry.get("sha256") == hash_file(file)


def copy_window(job: CopyJob, folder: Path, journal: dict[str, Any], *, step: Callable[[int], None]) -> None:
    """Fetch ``job`` into ``folder`` and note it in ``journal``; ``step`` is called with the blocks done.

    Raises:
        ProductError: the source cannot be read.
        OutputError: the copy cannot be written.
    """
    with whole_file(folder / job.file, what="a download") as part:
        _copy(job, part, step)
        digest = hash_file(part)
    journal[job.file] = job.request | {"sha256": digest}
    write_json(folder / JOURNAL_FILE, journal, what="the journal of a download")


def _copy(job: CopyJob, part: Path, step: Callable[[int], None]) -> None:
    what = f"asset {', '.join(job.keys)} cannot be downloaded"
    source = open_raster(job.path, error=ProductError, what=what, fix=AGAIN)
    profile = {
        "driver": "GTiff",
        "count": source.count,
        "dtype": source.dtypes[0],
        "nodata": source.nodata,
        "crs": job.grid.crs,
        "transform": job.grid.transform,
        "height": job.grid.height,
        "width": job.grid.width,
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    with source, rasterio.open(part, "w", **profile) as copy:
        for number, block in enumerate(job.grid.tiles(BLOCK_PX), start=1):
            wanted = Window(job.window.row + block.row, job.window.col + block.col, *block.shape)
            with as_error(ProductError, what, path=plain_url(job.path), fix=AGAIN):
                pixels = source.read(window=wanted.to_rasterio())
            copy.write(pixels, window=block.to_rasterio())
            step(number)
