"""Read windows of a Scene as a Raster: scale, offset, resampling and masks, applied here, once, and nowhere else.

One dataset handle per file and reader; a reader belongs to one thread. GDAL is asked for the same resolution of pixels
that the grid has: a file on the scene's own pixels is read as it is; any other is warped through a VRT whose pixels are
the grid's, so alignment is GDAL's and exact.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT

from pipeline.errors import SceneError
from pipeline.grid import Grid, Window
from pipeline.raster import Raster

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.scenes.scene import BandSource, QualitySource, Scene, Source


class Reader(Protocol):
    """Anything that gives Rasters of windows: a scene, a stack of dates, a composite; a context manager."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""

    @property
    def grid(self) -> Grid:
        """The grid that windows are counted on."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of every Raster read."""

    def read(self, window: Window) -> Raster:
        """Pixels of a window, which may reach beyond the grid: pixels outside are not valid."""

    def close(self) -> None:
        """Close the files."""


class SceneReader:
    """Reads windows of one Scene; a context manager that keeps its files open meanwhile."""

    def __init__(self, scene: Scene) -> None:
        """Open nothing yet: files open at the first read."""
        self._scene = scene
        self._files: dict[tuple[str, str], DatasetReader | WarpedVRT] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    @property
    def grid(self) -> Grid:
        """The scene's grid."""
        return self._scene.grid

    @property
    def bands(self) -> tuple[str, ...]:
        """The scene's band names."""
        return self._scene.band_names

    def close(self) -> None:
        """Close all files."""
        self._stack.close()
        self._files.clear()

    def read(self, window: Window) -> Raster:
        """Pixels of ``window`` in physical units; those outside the grid or masked are 0 and not valid.

        Raises:
            SceneError: a file cannot be opened or its blocks cannot be decoded; the message names file and window.
        """
        values = np.zeros((len(self._scene.bands), *window.shape), dtype=np.float32)
        valid = np.zeros(window.shape, dtype=np.bool_)
        inside = window.intersect(self.grid.window)
        if inside is not None:
            rows, cols = inside.relative_to(window).slices
            part, part_valid = self._read_inside(inside)
            values[:, rows, cols] = part
            valid[rows, cols] = part_valid
        return Raster(values, valid, self.bands, self.grid.crop(window))

    def _read_inside(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        values = np.empty((len(self._scene.bands), *window.shape), dtype=np.float32)
        valid = np.ones(window.shape, dtype=np.bool_)
        for path, resampling, group in _by_file(self._scene.bands):
            numbers = [self._scene.bands[i].index for i in group]
            dn = self._pixels(path, resampling, numbers, window)
            for layer, position in zip(dn, group, strict=True):
                source = self._scene.bands[position]
                valid &= _usable(layer, source)
                np.multiply(layer, np.float32(source.scale), out=values[position], casting="unsafe")
                if source.offset:
                    values[position] += np.float32(source.offset)
            if any(self._scene.bands[i].use_dataset_mask for i in group):
                valid &= self._mask(path, resampling, numbers, window)
        for quality in self._scene.quality:
            layer = self._pixels(quality.path, "nearest", [quality.index], window)[0]
            valid &= ~_bad(layer, quality)
        np.multiply(values, valid, out=values)
        if not np.isfinite(values).all():
            values[:, ~valid] = 0.0
        return values, valid

    def _pixels(self, path: str, resampling: str, numbers: list[int], window: Window) -> NDArray[Any]:
        try:
            dataset = self._open(path, resampling)
            array: NDArray[Any] = dataset.read(numbers, window=window.to_rasterio())
        except (RasterioError, OSError) as err:
            rows, cols = (window.row, window.row_stop), (window.col, window.col_stop)
            what = f"cannot read band {numbers} in rows {rows[0]}..{rows[1]}, columns {cols[0]}..{cols[1]}"
            raise SceneError(what, path=path, got=err, fix="check the file; it may be cut off or damaged") from err
        return array

    def _mask(self, path: str, resampling: str, numbers: list[int], window: Window) -> NDArray[np.bool_]:
        masks = self._open(path, resampling).read_masks(numbers, window=window.to_rasterio())
        return np.asarray((masks > 0).all(axis=0), dtype=np.bool_)

    def _open(self, path: str, resampling: str) -> DatasetReader | WarpedVRT:
        key = (path, resampling)
        if key not in self._files:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = self._stack.enter_context(rasterio.open(path))
            if _on_grid(dataset, self.grid):
                self._files[key] = dataset
            else:
                self._files[key] = self._stack.enter_context(
                    WarpedVRT(
                        dataset,
                        crs=self.grid.crs,
                        transform=self.grid.transform,
                        width=self.grid.width,
                        height=self.grid.height,
                        resampling=Resampling[resampling],
                    )
                )
        return self._files[key]


def open_reader(source: Source) -> Reader:
    """A reader of a scene, a stack, a composite...; use it as a context manager."""
    return source.open()


def _by_file(bands: tuple[BandSource, ...]) -> list[tuple[str, str, list[int]]]:
    """Positions of the bands that one read call can serve: same file, same resampling."""
    groups: dict[tuple[str, str], list[int]] = {}
    for position, source in enumerate(bands):
        groups.setdefault((source.path, source.resampling), []).append(position)
    return [(path, resampling, group) for (path, resampling), group in groups.items()]


def _on_grid(dataset: DatasetReader, grid: Grid) -> bool:
    crs = dataset.crs or grid.crs
    return Grid(crs, dataset.transform, dataset.height, dataset.width).same_pixels_as(grid)


def _usable(layer: NDArray[Any], source: BandSource) -> NDArray[np.bool_]:
    floating = np.issubdtype(layer.dtype, np.floating)
    usable = np.isfinite(layer) if floating else np.ones(layer.shape, dtype=np.bool_)
    if source.nodata is not None and not np.isnan(source.nodata):
        usable &= layer != source.nodata
    if source.valid_min is not None:
        usable &= layer >= source.valid_min
    if source.valid_max is not None:
        usable &= layer <= source.valid_max
    return np.asarray(usable, dtype=np.bool_)


def _bad(layer: NDArray[Any], quality: QualitySource) -> NDArray[np.bool_]:
    bad = np.isin(layer, quality.bad_values) if quality.bad_values else np.zeros(layer.shape, dtype=np.bool_)
    codes = layer.astype(np.int64)
    if quality.bad_bits:
        bad |= (codes & quality.bad_bits) != 0
    for mask, value in quality.bad_fields:
        bad |= (codes & mask) == value
    return np.asarray(bad, dtype=np.bool_)
