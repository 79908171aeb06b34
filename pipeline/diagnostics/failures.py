"""Where a map fails on test polygons: near class edges, in small patches, in which blocks, in which polygons surely.

Only windows around the test pixels are read, so edges and patches are known up to the window's half-width. Held-out
training polygons are no probability sample: they show where to look, not how good the map is there. The figures and
every row of the files carry that label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from pipeline.accuracy.class_maps import open_class_map, read_codes
from pipeline.diagnostics.scoring import at_pixels
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.labels.rasterise import LabelledPixels, with_areas
from pipeline.legend import NODATA, ClassScheme
from pipeline.maps.style import Category, categorised, qml, scheme_categories
from pipeline.maps.vectors import PackageLayer, write_geopackage

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


LABEL = "not a probability sample"
BLOCKS, SURELY_WRONG = "block_accuracy.gpkg", "surely_wrong.gpkg"
# Test pixels of a scene whose surroundings are looked at, drawn at random: a window of the map is read for each.
SURROUNDED_PIXELS = 2000
# Side of the squares where the split has no blocks.
BLOCK_PX = 256
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
    """Share of right units in groups of a property; groups without units have NaN."""

    what: str  # The property
    labels: tuple[str, ...]  # Groups
    accuracy: NDArray[np.float64]  # [group]
    count: NDArray[np.int64]  # [group]

    def to_json(self) -> dict[str, object]:
        """JSON-ready; None for groups without units."""
        shares = [None if np.isnan(value) else float(value) for value in self.accuracy]
        return {"what": self.what, "groups": list(self.labels), "accuracy": shares, "count": self.count.tolist()}


@dataclass(frozen=True, eq=False)
class MappedScene:
    """A mapped scene with its test pixels."""

    scene: str  # The scene's id
    pixels: LabelledPixels  # Test pixels on the map's grid
    map_path: Path  # The class map
    confidence_path: Path  # Confidence in percent, uint8, nodata 255, on the same grid


def map_surroundings(
    map_path: Path | str, row: NDArray[np.integer], col: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance in pixels to the nearest pixel of another class, and pixels of the patch, of single pixels.

    Both are cut at the window: distances at HALF_PX, patches at what lies within (2 HALF_PX + 1) squared.
    """
    distance, patch = np.empty(len(row)), np.empty(len(row), dtype=np.int64)
    with open_class_map(map_path) as dataset:
        whole = Window(0, 0, dataset.height, dataset.width)
        for i, (r, c) in enumerate(zip(row.tolist(), col.tolist(), strict=True)):
            window = Window(r, c, 1, 1).expand(HALF_PX).intersect(whole)
            if window is None:
                raise ReferenceDataError("pixel outside the map", got=f"row {r}, column {c}")
            codes = read_codes(dataset, window)
            here = r - window.row, c - window.col
            same = codes == codes[here]
            distance[i] = float(HALF_PX) if same.all() else min(distance_transform_edt(same)[here], float(HALF_PX))
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


def find_failures(
    maps: Sequence[MappedScene], *, polygons: GeoDataFrame, scheme: ClassScheme, block_m: float, seed: int, folder: Path
) -> tuple[dict[str, Any], list[Path]]:
    """Write ``block_accuracy.gpkg`` and ``surely_wrong.gpkg``; gives the figures for ``accuracy.json``, and the files.

    Squares have the side of the blocks of the split, or BLOCK_PX pixels where ``block_m`` is 0.

    Returns:
        {"label", "scenes": {scene: {"by": [accuracy by distance to an edge, by patch size], "blocks": [...]}}}, and the
        files; no files where no test pixel is mapped.

    Raises:
        OutputError: a file cannot be written.
    """
    scenes: dict[str, Any] = {}
    blocks, wrong = [], []
    for item in maps:
        mapped = at_pixels(item.map_path, item.pixels)
        pixels, codes = item.pixels.select(mapped != NODATA), mapped[mapped != NODATA]
        if not len(pixels):
            continue
        right, grid = codes == pixels.code, pixels.grid
        block_px = max(round(block_m / max(grid.pixel_size_m)), 1) if block_m else BLOCK_PX
        squares = block_accuracy(pixels, right, block_px=block_px)
        found = where_it_fails(item.map_path, pixels, right, seed=seed)
        scenes[item.scene] = {"by": [part.to_json() for part in found], "blocks": _rows(squares)}
        blocks.append(squares.assign(scene=item.scene))
        sure = at_pixels(item.confidence_path, item.pixels)
        wrong.append(surely_wrong(item.pixels, mapped, sure, polygons=polygons, scheme=scheme).assign(scene=item.scene))
    if not blocks:
        return {"label": LABEL, "scenes": scenes}, []
    styles = (
        qml(categorised("band", [Category(name, name, color) for name, color in BANDS])),
        qml(categorised("mapped_as", scheme_categories(scheme, by_name=True), shape="outline")),
    )
    layers = (
        PackageLayer("block_accuracy", joined(blocks), styles[0]),
        PackageLayer("surely_wrong", joined(wrong, by="sureness"), styles[1]),
    )
    files = [
        write_geopackage(folder / name, [layer], what="where the map fails")
        for name, layer in zip((BLOCKS, SURELY_WRONG), layers, strict=True)
    ]
    return {"label": LABEL, "scenes": scenes}, files


def where_it_fails(
    map_path: Path | str, pixels: LabelledPixels, right: NDArray[np.bool_], *, seed: int = 0
) -> tuple[AccuracyBy, AccuracyBy]:
    """Accuracy by distance to the class edge and by size of the map's patch, both in pixels.

    Of more than SURROUNDED_PIXELS pixels that many are drawn.
    """
    chosen = np.arange(len(pixels))
    if len(pixels) > SURROUNDED_PIXELS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(pixels), SURROUNDED_PIXELS, replace=False))
    distance, patch = map_surroundings(map_path, pixels.row[chosen], pixels.col[chosen])
    return (
        accuracy_by(distance, right[chosen], limits=EDGE_LIMITS_PX, what="pixels to the nearest other class"),
        accuracy_by(patch, right[chosen], limits=PATCH_LIMITS_PX, what="pixels of the map's patch"),
    )


def block_accuracy(pixels: LabelledPixels, right: NDArray[np.bool_], *, block_px: int) -> GeoDataFrame:
    """Squares of ``block_px`` pixels from the corner of the grid with units, right units, their share and its band."""
    import geopandas
    from shapely.geometry import box

    grid: Grid = pixels.grid
    across = -(-grid.width // block_px)
    block = (pixels.row // block_px).astype(np.int64) * across + pixels.col // block_px
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
    return geopandas.GeoDataFrame(table, geometry=shapes, crs=grid.crs.to_wkt())


def _rows(squares: GeoDataFrame) -> list[dict[str, Any]]:
    """Blocks as rows of JSON: bounds in the map's CRS, units, share right."""
    return [
        {"bounds": [float(value) for value in row.geometry.bounds], "units": int(row.units), "accuracy": row.accuracy}
        for row in squares.itertuples()
    ]


def surely_wrong(
    pixels: LabelledPixels, mapped: NDArray[np.uint8], confidence: NDArray[np.uint8],
    *, polygons: GeoDataFrame, scheme: ClassScheme,
) -> GeoDataFrame:  # fmt: skip
    """Labelled polygons that the map calls something else, the most confident first.

    The field ``sureness`` is the sum of confidence over wrong pixels by all labelled pixels of the polygon, 0..1: near
    1, either the label or the model is badly wrong, and somebody should look. Points are drawn as the outline of the
    pixels they label.
    ``mapped`` and ``confidence`` (per cent, 255 nodata) are uint8 [pixel].
    """
    import geopandas
    import pandas as pd

    table = pd.DataFrame({
        "polygon": pixels.polygon, "code": pixels.code, "mapped": mapped, "sureness": confidence / 100
    })  # fmt: skip
    table = table[(mapped != NODATA) & (confidence <= 100)]  # noqa: PLR2004 - percent
    pixels_of = table.groupby("polygon").size().rename("pixels")
    wrong = table[table["mapped"] != table["code"]].groupby("polygon")
    rows = wrong.agg(
        code=("code", "first"), mapped_as=("mapped", lambda codes: codes.mode()[0]), wrong_share=("mapped", "size"),
        sureness=("sureness", "sum"),
    )  # fmt: skip
    rows = rows.join(pixels_of)
    rows[["wrong_share", "sureness"]] = rows[["wrong_share", "sureness"]].div(rows["pixels"], axis=0).astype(float)
    names = {item.code: item.name for item in scheme.classes}
    rows = rows.assign(label=rows["code"].map(names), mapped_as=rows["mapped_as"].map(names))
    rows = rows.sort_values("sureness", ascending=False, kind="stable").reset_index()
    crs = pixels.grid.crs.to_wkt()
    chosen = with_areas(polygons[polygons["poly_id"].isin(rows["polygon"])], [pixels]).to_crs(crs)
    shapes = chosen.set_index("poly_id").geometry.loc[rows["polygon"]]
    fields = ["polygon", "label", "mapped_as", "pixels", "wrong_share", "sureness"]
    return geopandas.GeoDataFrame(rows[fields], geometry=list(shapes), crs=crs)


def joined(parts: Sequence[GeoDataFrame], *, by: str | None = None) -> GeoDataFrame:
    """The rows of all scenes in the CRS of the first, labelled; the largest of a field first."""
    import geopandas
    import pandas as pd

    rows = pd.concat([part.to_crs(parts[0].crs) for part in parts], ignore_index=True)
    if by is not None:
        rows = rows.sort_values(by, ascending=False, ignore_index=True)
    return geopandas.GeoDataFrame(rows.assign(sampling=LABEL), geometry="geometry", crs=parts[0].crs)
