"""Class rasters as labels: an existing map, or polygons that somebody burned; connected pixels are the polygons.

Of a whole map, pieces of its classes are drawn at random.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import LabelError, LabelWarning
from pipeline.grid import Grid, Window
from pipeline.labels.rasterise import EDGE_CAP_PX, LabelledPixels, pixel_outlines
from pipeline.labels.source import LabelReport, Labels
from pipeline.legend import NODATA, UNLABELLED, ClassScheme
from pipeline.raster import burn_shapes, on_grid, open_raster

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2", ".asc"})
_STRIP_PX = 8_000_000
# Values without a class that a message names, the lowest ones.
_SHOWN = 10


def is_class_raster(path: Path | str) -> bool:
    """Whether a labels file is a raster by its name."""
    return Path(path).suffix.lower() in RASTER_SUFFIXES


def read_map_labels(
    path: Path | str,
    *, scheme: ClassScheme, extents: Sequence[tuple[tuple[float, float, float, float], str]], piece_px: int,
    pieces: int, aliases: Mapping[str, str] | None = None,
) -> Labels:  # fmt: skip
    """Polygons of a class raster, whose values are codes of ``scheme``.

    Connected pixels of one class, cut along a lattice so that a large region becomes many polygons that can be split
    into parts, are pieces; at most ``pieces`` of each class are drawn at random. Polygons follow the map's own pixels,
    in its own CRS. Only the part over the scenes is read.

    Args:
        path: The raster; integers, with a CRS.
        scheme: The classes; other values are unlabelled.
        extents: Bounds (left, bottom, right, top) and CRS of each scene.
        piece_px: Side of the lattice in pixels of the map.
        pieces: Most polygons of a class.
        aliases: Value of the raster -> class name, for values that are no codes of a map; "" leaves a value out.

    Raises:
        LabelError: not a class raster, not over the scenes, or without a class of the legend.
    """
    path = Path(path)
    grid, footprints = _part_over(path, extents)
    pixels = labels_from_raster(
        path, scheme=scheme, grid=grid, piece_px=piece_px, aliases=aliases, footprints=footprints
    )
    ids, first = np.unique(pixels.polygon, return_index=True)
    code = pixels.code[first]
    order = np.random.default_rng(0).permutation(len(ids))
    kept = np.sort(np.concatenate([order[code[order] == value][:pieces] for value in np.unique(code)]))
    outlines = pixel_outlines(pixels, ids[kept])
    import geopandas as gpd

    names = {item.code: item.name for item in scheme.classes}
    frame = gpd.GeoDataFrame(
        {
            "poly_id": np.arange(1, len(kept) + 1, dtype=np.int32),
            "code": code[kept],
            "name": [names[int(value)] for value in code[kept]],
            "feature": ids[kept].astype(np.int64) - 1,
        },
        geometry=outlines,
        crs=str(grid.crs),
    )
    count = len(kept)
    return Labels(path, frame, scheme, LabelReport(count, 0, 0, 0, 0, 0, 0, count))


def _part_over(path: Path, extents: Sequence[tuple[tuple[float, float, float, float], str]]) -> tuple[Grid, list[Any]]:
    """The raster's grid, cropped to the bounds of all scenes; and the scenes' footprints in its CRS."""
    with _open(path) as file:
        grid = Grid.of(file).north_up()
    grid.check_place(what="class raster", path=path, error=LabelError)
    footprints = [_footprint(bounds, of, grid) for bounds, of in extents]
    windows = [grid.window_of_bounds(footprint.bounds) for footprint in footprints]
    over = [window for window in windows if window is not None]
    if not over:
        raise LabelError("the map does not lie over the scenes", path=path, fix="check the CRS of both files")
    top, left = min(w.row for w in over), min(w.col for w in over)
    bottom, right = max(w.row_stop for w in over), max(w.col_stop for w in over)
    return grid.crop(Window(top, left, bottom - top, right - left)), footprints


def _footprint(bounds: tuple[float, float, float, float], crs: str, grid: Grid) -> Any:
    """The ground of a scene in the CRS of ``grid``, its sides bent as they are there."""
    import geopandas as gpd

    side = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    return gpd.GeoSeries([shapely.segmentize(shapely.box(*bounds), side / 64)], crs=crs).to_crs(str(grid.crs)).iloc[0]


def _open(path: Path) -> DatasetReader:
    file = open_raster(path, error=LabelError)
    if file.crs is None:
        raise LabelError("class raster has no CRS", path=path, fix="assign one with gdal_edit.py -a_srs")
    return file


def labels_from_raster(
    path: Path | str,
    *, scheme: ClassScheme, grid: Grid, piece_px: int | None = None, aliases: Mapping[str, str] | None = None,
    footprints: Sequence[Any] | None = None,
) -> LabelledPixels:  # fmt: skip
    """The pixels of a class raster that have a code of ``scheme``, on ``grid`` (nearest neighbour where it differs).

    Pixels of one code that touch at an edge are one polygon, numbered from north-west to south-east; with ``piece_px``
    these are also cut along a lattice, so that a wall-to-wall map has polygons of a size that can be split. The
    raster's nodata, 0, 255 and codes that are no class are unlabelled, as is what lies in none of ``footprints``,
    shapes in the raster's CRS. It is read in strips: memory grows with the labelled pixels only.

    Raises:
        LabelError: not a raster, no CRS, not integers, an alias of what is no integer, or no pixel with a code of the
            scheme.
    """
    path = Path(path)
    parts: list[tuple[NDArray[Any], ...]] = []
    links: list[NDArray[np.int64]] = []
    strange: list[int] = []
    count, above = 0, None
    renamed = _renamed(path, aliases or {}, scheme)
    left_out = [value for value, code in renamed.items() if code == UNLABELLED]
    for strip, codes, values in _strips(path, grid, renamed):
        known = scheme.code_to_index[codes] != UNLABELLED
        # Of the values as they are in the file: as codes, those that no uint8 holds look like unlabelled ones.
        other = np.unique(values[~known & (codes != NODATA) & (values != UNLABELLED)]).tolist()
        strange = sorted({*strange, *other}.difference(left_out))[:_SHOWN]
        inner = strip.row - max(strip.row - EDGE_CAP_PX, 0)
        body = np.where(known, codes, 0).astype(np.uint8)
        edge = _edges(body)
        body, edge = body[inner : inner + strip.height], edge[inner : inner + strip.height]
        if footprints is not None:
            body = body * burn_shapes(footprints, grid.crop(strip))
        component, found = _components(body, first=count, top=strip.row, piece_px=piece_px)
        count += found
        if above is not None and (piece_px is None or strip.row % piece_px):
            joined = (above[0] == body[0]) & (body[0] > 0)
            links.append(np.stack([above[1][joined], component[0][joined]]))
        above = body[-1].copy(), component[-1].copy()
        rows, cols = np.nonzero(body)
        parts.append((rows + strip.row, cols, body[rows, cols], component[rows, cols], edge[rows, cols]))
    if count == 0:
        got = f"values {strange}" if strange else "nodata only"
        what = "class raster has no pixel of a class of the legend over the scene"
        raise LabelError(what, path=path, got=got, expected=f"codes {', '.join(map(str, scheme.codes))}")
    if strange:
        text = f"{path}: values {strange} are not in the legend and are left unlabelled"
        warnings.warn(text, LabelWarning, stacklevel=2)
    row, col, code, component, edge = (np.concatenate(column) for column in zip(*parts, strict=True))
    polygon = _number(component, links, count)
    return LabelledPixels(
        row.astype(np.int32), col.astype(np.int32), code.astype(np.uint8), polygon, edge.astype(np.uint8), grid
    )


def _renamed(path: Path, aliases: Mapping[str, str], scheme: ClassScheme) -> dict[int, int]:
    """Value of the raster -> code of its class, UNLABELLED for values that are left out."""
    renamed = {}
    for value, name in aliases.items():
        try:
            number = int(value)
        except ValueError:
            what, got = "alias of a class raster", repr(value)
            fix = "write labels.aliases as value: class"
            raise LabelError(what, path=path, got=got, expected="a value of the raster, an integer", fix=fix) from None
        renamed[number] = scheme.by_name(name).code if name else UNLABELLED
    return renamed


def _strips(
    path: Path, grid: Grid, renamed: Mapping[int, int]
) -> Iterator[tuple[Window, NDArray[np.uint8], NDArray[Any]]]:
    """Strips of the grid; of each, with EDGE_CAP_PX rows around it where there are any, codes and the file's values."""
    with _open(path) as file:
        if np.dtype(file.dtypes[0]).kind not in "ui":
            raise LabelError("class raster without integer codes", path=path, got=file.dtypes[0], expected="uint8")
        with on_grid(file, grid) as aligned:
            height = max(_STRIP_PX // grid.width, 1)
            for start in range(0, grid.height, height):
                strip = Window(start, 0, min(height, grid.height - start), grid.width)
                top, bottom = max(start - EDGE_CAP_PX, 0), min(strip.row_stop + EDGE_CAP_PX, grid.height)
                around = Window(top, 0, bottom - top, grid.width)
                values = aligned.read(1, window=around.to_rasterio())
                yield strip, _codes(values, file.nodata, renamed), values


def _codes(values: NDArray[Any], nodata: float | None, renamed: Mapping[int, int]) -> NDArray[np.uint8]:
    codes = np.where((values < 0) | (values > UNLABELLED), UNLABELLED, values).astype(np.uint8)
    if nodata is not None:
        codes[values == nodata] = NODATA
    for value, code in renamed.items():
        codes[values == value] = code
    return codes


def _edges(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Chessboard distance to the nearest pixel of another code, at most EDGE_CAP_PX; the array's rim is no edge."""
    from scipy.ndimage import distance_transform_cdt

    distance = np.zeros(codes.shape, dtype=np.uint8)
    padded = np.pad(codes, EDGE_CAP_PX, mode="edge")
    for code in np.unique(codes[codes > 0]):
        own = distance_transform_cdt(padded == code, metric="chessboard") if (padded != code).any() else EDGE_CAP_PX
        inside = codes == code
        inner = slice(EDGE_CAP_PX, -EDGE_CAP_PX)
        distance[inside] = EDGE_CAP_PX if isinstance(own, int) else np.minimum(own[inner, inner][inside], EDGE_CAP_PX)
    return distance


def _components(
    codes: NDArray[np.uint8], *, first: int, top: int, piece_px: int | None
) -> tuple[NDArray[np.int64], int]:
    """Component of every pixel, numbered from ``first``, -1 where unlabelled; and how many there are."""
    from scipy.ndimage import label

    component = np.full(codes.shape, -1, dtype=np.int64)
    count = 0
    for code in np.unique(codes[codes > 0]):
        numbered, found = label(codes == code)
        inside = numbered > 0
        component[inside] = numbered[inside] - 1 + first + count
        count += found
    if piece_px is None or count == 0:
        return component, count
    rows, cols = np.nonzero(component >= 0)
    key = np.stack([component[rows, cols], (rows + top) // piece_px, cols // piece_px], axis=1)
    unique, number = np.unique(key, axis=0, return_inverse=True)
    component[rows, cols] = number.ravel() + first
    return component, len(unique)


def _number(component: NDArray[np.int64], links: list[NDArray[np.int64]], count: int) -> NDArray[np.int32]:
    """Polygon ids from 1 in order of first pixel, components that touch across strips made one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate(links, axis=1) if links else np.empty((2, 0), dtype=np.int64)
    graph = coo_matrix((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(count, count))
    root = connected_components(graph, directed=False)[1][component]
    _, first, number = np.unique(root, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1, dtype=np.int32)
    ids: NDArray[np.int32] = rank[number]
    return ids
