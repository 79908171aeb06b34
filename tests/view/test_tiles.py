"""Tiles lie where the web's grid says, and hold the values of the file."""

from __future__ import annotations

import morecantile
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from pipeline.errors import GridError
from pipeline.view.tiles import TILE_PX, WEB_MERCATOR, file_tile, tile_grid
from tests.fakes.viewed_maps import LIBRARY_NOTES

pytestmark = LIBRARY_NOTES
QUAD = morecantile.tms.get("WebMercatorQuad")


def place_over(grid, zoom, *, pixel=None):
    """(zoom, column, row) of the tile that holds a pixel of a grid (row, column); default: its middle."""
    place = grid.xy(*(pixel or (grid.height // 2, grid.width // 2)))
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(*place)
    found = QUAD.tile(lon, lat, zoom)
    return found.z, found.x, found.y


def tile_over(grid, zoom, *, pixel=None):
    """The pixels of that tile."""
    return tile_grid(*place_over(grid, zoom, pixel=pixel))


def pixels_under(tile, grid):
    """(row, col) of the grid under the centre of every pixel of a tile, by PROJ alone."""
    cols, rows = np.meshgrid(np.arange(TILE_PX) + 0.5, np.arange(TILE_PX) + 0.5)
    x, y = tile.transform @ (cols, rows)
    x, y = Transformer.from_crs(WEB_MERCATOR, grid.crs, always_xy=True).transform(x, y)
    col, row = ~grid.transform @ (np.asarray(x), np.asarray(y))
    return np.floor(row).astype(int), np.floor(col).astype(int)


@given(st.integers(0, 20), st.data())
def test_a_tile_lies_where_the_standard_says(zoom, data):
    x, y = (data.draw(st.integers(0, 2**zoom - 1)) for _ in range(2))
    expected = QUAD.xy_bounds(morecantile.Tile(x, y, zoom))
    assert tile_grid(zoom, x, y).bounds == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize("place", [(-1, 0, 0), (25, 0, 0), (3, 8, 0), (3, 0, -1)])
def test_tiles_that_do_not_exist_are_refused(place):
    with pytest.raises(GridError, match="tile"):
        tile_grid(*place)


@pytest.mark.parametrize("zoom", [13, 14, 16, 18])
def test_a_tile_holds_the_nearest_pixels_as_gdal_warps_them(world, zoom):
    tile = tile_over(world.grid, zoom)
    with rasterio.open(world.class_map) as dataset:
        found = file_tile(dataset, tile, band=1, nodata=0)
    if zoom < 14:  # an overview is read
        assert set(np.unique(found)) <= set(np.unique(world.codes))
        return
    row, col = pixels_under(tile, world.grid)
    inside = (row >= 0) & (row < world.grid.height) & (col >= 0) & (col < world.grid.width)
    expected = np.where(inside, world.codes[np.clip(row, 0, 179), np.clip(col, 0, 239)], 0)
    # GDAL interpolates coordinates to an eighth of a pixel: pixels at the edge of a block may fall to its neighbour.
    assert (found == expected).mean() > 0.985
    warped = np.zeros((TILE_PX, TILE_PX), dtype=np.uint8)
    reproject(
        world.codes, warped, src_transform=world.grid.transform, src_crs=world.grid.crs, src_nodata=0,
        dst_transform=tile.transform, dst_crs=WEB_MERCATOR, dst_nodata=0, resampling=Resampling.nearest,
    )  # fmt: skip
    assert (found == warped).mean() > 0.985


def test_where_the_file_has_nothing_there_is_nodata(world):
    with rasterio.open(world.class_map.with_name(world.class_map.name.replace("_lc", "_conf"))) as dataset:
        far = file_tile(dataset, tile_grid(5, 0, 0), band=1, nodata=255)
        here = file_tile(dataset, tile_over(world.grid, 11), band=1, nodata=255)
    assert (far == 255).all()
    assert (here == 255).any()
    assert (here != 255).any()
