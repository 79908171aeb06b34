"""Make the sample data: a simulated landscape, two scenes of it, training polygons and the full reference.

Nothing here was measured. The landscape is drawn at 5 m from shares of materials (leaves, soils, roofs, ...) with
plausible spectra, lit by a terrain, blurred and averaged to the sensors' pixels, and given noise, so that mixed
pixels, variation within classes and texture come about as they do in nature. Run it again and the same files come out::

    python sample_data/generate.py --out sample_data
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import scipy.fft
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject, transform_bounds
from scipy import ndimage
from shapely.affinity import affine_transform
from shapely.geometry import Polygon, box

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

FINE_M = 5.0
PIXEL_M = 10.0
LANDSAT_M = 30.0
SIZE_PX = 800
SEED = 20261122
# Upper left corner, at 12 degrees east where UTM zones 32 and 33 meet, so that the second scene has a CRS of its own.
ORIGIN = (715_400.0, 5_441_200.0)
UTM32, UTM33 = CRS.from_epsg(32632), CRS.from_epsg(32633)
SCALE, OFFSET = 1e-4, -0.1

# Part of a town from the air.
AERIAL_M, AERIAL_FINE_M, AERIAL_PX = 0.5, 0.25, 480
AERIAL_ORIGIN = (718_600.0, 5_438_100.0)
AERIAL_BANDS = ("red", "green", "blue", "nir")
STREET_M, BLOCK_M = 40.0, (66.0, 34.0)

# Numbers in which the landscape is drawn, not those of the files.
CLASSES = {
    1: "Water",
    2: "Conifer forest",
    3: "Broadleaf forest",
    4: "Grassland",
    5: "Cropland",
    6: "Bare soil",
    7: "Orchard",
    8: "Built-up",
}
# Codes and colours in the files: those that ``landcover init`` gives to the classes of the polygons, so that the demo's
# map and the reference look alike.
LEGEND = {
    "Cropland": (1, "#f0e442"),
    "Grassland": (2, "#bbcc33"),
    "Bare soil": (3, "#ddcc77"),
    "Broadleaf forest": (4, "#117733"),
    "Conifer forest": (5, "#44aa99"),
    "Built-up": (6, "#d55e00"),
    "Orchard": (7, "#aa4499"),
    "Water": (8, "#0072b2"),
}
# Polygons drawn per class: more where there is more to see.
POLYGONS = {1: 14, 2: 26, 3: 26, 4: 36, 5: 40, 6: 26, 7: 16, 8: 20}
# Of those of water, as many lie along the river. Room for a polygon's middle, in pixels from the rim of its object.
RIVER, WIDE_PX, NARROW_PX = 6, 3.2, 2.2
WATER, CONIFER, BROADLEAF, GRASS, CROP, BARE, ORCHARD, BUILT = CLASSES

# Reflectance of materials: plausible shapes (chlorophyll, red edge, water absorption, soil slope), not measurements.
BANDS = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge071",
    "rededge075",
    "rededge078",
    "nir",
    "nir08",
    "swir16",
    "swir22",
)
MATERIALS = {
    "clear water": (0.040, 0.042, 0.040, 0.026, 0.021, 0.018, 0.018, 0.015, 0.014, 0.008, 0.005),
    "turbid water": (0.052, 0.065, 0.085, 0.066, 0.055, 0.040, 0.038, 0.032, 0.028, 0.012, 0.008),
    "needles": (0.021, 0.024, 0.040, 0.026, 0.062, 0.150, 0.185, 0.205, 0.222, 0.098, 0.045),
    "leaves": (0.024, 0.029, 0.054, 0.031, 0.084, 0.235, 0.305, 0.335, 0.352, 0.162, 0.074),
    "grass": (0.034, 0.042, 0.078, 0.052, 0.121, 0.250, 0.310, 0.335, 0.355, 0.208, 0.112),
    "dry grass": (0.052, 0.066, 0.102, 0.108, 0.160, 0.225, 0.255, 0.275, 0.295, 0.268, 0.178),
    "crop": (0.028, 0.035, 0.072, 0.040, 0.112, 0.275, 0.350, 0.385, 0.402, 0.195, 0.094),
    "rape": (0.036, 0.047, 0.118, 0.092, 0.165, 0.290, 0.345, 0.372, 0.388, 0.212, 0.118),
    "pale soil": (0.080, 0.098, 0.130, 0.165, 0.186, 0.205, 0.220, 0.236, 0.252, 0.318, 0.282),
    "dark soil": (0.044, 0.052, 0.072, 0.095, 0.110, 0.125, 0.136, 0.148, 0.160, 0.222, 0.196),
    "tile roof": (0.070, 0.082, 0.106, 0.172, 0.190, 0.204, 0.214, 0.224, 0.236, 0.276, 0.252),
    "metal roof": (0.150, 0.165, 0.176, 0.184, 0.190, 0.194, 0.198, 0.204, 0.208, 0.216, 0.204),
    "asphalt": (0.074, 0.082, 0.092, 0.100, 0.106, 0.112, 0.116, 0.122, 0.128, 0.144, 0.134),
}
MATERIAL = {name: number for number, name in enumerate(MATERIALS)}
SENTINEL_10M = ("blue", "green", "red", "nir")
SENTINEL_BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
LANDSAT_BANDS = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")


@dataclass(frozen=True, eq=False)
class Landscape:
    """What is where, at 5 m.

    Attributes:
        code: uint8 [row, col], the class.
        share: float32 [material, row, col], sums to 1.
        light: float32 [row, col], illumination and brightness, around 1.
    """

    code: NDArray[np.uint8]
    share: NDArray[np.float32]
    light: NDArray[np.float32]


class Canvas:
    """The fine grid, and random fields on it."""

    def __init__(self, size_px: int, seed: int) -> None:
        self.n = int(size_px * PIXEL_M / FINE_M)
        self.rng = np.random.default_rng(seed)
        self.y, self.x = (np.mgrid[: self.n, : self.n].astype(np.float32) + 0.5) * FINE_M
        self.side_m = self.n * FINE_M

    def field(self, range_m: float, roughness: float = 2.0) -> NDArray[np.float32]:
        """Gaussian random field, mean 0, deviation 1, varying over about ``range_m``; smaller roughness is rougher."""
        wave = np.hypot(
            *np.meshgrid(scipy.fft.fftfreq(self.n, FINE_M), scipy.fft.rfftfreq(self.n, FINE_M), indexing="ij")
        )
        power = (1.0 + (wave * range_m) ** 2) ** (-roughness / 2 - 0.5)
        white = self.rng.standard_normal((self.n, self.n), dtype=np.float32)
        smooth = scipy.fft.irfft2(scipy.fft.rfft2(white) * power, s=white.shape)
        return ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)

    def to_line(self, points: NDArray[np.float64], reach_m: float = 500.0) -> NDArray[np.float32]:
        """Distance in metres of every pixel to a line through points (x, y); infinite beyond ``reach_m``."""
        best = np.full((self.n, self.n), np.inf, dtype=np.float32)
        for start, stop in itertools.pairwise(points):
            low = np.maximum((np.minimum(start, stop) - reach_m) // FINE_M, 0).astype(int)
            high = np.maximum((np.maximum(start, stop) + reach_m) // FINE_M, 0).astype(int)
            box = slice(low[1], high[1]), slice(low[0], high[0])
            (dx, dy), x, y = stop - start, self.x[box] - start[0], self.y[box] - start[1]
            along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            best[box] = np.minimum(best[box], np.hypot(x - along * dx, y - along * dy))
        return best

    def winding(self, start: tuple[float, float], stop: tuple[float, float], swing_m: float) -> NDArray[np.float64]:
        """A winding line between two points given as shares of the side."""
        t = np.linspace(0, 1, 40)
        ends = np.array([start, stop]) * self.side_m
        line = ends[0] + t[:, None] * (ends[1] - ends[0])
        across = np.array([ends[0][1] - ends[1][1], ends[1][0] - ends[0][0]]) / np.hypot(*(ends[1] - ends[0]))
        phases = self.rng.uniform(0, 2 * np.pi, 3)
        swing = sum(np.sin(2 * np.pi * k * t + p) / k for k, p in zip((1.5, 3.2, 6.1), phases, strict=True))
        return line + across * (swing_m * swing * np.sin(np.pi * t) ** 0.5)[:, None]


def parcels(canvas: Canvas) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Field parcels int64 [row, col], metres across the rows of each, and metres to the parcel's nearest long side."""
    rng = canvas.rng
    count = max(int((canvas.side_m / 1500) ** 2), 3)
    seeds = rng.uniform(0, canvas.side_m, (count, 2)).astype(np.float32)
    bend = 120 * canvas.field(700)
    distance = np.stack([np.hypot(canvas.x + bend - sx, canvas.y - bend - sy) for sx, sy in seeds])
    region = distance.argmin(axis=0)
    parcel = np.zeros(region.shape, dtype=np.int64)
    across, side = np.zeros(region.shape, np.float32), np.zeros(region.shape, np.float32)
    for number in range(count):
        inside = region == number
        angle = rng.uniform(0, np.pi)
        u = canvas.x[inside] * np.cos(angle) + canvas.y[inside] * np.sin(angle) + 20_000
        v = -canvas.x[inside] * np.sin(angle) + canvas.y[inside] * np.cos(angle) + 20_000
        edges = np.cumsum(rng.uniform(70, 260, 500))
        strip = np.searchsorted(edges, v)
        length = rng.uniform(180, 520, 600)[strip % 600]
        cell = np.floor((u + 137.0 * strip) / length).astype(np.int64)
        parcel[inside] = (number * 1000 + strip) * 1000 + cell
        across[inside] = v
        side[inside] = np.minimum(v - np.where(strip > 0, edges[strip - 1], 0), edges[strip] - v)
    _, small = np.unique(parcel, return_inverse=True)
    return small.reshape(parcel.shape), across, side


def draw(size_px: int = SIZE_PX, seed: int = SEED) -> Landscape:
    """The landscape: farmland first, then forest, water, towns and roads on top."""
    canvas = Canvas(size_px, seed)
    height = canvas.field(2600, 2.6)
    share = np.zeros((len(MATERIALS), canvas.n, canvas.n), dtype=np.float32)
    code = np.zeros((canvas.n, canvas.n), dtype=np.uint8)
    _farmland(canvas, code, share, height)
    _forest(canvas, code, share, height)
    _water(canvas, code, share)
    _towns(canvas, code, share)
    light = _light(canvas, code, height)
    share /= share.sum(axis=0)
    return Landscape(code, share, light)


def _paint(
    code: NDArray[np.uint8], share: NDArray[np.float32], where: NDArray[np.bool_], value: int, mix: dict[str, object]
) -> None:
    """Give pixels a class and a mixture of materials (numbers or arrays over the whole canvas)."""
    code[where] = value
    share[:, where] = 0.0
    for name, amount in mix.items():
        share[MATERIAL[name], where] = np.broadcast_to(np.asarray(amount, np.float32), where.shape)[where]


def _farmland(canvas: Canvas, code: NDArray[np.uint8], share: NDArray[np.float32], height: NDArray[np.float32]) -> None:
    parcel, across, side = parcels(canvas)
    count = int(parcel.max()) + 1
    rng = canvas.rng
    mean_height = ndimage.mean(height, parcel, np.arange(count))
    draw_use = rng.uniform(0, 1, count) + 0.10 * np.clip(mean_height, -1.5, 1.5)
    use = np.select([draw_use < 0.42, draw_use < 0.62, draw_use < 0.86], [CROP, BARE, GRASS], ORCHARD)[parcel]
    vigour = rng.beta(6.0, 1.4, count).astype(np.float32)[parcel]
    kind = rng.uniform(0, 1, count).astype(np.float32)[parcel]
    patch, soil = canvas.field(90), np.clip(0.5 + 0.28 * canvas.field(500) + 0.4 * (kind - 0.5), 0.02, 0.98)
    # Tramlines every 24 m in crops, drill rows seen as faint stripes; the plough leaves wider ones in bare soil.
    tram = (np.mod(across, 24.0) < 5.0).astype(np.float32)
    cover = np.clip(0.15 + 0.85 * vigour + 0.05 * patch - 0.30 * kind * tram, 0.03, 0.99)
    rape = np.where(kind > 0.86, 0.8, 0.0)
    _paint(code, share, use == CROP, CROP, {
        "crop": cover * (1 - rape) * np.where(kind < 0.3, 0.85, 1.0), "rape": cover * rape,
        "grass": cover * np.where(kind < 0.3, 0.15, 0.0),
        "pale soil": (1 - cover) * soil, "dark soil": (1 - cover) * (1 - soil),
    })  # fmt: skip
    clod = np.clip(0.06 + 0.20 * kind**3 + 0.04 * patch, 0, 0.5)
    plough = 0.22 * (np.mod(across, 36.0) < 15.0)
    tilth = np.clip(soil + plough - 0.1, 0.02, 0.98)
    _paint(code, share, use == BARE, BARE, {
        "pale soil": (1 - clod) * tilth, "dark soil": (1 - clod) * (1 - tilth), "dry grass": clod,
    })  # fmt: skip
    dry = np.clip(0.26 + 0.5 * kind * vigour + 0.11 * canvas.field(60, 1.2) + 0.06 * canvas.field(300), 0, 0.95)
    lush = np.clip(0.2 * (1 - kind), 0, 0.2)
    bush = (canvas.field(25, 1.5) > 2.35).astype(np.float32)
    _paint(code, share, use == GRASS, GRASS, {
        "dry grass": dry * (1 - bush), "grass": (1 - dry) * (1 - lush) * (1 - bush) + 1e-3,
        "crop": (1 - dry) * lush * (1 - bush), "leaves": bush,
    })  # fmt: skip
    row = np.mod(across, 25.0) < 12.0
    along = np.where(vigour > 0.6, 1.0, 0.75) * np.where(
        ndimage.uniform_filter(canvas.field(8, 1.0), 3) < 1.1, 1.0, 0.2
    )
    crown = np.clip(row * along * (0.55 + 0.45 * vigour), 0, 1)
    strip = 0.5 * kind * (~row)
    _paint(code, share, use == ORCHARD, ORCHARD, {
        "leaves": crown, "grass": (1 - crown) * (1 - strip), "pale soil": (1 - crown) * strip,
    })  # fmt: skip
    # Field margins: grass, here and there a hedge; the class of the field goes on to its edge.
    hedge = (side < 6) & (canvas.field(400) > 0.9)
    _paint(code, share, hedge, BROADLEAF, {"leaves": 0.8, "grass": 0.2})


def _forest(canvas: Canvas, code: NDArray[np.uint8], share: NDArray[np.float32], height: NDArray[np.float32]) -> None:
    wood = 0.75 * height + 0.75 * canvas.field(700, 1.6) + 0.12 * canvas.field(60, 1.2)
    forest = wood > 0.78
    needle = 0.6 * height + canvas.field(500, 1.8) + 0.15 * canvas.field(50) > 0.42
    stand = canvas.field(180)
    gap = np.clip(0.08 + 0.06 * stand + 0.05 * canvas.field(15, 1.0), 0, 0.6)
    guest = np.clip(0.07 + 0.07 * canvas.field(120), 0, 0.35)
    clearing = forest & (canvas.field(160) > 2.1)
    _paint(code, share, forest & needle, CONIFER, {"needles": (1 - gap) * (1 - guest), "leaves": (1 - gap) * guest,
                                                    "grass": gap * 0.5, "dark soil": gap * 0.5})  # fmt: skip
    _paint(code, share, forest & ~needle, BROADLEAF, {"leaves": (1 - gap) * (1 - guest), "needles": (1 - gap) * guest,
                                                       "grass": gap})  # fmt: skip
    _paint(code, share, clearing, GRASS, {"dry grass": 0.45, "grass": 0.4, "leaves": 0.15})


def _water(canvas: Canvas, code: NDArray[np.uint8], share: NDArray[np.float32]) -> None:
    bank = canvas.field(250)
    river = canvas.to_line(canvas.winding((-0.02, 0.62), (1.02, 0.38), 420))
    riparian = (river < 75 + 40 * bank) & (bank > -0.3)
    _paint(code, share, riparian, BROADLEAF, {"leaves": 0.82, "grass": 0.18})
    meadow = (river < 130 + 60 * bank) & ~riparian
    _paint(code, share, meadow & np.isin(code, (CROP, BARE, ORCHARD)), GRASS, {"grass": 0.8, "dry grass": 0.2})
    lake_x, lake_y = 0.72 * canvas.side_m, 0.74 * canvas.side_m
    radius = np.hypot((canvas.x - lake_x) / 1.5, canvas.y - lake_y) - 70 * canvas.field(500)
    lake = radius < 0.062 * canvas.side_m
    pond = np.hypot(canvas.x - 0.2 * canvas.side_m, (canvas.y - 0.2 * canvas.side_m) * 1.4) + 25 * bank < 110
    turbid = np.clip(0.35 + 0.25 * canvas.field(900), 0, 1)
    for where, mud in ((river < 24 + 6 * bank, 0.65 + 0.3 * turbid), (lake, 0.5 * turbid), (pond, 0.9)):
        _paint(code, share, where, WATER, {"turbid water": mud, "clear water": 1 - np.asarray(mud) + 1e-3})


def _towns(canvas: Canvas, code: NDArray[np.uint8], share: NDArray[np.float32]) -> None:
    rng, side = canvas.rng, canvas.side_m
    land = code != WATER
    town = np.zeros_like(land)
    ragged = canvas.field(260, 1.6)
    sites = [(0.43, 0.42, 0.085), (0.14, 0.80, 0.034), (0.80, 0.18, 0.040), (0.58, 0.90, 0.028), (0.90, 0.55, 0.026),
             (0.22, 0.42, 0.024)]  # fmt: skip
    u, v = canvas.x.copy(), canvas.y.copy()
    for x, y, size in sites:
        here = np.hypot(canvas.x - x * side, canvas.y - y * side) + 90 * ragged < size * side
        angle = rng.uniform(0.2, 1.3)  # each town has its own direction of streets
        u[here] = (canvas.x * np.cos(angle) + canvas.y * np.sin(angle) + 20_000 * x)[here]
        v[here] = (canvas.y * np.cos(angle) - canvas.x * np.sin(angle) + 20_000 * y)[here]
        town |= here
    town &= land
    # Plots of about 25 m with a house, a yard and a garden; streets between blocks; now and then a hall or a park.
    plot = np.floor(u / 25.0).astype(np.int64) * 7919 + np.floor(v / 25.0).astype(np.int64) * 104_729
    lot = rng.uniform(0, 1, 65_536).astype(np.float32)[np.mod(plot, 65_536)]
    block = np.floor(u / 110.0).astype(np.int64) * 6151 + np.floor(v / 110.0).astype(np.int64) * 3079
    quarter = rng.uniform(0, 1, 65_536).astype(np.float32)[np.mod(block, 65_536)]
    house = (np.mod(u, 25.0) < 15.0) & (np.mod(v, 25.0) < 15.0) & (lot > 0.18)
    hall, park = quarter > 0.90, quarter < 0.04
    street = (np.mod(u, 110.0) < 8.0) | (np.mod(v, 110.0) < 8.0)
    tile = (lot < 0.75).astype(np.float32)
    tree = np.clip(0.3 + 0.25 * canvas.field(20, 1.2), 0, 0.9)
    _paint(code, share, town, BUILT, {"grass": (1 - tree) * 0.65, "leaves": tree * 0.8, "asphalt": 0.4})
    _paint(code, share, town & house, BUILT, {"tile roof": 0.9 * tile, "metal roof": 0.9 * (1 - tile), "leaves": 0.1})
    _paint(code, share, town & park, BUILT, {"grass": 0.5, "leaves": tree})
    _paint(code, share, town & hall, BUILT, {"metal roof": 0.45 * (1 + lot), "asphalt": 0.5})
    _paint(code, share, town & street, BUILT, {"asphalt": 0.85, "leaves": 0.15})
    ends = [((-0.02, 0.86), (0.43, 0.42)), ((0.43, 0.42), (0.83, 0.15)), ((0.83, 0.15), (1.02, 0.10)),
            ((0.43, 0.42), (0.58, 0.92)), ((0.58, 0.92), (0.60, 1.02)), ((0.43, 0.42), (0.36, -0.02)),
            ((0.43, 0.42), (0.92, 0.56)), ((0.92, 0.56), (1.02, 0.6)), ((-0.02, 0.4), (0.43, 0.42))]  # fmt: skip
    for number, (start, stop) in enumerate(ends):
        road = canvas.to_line(canvas.winding(start, stop, 60)) < (9.0 if number < 5 else 5.5)
        _paint(code, share, road, BUILT, {"asphalt": 0.9, "grass": 0.1})


def _light(canvas: Canvas, code: NDArray[np.uint8], height: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sun from the south-east at 45 degrees on the terrain; crowns and roofs shade themselves."""
    slope_y, slope_x = np.gradient(32.0 * height, FINE_M)
    lit = (1.0 + slope_y * 0.71 - slope_x * 0.71) / np.sqrt(1 + slope_x**2 + slope_y**2)
    rough = np.select([code == WATER, np.isin(code, (CONIFER, BROADLEAF)), code == BUILT, code == ORCHARD],
                      [0.02, 0.10, 0.12, 0.08], 0.025)  # fmt: skip
    grain = canvas.field(9, 1.0)
    light = np.clip(lit, 0.45, 1.5) ** np.where(code == WATER, 0, 1) * np.exp(rough * grain + 0.02 * canvas.field(350))
    return light.astype(np.float32)


def observe(land: Landscape, band: str, factor: int, blur_fine_px: float) -> NDArray[np.float32]:
    """Reflectance of one band, averaged over ``factor`` x ``factor`` fine pixels after the optics' blur."""
    weights = np.array([values[BANDS.index(band)] for values in MATERIALS.values()], dtype=np.float32)
    fine = np.einsum("m,mrc->rc", weights, land.share) * land.light
    fine = ndimage.gaussian_filter(fine, blur_fine_px)
    rows = fine.shape[0] // factor
    return fine[: rows * factor, : rows * factor].reshape(rows, factor, rows, factor).mean(axis=(1, 3))


def sentinel(land: Landscape, seed: int) -> NDArray[np.uint16]:
    """DN uint16 [band, row, col] at 10 m: four bands of 10 m, six of 20 m repeated; 0 beyond the swath's edge."""
    rng = np.random.default_rng(seed + 1)
    layers = []
    for band in SENTINEL_BANDS:
        factor = 2 if band in SENTINEL_10M else 4
        value = observe(land, band, factor, 0.45 * factor)
        value += rng.standard_normal(value.shape, dtype=np.float32) * (0.001 + 0.009 * value)
        dn = np.clip(np.rint((value - OFFSET) / SCALE), 1, 65_535).astype(np.uint16)
        layers.append(dn.repeat(factor // 2, axis=0).repeat(factor // 2, axis=1))
    image = np.stack(layers)
    row, col = np.mgrid[: image.shape[1], : image.shape[2]]
    beyond = col - 0.22 * row > 0.965 * image.shape[2]
    image[:, beyond] = 0
    return image


def landsat(land: Landscape, seed: int, origin: tuple[float, float]) -> tuple[NDArray[np.uint16], Affine]:
    """DN uint16 [band, row, col] at 30 m on a grid of UTM zone 33, turned against the landscape; and its affine."""
    rng = np.random.default_rng(seed + 2)
    n = land.code.shape[0]
    source = Affine(FINE_M, 0, origin[0], 0, -FINE_M, origin[1])
    bounds = transform_bounds(UTM32, UTM33, origin[0], origin[1] - n * FINE_M, origin[0] + n * FINE_M, origin[1])
    left, top = np.floor(bounds[0] / LANDSAT_M) * LANDSAT_M + 15, np.ceil(bounds[3] / LANDSAT_M) * LANDSAT_M - 15
    width, height = int((bounds[2] - left) // LANDSAT_M), int((top - bounds[1]) // LANDSAT_M)
    target = Affine(LANDSAT_M, 0, left, 0, -LANDSAT_M, top)
    image = np.zeros((len(LANDSAT_BANDS), height, width), dtype=np.uint16)
    for number, band in enumerate(LANDSAT_BANDS):
        value = np.full((height, width), np.nan, dtype=np.float32)
        reproject(observe(land, band, 1, 2.2), value, src_transform=source, src_crs=UTM32, dst_transform=target,
                  dst_crs=UTM33, dst_nodata=np.nan, resampling=Resampling.average)  # fmt: skip
        value += rng.standard_normal(value.shape, dtype=np.float32) * (0.0008 + 0.007 * value)
        # Collection 2 surface reflectance: DN x 0.0000275 - 0.2.
        dn = np.clip(np.rint((value + 0.2) / 2.75e-5), 1, 65_535)
        image[number] = np.where(np.isfinite(value), dn, 0).astype(np.uint16)
    return image, target


def reference(land: Landscape) -> NDArray[np.uint8]:
    """The class with the largest share of each 10 m pixel, uint8 [row, col]; ties go to the lower code."""
    rows = land.code.shape[0] // 2
    parts = land.code.reshape(rows, 2, rows, 2)
    votes = np.stack([(parts == code).sum(axis=(1, 3)) for code in CLASSES])
    return (votes.argmax(axis=0) + 1).astype(np.uint8)


def draw_polygons(truth: NDArray[np.uint8], seed: int, transform: Affine) -> gpd.GeoDataFrame:
    """Training polygons as a person draws them: inside objects and the scene, apart from each other."""
    rng, taken = np.random.default_rng(seed + 3), np.zeros(truth.shape, dtype=np.bool_)
    # A smaller variant has fewer polygons, in proportion to its area.
    share = min(truth.size / SIZE_PX**2, 1.0)
    drawn = {
        code: _draw(rng, truth == code, taken, number=max(round(POLYGONS[code] * share), 3), room_px=WIDE_PX)
        for code in CLASSES
    }
    # Polygons in the lake alone would lie in one block, of which one part of the split learns or is tested.
    rivers = (truth == WATER) & ~ndimage.binary_opening(truth == WATER, iterations=6)
    along = _draw(np.random.default_rng(seed + 4), rivers, taken, number=round(RIVER * share), room_px=NARROW_PX)
    drawn[WATER] = [*drawn[WATER][: len(drawn[WATER]) - len(along)], *along]
    rows = [
        {"class": CLASSES[code], "geometry": affine_transform(shape, transform.to_shapely())}
        for code, shapes in drawn.items()
        for shape in shapes
    ]
    return gpd.GeoDataFrame(rows, crs=str(UTM32))


def _draw(
    rng: np.random.Generator, own: NDArray[np.bool_], taken: NDArray[np.bool_], *, number: int, room_px: float
) -> list[Polygon]:
    """At most so many polygons of a class, in pixels, at places that have room; marks what they take."""
    room = ndimage.distance_transform_edt(ndimage.binary_opening(np.pad(own, 1), iterations=2))[1:-1, 1:-1]
    frame, shapes = box(0, 0, own.shape[1], own.shape[0]), []
    for _ in range(number * 40):
        free = np.flatnonzero(((room > room_px) & ~taken).ravel())
        if len(shapes) == number or not len(free):
            break
        row, col = np.unravel_index(int(rng.choice(free)), own.shape)
        shape = _blob(rng, row + 0.5, col + 0.5, radius=float(min(room[row, col] * 1.12, rng.uniform(5, 12))))
        mask = rasterize([shape], out_shape=own.shape).astype(np.bool_)
        if mask.sum() < 12 or taken[mask].any() or own[mask].mean() < 0.75:
            continue
        taken |= ndimage.binary_dilation(mask, iterations=3)
        shapes.append(shape if frame.contains(shape) else shape.intersection(frame))
    return shapes


def _blob(rng: np.random.Generator, row: float, col: float, *, radius: float) -> Polygon:
    corners = int(rng.integers(5, 9))
    angles = np.sort((np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners)
    reach = radius * rng.uniform(0.7, 1.15, corners)
    stretch, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
    x, y = reach * np.cos(angles), reach * np.sin(angles) * stretch
    return Polygon(
        np.stack([col + x * np.cos(turn) - y * np.sin(turn), row + x * np.sin(turn) + y * np.cos(turn)], axis=1)
    )


@dataclass(frozen=True, eq=False)
class Suburb:
    """Part of a town from the air, at AERIAL_FINE_M.

    Attributes:
        footprints: Every building: class, building_id, kind (house, annex, terrace, hall).
        share: float32 [material, row, col], sums to 1.
        light: float32 [row, col], illumination: roofs of two sides, shadows, crowns.
    """

    footprints: gpd.GeoDataFrame
    share: NDArray[np.float32]
    light: NDArray[np.float32]


def suburb(seed: int = SEED, px: int = AERIAL_PX) -> Suburb:
    """Streets turned against the pixels, plots with houses, rows of terraces that touch, halls, trees and cars."""
    rng, n = np.random.default_rng(seed + 4), int(px * AERIAL_M / AERIAL_FINE_M)
    fine = Affine(AERIAL_FINE_M, 0, AERIAL_ORIGIN[0], 0, -AERIAL_FINE_M, AERIAL_ORIGIN[1])
    side, turn = px * AERIAL_M, 0.31
    buildings = _buildings(rng, side)
    place = [turn_cos := np.cos(turn), -np.sin(turn), np.sin(turn), turn_cos,
             AERIAL_ORIGIN[0] + side / 2, AERIAL_ORIGIN[1] - side / 2]  # fmt: skip
    shapes = [(kind, affine_transform(shape, place), ridge) for kind, shape, ridge in buildings]
    extent = box(AERIAL_ORIGIN[0], AERIAL_ORIGIN[1] - side, AERIAL_ORIGIN[0] + side, AERIAL_ORIGIN[1])
    shapes = [item for item in shapes if item[1].intersection(extent).area > 0.3 * item[1].area]
    y, x = (np.mgrid[:n, :n] + 0.5) * AERIAL_FINE_M - side / 2
    u, v = x * np.cos(turn) - y * np.sin(turn), -(x * np.sin(turn) + y * np.cos(turn))

    def smooth(px: float) -> NDArray[np.float32]:
        field = ndimage.gaussian_filter(rng.standard_normal((n, n), dtype=np.float32), px)
        return (field / field.std()).astype(np.float32)

    share, light = np.zeros((len(MATERIALS), n, n), dtype=np.float32), np.ones((n, n), dtype=np.float32)
    dry = np.clip(0.35 + 0.2 * smooth(30) + 0.1 * smooth(4), 0, 1)
    _mix(share, np.ones((n, n), dtype=np.bool_), {"grass": 1 - dry, "dry grass": dry})
    street = (np.abs(np.mod(u + STREET_M / 2, BLOCK_M[0]) - STREET_M / 2) < 3.5) | (
        np.abs(np.mod(v + STREET_M / 2, BLOCK_M[1]) - STREET_M / 2) < 3.0
    )
    drive = (np.mod(u, 18.0) < 2.8) & (np.mod(v, BLOCK_M[1]) < 14.0) & (smooth(60) > -0.6)
    _mix(share, street | drive, {"asphalt": 1.0})
    _mix(share, drive & (smooth(60) > 0.3), {"pale soil": 0.8, "asphalt": 0.2})
    light *= 1 + 0.04 * smooth(2)
    numbers = rasterize([(s, k + 1) for k, (_, s, _) in enumerate(shapes)], out_shape=(n, n), transform=fine)
    shadow = np.zeros((n, n), dtype=np.bool_)
    for height in range(1, 17):  # the sun stands in the south-west: shadows fall to the north-east
        shadow |= ndimage.shift(numbers > 0, (-height, height), order=0)
    light[shadow & (numbers == 0)] *= 0.45
    for number, (_, shape, ridge) in enumerate(shapes, 1):
        own = numbers == number
        tile, worn = rng.uniform() < 0.6, rng.uniform(0.75, 1.25)
        _mix(share, own, {"tile roof": 0.9} if tile else {"metal roof": rng.uniform(0.3, 0.9), "asphalt": 0.4})
        centre = shape.centroid
        across = (x + AERIAL_ORIGIN[0] + side / 2 - centre.x) * np.cos(ridge + turn) + (
            AERIAL_ORIGIN[1] - side / 2 - y - centre.y) * np.sin(ridge + turn)  # fmt: skip
        light[own] = worn * np.where(across[own] > 0, 0.82, 1.12) * (1 + 0.05 * rng.standard_normal(int(own.sum())))
    _cars(rng, share, light, street & (numbers == 0))
    _trees(rng, share, light, (numbers == 0) & ~street)
    frame = gpd.GeoDataFrame(
        {"building_id": range(1, len(shapes) + 1), "class": "building", "kind": [kind for kind, _, _ in shapes]},
        geometry=[shape.intersection(extent) for _, shape, _ in shapes],
        crs=str(UTM32),
    )
    return Suburb(frame, share / share.sum(axis=0), light)


def _mix(share: NDArray[np.float32], where: NDArray[np.bool_], mix: dict[str, object]) -> None:
    """Give pixels a mixture of materials (numbers or arrays over the whole canvas)."""
    _paint(np.zeros(where.shape, np.uint8), share, where, 1, mix)


def _buildings(rng: np.random.Generator, side: float) -> list[tuple[str, Polygon, float]]:
    """Kind, footprint around (0, 0) along the streets, and direction across the ridge, of every building."""
    found: list[tuple[str, Polygon, float]] = []
    reach = side
    for left in np.arange(-reach, reach, BLOCK_M[0]):
        for low in np.arange(-reach, reach, BLOCK_M[1]):
            use = rng.uniform()
            if use < 0.12:
                wide, deep = rng.uniform(26, 40), rng.uniform(16, 24)
                found.append(("hall", box(left + 12, low + 10, left + 12 + wide, low + 10 + deep), np.pi / 2))
            elif use < 0.4:  # terraces: each touches the next
                at = left + 9.0
                while at < left + BLOCK_M[0] - 14:
                    wide, deep = rng.uniform(5.5, 7.5), rng.uniform(9, 11)
                    found.append(("terrace", box(at, low + 12, at + wide, low + 12 + deep), np.pi / 2))
                    at += wide + (6.0 if rng.uniform() < 0.15 else 0.0)
            else:
                plots = np.arange(left + 7.0, left + BLOCK_M[0] - 16, 18.0)
                found += [_house(rng, at + 4, low + 9 + rng.uniform(0, 5)) for at in plots if rng.uniform() < 0.85]
    return found


def _house(rng: np.random.Generator, x: float, y: float) -> tuple[str, Polygon, float]:
    wide, deep = rng.uniform(8, 11.5), rng.uniform(8, 13)
    body = box(x, y, x + wide, y + deep)
    if rng.uniform() < 0.4:
        arm, length = rng.uniform(3.5, 5), rng.uniform(3, 5.5)
        return "annex", body.union(box(x, y + deep, x + arm, y + deep + length)), 0.0
    return "house", body, float(rng.choice([0.0, np.pi / 2]))


def _cars(
    rng: np.random.Generator, share: NDArray[np.float32], light: NDArray[np.float32], where: NDArray[np.bool_]
) -> None:
    for row, col in np.argwhere(where)[rng.choice(int(where.sum()), where.size // 15_000)]:
        part = slice(row, row + 8), slice(col, col + 17)
        for number in range(len(share)):
            share[number][part] = 1.0 if number == MATERIAL["metal roof"] else 0.0
        light[part] = rng.uniform(0.3, 1.5)


def _trees(
    rng: np.random.Generator, share: NDArray[np.float32], light: NDArray[np.float32], where: NDArray[np.bool_]
) -> None:
    """Crowns, some of them over roofs' edges, lit from one side, with a shadow."""
    row, col = np.mgrid[: light.shape[0], : light.shape[1]]
    for top, left in np.argwhere(where)[rng.choice(int(where.sum()), where.size // 7_000)]:
        radius = rng.uniform(5, 16)
        box_ = np.s_[max(top - 40, 0) : top + 40, max(left - 40, 0) : left + 40]
        distance = np.hypot(row[box_] - top, col[box_] - left) + rng.normal(0, 1.2, row[box_].shape)
        shade = np.hypot(row[box_] - top + radius, col[box_] - left - radius) < radius
        light[box_][shade & (distance >= radius)] *= 0.6
        inside = distance < radius
        for number in range(len(share)):
            share[number][box_][inside] = {MATERIAL["leaves"]: 0.9, MATERIAL["grass"]: 0.1}.get(number, 0.0)
        slope = (row[box_] - top - (col[box_] - left)) / radius
        light[box_][inside] = (1.0 + 0.25 * slope)[inside] * rng.uniform(0.75, 1.2)


def aerial(town: Suburb, seed: int = SEED) -> NDArray[np.uint8]:
    """DN uint8 [band, row, col] of a camera with AERIAL_BANDS, as it comes from the shop: no reflectance."""
    rng, factor = np.random.default_rng(seed + 5), round(AERIAL_M / AERIAL_FINE_M)
    layers = []
    for band in AERIAL_BANDS:
        weights = np.array([values[BANDS.index(band)] for values in MATERIALS.values()], dtype=np.float32)
        fine = ndimage.gaussian_filter(np.einsum("m,mrc->rc", weights, town.share) * town.light, 0.5 * factor)
        value = fine.reshape(len(fine) // factor, factor, -1, factor).mean(axis=(1, 3))
        value = 255 * (value / (0.5 if band == "nir" else 0.28)) ** 0.8
        layers.append(np.clip(np.rint(value + rng.normal(0, 2.0, value.shape)), 1, 255).astype(np.uint8))
    return np.stack(layers)


def _write_aerial(out: Path, seed: int, px: int) -> NDArray[np.uint8]:
    """``aerial.tif`` and ``buildings.gpkg``; gives the image."""
    town = suburb(seed, px)
    image = aerial(town, seed)
    transform = Affine(AERIAL_M, 0, AERIAL_ORIGIN[0], 0, -AERIAL_M, AERIAL_ORIGIN[1])
    with rasterio.open(out / "aerial.tif", "w", driver="GTiff", dtype="uint8", count=len(image), height=px,
                       width=px, crs=UTM32, transform=transform, tiled=True, compress="deflate", predictor=2,
                       zlevel=9, interleave="pixel", photometric="RGB") as file:  # fmt: skip
        file.write(image)
        file.descriptions = AERIAL_BANDS
        file.update_tags(SOFTWARE="sample_data/generate.py", TIFFTAG_IMAGEDESCRIPTION="simulated, not measured")
    (out / "buildings.gpkg").unlink(missing_ok=True)
    town.footprints.to_file(out / "buildings.gpkg", layer="buildings", driver="GPKG", engine="pyogrio")
    return image


def _write(
    path: Path,
    image: NDArray[np.uint16],
    *,
    crs: CRS,
    transform: Affine,
    bands: tuple[str, ...],
    scale: float,
    offset: float,
) -> None:
    profile = {"driver": "GTiff", "dtype": "uint16", "nodata": 0, "tiled": True, "blockxsize": 256, "blockysize": 256,
               "compress": "deflate", "predictor": 2, "zlevel": 9, "interleave": "band"}  # fmt: skip
    count, height, width = image.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, crs=crs, transform=transform, **profile
    ) as file:
        file.write(image)
        file.descriptions = bands
        file.scales, file.offsets = (scale,) * count, (offset,) * count
        file.update_tags(SOFTWARE="sample_data/generate.py", TIFFTAG_IMAGEDESCRIPTION="simulated, not measured")


def codes_in_files(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The landscape's numbers as codes of LEGEND, uint8 of the same shape; 0 stays 0."""
    return np.array([0, *(LEGEND[name][0] for name in CLASSES.values())], dtype=np.uint8)[truth]


def _write_reference(path: Path, codes: NDArray[np.uint8], transform: Affine) -> list[dict[str, object]]:
    """The reference with its legend in a tag, as landcover's maps have it; gives the legend."""
    legend: list[dict[str, object]] = [
        {"code": code, "name": name, "color": color} for name, (code, color) in LEGEND.items()
    ]
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=1, height=codes.shape[0], width=codes.shape[1],
                       crs=UTM32, transform=transform, nodata=0, tiled=True, compress="deflate") as file:  # fmt: skip
        file.write_colormap(1, {code: tuple(bytes.fromhex(color[1:])) for code, color in LEGEND.values()})
        file.set_band_description(1, "land cover")
        file.update_tags(LANDCOVER_LEGEND=json.dumps(legend))
        file.write(codes, 1)
    return legend


def generate(out: Path, size_px: int = SIZE_PX, seed: int = SEED) -> dict[str, str]:
    """Write everything into ``out``; the digest (SHA-256, 16 digits) of every array, as in ``checksums.json``."""
    out.mkdir(parents=True, exist_ok=True)
    transform = Affine(PIXEL_M, 0, ORIGIN[0], 0, -PIXEL_M, ORIGIN[1])
    land = draw(size_px, seed)
    truth = reference(land)
    image = sentinel(land, seed)
    second, second_transform = landsat(land, seed, ORIGIN)
    seen = np.where(image[0] > 0, truth, 0).astype(np.uint8)
    polygons = draw_polygons(seen, seed, transform)
    _write(
        out / "sentinel2.tif", image, crs=UTM32, transform=transform, bands=SENTINEL_BANDS, scale=SCALE, offset=OFFSET
    )
    _write(
        out / "landsat.tif",
        second,
        crs=UTM33,
        transform=second_transform,
        bands=LANDSAT_BANDS,
        scale=2.75e-5,
        offset=-0.2,
    )
    codes = codes_in_files(truth)
    legend = _write_reference(out / "reference.tif", codes, transform)
    (out / "legend.json").write_text(json.dumps(legend, indent=2) + "\n", encoding="utf-8")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2026-11-22T00:00:00.000Z"})
    (out / "polygons.gpkg").unlink(missing_ok=True)
    polygons.to_file(out / "polygons.gpkg", layer="polygons", driver="GPKG", engine="pyogrio")
    photo = _write_aerial(out, seed, round(AERIAL_PX * min(size_px / SIZE_PX, 1.0) / 8) * 8)
    digests = {
        "aerial.tif": digest(photo),
        "sentinel2.tif": digest(image),
        "landsat.tif": digest(second),
        "reference.tif": digest(codes),
    }
    (out / "checksums.json").write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    log.info(
        "%d polygons, %.1f %% of the pixels of %s", len(polygons), 100 * polygons.area.sum() / truth.size / 100, out
    )
    return digests


def digest(array: NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes, shape and type; 16 hexadecimal digits."""
    about = f"{array.shape}{array.dtype.str}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--size", type=int, default=SIZE_PX, help="side of the Sentinel-2-like scene in pixels")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args()
    generate(chosen.out, chosen.size, chosen.seed)
