"""Lengths and areas on the ground of what is measured in the plane of a CRS, or in degrees."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import CRSError, ProjError

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

SQUARE_METRES_PER_HECTARE = 10_000.0
GEOD = Geod(ellps="WGS84")
# Ground areas: spacing of the pixels where the scale of area is computed, how many at most along an axis, side of the
# square that is measured there (smaller ones would measure PROJ's rounding), and what is left of that rounding.
_NODE_M = 4_000.0
_MAX_NODES = 400
_PROBE_M = 1_000.0
_PLANE_TOLERANCE = 0.01
_NOISE = 1e-5
# Longitudes go on beyond 180 degrees where a raster crosses it; pixels from a leaf's to a country's.
_MOST_LON, _MOST_LAT, _LEAST_M, _MOST_M = 720.0, 91.0, 1e-3, 1e6
_NAME_SHOWN = 24
# Scale of area of UTM within its zone: 0.9992 to 1.0020 (Snyder 1987, p. 57-58: scale 0.9996 to 1.0010).
_UTM_TOLERANCE = 2.1e-3


@cache
def _to_degrees(wkt: str) -> Transformer | None:
    """From a projected CRS to degrees; None from a local one, for which there is no ground but the plane."""
    try:
        return Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)
    except ProjError:
        return None


def misplaced(crs: CRS, bounds: tuple[float, float, float, float], pixel: tuple[float, float]) -> str:
    """What cannot be right about a raster's place, "" where nothing is: its CRS, or the size of its pixels.

    ``bounds`` (left, bottom, right, top) and ``pixel`` (x, y) are in units of the CRS.
    """
    try:
        known = pyproj.CRS.from_wkt(crs.to_wkt())
    except CRSError:
        return "a CRS that PROJ cannot read"
    name = crs.to_string() if len(crs.to_string()) <= _NAME_SHOWN else known.name
    if known.is_geocentric or known.is_engineering:
        return f"{name} is {'geocentric' if known.is_geocentric else 'local'}: it says nowhere on a map"
    left, bottom, right, top = bounds
    if crs.is_geographic:
        if max(-left, right) > _MOST_LON or max(-bottom, top) > _MOST_LAT:
            return f"{name} is in degrees, but the coordinates are {left:,.0f}..{right:,.0f}, {bottom:,.0f}..{top:,.0f}"
    elif (to_degrees := _to_degrees(crs.to_wkt())) is not None:
        places = [(left + right) / 2, left, right], [(bottom + top) / 2, bottom, top]
        if not np.isfinite(to_degrees.transform(*places)).all(axis=0).any():
            return f"{name} has no place on the ground for {places[0][0]:,.0f}, {places[1][0]:,.0f}"
    size = size_on_ground(crs, ((left + right) / 2, (bottom + top) / 2), pixel)
    if not all(_LEAST_M <= side <= _MOST_M for side in size):
        return f"pixels of {size[0]:.3g} x {size[1]:.3g} m in {name}"
    return ""


def size_on_ground(crs: CRS, at: tuple[float, float], size: tuple[float, float]) -> tuple[float, float]:
    """(x, y) size in metres on the ground of a rectangle around a place, all in units of the CRS.

    The plane's own where it is right to 1 % (UTM, national grids); else geodesic (degrees, Mercator at 60 N).
    """
    if crs.is_geographic:
        return _lengths(at, size, to_degrees=None)
    metre = crs.linear_units_factor[1]
    plane = size[0] * metre, size[1] * metre
    to_degrees = _to_degrees(crs.to_wkt())
    if to_degrees is None:
        return plane
    probe = _PROBE_M / max(plane)  # a small pixel would measure PROJ's rounding
    ground = _lengths(at, (size[0] * probe, size[1] * probe), to_degrees=to_degrees)
    right = all(abs(a - probe * b) <= _PLANE_TOLERANCE * probe * b for a, b in zip(ground, plane, strict=True))
    return plane if right or not all(map(math.isfinite, ground)) else (ground[0] / probe, ground[1] / probe)


def _lengths(
    at: tuple[float, float], size: tuple[float, float], *, to_degrees: Transformer | None
) -> tuple[float, float]:
    (x, y), (width, height) = at, size
    xs, ys = [x - width / 2, x + width / 2, x, x], [y, y, y - height / 2, y + height / 2]
    lon, lat = (xs, ys) if to_degrees is None else to_degrees.transform(xs, ys)
    across, along = (float(GEOD.inv(lon[i], lat[i], lon[i + 1], lat[i + 1])[2]) for i in (0, 2))
    return across, along


def areas_by_code(
    codes: NDArray[np.integer], areas_ha: NDArray[np.float64], *, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels int64 [code] and area in ha float64 [code] of codes 0..size-1; negative codes are left out.

    ``codes`` are int [row, col]; ``areas_ha`` broadcasts to them: :meth:`pipeline.grid.Grid.pixel_areas_ha`.

    >>> areas_by_code(np.array([[0, 2], [2, -1]]), np.array([[1.0], [0.5]]), size=3)[1].tolist()
    [1.0, 0.0, 1.5]
    """
    inside = codes >= 0
    known = codes.ravel() if inside.all() else codes[inside]
    pixels = np.bincount(known, minlength=size).astype(np.int64)
    if areas_ha.size == 1:
        return pixels, np.asarray(pixels * areas_ha.ravel()[0])
    weights = np.broadcast_to(areas_ha, codes.shape)[inside]
    return pixels, np.asarray(np.bincount(known, weights=weights, minlength=size), dtype=np.float64)


def strip_areas_ha(transform: Affine, rows: slice) -> NDArray[np.float64]:
    """Geodesic area in ha of a pixel of each row of a geographic grid on the WGS84 ellipsoid, float64 [row].

    A strip between two latitudes has area ``a^2 / 2 * dlon * [q(north) - q(south)]`` with q as in :func:`authalic_q`.
    """
    edges = transform.f + transform.e * np.arange(rows.start, rows.stop + 1)
    q = authalic_q(np.radians(np.clip(edges, -90.0, 90.0)), GEOD.es)
    strip = GEOD.a**2 / 2 * np.radians(abs(transform.a)) * np.abs(np.diff(q))
    return np.asarray(strip / SQUARE_METRES_PER_HECTARE, dtype=np.float64)


def authalic_q(latitude: NDArray[np.float64], ecc2: float) -> NDArray[np.float64]:
    """``(1-e^2) [s/(1-e^2 s^2) + atanh(e s)/e]`` with s = sin(latitude in radians): area from the equator to there.

    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eq. 3-12 (authalic q).
    """
    sin_lat, ecc = np.sin(latitude), math.sqrt(ecc2)
    curved = np.arctanh(ecc * sin_lat) / ecc if ecc else sin_lat
    return np.asarray((1 - ecc2) * (sin_lat / (1 - ecc2 * sin_lat**2) + curved))


def area_lattice(
    crs: CRS, transform: Affine, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Ground area over area in the plane at pixels about 4 km apart: between them a line is right to 1e-6."""
    size_x, size_y = (abs(size) * crs.linear_units_factor[1] for size in (transform.a, transform.e))
    rows, cols = _nodes(shape[0], size_y), _nodes(shape[1], size_x)
    x = transform.c + transform.a * (cols + 0.5)
    y = transform.f + transform.e * (rows + 0.5)
    scale = ground_area_scale(crs, *np.meshgrid(x, y), side_m=max(size_x, size_y, _PROBE_M))
    if (scale == 1.0).all():
        return None
    if np.ptp(scale, axis=1).max() <= _NOISE / 10:
        return rows, cols[:1], scale.mean(axis=1, keepdims=True)
    return rows, cols, scale


def _nodes(pixels: int, size_m: float) -> NDArray[np.int64]:
    count = int(np.clip(math.ceil(pixels * size_m / _NODE_M), 1, _MAX_NODES)) + 1
    return np.unique(np.linspace(0, pixels - 1, count).round().astype(np.int64))


def weights(nodes: NDArray[np.int64], at: NDArray[np.integer]) -> NDArray[np.float64]:
    """Weights of linear interpolation, float64 [at, node]."""
    return np.stack([np.interp(at, nodes, one) for one in np.eye(len(nodes))], axis=1)


def ground_area_scale(
    crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64], *, side_m: float = _PROBE_M
) -> NDArray[np.float64]:
    """Ground area over area in the plane at places of a projected CRS, float64 like ``x`` and ``y``.

    It is 1 where the plane keeps areas at all of these places (to 1e-5; transverse Mercator within its zone: to 0.2 %),
    and 0 beyond the edge of the world. The corners of a square of ``side_m`` metres go to the authalic sphere, on which
    areas are those of the ellipsoid, so that neither poles nor the date line are special.

    Source: Snyder (1987), Map Projections - A Working Manual, USGS PP 1395, eqs. 3-11 to 3-13 (authalic sphere).
    """
    full = pyproj.CRS.from_wkt(crs.to_wkt())
    geodetic = full.geodetic_crs
    if geodetic is None or geodetic.ellipsoid is None:  # a local CRS: there is no ground but the plane
        return np.ones(x.shape)
    axis, flat = geodetic.ellipsoid.semi_major_metre, geodetic.ellipsoid.inverse_flattening
    ecc2 = (2 - 1 / flat) / flat if flat else 0.0
    to_ground = Transformer.from_crs(full, geodetic, always_xy=True)
    polar = float(authalic_q(np.array(np.pi / 2), ecc2))
    metre = crs.linear_units_factor[1]
    side = side_m / metre
    corners = []
    for right, up in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        lon, lat = to_ground.transform(x + right * side / 2, y + up * side / 2, radians=True)
        sin_beta = np.clip(authalic_q(np.where(np.isfinite(lat), lat, np.nan), ecc2) / polar, -1.0, 1.0)
        cos_beta = np.sqrt(1 - sin_beta**2)
        corners.append(np.stack([cos_beta * np.cos(lon), cos_beta * np.sin(lon), sin_beta], axis=-1))
    normal = np.cross(corners[2] - corners[0], corners[3] - corners[1])
    ground = np.linalg.norm(normal, axis=-1) / 2 * axis**2 * polar / 2
    scale = ground / side_m**2
    operation = full.coordinate_operation
    tolerance = _UTM_TOLERANCE if operation and "Transverse Mercator" in operation.method_name else _NOISE
    if np.nanmax(np.abs(scale - 1), initial=0.0) <= tolerance:
        return np.ones(x.shape)
    return np.asarray(np.nan_to_num(scale))
