"""Tiles of the web's map grid, cut and rendered by rio-tiler: stored values of a file, and a scene as a picture.

A scene may be computed when it is read (masks, stacks, composites), so it is no file that rio-tiler could open. It is
read on its own grid in pixels 1, 2, 4, 8 ... times as large: a tile takes the level just finer than itself, and never
reads more than some hundred thousand pixels. The coarsest level is read once and kept.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import warp
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from rasterio.warp import reproject, transform_bounds
from scipy.ndimage import maximum_filter

from pipeline.errors import GridError
from pipeline.grid import Grid, Window
from pipeline.labels.footprints import read_footprints
from pipeline.maps.look import FALSE_COLOUR, choose_bands, shown_bands, stretch_limits

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame
    from rasterio.io import DatasetReader

    from pipeline.raster import Raster
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

TILE_PX = 256
MAX_ZOOM = 24
WEB_MERCATOR = CRS.from_epsg(3857)
# The whole scene at this size takes a few megabytes and less than a second to read from a file with overviews.
TOP_PX = 1024
_HALO_PX = 2
# Bytes of a tile: the largest that stands for a value, and what is drawn beside an outline.
MOST_BYTE = CASING = 254
Kind = Literal["true", "false"]
Bands = tuple[str, str, str]


def tile_grid(z: int, x: int, y: int) -> Grid:
    """The pixels of a tile in EPSG:3857: zoom, column from the west, row from the north.

    Raises:
        GridError: there is no such tile.
    """
    from morecantile import Tile
    from rio_tiler.constants import WEB_MERCATOR_TMS

    if not 0 <= z <= MAX_ZOOM or not (0 <= x < 2**z and 0 <= y < 2**z):
        raise GridError(f"tile {z}/{x}/{y}", expected=f"zoom 0..{MAX_ZOOM}, column and row below 2 to the zoom")
    bounds = WEB_MERCATOR_TMS.xy_bounds(Tile(x, y, z))
    return Grid(WEB_MERCATOR, from_bounds(*bounds, TILE_PX, TILE_PX), TILE_PX, TILE_PX)


def file_tile(
    dataset: DatasetReader, tile: Grid, *, band: int, nodata: int, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Stored values of one band, uint8 [row, col] of 256 x 256, ``nodata`` where the file has none.

    With ``limits`` values from the lower to the upper one become 0 to MOST_BYTE, those beyond them too. It is the
    nearest pixel of the overview that fits: values are shown as they are in the file, never mixed.
    """
    from rio_tiler import reader

    image = reader.part(
        dataset, tile.bounds, height=TILE_PX, width=TILE_PX, bounds_crs=tile.crs, dst_crs=tile.crs, indexes=(band,)
    )
    values = image.data[0]
    seen = (image.mask > 0) & np.isfinite(values)
    if limits is not None:
        share = (np.where(seen, values, limits[0]) - limits[0]) / (limits[1] - limits[0])
        values = np.rint(MOST_BYTE * np.clip(share, 0, 1))
    return np.where(seen, values, nodata).astype(np.uint8)


class ObjectTiles:
    """The objects of a GeoPackage as tiles of their outlines; safe to ask from many threads."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._lock = threading.Lock()

    def tile(self, tile: Grid) -> NDArray[np.uint8]:
        """Class codes uint8 [row, col] of 256 x 256 along outlines, CASING beside them, 0 elsewhere.

        Raises:
            InputError: the file cannot be read.
        """
        frame = self._objects
        around = tile.crop(Window(-1, -1, tile.height + 2, tile.width + 2))
        near = frame.sindex.query(shapely.box(*around.bounds))
        lines = np.zeros(around.shape, dtype=np.uint8)
        if len(near):
            pairs = zip(shapely.boundary(frame.geometry.to_numpy()[near]), frame["code"].to_numpy()[near], strict=True)
            lines = rasterize(pairs, out=lines, transform=around.transform, all_touched=True)
        cased = np.where((lines == 0) & (maximum_filter(lines, 3) > 0), np.uint8(CASING), lines)
        return np.asarray(cased[1:-1, 1:-1])

    def at(self, lon: float, lat: float) -> dict[str, object] | None:
        """What is known of the object that holds a place; None where there is none.

        Raises:
            InputError: the file cannot be read.
        """
        frame = self._objects
        place = shapely.Point(*warp.transform("EPSG:4326", WEB_MERCATOR, [lon], [lat]))
        near = frame.sindex.query(place, predicate="within")
        row = frame.iloc[int(near[0])] if len(near) else None
        return None if row is None else {
            "id": int(row["id"]), "class": str(row["class"]), "area_m2": float(row["area_m2"]),
            "confidence": float(row["confidence"]) if np.isfinite(row["confidence"]) else None,
        }  # fmt: skip

    @property
    def _objects(self) -> GeoDataFrame:
        with self._lock:
            return self._frame

    @cached_property
    def _frame(self) -> GeoDataFrame:
        return read_footprints(self._path, may_be_empty=True).to_crs(WEB_MERCATOR.to_wkt())


class _Closable(Protocol):
    def close(self) -> object: ...


Handle = TypeVar("Handle", bound=_Closable)


class Pool(Generic[Handle]):
    """As many handles of one file as there are threads that want it at once, each used by one thread at a time.

    GDAL's datasets must not be used by two threads at once, and opening one for every tile takes longer than the tile.
    """

    def __init__(self, open_one: Callable[[], Handle]) -> None:
        """Open nothing yet."""
        self._open_one = open_one
        # The last one given back is the first one taken: its blocks are in the cache.
        self._idle: queue.LifoQueue[Handle] = queue.LifoQueue()

    @contextmanager
    def borrow(self) -> Iterator[Handle]:
        """A handle for this thread alone, until the block ends."""
        # A dataset that is opened without an environment makes one of its thread's own, and then can be closed by no
        # other thread.
        with rasterio.Env():
            try:
                handle = self._idle.get_nowait()
            except queue.Empty:
                handle = self._open_one()
            try:
                yield handle
            finally:
                self._idle.put(handle)

    def close(self) -> None:
        """Close the handles that nobody uses."""
        while not self._idle.empty():
            self._idle.get_nowait().close()


def bands_for(source: Source, kind: Kind) -> Bands | None:
    """Bands shown as red, green and blue; None where the scene lacks one of them.

    "true" is what :func:`pipeline.maps.look.shown_bands` chooses; "false" is infrared. The bands of a stack bear a
    date: its first is shown.
    """
    if kind == "false":
        return choose_bands(source.band_names, FALSE_COLOUR, sensor=source.sensor)
    chosen, _ = shown_bands(source.band_names, sensor=source.sensor)
    red, green, blue = chosen if len(chosen) > 1 else chosen * 3
    return red, green, blue


class SceneTiles:
    """The tiles of one scene and its values; safe to ask from many threads."""

    def __init__(self, source: Source) -> None:
        """Read nothing yet."""
        self.source = source
        kinds: tuple[Kind, Kind] = ("true", "false")
        self.bands: dict[Kind, Bands] = {kind: chosen for kind in kinds if (chosen := bands_for(source, kind))}
        self._shown = source.select(tuple(dict.fromkeys(name for chosen in self.bands.values() for name in chosen)))
        self._levels = _levels(source.grid)
        self._pools: list[Pool[Reader]] = [Pool(self._shown.on_grid(grid).open) for grid in self._levels[:-1]]
        self._points = Pool(source.open)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close its files."""
        for pool in (*self._pools, self._points):
            pool.close()

    def tile(self, tile: Grid, kind: Kind) -> bytes:
        """The scene as a PNG of 256 x 256: red, green, blue, transparent where it is not valid.

        Bands are stretched between the 2nd and 98th percentile of the whole scene. Seen closer than its own pixels,
        these are shown as squares.

        Raises:
            SceneError: a file cannot be read.
        """
        from rio_tiler.models import ImageData

        names = self.bands[kind]
        pixels = self._pixels(tile, names)
        unseen = np.broadcast_to(~np.isfinite(pixels).all(axis=0), pixels.shape)
        limits = [self._limits[name] for name in names]
        lows = np.array(limits, dtype=np.float32)[:, 0, None, None]
        image = ImageData(np.ma.MaskedArray(np.where(unseen, lows, pixels), unseen))
        # Packed fast: it travels no further than this machine.
        return bytes(image.rescale(in_range=limits).render(img_format="PNG", zlevel=1))

    def values_at(self, row: int, col: int) -> NDArray[np.float32] | None:
        """The value of every band at a pixel of the scene's own grid; None where it is not valid or outside.

        Raises:
            SceneError: a file cannot be read.
        """
        with self._points.borrow() as reader:
            raster = reader.read(Window(row, col, 1, 1))
        return raster.values[:, 0, 0] if raster.valid[0, 0] else None

    def _pixels(self, tile: Grid, names: Bands) -> NDArray[np.float32]:
        """float32 [band, row, col] on a tile; NaN where there is nothing, which is never mixed in."""
        on_tile = np.full((len(names), *tile.shape), np.nan, dtype=np.float32)
        bounds = _bounds_on(tile, self.source.grid)
        if bounds is None:
            return on_tile
        size = self.source.grid.pixel_size
        ratio = max((bounds[2] - bounds[0]) / size[0], (bounds[3] - bounds[1]) / size[1]) / TILE_PX
        raster = self._read(bounds, level=min(max(math.floor(math.log2(ratio)), 0), len(self._levels) - 1))
        if raster is None:
            return on_tile
        reproject(
            np.stack([np.where(raster.valid, raster.band(name), np.float32(np.nan)) for name in names]), on_tile,
            src_transform=raster.grid.transform, src_crs=raster.grid.crs, src_nodata=np.nan,
            dst_transform=tile.transform, dst_crs=tile.crs, dst_nodata=np.nan,
            resampling=Resampling.nearest if ratio < 1 else Resampling.bilinear,
        )  # fmt: skip
        return on_tile

    def _read(self, bounds: tuple[float, float, float, float], *, level: int) -> Raster | None:
        """The scene on a level under bounds and a little around them; None where there is none."""
        grid = self._levels[level]
        touched = grid.window_of_bounds(bounds)
        window = touched and touched.expand(_HALO_PX).intersect(grid.window)
        if window is None:
            return None
        if level < len(self._pools):
            with self._pools[level].borrow() as reader:
                return reader.read(window)
        top, (rows, cols) = self._top, window.slices
        return type(top)(top.values[:, rows, cols], top.valid[rows, cols], top.bands, grid.crop(window))

    @property
    def _top(self) -> Raster:
        with self._lock:  # the first tiles come together: one of them reads, the others wait
            return self._coarsest

    @cached_property
    def _coarsest(self) -> Raster:
        with self._shown.on_grid(self._levels[-1]).open() as reader:
            return reader.read(reader.grid.window)

    @cached_property
    def _limits(self) -> dict[str, tuple[float, float]]:
        top = self._top
        return dict(zip(top.bands, stretch_limits(top), strict=True))


def _levels(grid: Grid) -> list[Grid]:
    """The scene's grid in pixels 1, 2, 4, 8 ... times as large, until it is small; edges may reach beyond it."""
    levels = [grid]
    while max(levels[-1].shape) > TOP_PX:
        factor = 2 ** len(levels)
        transform = grid.transform @ Affine.scale(factor)
        levels.append(Grid(grid.crs, transform, math.ceil(grid.height / factor), math.ceil(grid.width / factor)))
    return levels


def _bounds_on(tile: Grid, grid: Grid) -> tuple[float, float, float, float] | None:
    """A tile's bounds in the CRS of a grid; None in a corner of the world that it does not know."""
    try:
        left, bottom, right, top = transform_bounds(tile.crs, grid.crs, *tile.bounds, densify_pts=21)
    except RasterioError:
        return None
    known = all(math.isfinite(value) for value in (left, bottom, right, top)) and left < right and bottom < top
    return (left, bottom, right, top) if known else None
