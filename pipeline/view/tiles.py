"""Tiles of the web's map grid: where they lie, and the pixels that a file or a raster has there.

Source: OGC 17-083r4, Two Dimensional Tile Matrix Set, annex D.1 (WebMercatorQuad): tile (0, 0) of zoom 0 is the square
of the world in EPSG:3857, each zoom halves it, rows run south.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import ConfigError, GridError
from pipeline.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

TILE_PX = 256
MAX_ZOOM = 24
WEB_MERCATOR = CRS.from_epsg(3857)
_RADIUS_M = 6_378_137.0
_HALF_M = math.pi * _RADIUS_M


@dataclass(frozen=True)
class Tile:
    """One tile of the web's map grid: zoom, column from the west, row from the north."""

    z: int
    x: int
    y: int

    def __post_init__(self) -> None:
        """Refuse tiles that do not exist."""
        if not 0 <= self.z <= MAX_ZOOM or not (0 <= self.x < 2**self.z and 0 <= self.y < 2**self.z):
            what = f"tile {self.z}/{self.x}/{self.y}"
            raise GridError(what, expected=f"zoom 0..{MAX_ZOOM}, column and row below 2 to the zoom")

    @cached_property
    def grid(self) -> Grid:
        """The tile's pixels, in EPSG:3857."""
        side = 2 * _HALF_M / 2**self.z
        pixel = side / TILE_PX
        corner = (-_HALF_M + self.x * side, _HALF_M - self.y * side)
        return Grid(WEB_MERCATOR, Affine(pixel, 0.0, corner[0], 0.0, -pixel, corner[1]), TILE_PX, TILE_PX)

    @property
    def pixel_m(self) -> float:
        """Size on the ground in metres of the pixel at the tile's centre: the projection stretches by 1/cos(lat)."""
        _, y = self.grid.xy(TILE_PX // 2, TILE_PX // 2)
        return self.grid.pixel_size[0] / math.cosh(y / _RADIUS_M)


def check_library() -> None:
    """See that rio-tiler is there before anything is opened.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import rio_tiler.reader  # noqa: F401
    except ImportError as err:
        fix = "install it with: pip install 'landcover-pipeline[view]'"
        raise ConfigError("the viewer needs rio-tiler", fix=fix) from err


def file_tile(dataset: DatasetReader, tile: Tile, *, band: int, nodata: int) -> NDArray[np.uint8]:
    """Stored values of one band, uint8 [row, col] of 256 x 256, ``nodata`` where the file has none.

    The nearest pixel of the overview that fits: values are shown as they are in the file, never mixed.
    """
    from rio_tiler import reader

    image = reader.part(
        dataset,
        tile.grid.bounds,
        height=TILE_PX,
        width=TILE_PX,
        bounds_crs=WEB_MERCATOR,
        dst_crs=WEB_MERCATOR,
        indexes=(band,),
    )
    seen = image.mask > 0
    return np.where(seen, image.data[0], np.uint8(nodata)).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 [row, col, 4], packed fast: it travels no further than this machine."""
    from rio_tiler.utils import render

    colours = np.ascontiguousarray(picture[..., :3].transpose(2, 0, 1))
    return bytes(render(colours, mask=picture[..., 3], img_format="PNG", zlevel=1))
