"""Any raster that GDAL opens, or a folder of one file per band, as a Scene.

Scale and offset come from the file's own tags unless the caller gives them; nodata from the tag, the mask band, or NaN.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipeline.bands import common_name, is_optical
from pipeline.errors import SceneError
from pipeline.grid import Grid
from pipeline.scenes.scene import REFLECTANCE, BandSource, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rasterio.io import DatasetReader

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".gtif", ".vrt", ".jp2", ".img"})


@dataclass(frozen=True)
class Interpretation:
    """What the user knows better than the file; None means "as the file says".

    Attributes:
        bands: A name for every band, in file order (or file-name order in a folder).
        scale: value = DN x scale + offset, for every optical band.
        offset: See scale.
        nodata: DN that means "no observation".
        sensor: A key of ``pipeline.bands.TABLES``; makes B5 or SR_B5 unambiguous.
        acquired_utc: Time of acquisition, timezone-aware.
    """

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    sensor: str | None = None
    acquired_utc: datetime | None = None


def open_geotiff(path: Path | str, *, told: Interpretation | None = None) -> Scene:
    """A scene from a raster file, or from a folder whose raster files are its bands.

    Raises:
        SceneError: not a raster, no CRS, no geotransform, rotated, or band names that do not match.
    """
    path = Path(path)
    files = _band_files(path) if path.is_dir() else [path]
    told = told or Interpretation()
    sources: list[BandSource] = []
    grids: list[Grid] = []
    for file in files:
        with _open(file) as dataset:
            grids.append(_grid(dataset, file))
            sources.extend(_sources(dataset, file, told, in_folder=path.is_dir()))
    sources = _rename(sources, told.bands, path)
    finest = min(grids, key=lambda grid: grid.pixel_size_m[0])
    return Scene(
        id=path.stem if path.is_file() else path.name,
        path=str(path),
        grid=finest,
        bands=tuple(sources),
        sensor=told.sensor or "",
        acquired_utc=told.acquired_utc,
    )


def _band_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in RASTER_SUFFIXES and p.is_file())
    if not files:
        what = "folder holds no raster files"
        raise SceneError(what, path=folder, expected="files that end in " + ", ".join(sorted(RASTER_SUFFIXES)))
    return files


def _open(file: Path) -> DatasetReader:
    if not file.exists():
        what = "no such file or folder"
        raise SceneError(what, path=file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(file)
        except RasterioError as err:
            what = "not a raster that GDAL can open"
            raise SceneError(what, path=file, got=err, expected="a GeoTIFF, VRT, JP2 or another GDAL raster") from err


def _grid(dataset: DatasetReader, file: Path) -> Grid:
    if dataset.crs is None:
        what = "scene has no CRS"
        raise SceneError(what, path=file, fix="assign one with gdal_edit.py -a_srs EPSG:... FILE")
    if dataset.transform.is_identity:
        what = "scene has no geotransform"
        raise SceneError(what, path=file, fix="georeference it, for example with gdal_translate -a_ullr")
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def _sources(dataset: DatasetReader, file: Path, told: Interpretation, *, in_folder: bool) -> list[BandSource]:
    sources = []
    for number in dataset.indexes:
        if dataset.colorinterp[number - 1] == ColorInterp.alpha:
            continue
        text = dataset.descriptions[number - 1] or (
            file.stem.rsplit("_", 1)[-1] if in_folder and dataset.count == 1 else ""
        )
        name = common_name(text, sensor=told.sensor) if text else f"band{number}"
        tagged = (dataset.scales[number - 1], dataset.offsets[number - 1])
        scale = tagged[0] if told.scale is None else told.scale
        offset = tagged[1] if told.offset is None else told.offset
        where = "config" if told.scale is not None or told.offset is not None else "file tags"
        flags = dataset.mask_flag_enums[number - 1]
        sources.append(
            BandSource(
                band=name,
                path=str(file),
                index=number,
                scale=scale,
                offset=offset,
                nodata=told.nodata if told.nodata is not None else dataset.nodatavals[number - 1],
                use_dataset_mask=MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags,
                gsd_m=round(dataset.transform.a, 3) if dataset.crs.is_projected else None,
                unit=REFLECTANCE if is_optical(name) else "DN",
                provenance=where if (scale, offset) != (1.0, 0.0) else "none: DN as stored",
            )
        )
    return sources


def _rename(sources: list[BandSource], names: Sequence[str] | None, path: Path) -> list[BandSource]:
    if names is None:
        return sources
    if len(names) != len(sources):
        what = "number of band names in the config"
        raise SceneError(what, path=path, got=len(names), expected=f"{len(sources)}, as the scene has")
    from dataclasses import replace

    return [
        replace(source, band=name, unit=REFLECTANCE if is_optical(name) else source.unit)
        for source, name in zip(sources, names, strict=True)
    ]
