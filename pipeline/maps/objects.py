"""Class map -> objects: one polygon per object of a class, touching ones separated, outlines made regular.

Pixels of a class that touch along an edge are a patch. A patch is one object or several that touch: where a neck is
narrow against what it joins, or the model less sure, it is cut (watershed from the peaks of distance x confidence).
Only patches are held in memory beside the codes, so a map may have many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes

from pipeline.errors import LegendError
from pipeline.grid import Window
from pipeline.ground import SQUARE_METRES_PER_HECTARE
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.pixels import FilteredPixels, PixelRows
from pipeline.maps.rings import areas_ha, regular_outlines
from pipeline.maps.style import PERCENT_NODATA, categorised, qml, scheme_categories
from pipeline.maps.vectorise import PolygonRules, polygons
from pipeline.maps.vectors import OBJECTS_LAYER, PackageLayer, write_geopackage

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from rasterio.crs import CRS

    from pipeline.grid import Grid
    from pipeline.maps.settings import ObjectSettings

DEFAULT_TOLERANCE_PX = 1.5
DEFAULT_MIN_PX = 9
# Two peaks are two objects where the neck between them is below this share of the lower one: two discs of radius r
# whose centres are 1.6 r apart have a neck of 0.6 r, and the arms of an L have none.
_NECK = 0.6
_LEVELS = 24
# Larger patches are no buildings that touch, and their distances would not fit into the memory.
_LARGEST_PX = 4_000_000
_SMOOTH_PX = 1.0
# Patches are looked at in portions of so many pixels, with so much between them that smoothing does not mix them.
_SHEET_PX, _GAP_PX = 500_000, 5


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a map."""

    geometry: NDArray[Any]  # Polygons in the CRS of the map, object [object]
    code: NDArray[np.uint8]  # uint8 [object]
    confidence: NDArray[np.float64]  # float64 [object]; mean in percent over its pixels, NaN where there is none


@dataclass(frozen=True, eq=False)
class _Only(FilteredPixels):
    """Codes of which only some are kept; the others are nodata."""

    kept: NDArray[np.bool_]

    def read(self, window: Window) -> NDArray[Any]:
        values = self.pixels.read(window)
        return np.where(self.kept[values], values, NODATA).astype(np.uint8)


def find_objects(
    codes: PixelRows,
    *,
    grid: Grid,
    scheme: ClassScheme,
    settings: ObjectSettings,
    confidence: PixelRows | None = None,
    scratch: Path,
) -> Objects:
    """The objects of some classes of a map, none of which overlap.

    ``codes`` are uint8 [row, col], 0 nodata; ``confidence`` uint8 [row, col] in percent, 255 nodata.

    Raises:
        LegendError: no class is asked for, or one that there is not.
    """
    kept = np.zeros(256, dtype=np.bool_)
    kept[[scheme.by_name(name).code for name in check_classes(settings.classes, scheme)]] = True
    minimum_m2 = settings.min_area_m2
    if minimum_m2 is None:
        minimum_m2 = DEFAULT_MIN_PX * float(np.prod(grid.pixel_size_m))
    found: list[tuple[Any, int, float]] = []
    batches = polygons(_Only(codes, grid, kept), grid=grid, scheme=scheme, rules=PolygonRules(), scratch=scratch)
    for batch in batches:
        large = batch.area_ha * SQUARE_METRES_PER_HECTARE >= minimum_m2 * (1 - 1e-6)
        patches = _filled(batch.geometry[large], grid, minimum_m2)
        parts = _parts(patches, grid, confidence, separate=settings.separate, minimum_m2=minimum_m2)
        found += [(shape, int(batch.code[large][number]), mean) for number, shape, mean in parts]
    shape_of = np.empty(len(found), dtype=object)
    shape_of[:] = [item[0] for item in found]
    mean = np.array([item[2] for item in found], dtype=np.float64)
    regular = regular_on_ground(shape_of, grid, settings=settings)
    clear = without_overlaps(regular, mean)
    left = areas_ha(clear, grid.crs) * SQUARE_METRES_PER_HECTARE >= minimum_m2 / 2 if len(clear) else np.zeros(0, bool)
    code = np.array([item[1] for item in found], dtype=np.uint8)
    return Objects(clear[left], code[left], mean[left])


def check_classes(names: Sequence[str], scheme: ClassScheme) -> tuple[str, ...]:
    """The classes that are mapped as objects.

    Raises:
        LegendError: none, or one that the legend does not have.
    """
    if not names:
        what = "no class is marked as one of objects"
        fix = "mark it in the configuration, or name it with --class"
        raise LegendError(what, expected="objects: true for a class", got=", ".join(scheme.names), fix=fix)
    return tuple(scheme.by_name(name).name for name in names)


def _filled(patches: NDArray[Any], grid: Grid, minimum_m2: float) -> NDArray[Any]:
    """Patches without the holes that are smaller than an object may be."""
    least = minimum_m2 * float(np.prod(grid.pixel_size)) / float(np.prod(grid.pixel_size_m))
    filled = patches.copy()
    for k in np.flatnonzero(shapely.get_num_interior_rings(patches)):
        holes = [ring for ring in patches[k].interiors if shapely.Polygon(ring).area >= least]
        filled[k] = shapely.Polygon(patches[k].exterior, holes)
    return filled


def regular_on_ground(polygons_: NDArray[Any], grid: Grid, *, settings: ObjectSettings) -> NDArray[Any]:
    """Regular outlines of polygons in the CRS of a grid, of which angles and lengths are taken on the ground."""
    size_m, size = grid.pixel_size_m, grid.pixel_size
    tolerance_m = settings.tolerance_m or DEFAULT_TOLERANCE_PX * max(size_m)
    to_ground = Affine.scale(size_m[0] / size[0], size_m[1] / size[1]) @ Affine.translation(
        -grid.transform.c, -grid.transform.f
    )
    there = shapely.transform(polygons_, lambda xy: _moved(xy, to_ground))
    made = regular_outlines(there, tolerance=tolerance_m, right_angles=settings.right_angles)
    return np.asarray(shapely.transform(made, lambda xy: _moved(xy, ~to_ground)), dtype=object)


def _moved(xy: NDArray[np.float64], by: Affine) -> NDArray[np.float64]:
    return xy * (by.a, by.e) + (by.c, by.f)


def without_overlaps(polygons_: NDArray[Any], confidence: NDArray[np.float64]) -> NDArray[Any]:
    """Polygons of which the less certain of two that overlap gives way, and keeps its largest part."""
    clear = np.array(polygons_, dtype=object)
    one, other = shapely.STRtree(clear).query(clear, predicate="intersects") if len(clear) else ((), ())
    for a, b in zip(one, other, strict=True):
        if a < b and shapely.relate_pattern(clear[a], clear[b], "T********"):
            loser, winner = (a, b) if np.nan_to_num(confidence[a]) < np.nan_to_num(confidence[b]) else (b, a)
            parts = shapely.get_parts(shapely.difference(clear[loser], clear[winner]))
            parts = parts[shapely.get_dimensions(parts) == 2] if len(parts) else parts  # noqa: PLR2004 - polygons
            clear[loser] = parts[shapely.area(parts).argmax()] if len(parts) else shapely.Polygon()
    return clear


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Patches laid side by side with _GAP_PX of nothing between them, so that all are looked at in one go."""

    number: NDArray[np.int32]  # [row, col] number of the patch from 1, 0 between patches
    places: tuple[int, ...]  # Of each patch among all
    windows: tuple[Window, ...]  # Of each patch, on the map
    slots: tuple[Window, ...]  # Of each patch, on the sheet

    @classmethod
    def of(cls, patches: NDArray[Any], places: NDArray[np.int64], grid: Grid) -> _Sheet:
        """A sheet of some of the patches, whose corners are those of pixels: the tall ones first, in rows."""
        xy, owner = shapely.get_coordinates(patches[places], return_index=True)
        inverse = ~grid.transform
        corners = np.rint(np.stack([inverse.e * xy[:, 1] + inverse.f, inverse.a * xy[:, 0] + inverse.c], axis=1))
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        low, high = np.minimum.reduceat(corners, first), np.maximum.reduceat(corners, first)
        sizes = (high - low).astype(np.int64)
        wide = max(int(sizes[:, 1].max()), int(np.sqrt(np.prod(sizes + _GAP_PX, axis=1).sum()))) + _GAP_PX
        slot = np.zeros_like(sizes)
        row, col, tallest = _GAP_PX, _GAP_PX, 0
        for k in np.argsort(-sizes[:, 0], kind="stable"):
            if col + sizes[k, 1] > wide and col > _GAP_PX:
                row, col, tallest = row + tallest + _GAP_PX, _GAP_PX, 0
            slot[k], col, tallest = (row, col), col + sizes[k, 1] + _GAP_PX, max(tallest, sizes[k, 0])
        moved = shapely.set_coordinates(patches[places], (corners + (slot - low)[owner])[:, ::-1])
        shape = row + tallest + _GAP_PX, int((slot + sizes)[:, 1].max()) + _GAP_PX
        pairs = zip(moved, range(1, len(places) + 1), strict=True)
        number = rasterize(pairs, out_shape=shape, dtype="int32")
        windows, slots = (tuple(Window(*four) for four in np.hstack([corner, sizes]).astype(int).tolist())
                          for corner in (low, slot))  # fmt: skip
        return cls(number, tuple(places.tolist()), windows, slots)

    def confidence(self, pixels: PixelRows | None) -> NDArray[np.float64]:
        """Confidence float64 [row, col] in 0..1 of the patches and around them; NaN for nodata, 1 without a layer."""
        sure = np.ones(self.number.shape)
        for window, slot in zip(self.windows, self.slots, strict=True):
            if pixels is not None:
                percent = pixels.read(window)
                sure[slot.slices] = np.where(percent == PERCENT_NODATA, np.nan, percent / 100.0)
        return sure


def _parts(
    patches: NDArray[Any], grid: Grid, confidence: PixelRows | None, *, separate: bool, minimum_m2: float
) -> Iterator[tuple[int, Any, float]]:
    """The objects of patches, along pixel edges, each with its patch's place and its mean confidence in percent."""
    bounds = shapely.bounds(patches).reshape(-1, 4)
    size_px = np.prod(bounds[:, 2:] - bounds[:, :2] + 1e-9, axis=1) / float(np.prod(grid.pixel_size))
    small = np.flatnonzero(size_px <= _LARGEST_PX)
    portion = np.cumsum(size_px[small]) // _SHEET_PX
    minimum_px = minimum_m2 / float(np.prod(grid.pixel_size_m))
    for places in np.split(small, np.flatnonzero(np.diff(portion)) + 1) if len(small) else ():
        sheet = _Sheet.of(patches, places, grid)
        sure = sheet.confidence(confidence)
        height = _heights(sheet.number > 0, np.nan_to_num(sure)) if separate else np.zeros(sheet.number.shape)
        seeds, several = _seeds(height, sheet.number) if separate else (sheet.number, np.zeros(len(places), bool))
        mean = _means(sure, sheet.number) if confidence is not None else np.full(len(places) + 1, np.nan)
        for k, (place, window, slot) in enumerate(zip(sheet.places, sheet.windows, sheet.slots, strict=True), 1):
            if not several[k - 1]:
                yield place, patches[place], float(mean[k])
                continue
            inside = sheet.number[slot.slices] == k
            number = _numbered(inside, seeds[slot.slices], height[slot.slices], minimum_px=minimum_px)
            rings: dict[int, list[Any]] = {}
            for item, value in shapes(number, mask=inside, transform=grid.crop(window).transform):
                rings.setdefault(int(value), []).append(shapely.geometry.shape(item))
            own = _means(sure[slot.slices], number)
            for value, outlines in rings.items():
                sole = [patches[place]] if len(rings) == 1 else outlines
                yield place, max(sole, key=shapely.area), float(own[value]) if confidence is not None else np.nan
    yield from ((int(place), patches[place], np.nan) for place in np.flatnonzero(size_px > _LARGEST_PX))


def _means(sure: NDArray[np.float64], number: NDArray[np.int32]) -> NDArray[np.float64]:
    """Mean confidence in percent, float64 [number], of the pixels of each number; NaN where none has any."""
    known = np.isfinite(sure)
    count = np.bincount(number[known], minlength=int(number.max()) + 1)
    total = np.bincount(number[known], sure[known], minlength=len(count))
    return np.asarray(np.where(count > 0, 100 * total / np.maximum(count, 1), np.nan))


def split_patch(mask: NDArray[np.bool_], sure: NDArray[np.float64], *, minimum_px: float) -> NDArray[np.int32]:
    """Number the objects of one patch.

    ``mask`` is bool [row, col], ``sure`` the confidence float64 [row, col] in 0..1; objects below ``minimum_px`` are
    none.

    Returns:
        int32 [row, col]; 0 outside, 1 and on inside.
    """
    inside = np.pad(mask, 1)
    height = _heights(inside, np.pad(sure, 1))
    seeds, _ = _seeds(height, inside.astype(np.int32))
    return _numbered(inside, seeds, height, minimum_px=minimum_px)[1:-1, 1:-1]


def _heights(inside: NDArray[np.bool_], sure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the edge times confidence, float64 [row, col]; nothing of a patch may lie on the rim."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    smooth = gaussian_filter(np.where(inside, sure, 0.0), _SMOOTH_PX)
    share = gaussian_filter(inside.astype(np.float64), _SMOOTH_PX)
    return np.asarray(distance_transform_edt(inside) * np.where(inside, smooth / np.maximum(share, 1e-9), 0.0))


def _numbered(
    inside: NDArray[np.bool_], seeds: NDArray[np.int32], height: NDArray[np.float64], *, minimum_px: float
) -> NDArray[np.int32]:
    """Objects of one patch int32 [row, col] that grow from seeds; those below ``minimum_px`` go to their neighbours."""
    used = np.unique(seeds[seeds > 0])
    seeds = np.where(seeds > 0, np.searchsorted(used, seeds) + 1, 0).astype(np.int32)
    while seeds.max() > 1:
        number = np.where(inside, _flooded(seeds, height), 0).astype(np.int32)
        size = np.bincount(number.ravel(), minlength=seeds.max() + 1)[1:]
        if size.min() >= minimum_px:
            return number
        gone = int(size.argmin()) + 1
        seeds = np.where(seeds == gone, 0, seeds - (seeds > gone)).astype(np.int32)
    return inside.astype(np.int32)


def _flooded(seeds: NDArray[np.int32], height: NDArray[np.float64]) -> NDArray[np.int32]:
    """Watershed int32 [row, col]: from the highest level down, pixels join the nearest that has a number."""
    from scipy.ndimage import distance_transform_edt

    number = seeds
    for level in np.linspace(float(height.max()), 0, _LEVELS):
        near = distance_transform_edt(number == 0, return_distances=False, return_indices=True)
        number = np.where((number == 0) & (height >= level), number[tuple(near)], number)
    return number


def _seeds(
    height: NDArray[np.float64], patch: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:  # fmt: skip
    """Number the peaks of all patches (``patch`` from 1) that a neck below _NECK of the lower one parts [row, col].

    Each patch is flooded from above, level by level: where two islands meet, the lower one is a peak of its own only
    if the water stands below _NECK of it; else it is a part of the other. Above _NECK of the highest no neck counts.

    Returns:
        The numbers, int32 [row, col], and whether a patch has several, bool [patch].
    """
    from scipy.ndimage import label

    at = np.flatnonzero(patch)
    high, own = height.ravel()[at], patch.ravel()[at] - 1
    top = np.zeros(int(patch.max()))
    np.maximum.at(top, own, high)
    levels = np.linspace(top, 0, _LEVELS, endpoint=False)[int(_LEVELS * (1 - _NECK)) :]
    seed = np.zeros(len(at), dtype=np.int32)
    # Of each peak: height, its first pixel in ``at``, whether it is still one of its own.
    peaks, root, alive = np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
    flooded = np.zeros(patch.shape, dtype=np.bool_)
    for level in levels:
        flooded.ravel()[at] = high >= level[own]
        islands, count = label(flooded)
        island = islands.ravel()[at]
        held = np.flatnonzero(alive)
        where = island[root[held]]
        order = np.lexsort((held, peaks[held], where))
        lower = held[order[:-1][where[order][:-1] == where[order][1:]]]
        alive[lower] = level[own[root[lower]]] < _NECK * peaks[lower]
        fresh = np.ones(count + 1, dtype=np.bool_)
        fresh[0] = fresh[where] = False
        highest = np.zeros(count + 1)
        np.maximum.at(highest, island, high)
        new = np.flatnonzero(fresh[island] & (high == highest[island]))
        seed[new] = len(peaks) + np.cumsum(fresh)[island[new]]
        root = np.append(root, new[np.unique(island[new], return_index=True)[1]])
        peaks = np.append(peaks, highest[fresh])
        alive = np.append(alive, np.ones(len(peaks) - len(alive), dtype=np.bool_))
    seed[~np.append(True, alive)[seed]] = 0
    found = np.zeros(patch.shape, dtype=np.int32)
    found.ravel()[at] = seed
    return found, np.bincount(own[root[alive]], minlength=int(patch.max())) > 1


def object_frame(found: Objects, *, crs: CRS, scheme: ClassScheme) -> GeoDataFrame:
    """One row per object: id, class, code, area_m2 (on the ground), confidence (mean, %), vertices, geometry."""
    import geopandas as gpd

    names = {item.code: item.name for item in scheme.classes}
    count = len(found.code)
    area = areas_ha(found.geometry, crs) * SQUARE_METRES_PER_HECTARE if count else np.empty(0)
    return gpd.GeoDataFrame(
        {
            "id": np.arange(1, count + 1, dtype=np.int32),
            "class": np.array([names[int(code)] for code in found.code], dtype=object),
            "code": found.code.astype(np.int32),
            "area_m2": np.round(area, 2),
            "confidence": np.round(found.confidence, 1),
            "vertices": vertices(found.geometry),
        },
        geometry=list(found.geometry),
        crs=str(crs),
    )


def vertices(polygons_: NDArray[Any]) -> NDArray[np.int32]:
    """Corners of each polygon, its holes' too, int32 [polygon]; the closing points do not count."""
    if not len(polygons_):
        return np.empty(0, dtype=np.int32)
    rings = shapely.get_num_interior_rings(polygons_) + 1
    return np.asarray(shapely.get_num_coordinates(polygons_) - rings, dtype=np.int32)


def write_objects(path: Path, frame: GeoDataFrame, *, scheme: ClassScheme, overwrite: bool = True) -> Path:
    """Write objects with their style, as outlines in the colours of their classes.

    Raises:
        OutputError: see :func:`pipeline.files.whole_file`.
    """
    style = qml(categorised("code", scheme_categories(scheme), shape="outline"))
    return write_geopackage(path, [PackageLayer(OBJECTS_LAYER, frame, style)], what="the objects", overwrite=overwrite)
