"""Copy a window of a remote raster to a file, block by block, so that a broken download can be taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipeline.documents import read_json
from pipeline.errors import InputError, ProductError
from pipeline.files import hash_file, whole_file, write_json
from pipeline.grid import Grid, Window
from pipeline.raster import open_raster
from pipeline.scenes.remote import JOURNAL_FILE, plain_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
            try:
                pixels = source.read(window=wanted.to_rasterio())
            except (RasterioError, OSError) as err:
                raise _gone(job.path, job.keys, err) from err
            copy.write(pixels, window=block.to_rasterio())
            step(number)


def _gone(path: str, keys: tuple[str, ...], err: Exception) -> ProductError:
    what = f"asset {', '.join(keys)} cannot be downloaded"
    return ProductError(what, path=plain_url(path), got=err, fix=AGAIN)
