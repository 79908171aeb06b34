"""Where strata come from: the map's classes, change between two maps, confidence, any raster, any polygons.

A StrataLayer gives the stratum of every pixel of a window as an integer (negative: outside the frame) and its name, so
that designs are drawn strip by strip and no layer is ever held whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.accuracy.assess_reference import first_layer
from pipeline.accuracy.class_maps import CODES, OUTSIDE, aligned, is_raster, open_class_map, read_codes
from pipeline.errors import ReferenceDataError, SceneError
from pipeline.grid import Grid, Window
from pipeline.labels.settings import split_source
from pipeline.legend import NODATA, ClassScheme
from pipeline.raster import as_error, burn_shapes

# How the source of strata begins that lie where two maps differ.
DIFFERENCES = "differences"
MAX_STRATUM = 65_535


class _Layer(ExitStack):
    """Files that stay open while a layer is read."""

    source = ""


class MapStrata(_Layer):
    """One stratum per map class: its code."""

    source = "map classes"

    def __init__(self, path: Path | str, scheme: ClassScheme) -> None:
        """Open the map."""
        super().__init__()
        self._dataset = self.enter_context(open_class_map(path))
        self._scheme = scheme

    def read(self, window: Window) -> NDArray[np.int32]:
        """Class codes, OUTSIDE on nodata."""
        codes = read_codes(self._dataset, window)
        return np.where(codes == NODATA, np.int32(OUTSIDE), codes.astype(np.int32))

    def name(self, value: int) -> str:
        """Class name."""
        return self._scheme.by_code(value).name


class ChangeStrata(_Layer):
    """One stratum per pair of classes of two maps with one legend: earlier code * 256 + later code.

    Pixels are those of the earlier map, or ``on_later`` of the later; the other is resampled by nearest neighbour.
    """

    source = "change"

    def __init__(self, earlier: Path | str, later: Path | str, *, scheme: ClassScheme, on_later: bool = False) -> None:
        super().__init__()
        one = self.enter_context(open_class_map(earlier))
        two = self.enter_context(open_class_map(later))
        grid = Grid.of(two if on_later else one)
        self._first, self._second = aligned(one, grid, self), aligned(two, grid, self)
        self._scheme = scheme

    def read(self, window: Window) -> NDArray[np.int32]:
        """Pairs of codes, OUTSIDE where one of the maps has none."""
        first, second = read_codes(self._first, window), read_codes(self._second, window)
        pairs = first.astype(np.int32) * CODES + second
        return np.where((first == NODATA) | (second == NODATA), np.int32(OUTSIDE), pairs)

    def name(self, value: int) -> str:
        """``forest -> water``, or ``stable forest``."""
        before, after = (self._scheme.by_code(code).name for code in divmod(value, CODES))
        return f"stable {before}" if before == after else f"{before} -> {after}"


class DifferenceStrata(ChangeStrata):
    """One stratum per pair of classes that differ between two maps of one time; nothing where they agree."""

    def __init__(self, first: Path | str, second: Path | str, *, scheme: ClassScheme) -> None:
        super().__init__(first, second, scheme=scheme)
        self.source = f"{DIFFERENCES} with {str(second).rsplit('/', 1)[-1]}"

    def read(self, window: Window) -> NDArray[np.int32]:
        """Pairs of codes, OUTSIDE where they are equal or one of the maps has none."""
        pairs = super().read(window)
        return np.where(pairs // CODES == pairs % CODES, np.int32(OUTSIDE), pairs)


class RasterStrata(_Layer):
    """One stratum per integer of any raster, or per interval of its values.

    ``edges`` cut a continuous layer (confidence) into len(edges) + 1 strata. Other pixels: nearest neighbour.
    """

    def __init__(self, path: Path | str, grid: Grid, *, edges: Sequence[float] = ()) -> None:
        super().__init__()
        self.source = f"raster {str(path).rsplit('/', 1)[-1]}"
        with as_error(SceneError, "strata are not a raster that GDAL can open", path=path):
            dataset = self.enter_context(rasterio.open(path))
        if not edges and not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
            raise ReferenceDataError(
                "strata raster is not one of integers", path=path, got=dataset.dtypes[0], fix="give edges to cut it at"
            )
        self._dataset = aligned(dataset, grid, self)
        self._edges, self._path = tuple(edges), path

    def read(self, window: Window) -> NDArray[np.int32]:
        """Values, or numbers of intervals from 0; OUTSIDE on the raster's nodata."""
        values = self._dataset.read(1, window=window.to_rasterio())
        empty = self._dataset.read_masks(1, window=window.to_rasterio()) == 0
        if self._edges:
            empty |= ~np.isfinite(values)
            values = np.searchsorted(self._edges, values, side="right")
        elif ((values < 0) | (values > MAX_STRATUM))[~empty].any():
            raise ReferenceDataError("value of the strata raster", path=self._path, expected=f"0..{MAX_STRATUM}")
        return np.where(empty, np.int32(OUTSIDE), values.astype(np.int32))

    def name(self, value: int) -> str:
        """Its name, its interval, or its number."""
        if not self._edges:
            return str(value)
        low = f"{self._edges[value - 1]:g}" if value else ""
        high = f"{self._edges[value]:g}" if value < len(self._edges) else ""
        return f"{low} to {high}" if low and high else f"below {high}" if high else f"{low} and more"


class PolygonStrata(_Layer):
    """One stratum per value of a field of polygons; later polygons win where they overlap."""

    def __init__(self, path: Path | str, grid: Grid, *, field: str) -> None:
        """Read the polygons; they are burnt window by window."""
        super().__init__()
        import geopandas

        self.source = f"polygons {str(path).rsplit('/', 1)[-1]}, field {field}"
        path, layer = split_source(str(path))
        frame = geopandas.read_file(path, layer=layer or first_layer(path))
        if field not in frame.columns:
            have = ", ".join(str(column) for column in frame.columns)
            raise ReferenceDataError(f"strata have no field {field!r}", path=path, got=have)
        frame = frame[~(frame.geometry.is_empty | frame.geometry.isna())].to_crs(grid.crs)
        values = sorted({str(value) for value in frame[field]})
        self._names, self._grid = values, grid
        self._shapes = list(frame.geometry)
        self._values = [values.index(str(value)) for value in frame[field]]
        self._index = frame.sindex

    def read(self, window: Window) -> NDArray[np.int32]:
        """Numbers of the values in alphabetical order, OUTSIDE between the polygons."""
        crop = self._grid.crop(window)
        from shapely.geometry import box

        hits = sorted(self._index.query(box(*crop.bounds)))
        return np.asarray(
            burn_shapes([self._shapes[i] for i in hits], crop, values=[self._values[i] for i in hits]), dtype=np.int32
        )

    def name(self, value: int) -> str:
        """The field's value."""
        return self._names[value]


def open_strata(
    source: Path | str,
    *, map_path: Path | str, scheme: ClassScheme, field: str | None = None, edges: Sequence[float] = (),
) -> MapStrata | RasterStrata | PolygonStrata:  # fmt: skip
    """Strata by what a user writes: ``map``, a raster file, or a polygon file with a field."""
    if str(source) == "map":
        return MapStrata(map_path, scheme)
    with open_class_map(map_path) as dataset:
        grid = Grid.of(dataset)
    if is_raster(source):
        return RasterStrata(source, grid, edges=edges)
    if field is None:
        raise ReferenceDataError(
            "polygon strata without a field", path=source, fix="name the field that holds the stratum: --strata-field"
        )
    return PolygonStrata(source, grid, field=field)
