"""Series of rasters as the forecast reads them: one GeoTIFF with a date in each band, or a folder of dated GeoTIFFs."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import InputError, SceneError, SceneWarning, counted
from pipeline.forecast.times import regular_steps, time_in
from pipeline.grid import Grid
from pipeline.raster import require_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.forecast.times import Times

    Floats = NDArray[np.float32]

FEWEST_STEPS = 24
# What is computed from a series takes about ten times its memory.
MOST_VALUES = 250_000_000
# Squares of larger values are none of float32.
MOST_VALUE = 1e15
_SUFFIXES = frozenset({".tif", ".tiff"})
_TIME_TAGS = ("TIME", "TIMESTAMP", "ACQUISITION_DATETIME", "DATE", "TIFFTAG_DATETIME")
# Cells with fewer of their steps cannot be learned from.
_FEWEST_KNOWN = 0.3


@dataclass(frozen=True, eq=False)
class Series:
    """Values of the cells that a forecast is made for."""

    name: str  # Of the files that are written
    channels: tuple[str, ...]  # Names
    times: Times  # Of every step, datetime64[s] [step]
    values: Floats  # float32 [step, channel, cell], NaN where unknown
    row: NDArray[np.int64]  # Of each cell, int64 [cell]
    col: NDArray[np.int64]  # Likewise
    grid: Grid  # Where the cells lie

    def neighbours(self) -> NDArray[np.int64]:
        """The eight cells around each, int64 [cell, 8]; -1 where there is none."""
        number = np.full((self.grid.height + 2, self.grid.width + 2), -1, dtype=np.int64)
        number[self.row + 1, self.col + 1] = np.arange(len(self.row))
        around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        return np.stack([number[self.row + 1 + i, self.col + 1 + j] for i, j in around], axis=1)

    def on_cells(self, values: Floats) -> Floats:
        """Values [..., cell] on the grid, NaN elsewhere, [..., row, col]."""
        laid = np.full((*values.shape[:-1], *self.grid.shape), np.nan, dtype=np.float32)
        laid[..., self.row, self.col] = values
        return laid


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells that a network has learned."""

    grid: Grid  # Where they lie
    row: NDArray[np.int64]  # Of each, int64 [cell]
    col: NDArray[np.int64]  # Likewise


def read_series(paths: Sequence[str], *, cells: Cells | None = None) -> Series:
    """Read a series, channels from several files or folders side by side.

    Gaps become unknown steps. Steps with one value everywhere, and cells that hold nothing or never change, are left
    out with a SceneWarning; where ``cells`` are given, all others are.

    Raises:
        InputError: a file cannot be read.
        SceneError: no dates, unequal grids or times, too few steps, or nothing that changes; another grid than that of
            ``cells``, or nothing known of one of them.
    """
    layers: dict[tuple[str, datetime], Floats] = {}
    grid: Grid | None = None
    for path in paths:
        for time, channel, values, own in read_dated(Path(path)):
            if cells is not None and not cells.grid.same_pixels_as(own):
                raise SceneError(
                    "series has another grid than the one that was learned", path=path, got=shape_text(own),
                    expected=f"{shape_text(cells.grid)}, one origin and CRS",
                    fix="warp it with gdalwarp -t_srs -te -ts",
                )  # fmt: skip
            if grid is not None and not grid.same_pixels_as(own):
                raise SceneError(
                    "series has unequal grids", path=path, got=f"{shape_text(own)} in {_text(time)}",
                    expected=f"{shape_text(grid)}, one origin and CRS",
                    fix="warp them with gdalwarp -te -ts",
                )  # fmt: skip
            grid = own
            if (channel, time) in layers:
                raise SceneError(f"series has two rasters of {channel} at {_text(time)}", path=path)
            layers[channel, time] = values
    if grid is None:
        raise SceneError("no raster of a series", path=paths[0], expected="GeoTIFFs with dates in names, bands or tags")
    channels = tuple(dict.fromkeys(channel for channel, _ in layers))
    found = sorted({time for _, time in layers})
    if len(found) < FEWEST_STEPS:
        raise SceneError("series has too few steps", path=paths[0], got=len(found), expected=f"{FEWEST_STEPS} or more")
    if len(found) * len(channels) * grid.height * grid.width > MOST_VALUES:
        size = f"{len(found)} steps x {len(channels)} x {grid.height} x {grid.width}"
        raise SceneError("series is too large", path=paths[0], got=size, fix="cut it, or aggregate its cells")
    number, times = regular_steps(np.array(found, dtype="datetime64[s]"), path=paths[0])
    cube = np.full((len(times), len(channels), *grid.shape), np.nan, dtype=np.float32)
    at = dict(zip(found, number.tolist(), strict=True))
    for (channel, time), values in layers.items():
        cube[at[time], channels.index(channel)] = values
    blank = np.asarray(~np.isfinite(cube).any(axis=(2, 3)).T)
    _drop_flat_steps(cube, times, path=paths[0])
    row, col = _living_cells(cube, path=paths[0]) if cells is None else _learned_cells(cube, cells, path=paths[0])
    _warn_of_gaps(blank, channels, times, paths=paths)
    return Series(Path(paths[0]).stem, channels, times, cube[:, :, row, col], row, col, grid)


def _warn_of_gaps(blank: NDArray[np.bool_], channels: Sequence[str], times: Times, *, paths: Sequence[str]) -> None:
    """SceneWarning on steps without any value, bool [channel, step]."""
    for gaps in np.unique(blank[blank.any(axis=1)], axis=0):
        own = [name for name, row in zip(channels, blank, strict=True) if (row == gaps).all()]
        whose = "" if len(own) == len(channels) else f" of {', '.join(own)}"
        path = next((path for path in paths if Path(path).stem == own[0]), paths[0])
        last = _text(times[gaps][-1].astype("datetime64[s]").item())
        count = f"{counted(int(gaps.sum()), 'step')} of {len(times)}{whose}"
        _warn(path, f"{count} are missing or without data and taken as unknown, such as {last}")


def read_dated(path: Path) -> Iterator[tuple[datetime, str, Floats, Grid]]:
    """Time, channel and values [row, col] of every band of a file or of the GeoTIFFs of a folder.

    Raises:
        InputError: a file cannot be read.
        SceneError: a band without a date, a file without a CRS, or values that none can be.
    """
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES) if path.is_dir() else []
    for file in files or [path]:
        require_regular(file, error=InputError)
        try:
            with rasterio.open(file) as dataset:
                yield from _bands(dataset, file, channel=path.stem, alone=not files)
        except RasterioError as err:
            raise InputError("cannot be read as a raster", path=file, got=str(err).split("\n")[0]) from err


def _bands(
    dataset: DatasetReader, file: Path, *, channel: str, alone: bool
) -> Iterator[tuple[datetime, str, Floats, Grid]]:
    if dataset.crs is None:
        raise SceneError("raster has no CRS", path=file, fix="set it with gdal_edit.py -a_srs")
    if any("complex" in kind for kind in dataset.dtypes):
        raise SceneError("series of complex numbers", path=file, expected="real numbers")
    grid = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    whole = next((time for text in [*_tags(dataset, 0), file.stem] if (time := time_in(text))), None)
    for band in dataset.indexes:
        description = dataset.descriptions[band - 1] or ""
        own = next((time for text in [description, *_tags(dataset, band)] if (time := time_in(text))), None)
        time = own or whole
        if time is None or (alone and own is None and dataset.count > 1):
            raise SceneError(
                f"band {band} has no date", path=file, got=repr(description),
                expected="a date in the band's description or its TIME tag, or in the name of a file of a folder",
            )  # fmt: skip
        name = (time_in(description) or (None, description))[1]
        values = dataset.read(band, masked=True).astype(np.float32) * dataset.scales[band - 1]
        values = (values + dataset.offsets[band - 1]).filled(np.nan)
        if np.nanmax(np.abs(values), initial=0.0) > MOST_VALUE and np.isfinite(values).any():
            raise SceneError(
                f"band {band} has values that none can be", path=file, got=f"{np.nanmax(np.abs(values)):.3g}",
                expected=f"at most {MOST_VALUE:g}", fix="if they stand for nodata, say so with gdal_edit.py -a_nodata",
            )  # fmt: skip
        fallback = channel if dataset.count == 1 or own is not None else f"band {band}"
        yield time[0], name or fallback, np.where(np.isfinite(values), values, np.nan).astype(np.float32), grid


def _tags(dataset: DatasetReader, band: int) -> list[str]:
    """Texts of the tags that hold times, of a band, or of the file for 0; TIFF's own writes 2019:01:31 00:00:00."""
    tags = {key.upper(): text for key, text in dataset.tags(band).items()}
    return [
        tags[key].replace(":", "-", 2) if key.startswith("TIFF") else tags[key] for key in _TIME_TAGS if key in tags
    ]


def _drop_flat_steps(cube: Floats, times: Times, *, path: str) -> None:
    """Set steps to unknown that have one value in all cells and channels, where most have not."""
    flat = np.zeros(len(cube), dtype=np.bool_)
    for step, values in enumerate(cube):
        known = values[np.isfinite(values)]
        flat[step] = known.size > 1 and known.min() == known.max()
    if flat.any() and flat.mean() < _FEWEST_KNOWN:
        cube[flat] = np.nan
        first = _text(times[flat][0].astype("datetime64[s]").item())
        _warn(path, f"{counted(int(flat.sum()), 'step')} with one value everywhere taken as unknown, such as {first}")


def _alive(cube: Floats) -> NDArray[np.bool_]:
    """Cells that change and are known often enough, bool [row, col]."""
    known = np.isfinite(cube)
    enough = known.mean(axis=0).min(axis=0) >= _FEWEST_KNOWN
    low, high = np.where(known, cube, np.inf).min(axis=0), np.where(known, cube, -np.inf).max(axis=0)
    return np.asarray(enough & (low < high).any(axis=0))


def _living_cells(cube: Floats, *, path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the cells that change and are known often enough."""
    alive = _alive(cube)
    if not alive.any():
        what = "series is constant or unknown in every cell"
        raise SceneError(what, path=path, expected=f"cells that change, known in {_FEWEST_KNOWN:.0%} of the steps")
    if not alive.all():
        _warn(path, f"{int((~alive).sum())} of {alive.size} cells are constant or hardly known and left out")
    row, col = np.nonzero(alive)
    return row.astype(np.int64), col.astype(np.int64)


def _learned_cells(cube: Floats, cells: Cells, *, path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of cells that are asked for; a SceneWarning on others that could be forecast."""
    empty = np.asarray(~np.isfinite(cube[:, :, cells.row, cells.col]).any(axis=(0, 1)))
    if empty.any():
        raise SceneError(
            "series has other cells than were learned", path=path,
            got=f"nothing known in {int(empty.sum())} of {empty.size}", expected="values in each of them",
            fix="give the series that was learned from with its later steps, or learn again: landcover forecast",
        )  # fmt: skip
    alive = _alive(cube)
    if more := int(alive.sum() - alive[cells.row, cells.col].sum()):
        _warn(path, f"{counted(more, 'cell')} that the network has not learned {'is' if more == 1 else 'are'} left out")
    return cells.row, cells.col


def is_dated(path: Path) -> bool:
    """Whether a file has bands, or a folder GeoTIFFs, of two dates at least, by their names and tags alone.

    False for what cannot be read, which whoever reads it says.
    """
    times: set[datetime] = set()
    with contextlib.suppress(OSError, RasterioError):
        folder = path.is_dir()
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES) if folder else [path]
        times |= {time[0] for file in files if folder and (time := time_in(file.stem))}
        for file in files[:2] if len(times) < 2 else []:  # noqa: PLR2004 - a series has two
            if file.is_file():
                times |= _times_of_bands(file)
    return len(times) > 1


def _times_of_bands(file: Path) -> set[datetime]:
    with rasterio.open(file) as dataset:
        texts = [text for band in dataset.indexes for text in (dataset.descriptions[band - 1], *_tags(dataset, band))]
        return {time[0] for text in [*texts, *_tags(dataset, 0)] if text and (time := time_in(text))}


def shape_text(grid: Grid) -> str:
    """Rows, columns, size of a pixel and upper left corner of a grid."""
    return f"{grid.height} x {grid.width} of {grid.pixel_size[0]:g} at {grid.bounds[0]:g}, {grid.bounds[3]:g}"


def _text(time: datetime) -> str:
    return time.isoformat(timespec="minutes").removesuffix("T00:00")


def _warn(path: str, what: str) -> None:
    warnings.warn(f"{path}: {what}", SceneWarning, stacklevel=3)
