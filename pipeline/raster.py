"""Raster: pixels with their validity, band names and place; files opened, brought onto a grid, shapes burned on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, ShapeSkipWarning
from rasterio.features import rasterize
from rasterio.io import DatasetReader, MemoryFile
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from pipeline.documents import parse_xml, read_file
from pipeline.errors import InputError, PipelineError, SceneError
from pipeline.grid import Grid, Window
from pipeline.process import silenced
from pipeline.settings import INSIDE_FILE

# What a file behind an address may be: a format whose header names no other file.
REMOTE_DRIVERS = ("GTiff", "JP2OpenJPEG")
# Drivers that fetch what a file describes.
SERVICES = frozenset({"DAAS", "EEDA", "EEDAI", "GTI", "HTTP", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS"})
_VRT_DRIVER = "VRT"
_NETWORK = re.compile(r"/vsi(?!(zip|tar|gzip|mem)/)")
# File systems of GDAL that hold what lies in a local file.
_LOCAL = ("/vsizip/", "/vsitar/", "/vsigzip/")
_VRT, _LINKS, _HEAD_BYTES, _DEPTH = "VRTDataset", {"SourceFilename", "SourceDataset"}, 512, 8
_SHOWN = 80
# Windows that a scene is looked at by: so many a side.
SAMPLES_PER_SIDE = 3
SAMPLE_PX = 256


@contextmanager
def as_error(error: type[PipelineError], what: str, *, path: str | Path, fix: str | None = None) -> Iterator[None]:
    """Within, what GDAL fails with is an error of the class given."""
    try:
        yield
    except (RasterioError, OSError) as err:
        raise error(what, path=path, got=err, fix=fix) from err


def open_raster(
    path: str | Path,
    *, trust: bool = False, error: type[PipelineError] = SceneError, what: str = "not a raster that GDAL can open",
    fix: str | None = None,
) -> DatasetReader:  # fmt: skip
    """A raster, opened; to be closed by the caller.

    Behind an address there is a GeoTIFF or a JPEG 2000. A description of a raster on the disk (a VRT) names files on
    the disk, and raw pixels in its own folder only, unless it is trusted.

    Raises:
        PipelineError: of the class given.
    """
    text = str(path)
    remote = is_network(text)
    if not remote and os.path.lexists(text):
        require_regular(text, error=error)
        if not trust:
            check_links(Path(text), error=error)
    shown = unquote(text.rpartition("&url=")[2]).partition("?")[0] if remote else text
    with silenced(NotGeoreferencedWarning):
        try:
            return rasterio.open(text) if trust and not remote else opened_by(text, drivers_for(text))
        except (RasterioError, OSError, UnicodeDecodeError) as err:  # GDAL's own messages may be no text
            # A signed address is shown without its query, and so without GDAL's own words.
            got = "GDAL cannot open it" if remote else err
            raise error(what, path=shown, got=got, expected="a raster that GDAL reads", fix=fix) from err


def grid_of(path: Path) -> Grid:
    """The grid of a map's file.

    Raises:
        InputError: it cannot be opened.
    """
    with as_error(InputError, "cannot open the map", path=path), rasterio.open(path) as dataset:
        return Grid.of(dataset)


def require_regular(path: str | Path, *, error: type[PipelineError]) -> None:
    """Refuse a pipe or device before GDAL waits for what comes out of it.

    Raises:
        PipelineError: of the class given.
    """
    if os.path.lexists(path) and not Path(path).is_file() and not Path(path).is_dir():
        raise error("not a regular file", path=path, got="a pipe, device or broken link")


def is_network(text: str) -> bool:
    """Whether GDAL would reach beyond the disk for a path.

    >>> is_network("/vsicurl?max_retry=3&url=https://example.org/a.tif"), is_network("/vsizip/a.zip/b.tif")
    (True, False)
    """
    return text.startswith(("http://", "https://", "ftp://")) or _NETWORK.search(text) is not None


@cache
def _on_disk() -> tuple[str, ...]:
    with rasterio.Env() as env:
        return tuple(name for name in env.drivers() if name not in SERVICES)


def drivers_for(path: str) -> tuple[str, ...]:
    """Drivers of GDAL that may open a path: behind an address those of REMOTE_DRIVERS, else all but of services."""
    if is_network(path):
        return REMOTE_DRIVERS
    return tuple(name for name in _on_disk() if name != _VRT_DRIVER) if path.startswith(_LOCAL) else _on_disk()


def opened_by(path: str, drivers: Sequence[str]) -> DatasetReader:
    """A raster opened by one of some drivers; ``rasterio.open`` takes one only."""
    with rasterio.Env():
        return DatasetReader(path, driver=list(drivers))


def read_bands(dataset: DatasetReader | WarpedVRT, numbers: Sequence[int], **how: Any) -> NDArray[Any]:
    """Bands [band, row, col] of an open file, as ``DatasetReader.read`` gives them; of one type where theirs differ."""
    if len({dataset.dtypes[number - 1] for number in numbers}) == 1:
        return np.asarray(dataset.read(list(numbers), **how))
    return np.stack([dataset.read(number, **how) for number in numbers])


def check_links(path: Path, *, error: type[PipelineError], depth: int = _DEPTH) -> None:
    """Refuse a description of a raster that leads to the network, to another driver, or to raw pixels elsewhere.

    Source: GDAL, VRT driver (SourceFilename, relativeToVRT, VRTRawRasterBand) and warped VRTs (SourceDataset).

    Raises:
        PipelineError: of the class given, or it names itself again and again.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        if not file.read(_HEAD_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return
    root = parse_xml(read_file(path, error=error), what="the description of a raster", path=path, error=error)
    fix = "set scenes.trust (--trust) if you know who wrote it"
    if root.tag != _VRT or not depth:
        what = "description of a raster by a service" if depth else "VRTs that name one another"
        raise error(what, path=path, got=root.tag, expected="a VRT of files on the disk", fix=fix)
    raw = {id(item) for band in root.iter("VRTRasterBand") if "Raw" in band.get("subClass", "") for item in band.iter()}
    for item in (item for item in root.iter() if item.tag in _LINKS):
        name = (item.text or "").strip()
        inside = INSIDE_FILE.fullmatch(name)
        inside = inside if inside and inside["driver"] not in SERVICES else None
        local = name.removeprefix(next((prefix for prefix in _LOCAL if name.startswith(prefix)), ""))
        target = (path.parent if item.get("relativeToVRT") == "1" else Path()) / (inside["file"] if inside else local)
        odd = local.startswith(("<", "/vsi", "vrt:")) or (":" in local[2:] and not inside)
        if odd or is_network(name):
            raise error("VRT names what is no file on the disk", path=path, got=name[:_SHOWN], fix=fix)
        if id(item) in raw and not target.resolve().is_relative_to(path.parent.resolve()):
            raise error("VRT reads raw pixels outside its folder", path=path, got=name[:_SHOWN], fix=fix)
        check_links(target, error=error, depth=depth - 1)


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of some bands on a grid."""

    # float32 [band, row, col]; reflectance 0..1 for optical bands, the band's own unit otherwise. Finite
    # everywhere; 0 where not valid
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]  # bool [row, col]; True where every band can be used
    bands: tuple[str, ...]  # Names, one per band
    grid: Grid  # Where the pixels lie

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        expected = (len(self.bands), *self.grid.shape)
        if self.values.shape != expected or self.valid.shape != expected[1:]:
            what = "raster with arrays of another shape than its bands and grid"
            raise SceneError(what, got=f"values {self.values.shape}, valid {self.valid.shape}", expected=expected)
        if self.values.dtype != np.float32 or self.valid.dtype != np.bool_:
            what = "raster with arrays of another type"
            raise SceneError(what, got=f"{self.values.dtype}, {self.valid.dtype}", expected="float32, bool")

    def band(self, name: str) -> NDArray[np.float32]:
        """One band, float32 [row, col]."""
        try:
            layer: NDArray[np.float32] = self.values[self.bands.index(name)]
        except ValueError as err:
            raise SceneError(f"raster has no band {name!r}", got=", ".join(self.bands)) from err
        return layer


def on_grid(
    dataset: DatasetReader, grid: Grid,
    *, resampling: str = "nearest", nodata: float | None = None, ignore_tag: bool = False, add_alpha: bool = False,
    tolerance_px: float = 0.125,
) -> WarpedVRT:  # fmt: skip
    """A file as GDAL warps it onto the pixels of ``grid``, window by window; to be closed by the caller.

    Args:
        dataset: Open, with a CRS.
        grid: Whose pixels are read.
        resampling: A name of ``rasterio.enums.Resampling``.
        nodata: What the file has where it has nothing, and what is read beyond its edges; None: as the file says.
        ignore_tag: With ``nodata`` None, every value in the file is one, whatever its tag says.
        add_alpha: A mask of where the file has pixels, as the last band.
        tolerance_px: How far GDAL may approximate coordinates, in pixels of the file. Source: gdalwarp, -et.
    """
    filled = {} if nodata is None and not ignore_tag else {"src_nodata": nodata, "nodata": nodata}
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling[resampling],
        add_alpha=add_alpha,
        tolerance=tolerance_px,
        **filled,
    )


def without_alpha(dataset: DatasetReader) -> DatasetReader:
    """The same file with no band taken for transparency, which warping would apply; to be closed by the caller.

    GDAL tags the fourth byte band of many files as alpha; where it is near infrared, warping would clear the pixels of
    all bands where it is 0. Its tag cannot be overruled when warping, only in a virtual raster of the file.
    """
    with MemoryFile(ext=".vrt") as memory:
        copy(dataset, memory.name, driver="VRT")
        text = memory.read().decode("utf-8")
    return rasterio.open(text.replace("<ColorInterp>Alpha</ColorInterp>", "<ColorInterp>Undefined</ColorInterp>"))


def burn_shapes(
    shapes: Sequence[Any], grid: Grid, *, all_touched: bool = False, values: Sequence[int] | None = None
) -> NDArray[Any]:
    """Pixels of ``grid`` whose centre lies in one of the shapes (or that one touches, with ``all_touched``).

    Shapes are shapely's or GeoJSON's, in the grid's CRS; of ``values``, one per shape, those of later shapes win.

    Returns:
        uint8 [row, col] of 0 and 1; with ``values`` those, int32 [row, col], and -1 outside all shapes.
    """
    kind, outside = ("uint8", 0) if values is None else ("int32", -1)
    if not len(shapes):
        return np.full(grid.shape, outside, dtype=kind)
    pairs = zip(shapes, [1] * len(shapes) if values is None else values, strict=True)
    # rasterio silences NotGeoreferencedWarning too, but not for other threads.
    with silenced(NotGeoreferencedWarning), silenced(ShapeSkipWarning):
        burnt: NDArray[Any] = rasterize(
            list(pairs), grid.shape, transform=grid.transform, fill=outside, all_touched=all_touched, dtype=kind
        )
    return burnt


def sample_windows(
    grid: Grid, *, per_side: int = SAMPLES_PER_SIDE, side_px: int = SAMPLE_PX, corners: bool = False
) -> tuple[Window, ...]:
    """Windows spread evenly over a grid, with ``corners`` into its corners; the whole grid where it is small.

    With ``corners`` they start at multiples of their side, the last ones aside: a file's block holds all of such a one.
    """
    if max(grid.shape) <= per_side * side_px:
        return (grid.window,)

    def starts(length: int) -> list[int]:
        last = max(length - side_px, 0)
        if corners:
            inner = {round(last * i / (per_side - 1) / side_px) * side_px for i in range(per_side - 1)}
            return sorted({*inner, last})
        side = min(side_px, length)
        count = min(per_side, length // side)
        return [round((i + 0.5) * length / count - side / 2) for i in range(count)]

    height, width = (min(side_px, length) for length in grid.shape)
    rows, cols = (starts(length) for length in grid.shape)
    return tuple(Window(row, col, height, width) for row in rows for col in cols)
