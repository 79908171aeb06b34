"""Read windows of a Scene as a Raster: scale, offset, resampling and masks, applied here, once, and nowhere else.

A reader belongs to one thread. A file on the scene's own pixels is read as it is; one whose pixels are whole multiples
of them is interpolated (``pipeline.scenes.multiples``); any other is warped by GDAL through a VRT whose pixels are the
grid's, so that alignment is exact in all three. A scene that is to be looked at gives single pixels of finer files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from pipeline.errors import SceneError
from pipeline.files import Closing
from pipeline.grid import Grid, Window
from pipeline.process import silenced
from pipeline.raster import (
    REMOTE_DRIVERS,
    Raster,
    as_error,
    burn_shapes,
    is_network,
    on_grid,
    opened_by,
    read_bands,
    without_alpha,
)
from pipeline.scenes.multiples import CoarseFile, FineFile, coarse_file, fine_file
from pipeline.scenes.quality import bad_pixels, read_polygons
from pipeline.scenes.remote import plain_url

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    from pipeline.scenes.sources import BandSource, QualitySource


FileKey = tuple[str, str, float | None]
"""Path, resampling and nodata: what one open file serves."""
OpenFile: TypeAlias = "DatasetReader | WarpedVRT | CoarseFile | FineFile"


class Reader(Closing):
    """Gives Rasters of windows: of a scene, a stack of dates, a composite; a context manager."""

    grid: Grid  # The grid that windows are counted on
    bands: tuple[str, ...]  # Names of the bands of every Raster read

    @abstractmethod
    def read(self, window: Window) -> Raster:
        """Pixels of a window, which may reach beyond the grid: pixels outside are not valid."""

    def close(self) -> None:
        """Close the files."""


class Opens(Protocol):
    """Anything that opens: every Source."""

    def open(self) -> Reader:
        """A reader of its windows."""


class SceneReader(Reader):
    """Reads windows of the bands of one scene; its files open at the first read and stay open meanwhile."""

    def __init__(
        self, grid: Grid, sources: Sequence[BandSource],
        *, quality: Sequence[QualitySource] = (), for_display: bool = False,
    ) -> None:  # fmt: skip
        self.grid, self.bands = grid, tuple(source.band for source in sources)
        self._sources, self._quality, self._for_display = sources, quality, for_display
        self._files: dict[FileKey, OpenFile] = {}
        self._masked: set[FileKey] = set()
        self._shapes: dict[str, list[dict[str, object]]] = {}
        self._stack = ExitStack()

    def sharing(self, sources: Sequence[BandSource], *, quality: Sequence[QualitySource] = ()) -> SceneReader:
        """A reader of other bands or layers of the same scene by this one's files, which this one closes."""
        other = SceneReader(self.grid, sources, quality=quality, for_display=self._for_display)
        other._files, other._masked, other._stack = self._files, self._masked, self._stack
        other._shapes = self._shapes
        return other

    def close(self) -> None:
        """Close all files."""
        self._stack.close()
        self._files.clear()

    def read(self, window: Window) -> Raster:
        """Pixels of ``window`` in physical units; those outside the grid or masked are 0 and not valid.

        Raises:
            SceneError: a file cannot be opened or its blocks cannot be decoded; the message names file and window.
        """
        inside = window.intersect(self.grid.window)
        if inside == window:
            values, valid = self._read_inside(window)
            return Raster(values, valid, self.bands, self.grid.crop(window))
        values = np.zeros((len(self._sources), *window.shape), dtype=np.float32)
        valid = np.zeros(window.shape, dtype=np.bool_)
        if inside is not None:
            rows, cols = inside.relative_to(window).slices
            values[:, rows, cols], valid[rows, cols] = self._read_inside(inside)
        return Raster(values, valid, self.bands, self.grid.crop(window))

    def _read_inside(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        values = np.empty((len(self._sources), *window.shape), dtype=np.float32)
        valid = np.ones(window.shape, dtype=np.bool_)
        for key, group in _by_file(self._sources):
            sources = [self._sources[i] for i in group]
            file, dn = self._pixels(key, [source.index for source in sources], window)
            for layer, source, position in zip(dn, sources, group, strict=True):
                if isinstance(file, CoarseFile):
                    layer = _refine(file, layer, source, window, valid)  # noqa: PLW2901
                else:
                    _narrow(valid, layer, source)
                _scale(layer, source, out=values[position])
                if source.scales:
                    self._multiply(source.scales, window, values[position], valid)
            if key in self._masked or any(source.use_dataset_mask for source in sources):
                valid &= self._mask(key, [source.index for source in sources], window)
        for quality in self._quality:
            valid &= ~self._bad(quality, window)
        if not valid.all():
            np.copyto(values, np.float32(0), where=~valid)
        return values, valid

    def _multiply(self, path: str, window: Window, out: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Multiply pixels of a band by the scale of each, in place; none is no observation."""
        file, layers = self._pixels((path, "nearest", None), [1], window)
        scales = file.nearest(layers[0], window) if isinstance(file, CoarseFile) else layers[0]
        valid &= np.isfinite(scales)
        out *= np.where(np.isfinite(scales), scales, 0)

    def _bad(self, quality: QualitySource, window: Window) -> NDArray[np.bool_]:
        if not quality.vector:
            file, layers = self._pixels((quality.path, "nearest", None), [quality.index], window)
            bad = bad_pixels(layers[0], quality)
            return file.nearest(bad, window) if isinstance(file, CoarseFile) else bad
        if quality.path not in self._shapes:
            self._shapes[quality.path] = read_polygons(quality)
        return burn_shapes(self._shapes[quality.path], self.grid.crop(window)) > 0

    def _pixels(self, key: FileKey, numbers: list[int], window: Window) -> tuple[OpenFile, NDArray[Any]]:
        with _damage_named(f"band {numbers}", key, window):
            file = self._open(key)
            if isinstance(file, CoarseFile | FineFile):
                return file, file.read(numbers, window)
            return file, read_bands(file, numbers, window=window.to_rasterio())

    def _mask(self, key: FileKey, numbers: list[int], window: Window) -> NDArray[np.bool_]:
        with _damage_named(f"the mask of band {numbers}", key, window):
            file = self._open(key)
            if isinstance(file, CoarseFile | FineFile):  # it has no mask of its own, or it would be warped
                return np.ones(window.shape, dtype=np.bool_)
            if key in self._masked:
                # GDAL takes an alpha band for the mask of unsigned 8 and 16 bit files only; as a band it serves all.
                return np.asarray(file.read(file.count, window=window.to_rasterio()) > 0, dtype=np.bool_)
            masks = file.read_masks(numbers, window=window.to_rasterio())
            return np.asarray((masks > 0).all(axis=0), dtype=np.bool_)

    def _open(self, key: FileKey) -> OpenFile:
        if key not in self._files:
            with silenced(NotGeoreferencedWarning):
                opened = opened_by(key[0], REMOTE_DRIVERS) if is_network(key[0]) else rasterio.open(key[0])
            dataset = self._stack.enter_context(opened)
            own = Grid(dataset.crs or self.grid.crs, dataset.transform, dataset.height, dataset.width)
            if own.same_pixels_as(self.grid):
                self._files[key] = dataset
            elif dataset.crs == self.grid.crs and own.north_up().same_pixels_as(self.grid.north_up()):
                # The same pixels the other way round: none is mixed with another.
                self._files[key] = self._warped(dataset, key, resampling="nearest")
            else:
                coarse = coarse_file(dataset, self.grid) if key[1] in {"nearest", "bilinear"} else None
                fine = fine_file(dataset, self.grid) if self._for_display else None
                self._files[key] = coarse or fine or self._warped(dataset, key, resampling=key[1])
        return self._files[key]

    def _warped(self, dataset: DatasetReader, key: FileKey, *, resampling: str) -> WarpedVRT:
        path, _, nodata = key
        masks = any(band.use_dataset_mask for band in self._sources if band.path == path)
        if not masks and dataset.count > 1 and ColorInterp.alpha in dataset.colorinterp:
            dataset = self._stack.enter_context(without_alpha(dataset))
        # Nodata goes to the warper too: bilinear must not mix the 0 outside an orbit into the pixels at its edge.
        # Without nodata a pixel beyond the file would be 0 and count as seen; an added alpha band becomes its mask.
        add_alpha = nodata is None and ColorInterp.alpha not in dataset.colorinterp and not _covers(dataset, self.grid)
        every = any(band.nodata_stated for band in self._sources if band.path == path)
        vrt = on_grid(
            dataset, self.grid, resampling=resampling, nodata=nodata, ignore_tag=every and nodata is None,
            add_alpha=add_alpha,
        )  # fmt: skip
        if add_alpha:
            self._masked.add(key)
        return self._stack.enter_context(vrt)


def open_reader(source: Opens) -> Reader:
    """A reader of a scene, a stack, a composite...; use it as a context manager."""
    return source.open()


def _damage_named(what: str, key: FileKey, window: Window) -> AbstractContextManager[None]:
    """Errors of GDAL as a SceneError that names file, band and window."""
    where = f"rows {window.row}..{window.row_stop}, columns {window.col}..{window.col_stop}"
    fix = "check the file; it may be cut off or damaged"
    return as_error(SceneError, f"cannot read {what} in {where}", path=plain_url(key[0]), fix=fix)


def _by_file(bands: Sequence[BandSource]) -> list[tuple[FileKey, list[int]]]:
    """Positions of the bands that one read call can serve: same file, same resampling, same nodata."""
    groups: dict[FileKey, list[int]] = {}
    for position, source in enumerate(bands):
        groups.setdefault((source.path, source.resampling, source.nodata), []).append(position)
    return list(groups.items())


def _covers(dataset: DatasetReader, grid: Grid) -> bool:
    """Whether every pixel of ``grid`` lies in the file and the file has no mask of its own."""
    if any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums) or dataset.crs != grid.crs:
        return False
    left, bottom, right, top = grid.bounds
    outer, slack = dataset.bounds, 1e-3 * grid.pixel_size[0]
    inside = outer.left <= left + slack and right <= outer.right + slack
    below, above = min(outer.bottom, outer.top), max(outer.bottom, outer.top)
    return bool(inside and below <= bottom + slack and top <= above + slack)


def _refine(
    file: CoarseFile, padded: NDArray[Any], source: BandSource, window: Window, valid: NDArray[np.bool_]
) -> NDArray[Any]:
    """DN of a window's pixels from a layer of coarse ones; narrows ``valid`` in place."""
    usable = np.ones(padded.shape, dtype=np.bool_)
    _narrow(usable, padded, source)
    if not usable.all():
        valid &= file.nearest(usable, window)
    return file.nearest(padded, window) if source.resampling == "nearest" else file.bilinear(padded, usable, window)


def _narrow(valid: NDArray[np.bool_], layer: NDArray[Any], source: BandSource) -> None:
    """Take pixels of ``layer`` that are no observation out of ``valid``, in place; nothing to do costs nothing."""
    if np.issubdtype(layer.dtype, np.floating):
        valid &= np.isfinite(layer)
    if source.nodata is not None and not np.isnan(source.nodata):
        valid &= layer != source.nodata
    if source.valid_max is not None:
        valid &= layer <= source.valid_max


def _scale(layer: NDArray[Any], source: BandSource, *, out: NDArray[np.float32]) -> None:
    if source.squared:
        np.multiply(layer, np.float32(1 / 127.5), out=out, casting="unsafe")
        out *= np.abs(out)
    elif source.scale == 1.0:
        np.copyto(out, layer, casting="unsafe")
    else:
        np.multiply(layer, np.float32(source.scale), out=out, casting="unsafe")
    if source.offset:
        out += np.float32(source.offset)
