"""Any raster that GDAL opens, or a folder of one file per band, as a Scene.

Scale and offset come from the file's own tags unless the caller gives them; nodata from the tag, the mask band, or NaN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipeline.bands import COMMON_NAMES, common_name, infer_sensor, is_optical
from pipeline.errors import GridError, SceneError
from pipeline.grid import Grid
from pipeline.quiet import silenced
from pipeline.scenes.remote import gdal_path, is_url, plain_url
from pipeline.scenes.scene import REFLECTANCE, BandSource, Scene
from pipeline.scenes.settings import AS_FOUND, SceneOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rasterio.io import DatasetReader

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".gtif", ".vrt", ".jp2", ".img"})
# T33UUU_20170216T102101_B04_10m, LC08_..._SR_B5, or whatever stands behind the last underscore.
_BAND_IN_NAME = re.compile(r"(?P<band>(SR_|ST_)?[A-Za-z0-9]+)(_[126]0m)?$")
# The day of acquisition in a name: the first of 20170216T102101, or of LC08_..._20170216_20170301.
_DAY_IN_NAME = re.compile(r"(?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)")
# Pictures to look at, which the agencies put beside the bands.
_PREVIEW = re.compile(r"_(TCI|PVI)(_[126]0m)?$", re.IGNORECASE)


def open_geotiff(path: Path | str, *, options: SceneOptions = AS_FOUND) -> Scene:
    """A scene from a raster file (on disk, behind a URL, or in GDAL's spelling), or from a folder of one file per band.

    Raises:
        SceneError: not a raster, no CRS, no geotransform, rotated, or band names that do not match.
    """
    if is_virtual(path):
        return _scene([gdal_path(str(path))], plain_url(str(path)), options, in_folder=False)
    path = Path(path)
    in_folder = path.is_dir()
    return _scene(_band_files(path) if in_folder else [path], path, options, in_folder=in_folder)


def is_virtual(path: Path | str) -> bool:
    """Whether GDAL must open a path as it is: a URL, or one of GDAL's own file systems."""
    return isinstance(path, str) and (is_url(path) or path.startswith("/vsi"))


def _scene(files: Sequence[Path | str], path: Path | str, options: SceneOptions, *, in_folder: bool) -> Scene:
    opened = [_describe(file, in_folder=in_folder) for file in files]
    layers = [layer for _, described in opened for layer in described]
    sensor = options.sensor or infer_sensor(options.bands or [layer.text for layer in layers])
    sources = [
        _source(layer, name, options) for layer, name in zip(layers, _names(layers, options, sensor, path), strict=True)
    ]
    return Scene(
        id=Path(path).name if in_folder else Path(path).stem,
        path=str(path),
        grid=_common_grid([grid for grid, _ in opened], path),
        bands=tuple(sources),
        sensor=sensor or "",
        acquired_utc=options.acquired_utc,
    )


@dataclass(frozen=True)
class _Layer:
    """What a file says about one of its bands."""

    path: str
    number: int
    text: str
    scale: float
    offset: float
    nodata: float | None
    floating: bool
    use_dataset_mask: bool
    gsd_m: float | None


def _band_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in RASTER_SUFFIXES and p.is_file())
    bands = [file for file in files if not _PREVIEW.search(file.stem)]
    if not bands:
        what = "folder holds no raster files"
        raise SceneError(what, path=folder, expected="files that end in " + ", ".join(sorted(RASTER_SUFFIXES)))
    days = sorted({found[0] for file in bands if (found := _DAY_IN_NAME.search(file.stem))})
    if len(days) > 1:
        what, fix = "files of several dates given as one scene", "give one folder per date and join them by inputs.time"
        raise SceneError(what, path=folder, got=", ".join(days), expected="the bands of one date", fix=fix)
    return bands


def _open(file: Path | str) -> DatasetReader:
    if isinstance(file, Path) and not file.exists():
        raise SceneError("no such file or folder", path=file)
    with silenced(NotGeoreferencedWarning):
        try:
            return rasterio.open(file)
        except RasterioError as err:
            what = "not a raster that GDAL can open"
            # The address of a signed URL is a secret: it is shown without its query, and so without GDAL's own words.
            got = err if isinstance(file, Path) else "GDAL cannot open it"
            raise SceneError(
                what, path=_shown(file), got=got, expected="a GeoTIFF, VRT, JP2 or another GDAL raster"
            ) from err


def _describe(file: Path | str, *, in_folder: bool) -> tuple[Grid, list[_Layer]]:
    with _open(file) as dataset:
        numbers = [i for i in dataset.indexes if dataset.colorinterp[i - 1] != ColorInterp.alpha]
        name = _name_in_file_name(Path(file).stem) if in_folder and len(numbers) == 1 else ""
        return _grid(dataset, _shown(file)), [_layer(dataset, file, number, name) for number in numbers]


def _shown(file: Path | str) -> str:
    return str(file) if isinstance(file, Path) else plain_url(file)


def _name_in_file_name(stem: str) -> str:
    """The band in T33UUU_20170216T102101_B04_10m or LC08_..._SR_B5."""
    match = _BAND_IN_NAME.search(stem)
    return match["band"] if match else stem


def _grid(dataset: DatasetReader, file: str) -> Grid:
    if dataset.crs is None:
        raise SceneError("scene has no CRS", path=file, fix="assign one with gdal_edit.py -a_srs EPSG:... FILE")
    if dataset.transform.is_identity:
        what = "scene has no geotransform"
        raise SceneError(what, path=file, fix="georeference it, for example with gdal_translate -a_ullr")
    try:
        return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    except GridError as err:
        raise SceneError("scene lies on a grid that cannot be used", path=file, got=err) from err


def _layer(dataset: DatasetReader, file: Path | str, number: int, name: str) -> _Layer:
    flags = dataset.mask_flag_enums[number - 1]
    return _Layer(
        path=str(file),
        number=number,
        text=dataset.descriptions[number - 1] or name,
        scale=dataset.scales[number - 1],
        offset=dataset.offsets[number - 1],
        nodata=dataset.nodatavals[number - 1],
        floating=dataset.dtypes[number - 1].startswith("float"),
        use_dataset_mask=MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags,
        gsd_m=round(abs(dataset.transform.a), 3) if dataset.crs is not None and dataset.crs.is_projected else None,
    )


def _common_grid(grids: Sequence[Grid], path: Path | str) -> Grid:
    """The finest grid; files of one folder must cover the same ground, or they are not one scene."""
    finest = min(grids, key=lambda grid: grid.pixel_size_m[0])
    for grid in grids:
        slack = max(*grid.pixel_size, *finest.pixel_size)
        near = all(abs(a - b) <= slack for a, b in zip(grid.bounds, finest.bounds, strict=True))
        if grid.crs != finest.crs or not near:
            what = "files of the folder cover different ground, so they are not the bands of one scene"
            got = f"{grid.crs} {grid.bounds}"
            raise SceneError(what, path=path, got=got, expected=f"{finest.crs} {finest.bounds}", fix="give one scene")
    return finest


def _names(layers: Sequence[_Layer], options: SceneOptions, sensor: str | None, path: Path | str) -> list[str]:
    if options.bands is None:
        return [common_name(layer.text, sensor=sensor) if layer.text else f"band{layer.number}" for layer in layers]
    if len(options.bands) != len(layers):
        what = "number of band names in the config"
        raise SceneError(what, path=path, got=len(options.bands), expected=f"{len(layers)}, as the scene has")
    known = [common_name(name, sensor=sensor) for name in options.bands]
    return [new if new in COMMON_NAMES else name for new, name in zip(known, options.bands, strict=True)]


def _source(layer: _Layer, name: str, options: SceneOptions) -> BandSource:
    scale = layer.scale if options.scale is None else options.scale
    offset = layer.offset if options.offset is None else options.offset
    where = "config" if options.scale is not None or options.offset is not None else "file tags"
    scaled = (scale, offset) != (1.0, 0.0)
    return BandSource(
        band=name,
        path=layer.path,
        index=layer.number,
        scale=scale,
        offset=offset,
        nodata=layer.nodata if options.nodata is None else options.nodata,
        use_dataset_mask=layer.use_dataset_mask,
        gsd_m=layer.gsd_m,
        # Integers without a scale are counts, whatever the band is called.
        unit=REFLECTANCE if is_optical(name) and (scaled or layer.floating) else "DN",
        provenance=where if scaled else "none: DN as stored",
    )
