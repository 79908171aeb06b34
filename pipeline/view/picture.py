"""A scene as tiles and as values at a point, in bounded memory and without waiting.

A pyramid stands between the scene and the tiles. Its lower levels are the scene on grids of 2, 4, 8 ... times larger
pixels, read through readers that stay open; the top is so small that it is read once and kept. A tile takes the level
whose pixels are just finer than its own, so that it never reads more than some hundred thousand pixels.
"""

from __future__ import annotations

import math
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject, transform_bounds

from pipeline.grid import Grid, Window
from pipeline.maps.look import FALSE_COLOUR, TRUE_COLOUR, choose_bands, stretch_limits
from pipeline.view.pool import Pool
from pipeline.view.tiles import TILE_PX, WEB_MERCATOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.raster import Raster
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source
    from pipeline.view.tiles import Tile

Kind = Literal["true", "false"]
Bands = tuple[str, str, str]
# The whole scene at this size takes a few megabytes and less than a second to read from a file with overviews.
TOP_PX = 1024
# A tile at an odd angle on a level twice as fine as itself, with room to spare.
_LARGEST_READ_PX = 4 * (2 * TILE_PX) ** 2
_HALO_PX = 2


def bands_for(source: Source, kind: Kind) -> Bands | None:
    """Bands shown as red, green and blue; None where the scene lacks one of them.

    A scene without red, green and blue is shown in its first three bands. The bands of a stack bear a date: its first
    is shown.
    """
    names = source.band_names
    wanted = TRUE_COLOUR if kind == "true" else FALSE_COLOUR
    plain = {name.partition("_")[0]: name for name in reversed(names)}
    chosen = choose_bands(names, wanted) or choose_bands(tuple(plain), wanted)
    if chosen is not None:
        red, green, blue = (name if name in names else plain[name] for name in chosen)
        return red, green, blue
    return None if kind == "false" else (names[0], names[min(1, len(names) - 1)], names[min(2, len(names) - 1)])


class ScenePicture:
    """The tiles of one scene; safe to ask from many threads."""

    def __init__(self, source: Source) -> None:
        """Read nothing yet."""
        self.source = source
        self.bands: dict[Kind, Bands] = {}
        for kind in ("true", "false"):
            if chosen := bands_for(source, kind):
                self.bands[kind] = chosen
        names = tuple(dict.fromkeys(name for chosen in self.bands.values() for name in chosen))
        self._shown = source.select(names)
        self._levels = _levels(source.grid)
        self._pools: dict[int, Pool[Reader]] = {
            number: Pool(self._shown.on_grid(grid).open) for number, grid in enumerate(self._levels[:-1])
        }
        self._points = Pool(source.open)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close its files."""
        for pool in (*self._pools.values(), self._points):
            pool.close()

    def tile(self, tile: Tile, kind: Kind) -> NDArray[np.uint8]:
        """The scene as a person sees it, uint8 [row, col, 4] of 256 x 256: red, green, blue, and 0 where not valid.

        Bands are stretched between the 2nd and 98th percentile of the whole scene. Seen closer than its own pixels,
        these are shown as squares.

        Raises:
            SceneError: a file cannot be read.
        """
        raster = self._around(tile)
        picture = np.zeros((TILE_PX, TILE_PX, 4), dtype=np.uint8)
        if raster is None:
            return picture
        names = self.bands[kind]
        values = np.stack([np.where(raster.valid, raster.band(name), np.float32(np.nan)) for name in names])
        on_tile = _warp(values, raster.grid, tile, nearest=tile.pixel_m < min(raster.grid.pixel_size_m))
        seen = np.isfinite(on_tile).all(axis=0)
        for layer, name, channel in zip(on_tile, names, range(3), strict=True):
            low, high = self._limits[name]
            bright = np.clip((np.where(seen, layer, low) - low) / (high - low), 0, 1)
            picture[..., channel] = np.where(seen, np.round(bright * 255), 0)
        picture[..., 3] = np.where(seen, 255, 0)
        return picture

    def values_at(self, row: int, col: int) -> NDArray[np.float32] | None:
        """The value of every band at a pixel of the scene's own grid; None where it is not valid or outside.

        Raises:
            SceneError: a file cannot be read.
        """
        with self._points.borrow() as reader:
            raster = reader.read(Window(row, col, 1, 1))
        return raster.values[:, 0, 0] if raster.valid[0, 0] else None

    def _around(self, tile: Tile) -> Raster | None:
        """The scene under a tile and a little around it, on the level that fits; None where there is none."""
        ratio = tile.pixel_m / min(self.source.grid.pixel_size_m)
        level = min(max(math.floor(math.log2(ratio)), 0), len(self._levels) - 1)
        while True:
            grid = self._levels[level]
            window = _window_under(tile, grid)
            if window is None:
                return None
            if level == len(self._levels) - 1:
                return _crop(self._top, window)
            if window.height * window.width <= _LARGEST_READ_PX:
                break
            level += 1
        with self._pools[level].borrow() as reader:
            return reader.read(window)

    @property
    def _top(self) -> Raster:
        with self._lock:  # the first tiles come together: one of them reads, the others wait
            return self._whole

    @cached_property
    def _whole(self) -> Raster:
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


def _window_under(tile: Tile, grid: Grid) -> Window | None:
    try:
        bounds = transform_bounds(WEB_MERCATOR, grid.crs, *tile.grid.bounds, densify_pts=21)
    except RasterioError:  # a corner of the world that the scene's projection does not know
        return None
    if not all(math.isfinite(value) for value in bounds):
        return None
    window = grid.window_of_bounds(bounds)
    return window.expand(_HALO_PX).intersect(grid.window) if window else None


def _crop(raster: Raster, window: Window) -> Raster:
    rows, cols = window.slices
    return type(raster)(
        raster.values[:, rows, cols], raster.valid[rows, cols], raster.bands, raster.grid.crop(window)
    )  # fmt: skip


def _warp(values: NDArray[np.float32], grid: Grid, tile: Tile, *, nearest: bool) -> NDArray[np.float32]:
    """float32 [band, row, col] on a tile; NaN, where values are NaN or there are none, is never mixed in."""
    on_tile = np.full((len(values), TILE_PX, TILE_PX), np.nan, dtype=np.float32)
    reproject(
        values,
        on_tile,
        src_transform=grid.transform,
        src_crs=grid.crs,
        src_nodata=np.nan,
        dst_transform=tile.grid.transform,
        dst_crs=WEB_MERCATOR,
        dst_nodata=np.nan,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
    )
    return on_tile
