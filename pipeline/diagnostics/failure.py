"""Where a map fails: near class edges, in small patches, in which blocks, and in which polygons most surely.

Only windows around the reference units are read, so edges and patches are known up to the window's half-width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from scipy.ndimage import distance_transform_edt, label

from pipeline.accuracy.class_maps import grid_of, open_class_map, read_codes
from pipeline.errors import OutputError, ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.labels.outlines import with_areas
from pipeline.legend import NODATA
from pipeline.maps.style import Category, categorised, qml, scheme_categories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.accuracy.assess_reference import ReferenceUnits
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme

HALF_PX = 32
EDGE_LIMITS_PX = (1.5, 3.0, 6.0, 12.0)
PATCH_LIMITS_PX = (5, 25, 100, 500)
# Shares of right units as a map shows them. Limits are our own; colours: ColorBrewer 2.0, RdBu, Apache-2.0.
BAND_LIMITS = (0.5, 0.7, 0.85, 0.95)
BANDS = (
    ("below 50 %", "#b2182b"),
    ("50 to 70 %", "#ef8a62"),
    ("70 to 85 %", "#fddbc7"),
    ("85 to 95 %", "#92c5de"),
    ("95 % and more", "#2166ac"),
)


@dataclass(frozen=True, eq=False)
class AccuracyBy:
    """Share of right units in groups of a property; groups without units have NaN.

    Attributes:
        what: The property.
        labels: Groups.
        accuracy: float64 [group].
        count: int64 [group].
    """

    what: str
    labels: tuple[str, ...]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    def to_json(self) -> dict[str, object]:
        """JSON-ready; None for groups without units."""
        shares = [None if np.isnan(value) else float(value) for value in self.accuracy]
        return {"what": self.what, "groups": list(self.labels), "accuracy": shares, "count": self.count.tolist()}


def surroundings(
    map_path: Path | str, row: NDArray[np.integer], col: NDArray[np.integer], *, half_px: int = HALF_PX
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance in pixels to the nearest pixel of another class, and pixels of the patch, of single pixels.

    Both are cut at the window: distances at ``half_px``, patches at what lies within (2 half_px + 1) squared.
    """
    distance, patch = np.empty(len(row)), np.empty(len(row), dtype=np.int64)
    with open_class_map(map_path) as dataset:
        whole = Window(0, 0, dataset.height, dataset.width)
        for i, (r, c) in enumerate(zip(row.tolist(), col.tolist(), strict=True)):
            window = Window(r, c, 1, 1).expand(half_px).intersect(whole)
            if window is None:
                raise ReferenceDataError("pixel outside the map", got=f"row {r}, column {c}")
            codes = read_codes(dataset, window)
            here = r - window.row, c - window.col
            same = codes == codes[here]
            distance[i] = float(half_px) if same.all() else min(distance_transform_edt(same)[here], float(half_px))
            groups, _ = label(same)
            patch[i] = np.count_nonzero(groups == groups[here])
    return distance, patch


def accuracy_by(
    values: NDArray[np.number[Any]], correct: NDArray[np.bool_], *, limits: Sequence[float], what: str
) -> AccuracyBy:
    """Share of right units between ascending limits of a value."""
    group = np.searchsorted(limits, values, side="right")
    count = np.bincount(group, minlength=len(limits) + 1)
    with np.errstate(invalid="ignore"):
        share = np.bincount(group, weights=correct, minlength=len(limits) + 1) / count
    inner = [f"{low:g}-{high:g}" for low, high in pairwise(limits)]
    return AccuracyBy(what, (f"< {limits[0]:g}", *inner, f">= {limits[-1]:g}"), share, count.astype(np.int64))


def where_it_fails(map_path: Path | str, units: ReferenceUnits) -> tuple[AccuracyBy, AccuracyBy]:
    """Accuracy by distance to the class edge and by size of the map's patch, both in pixels, from point units."""
    distance, patch = surroundings(map_path, units.row, units.col)
    right = units.map_code == units.reference_code
    return (
        accuracy_by(distance, right, limits=EDGE_LIMITS_PX, what="pixels to the nearest other class"),
        accuracy_by(patch, right, limits=PATCH_LIMITS_PX, what="pixels of the map's patch"),
    )


def write_block_accuracy(
    path: Path, units: ReferenceUnits, *, grid: Grid, block_px: int, overwrite: bool = False
) -> int:
    """Write squares of ``block_px`` pixels with units, right units, their share and its band; returns their number.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    import geopandas
    from shapely.geometry import box

    right = units.map_code == units.reference_code
    across = -(-grid.width // block_px)
    block = (units.row // block_px).astype(np.int64) * across + units.col // block_px
    present, index = np.unique(block, return_inverse=True)
    count, hits = np.bincount(index), np.bincount(index, weights=right)
    shapes = []
    for number in present.tolist():
        top, left = (part * block_px for part in divmod(number, across))
        window = Window(top, left, min(block_px, grid.height - top), min(block_px, grid.width - left))
        shapes.append(box(*grid.crop(window).bounds))
    share = hits / count
    bands = [BANDS[i][0] for i in np.searchsorted(BAND_LIMITS, share, side="right")]
    table = {"units": count, "right": hits.astype(np.int64), "accuracy": share, "band": bands}
    _write(geopandas.GeoDataFrame(table, geometry=shapes, crs=grid.crs.to_wkt()), path, "blocks", overwrite=overwrite)
    return len(present)


def block_style() -> str:
    """QML of the layer of blocks: red where the map fails, blue where it is right."""
    return qml(categorised("band", [Category(name, name, color) for name, color in BANDS]))


def wrong_style(scheme: ClassScheme) -> str:
    """QML of the layer of wrong polygons: outlines in the colour of the class that the map calls them."""
    return qml(categorised("mapped_as", scheme_categories(scheme, by_name=True), shape="outline"))


def write_surely_wrong(
    path: Path,
    polygons: GeoDataFrame,
    *,
    pixels: LabelledPixels,
    map_path: Path | str,
    confidence_path: Path | str,
    scheme: ClassScheme,
    overwrite: bool = False,
) -> int:
    """Write labelled polygons that the map calls something else, the most confident first; returns their number.

    The field ``sureness`` is the sum of confidence over wrong pixels by all labelled pixels of the polygon, 0..1: near
    1, either the label or the model is badly wrong, and somebody should look. Points are written as the outline of the
    pixels they label.

    Args:
        path: GeoPackage to write.
        polygons: Rows of ``Labels.frame``; the field ``polygon`` of what is written is their ``poly_id``.
        pixels: Labelled pixels on the map's grid; polygons without any are left out.
        map_path: The class map.
        confidence_path: Confidence in percent, uint8, nodata 255, on the same grid.
        scheme: The map's legend.
        overwrite: Replace an existing file.

    Raises:
        OutputError: the file exists or cannot be written.
        ReferenceDataError: confidence on another grid than the map.
    """
    import geopandas

    rows: list[dict[str, object]] = []
    with open_class_map(map_path) as dataset, rasterio.open(confidence_path) as layer:
        grid = grid_of(dataset)
        if not grid_of(layer).same_pixels_as(grid):
            raise ReferenceDataError("confidence lies on another grid than the map", path=confidence_path)
        for number, code, window, own in _by_polygon(pixels):
            confidence = layer.read(1, window=window.to_rasterio())[own]
            found = _wrongness(read_codes(dataset, window)[own], confidence, code=code, scheme=scheme)
            if found is not None:
                rows.append({"polygon": number} | found)
    rows.sort(key=lambda item: -float(str(item["sureness"])))
    ids = [item["polygon"] for item in rows]
    chosen = polygons[polygons["poly_id"].isin(ids)]
    shapes = with_areas(chosen, [pixels]).to_crs(grid.crs.to_wkt()).set_index("poly_id").geometry
    names = ("polygon", "label", "mapped_as", "pixels", "wrong_share", "sureness")
    table = {name: [item[name] for item in rows] for name in names}
    frame = geopandas.GeoDataFrame(table, geometry=list(shapes.loc[ids]), crs=grid.crs.to_wkt())
    _write(frame, path, "surely_wrong", overwrite=overwrite)
    return len(rows)


def _by_polygon(pixels: LabelledPixels) -> Iterator[tuple[int, int, Window, tuple[NDArray[Any], NDArray[Any]]]]:
    """Each polygon that has pixels: id, code, the window that holds them, and their rows and columns in it."""
    order = np.argsort(pixels.polygon, kind="stable")
    ids, starts, counts = np.unique(pixels.polygon[order], return_index=True, return_counts=True)
    for number, start, count in zip(ids.tolist(), starts, counts, strict=True):
        own = order[start : start + count]
        row, col = pixels.row[own], pixels.col[own]
        top, left = int(row.min()), int(col.min())
        window = Window(top, left, int(row.max()) - top + 1, int(col.max()) - left + 1)
        yield number, int(pixels.code[own[0]]), window, (row - top, col - left)


def _wrongness(
    mapped: NDArray[np.uint8], confidence: NDArray[np.uint8], *, code: int, scheme: ClassScheme
) -> dict[str, object] | None:
    """What the map says on the pixels of one label, and how surely; None where it says nothing else than the label."""
    usable = (mapped != NODATA) & (confidence <= 100)  # noqa: PLR2004 - percent
    wrong = usable & (mapped != code)
    if not wrong.any():
        return None
    counts = np.bincount(mapped[wrong], minlength=256)
    return {
        "label": scheme.by_code(code).name,
        "mapped_as": scheme.by_code(int(counts.argmax())).name,
        "pixels": int(usable.sum()),
        "wrong_share": float(wrong.sum() / usable.sum()),
        "sureness": float(confidence[wrong].sum() / 100 / usable.sum()),
    }


def _write(frame: Any, path: Path, layer: str, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputError("file exists", path=path, fix="pass --overwrite")
    path.unlink(missing_ok=True)
    try:
        frame.to_file(path, layer=layer, driver="GPKG", engine="pyogrio")
    except OSError as err:
        raise OutputError("polygons cannot be written", path=path, got=err) from err
