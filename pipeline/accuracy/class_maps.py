"""Read class maps: single pixels by the blocks that hold them, whole maps by strips of rows, on any other map's pixels.

Public maps have codes beyond 255 (CORINE: 111 to 523), negative ones, or a class 0 (Dynamic World: water). The values
of such a raster get slots 1, 2, ... in the order in which they are met; slot 0 is what the file declares as nodata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipeline.errors import ReferenceDataError, SceneError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, UNLABELLED, ClassScheme
from pipeline.maps.legends import read_scheme
from pipeline.process import silenced
from pipeline.raster import as_error, on_grid, require_regular

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT


STRIP_PIXELS = 4_000_000
CODES = 256
BLOCK_PX = 256
MAX_VALUES = 254
RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2"})
# Drivers that also open points in a text file, and files of polygons that hold a picture.
_NO_RASTER = frozenset({"XYZ", "GPKG"})
# GDAL would keep decoded blocks in 5 % of the machine's memory; a pass over a map uses each block once.
CACHE_MB = 64
# Stratum of pixels that are in none.
OUTSIDE = -1


class StrataLayer(Protocol):
    """Strata of a map: what samples are drawn from."""

    source: str

    def read(self, window: Window) -> NDArray[np.int32]:
        """Stratum int32 [row, col] of every pixel of a window inside the map, OUTSIDE where there is none."""

    def name(self, value: int) -> str:
        """What a stratum is called."""


@contextmanager
def open_class_map(path: Path | str) -> Iterator[DatasetReader]:
    """A uint8 class map with CRS and geotransform, open for reading.

    Raises:
        SceneError: not a raster, without CRS, or not one of class codes.
    """
    require_regular(path, error=SceneError)
    with silenced(NotGeoreferencedWarning), as_error(SceneError, "not a map that GDAL can open", path=path):
        dataset = rasterio.open(path)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB), dataset:
        if dataset.crs is None or dataset.transform.is_identity:
            raise SceneError("map has no CRS or no geotransform", path=path, fix="set it with gdal_edit.py -a_srs")
        if dataset.dtypes[0] != "uint8":
            raise SceneError("map is not one of class codes", path=path, got=dataset.dtypes[0], expected="uint8")
        yield dataset


def is_raster(path: Path | str) -> bool:
    """Whether a file is a raster: by its usual name, also where it is broken, else by what GDAL makes of it."""
    if Path(path).suffix.lower() in RASTER_SUFFIXES:
        return True
    require_regular(path, error=ReferenceDataError)
    try:
        with silenced(NotGeoreferencedWarning), rasterio.open(path) as dataset:
            return dataset.driver not in _NO_RASTER
    except RasterioError:
        return False


def read_grid(path: Path | str) -> Grid:
    """The grid of a class map."""
    with open_class_map(path) as dataset:
        return Grid.of(dataset)


def map_names(first: Path | str, second: Path | str) -> tuple[str, str]:
    """File names of two maps; of equal ones the paths from the first folder on that differs.

    >>> map_names("out/run_a/maps/lc.tif", "out/run_b/maps/lc.tif")
    ('run_a/maps/lc.tif', 'run_b/maps/lc.tif')
    """
    one, two = Path(first).absolute().parts, Path(second).absolute().parts
    if one[-1] != two[-1] or one == two:
        return one[-1], two[-1]
    same = next(number for number, pair in enumerate(zip(one, two, strict=False)) if len(set(pair)) > 1)
    return Path(*one[same:]).as_posix(), Path(*two[same:]).as_posix()


def map_scheme(path: Path | str, scheme: ClassScheme | None) -> ClassScheme:
    """The legend of a map: the one given, else the one written in the file."""
    return scheme or read_scheme(Path(path))


def strips(grid: Grid, block_rows: int = 1) -> Iterator[Window]:
    """Windows of whole rows, of about 4 million pixels and a multiple of the file's block height."""
    rows = max(STRIP_PIXELS // grid.width, 1)
    rows = max(rows // block_rows, 1) * block_rows
    for row in range(0, grid.height, rows):
        yield Window(row, 0, min(rows, grid.height - row), grid.width)


def read_codes(dataset: DatasetReader, window: Window) -> NDArray[np.uint8]:
    """Codes uint8 [row, col] of a window; the file's own nodata value reads as NODATA, and so does UNLABELLED.

    Raises:
        SceneError: damaged blocks.
    """
    where = f"rows {window.row}..{window.row_stop}, columns {window.col}..{window.col_stop}"
    with as_error(SceneError, f"cannot read the map at {where}", path=dataset.name):
        codes: NDArray[np.uint8] = dataset.read(1, window=window.to_rasterio())
    return _clean(codes, dataset.nodata)


def _clean(codes: NDArray[np.uint8], nodata: float | None) -> NDArray[np.uint8]:
    table = np.arange(CODES, dtype=np.uint8)
    table[UNLABELLED] = NODATA
    if nodata is not None and 0 <= nodata < CODES:
        table[int(nodata)] = NODATA
    cleaned: NDArray[np.uint8] = table[codes]
    return cleaned


def codes_at(dataset: DatasetReader, row: NDArray[np.integer], col: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Codes uint8 [n] of single pixels inside the map; every block of the file is read at most once, others never."""
    return _clean(values_at(dataset, row, col).astype(np.uint8), dataset.nodata)


def values_at(dataset: DatasetReader | WarpedVRT, row: NDArray[np.integer], col: NDArray[np.integer]) -> NDArray[Any]:
    """Values of band 1 [n] at single pixels, of the raster's own type, read block by block.

    Raises:
        ReferenceDataError: a pixel outside the raster.
    """
    if row.size and (row.min() < 0 or col.min() < 0 or row.max() >= dataset.height or col.max() >= dataset.width):
        raise ReferenceDataError("pixel outside the map", path=dataset.name)
    kind = np.dtype(dataset.dtypes[0])
    read = partial(dataset.read, 1)
    return read_at(lambda window: read(window=window.to_rasterio()), row, col, Grid.of(dataset).shape,
                   block=dataset.block_shapes[0], kind=kind)  # fmt: skip


def read_at(
    read: Callable[[Window], NDArray[Any]], row: NDArray[np.integer], col: NDArray[np.integer], shape: tuple[int, int],
    *, block: tuple[int, int], kind: np.dtype[Any],
) -> NDArray[Any]:  # fmt: skip
    """Values [n] at single pixels of what ``read`` gives for windows; each block that holds one is read once."""
    height, width = block
    number = (row // height).astype(np.int64) * (shape[1] // width + 1) + col // width
    order = np.argsort(number, kind="stable")
    values = np.empty(len(row), dtype=kind)
    for group in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        if group.size:
            top, left = int(row[group[0]] // height * height), int(col[group[0]] // width * width)
            window = Window(top, left, min(height, shape[0] - top), min(width, shape[1] - left))
            values[group] = read(window)[row[group] - top, col[group] - left]
    return values


def class_areas(
    path: Path | str, *, within: StrataLayer | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels int64 [256] and area in ha float64 [256] of every code of a map, read strip by strip.

    With ``within`` they are those of the map inside the strata: pixels without a stratum count as NODATA.
    """
    with open_class_map(path) as dataset:

        def read(window: Window) -> NDArray[np.uint8]:
            codes = read_codes(dataset, window)
            return codes if within is None else np.where(within.read(window) < 0, np.uint8(NODATA), codes)

        return count_strips(dataset, read, size=CODES)


def count_strips(
    dataset: DatasetReader, read: Callable[[Window], NDArray[Any]], *, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels int64 [size] and area in ha float64 [size] of the numbers 0..size-1 that ``read`` gives for windows."""
    grid, pixels, area = Grid.of(dataset), np.zeros(size, dtype=np.int64), np.zeros(size)
    for window in strips(grid, dataset.block_shapes[0][0]):
        found = areas_by_code(read(window), grid.pixel_areas_ha(window), size=size)
        pixels += found[0]
        area += found[1]
    return pixels, area


def byte_profile(grid: Grid, *, nodata: int) -> dict[str, Any]:
    """How a raster of one byte per pixel is written in blocks of BLOCK_PX, for rasterio."""
    return {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": nodata, "compress": "deflate", "tiled": True,
        "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "height": grid.height, "width": grid.width,
        "crs": grid.crs, "transform": grid.transform,
    }  # fmt: skip


def aligned(
    dataset: DatasetReader, grid: Grid, stack: ExitStack, *, empty: float | None = None
) -> DatasetReader | WarpedVRT:
    """A raster on the pixels of ``grid``: itself, or a nearest-neighbour view of it; ``empty`` beyond its edges."""
    if dataset.crs is None:
        raise SceneError("raster has no CRS", path=dataset.name, fix="set it with gdal_edit.py -a_srs")
    if Grid.of(dataset).same_pixels_as(grid):
        return dataset
    return stack.enter_context(on_grid(dataset, grid, nodata=empty))


class SlotReader:
    """Slots uint8 [row, col] of windows; ``values`` grows with what has been read: slot k holds values[k - 1]."""

    def __init__(self, dataset: DatasetReader | WarpedVRT, *, path: Path | str, nodata: float) -> None:
        self.values: list[int] = []
        self._dataset, self._path, self._nodata = dataset, path, nodata

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Slots of a window.

        Raises:
            ReferenceDataError: more values than a legend has.
            SceneError: damaged blocks.
        """
        with as_error(SceneError, "cannot read the raster", path=self._path):
            values = self._dataset.read(1, window=window.to_rasterio())
        inverse, present = pd.factorize(values.ravel())
        slots = np.array([self._slot(int(value)) for value in present], dtype=np.uint8)
        return np.asarray(slots[inverse].reshape(values.shape))

    def _slot(self, value: int) -> int:
        if value == self._nodata:
            return 0
        if value not in self.values:
            if len(self.values) == MAX_VALUES:
                raise ReferenceDataError(
                    f"raster with more than {MAX_VALUES} values is not one of classes", path=self._path
                )
            self.values.append(value)
        return self.values.index(value) + 1


@contextmanager
def open_slots(path: Path | str, grid: Grid | None = None) -> Iterator[SlotReader]:
    """A raster of integers, on its own pixels or by nearest neighbour on those of ``grid``.

    What the file declares as nodata is empty, and so is the largest number of its type (255 of 8 bits).

    Raises:
        SceneError: not a raster, or without CRS.
        ReferenceDataError: not one of integers.
    """
    with ExitStack() as stack:
        with as_error(SceneError, "not a raster that GDAL can open", path=path):
            dataset = stack.enter_context(rasterio.open(path))
        kind = np.dtype(dataset.dtypes[0])
        if not np.issubdtype(kind, np.integer):
            raise ReferenceDataError("raster is not one of classes", path=path, got=kind, expected="integers")
        empty = dataset.nodata if dataset.nodata is not None else float(np.iinfo(kind).max)
        pixels = dataset if grid is None else aligned(dataset, grid, stack, empty=empty)
        yield SlotReader(pixels, path=path, nodata=empty)
