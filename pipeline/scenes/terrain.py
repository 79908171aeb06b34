"""Slope and orientation of an elevation model, in metres on any grid.

Gradients are Horn's weighted differences over 3 x 3 pixels. Source: Horn (1981), Hill shading and the reflectance map,
Proceedings of the IEEE 69(1):14-47; the same that ``gdaldem slope -alg Horn`` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.ground import ground_area_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.raster import Raster

TERRAIN = ("elevation", "slope", "northness", "eastness")
# WGS84 semi-major axis (m) and first eccentricity squared. Source: NGA.STND.0036 (2014), table 3.5 and appendix B.
WGS84_A_M = 6_378_137.0
WGS84_E2 = 6.694379990141e-3


def terrain(raster: Raster, *, derive: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Terrain bands of the inner pixels of ``raster``, whose first band is elevation in metres.

    Args:
        raster: With a halo of one pixel on each side.
        derive: Any of ``TERRAIN``: elevation; slope in degrees 0..90; northness and eastness, the cosine and sine of
            the direction in which the slope falls (1: to the north, to the east), 0 on level ground.

    Returns:
        Name -> float32 [row-2, col-2]. Where a neighbour is missing the surface is continued from the opposite one.
    """
    east, north = gradient(raster)
    steepness = np.hypot(east, north)
    level = steepness == 0
    scale = np.where(level, 1.0, steepness)
    bands = {
        "elevation": raster.values[0, 1:-1, 1:-1],
        "slope": np.degrees(np.arctan(steepness)),
        "northness": np.where(level, 0.0, -north / scale),
        "eastness": np.where(level, 0.0, -east / scale),
    }
    return {name: bands[name].astype(np.float32) for name in derive}


def gradient(raster: Raster) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rise per metre towards (east, north) of the inner pixels, float64 [row-2, col-2]."""
    nw, n, ne, w, e, sw, s, se = _neighbours(raster.values[0].astype(np.float64), raster.valid)
    size_x, size_y = pixel_size_m(raster.grid)
    per_col = ((ne + 2 * e + se) - (nw + 2 * w + sw)) / (8 * size_x[1:-1, None])
    per_row = ((sw + 2 * s + se) - (nw + 2 * n + ne)) / (8 * size_y[1:-1, None])
    transform = raster.grid.transform
    return per_col * np.sign(transform.a), per_row * np.sign(transform.e)


def _neighbours(z: NDArray[np.float64], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """The eight neighbours, row by row; a missing one continues the surface (exact on a plane)."""
    rows, cols = z.shape

    def at(row: int, col: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        part = (slice(1 + row, rows - 1 + row), slice(1 + col, cols - 1 + col))
        return z[part], valid[part]

    centre = at(0, 0)[0]

    def beside(row: int, col: int) -> NDArray[np.float64]:
        (here, seen), (opposite, opposite_seen) = at(row, col), at(-row, -col)
        return np.where(seen, here, np.where(opposite_seen, 2 * centre - opposite, centre))

    def diagonal(row: int, col: int) -> NDArray[np.float64]:
        here, seen = at(row, col)
        return np.where(seen, here, sides[row, 0] + sides[0, col] - centre)

    sides = {place: beside(*place) for place in ((-1, 0), (1, 0), (0, -1), (0, 1))}
    return (
        diagonal(-1, -1),
        sides[-1, 0],
        diagonal(-1, 1),
        sides[0, -1],
        sides[0, 1],
        diagonal(1, -1),
        sides[1, 0],
        diagonal(1, 1),
    )


def pixel_size_m(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) size of a pixel in metres on the ground for each row, float64 [row].

    It depends on the row's own latitude and on nothing else of the window, so neighbouring windows agree.
    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eq. 4-18 and 4-20 (radii of curvature).
    """
    if not grid.crs.is_geographic:
        size_x, size_y = grid.plane_size_m
        scale = np.ones(grid.height) if grid.keeps_metres else _scale_of_rows(grid)
        return size_x * scale, size_y * scale
    latitude = np.radians(grid.transform.f + grid.transform.e * (np.arange(grid.height) + 0.5))
    root = np.sqrt(1 - WGS84_E2 * np.sin(latitude) ** 2)
    width, height = np.radians(grid.pixel_size)
    meridian = WGS84_A_M * (1 - WGS84_E2) / root**3
    return np.maximum(WGS84_A_M / root * np.cos(latitude), 1e-6) * width, meridian * height


def _scale_of_rows(grid: Grid) -> NDArray[np.float64]:
    """Length on the ground over length in a conformal plane (Mercator, stereographic), float64 [row].

    It is that of the middle column: across a window the others differ by less than the slope is known.
    """
    y = np.asarray(grid.transform.f + grid.transform.e * (np.arange(grid.height) + 0.5), dtype=np.float64)
    x = np.full(grid.height, grid.transform.c + grid.transform.a * grid.width / 2)
    return np.sqrt(ground_area_scale(grid.crs, x, y))
