"""Do labels and scene fit together? Errors where nothing can come of it, warnings where something is lost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.grid import Grid
from pipeline.labels.rasterise import LabelledPixels, to_grid_crs
from pipeline.legend import MIN_CLASSES, ClassScheme

if TYPE_CHECKING:
    from pipeline.labels.source import Labels

_SHOWN = 5
CONFLICTS_SHOWN = 10


@dataclass(frozen=True)
class Overlap:
    """How many polygons lie inside the scenes, across the edge, and outside."""

    inside: int  # Wholly in one of the scenes
    partly: int  # Across a scene's edge, in no scene wholly
    outside: tuple[int, ...]  # Ids of polygons that touch no scene


def check_overlap(labels: Labels, grids: Grid | Sequence[Grid]) -> Overlap:
    """Where the polygons lie; a LabelWarning says what is outside or across the edge.

    Raises:
        LabelError: no polygon touches any scene, or there is no way between the two CRS.
    """
    several = [grids] if isinstance(grids, Grid) else list(grids)
    within = np.zeros(len(labels), dtype=np.bool_)
    touching = np.zeros(len(labels), dtype=np.bool_)
    for grid in several:
        shapes = np.asarray(to_grid_crs(labels.frame, grid).geometry.array, dtype=object)
        extent = shapely.box(*grid.bounds)
        within |= shapely.within(shapes, extent)
        touching |= shapely.intersects(shapes, extent)
    if not touching.any():
        got = f"labels in {_place(labels.frame.total_bounds, str(labels.frame.crs))}"
        expected, fix = f"scene in {_place(several[0].bounds, str(several[0].crs))}", "check the CRS of both files"
        raise LabelError("labels lie outside the scene", path=labels.path, got=got, expected=expected, fix=fix)
    several_parts = int((shapely.get_num_geometries(labels.frame.geometry.array) > 1).sum())
    if 2 * several_parts >= len(labels):
        text = f"{several_parts} of {len(labels)} features have several parts, and learn or test as one polygon each"
        _warn(labels, f"{text}; split them (QGIS: Multipart to singleparts) where the parts are fields of their own")
    outside = labels.frame["poly_id"].to_numpy()[~touching]
    overlap = Overlap(int(within.sum()), int((touching & ~within).sum()), tuple(int(i) for i in outside))
    if overlap.outside:
        _warn(labels, f"{len(outside)} of {len(labels)} polygons lie outside the scene and are not used")
    if overlap.partly:
        _warn(labels, f"{overlap.partly} of {len(labels)} polygons reach over the scene's edge and are cut there")
    return overlap


def check_classes(pixels: LabelledPixels | Sequence[LabelledPixels], scheme: ClassScheme) -> dict[str, tuple[int, int]]:
    """(polygons, pixels) of every class of the scheme; LabelWarning for a class that is absent or has one polygon.

    Raises:
        LabelError: fewer than two classes have pixels: nothing to tell apart.
    """
    several = [pixels] if isinstance(pixels, LabelledPixels) else list(pixels)
    polygon = np.concatenate([part.polygon for part in several])
    code = np.concatenate([part.code for part in several])
    found = {
        item.name: (len(np.unique(polygon[code == item.code])), int((code == item.code).sum()))
        for item in scheme.classes
    }
    present = [name for name, (_, count) in found.items() if count]
    if len(present) < MIN_CLASSES:
        wanted = "at least two of " + ", ".join(scheme.names) if len(scheme) > 1 else "a second class in the legend"
        what = "labels of fewer than two classes have pixels in the scene"
        raise LabelError(what, got=", ".join(present) or "none", expected=wanted)
    absent = [name for name in found if name not in present]
    if absent:
        text = f"no labelled pixel of class {', '.join(absent)}: it cannot be mapped; draw polygons of it in the scene"
        warnings.warn(text, LabelWarning, stacklevel=2)
    single = [name for name, (count, _) in found.items() if count == 1]
    if single:
        text = f"one polygon only of class {', '.join(single)}: it can be learned or tested, not both; draw more of it"
        warnings.warn(text, LabelWarning, stacklevel=2)
    return found


def check_usable(shares: Mapping[str, float]) -> None:
    """LabelWarning for each class whose labelled pixels all have no data; ``shares`` of those that have, by class.

    Raises:
        LabelError: that leaves fewer than two classes of several; that there are none is :func:`check_classes`'s.
    """
    left = [name for name, share in shares.items() if share > 0]
    lost = ", ".join(name for name, share in shares.items() if not share)
    if len(shares) > 1 and len(left) < MIN_CLASSES:
        got, expected = ", ".join(left) or "none", "at least two of " + ", ".join(shares)
        fix = "check nodata and masks of the scene, or draw labels where it has data"
        raise LabelError("fewer than two classes have usable pixels", got=got, expected=expected, fix=fix)
    if lost:
        text = f"every labelled pixel of class {lost} has no data or is masked: it cannot be mapped"
        text += "; draw some where the scene has data, or change inputs.mask"
        warnings.warn(text, LabelWarning, stacklevel=3)


def check_pixels(labels: Labels, pixels: LabelledPixels) -> None:
    """LabelWarning for what burning lost: contested pixels, with the polygons, and polygons smaller than a pixel."""
    if pixels.contested_px:
        worst = sorted(pixels.conflicts, key=lambda conflict: -conflict.pixels)[:_SHOWN]
        names = {item.code: item.name for item in labels.scheme.classes}
        shown = ", ".join(
            f"{c.polygons[0]} {names[c.codes[0]]} / {c.polygons[1]} {names[c.codes[1]]} ({c.pixels} px)" for c in worst
        )
        more = f" and {len(pixels.conflicts) - _SHOWN} more pairs" if len(pixels.conflicts) > _SHOWN else ""
        text = f"{pixels.contested_px} pixels are claimed by two classes and left out: polygons {shown}{more}"
        _warn(labels, f"{text}; redraw one of each pair")
    if pixels.too_small:
        ids = ", ".join(map(str, pixels.too_small[:_SHOWN])) + (", ..." if len(pixels.too_small) > _SHOWN else "")
        text = f"{counted(len(pixels.too_small), 'polygon')} without a pixel centre, not used: {ids}"
        _warn(labels, f"{text}; labels.all_touched: true uses the pixels they touch")


def lost_polygons(labels: Labels, burned: Sequence[LabelledPixels], overlap: Overlap) -> dict[str, Any]:
    """Polygons that teach nothing, by cause, with their ids, and pairs of polygons that contradict each other."""
    used = {int(i) for pixels in burned for i in set(pixels.polygon.tolist())}
    small = {i for pixels in burned for i in pixels.too_small} - used
    everyone = {int(i) for i in labels.frame["poly_id"]}
    contested = everyone - used - small - set(overlap.outside)
    names = {item.code: item.name for item in labels.scheme.classes}
    conflicts = sorted((c for pixels in burned for c in pixels.conflicts), key=lambda c: -c.pixels)
    return {
        "outside": sorted(overlap.outside),
        "across_the_edge": overlap.partly,
        "too_small": sorted(small),
        "wholly_contested": sorted(contested),
        "contested_pixels": sum(pixels.contested_px for pixels in burned),
        "conflicts": [
            {"polygons": list(c.polygons), "classes": [names[code] for code in c.codes], "pixels": c.pixels}
            for c in conflicts[:CONFLICTS_SHOWN]
        ],
        "conflicts_in_all": len(conflicts),
    }


def _warn(labels: Labels, text: str) -> None:
    warnings.warn(f"{labels.path}: {text}", LabelWarning, stacklevel=3)


def _place(bounds: NDArray[np.float64] | tuple[float, float, float, float], crs: str) -> str:
    """Bounds in degrees, as two files in different CRS are compared."""
    try:
        degrees = Transformer.from_crs(crs, 4326, always_xy=True).transform_bounds(*bounds)
    except ProjError:
        degrees = tuple(bounds)
    return f"lon {degrees[0]:.3f}..{degrees[2]:.3f}, lat {degrees[1]:.3f}..{degrees[3]:.3f}"
