"""Any raster that GDAL opens, or a folder of one file per band, as a Scene.

Scale and offset come from the file's own tags unless the caller gives them; nodata from the tag, the mask band, or NaN.
Of Landsat files without their MTL the product's name tells the scaling. Quality layers mask and are never bands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.bands import COMMON_NAMES, common_name, find_band, infer_sensor, is_optical, sensor_named
from pipeline.errors import SceneError
from pipeline.scenes.describe import Described, FileBand, as_embedding, describe_file, embedding_of
from pipeline.scenes.quality import ASIDE, BAND_PER_REASON, check_mask, masks_of, role_of
from pipeline.scenes.remote import gdal_path, is_url, plain_url
from pipeline.scenes.scene import Scene
from pipeline.scenes.settings import AS_FOUND, SceneOptions, name_of
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource
from pipeline.settings import INSIDE_FILE

if TYPE_CHECKING:
    from pipeline.grid import Grid

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".gtif", ".vrt", ".jp2", ".img"})
# The day of acquisition in a name: the first of 20170216T102101, or of LC08_..._20170216_20170301.
_DAY_IN_NAME = re.compile(r"(?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)")
# Source: USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), table 6-1; LSDS-1618 for 4-7.
LANDSAT_SR = (2.75e-5, -0.2)
LANDSAT_ST = (0.00341802, 149.0)
LANDSAT_FILL = 0.0
_COLLECTION2 = re.compile(r"L[COTE]0[4-9]_(?P<level>L2S[PR])_\d{6}_\d{8}_\d{8}_02_(T1|T2|RT)_", re.IGNORECASE)
# Sentinel-2 images without their XML: zero is no data, what a DN means is not known.
_SENTINEL2_IMAGE = re.compile(r"T\d{2}[A-Z]{3}_\d{8}T\d{6}_B\w+", re.IGNORECASE)


@dataclass(frozen=True)
class _Layer:
    """A band of a file with what is decided about it."""

    band: FileBand
    name: str
    role: str | None


def open_geotiff(path: Path | str, *, options: SceneOptions = AS_FOUND, mask: Sequence[str] | None = None) -> Scene:
    """A scene from a raster file (on disk, behind a URL, or in GDAL's spelling), or from a folder of one file per band.

    Arguments as of :func:`pipeline.scenes.opening.open_scene`.

    Raises:
        SceneError: not a raster, no CRS, no geotransform, rotated, or band names that do not match.
    """
    if is_virtual(path):
        return _scene([gdal_path(str(path))], plain_url(str(path)), options, mask=check_mask(mask), in_folder=False)
    path = Path(path)
    in_folder = path.is_dir()
    files = _band_files(path) if in_folder else [path]
    return _scene(files, path, options, mask=check_mask(mask), in_folder=in_folder)


def is_virtual(path: Path | str) -> bool:
    """Whether GDAL must open a path as it is: a URL, one of GDAL's own file systems, or a raster inside a file."""
    return isinstance(path, str) and (
        is_url(path) or path.startswith("/vsi") or INSIDE_FILE.fullmatch(path) is not None
    )


def _scene(
    files: Sequence[Path | str], path: Path | str, options: SceneOptions, *, mask: Sequence[str], in_folder: bool
) -> Scene:
    opened = [describe_file(file, in_folder=in_folder, trust=options.trust) for file in files]
    bands = [band for described in opened for band in described.bands]
    file_names = [*(described.name for described in opened), Path(path).name]
    tags = [tag for described in opened for tag in described.tags]
    given = options.bands or [band.text for band in bands]
    sensor = options.sensor or sensor_named(file_names, tags=tags) or infer_sensor(given)
    layers = _layers(bands, options, sensor, path, in_folder=in_folder)
    used = [layer for layer in layers if layer.role is None]
    names = [layer.name for layer in used]
    if not used:
        got = ", ".join(layer.name for layer in layers)
        raise SceneError("scene holds quality layers only", path=path, got=got, expected="a band to learn from")
    sources = tuple(_source(layer.band, layer.name, options, sensor or "") for layer in used)
    rule = options.embedding or embedding_of(opened)
    level = next((match["level"].upper() for name in file_names if (match := _COLLECTION2.search(name))), "")
    return Scene(
        id=name_of(Path(path).name if in_folder else _stem_of(str(path)), path=path),
        path=str(path),
        grid=_common_grid(opened, path),
        bands=sources if rule is None else as_embedding(sources, opened, rule),
        quality=_quality(layers, mask, sensor=sensor or "", names=names),
        sensor=sensor or "",
        level=level,
        baseline="02" if level else "",
        acquired_utc=options.acquired_utc,
        notes=(*(note for described in opened for note in described.notes), *_notes(layers, options)),
    )


def _stem_of(text: str) -> str:
    """A file's stem; a raster inside a file by the names of both: NETCDF:"/data/a.nc":ndvi is a_ndvi."""
    if not INSIDE_FILE.fullmatch(text):
        return Path(text).stem
    _, _, rest = text.partition(":")
    file, _, variable = rest.replace('"', "").rpartition(":")
    return re.sub(r"[^\w.-]+", "_", f"{Path(file).stem}_{variable.strip('/')}" if file else Path(variable).stem)


def _band_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in RASTER_SUFFIXES and p.is_file())
    bands = [file for file in files if role_of(file.stem) != ASIDE]
    if not bands:
        expected = "files that end in " + ", ".join(sorted(RASTER_SUFFIXES))
        raise SceneError("folder holds no raster files", path=folder, expected=expected)
    days = sorted({found[0] for file in bands if (found := _DAY_IN_NAME.search(file.stem))})
    if len(days) > 1:
        what, fix = "files of several dates given as one scene", "give one folder per date and join them by inputs.time"
        raise SceneError(what, path=folder, got=", ".join(days), expected="the bands of one date", fix=fix)
    return bands


def _common_grid(opened: Sequence[Described], path: Path | str) -> Grid:
    """The finest grid of the bands; files of one folder must cover the same ground, or they are not one scene."""
    grids = [described.grid for described in opened]
    finest = min(grids, key=lambda grid: grid.pixel_size_m[0])
    for grid in grids:
        slack = max(*grid.pixel_size, *finest.pixel_size)
        near = all(abs(a - b) <= slack for a, b in zip(grid.bounds, finest.bounds, strict=True))
        if grid.crs != finest.crs or not near:
            what = "files of the folder cover different ground, so they are not the bands of one scene"
            got = f"{grid.crs} {grid.bounds}"
            raise SceneError(what, path=path, got=got, expected=f"{finest.crs} {finest.bounds}", fix="give one scene")
    return finest


def _layers(
    bands: Sequence[FileBand], options: SceneOptions, sensor: str | None, path: Path | str, *, in_folder: bool
) -> list[_Layer]:
    """Every band with its name and its role; the user may name the bands alone, or all layers."""
    last: dict[str, int] = {}
    for band in bands:
        last[band.path] = max(band.number, last.get(band.path, 0))
    roles = [_role(b, b.text, last=last[b.path], in_folder=in_folder) for b in bands]
    if options.bands is None:
        names = [common_name(b.text, sensor=sensor) if b.text else f"band{b.number}" for b in bands]
        return [_Layer(*item) for item in zip(bands, names, roles, strict=True)]
    wanted = [position for position, role in enumerate(roles) if role is None]
    if len(options.bands) == len(bands):
        wanted = list(range(len(bands)))
    if len(options.bands) != len(wanted):
        got, expected = len(options.bands), f"{len(bands)}, as the scene has"
        raise SceneError("number of band names", path=path, got=got, expected=expected)
    given = dict(zip(wanted, options.bands, strict=True))
    found = []
    for position, band in enumerate(bands):
        text = given.get(position, band.text)
        known = common_name(text, sensor=sensor)
        name = known if known in COMMON_NAMES else text
        found.append(_Layer(band, name, _role(band, text, last=last[band.path], in_folder=in_folder)))
    return found


def _role(band: FileBand, text: str, *, last: int, in_folder: bool) -> str | None:
    """Role of a band: by the name of its file in a folder, where the first band has it for all; else by its own.

    ``last`` is the number of the file's last band; ``in_folder``: the file's name is that of the layer.
    """
    of_file = role_of(Path(band.path).stem) if in_folder else None
    if of_file is None:
        role = role_of(text) if text else None
        return ASIDE if role in BAND_PER_REASON else role
    return of_file if band.number == 1 and last >= BAND_PER_REASON.get(of_file, 1) else ASIDE


def _quality(
    layers: Sequence[_Layer], mask: Sequence[str], *, sensor: str, names: Sequence[str]
) -> tuple[QualitySource, ...]:
    if not mask:
        return ()
    return tuple(
        source
        for layer in layers
        if layer.role
        for source in masks_of(layer.role, layer.band.path, mask, index=layer.band.number, sensor=sensor, bands=names)
    )


def _notes(layers: Sequence[_Layer], options: SceneOptions) -> tuple[str, ...]:
    aside = [layer.name for layer in layers if layer.role is not None]
    notes = [f"not bands: {', '.join(aside)}"] if aside else []
    if options.bands is None and sum(not layer.band.text for layer in layers) > 1:
        notes.append("bands have no names: they are called by their position")
    return tuple(notes)


def _source(band: FileBand, name: str, options: SceneOptions, sensor: str) -> BandSource:
    scale, offset, where = _scaling(band, name, options, sensor=sensor)
    scaled = (scale, offset) != (1.0, 0.0)
    nodata = band.nodata
    if nodata is None and _known_fill(band, name, sensor=sensor):
        nodata = LANDSAT_FILL
    spec = find_band(name, sensor=sensor) if sensor else None
    # Integers without a scale are counts, whatever the band is called.
    unit = REFLECTANCE if is_optical(name) and (scaled or band.dtype.startswith("float")) else "DN"
    return BandSource(
        band=name,
        path=band.path,
        index=band.number,
        scale=scale,
        offset=offset,
        nodata=options.nodata_or(nodata),
        use_dataset_mask=band.use_dataset_mask,
        nodata_stated=options.nodata is not None,
        gsd_m=band.gsd_m,
        unit="kelvin" if spec is not None and (scale, offset) == LANDSAT_ST else unit,
        provenance=where if scaled else "none: DN as stored",
    )


def _scaling(band: FileBand, name: str, options: SceneOptions, *, sensor: str) -> tuple[float, float, str]:
    """(scale, offset, where they were found)."""
    scale, offset, where = band.scale, band.offset, "file tags"
    known = _landsat_scaling(band, name, sensor=sensor)
    if (scale, offset) == (1.0, 0.0) and known is not None:
        scale, offset = known
        level = next(iter(_COLLECTION2.findall(Path(band.path).stem)))[0].upper()
        where = f"name of the product: Landsat Collection 2 {level} (LSDS-1619)"
    if options.scale is not None or options.offset is not None:
        where = "config"
        scale = scale if options.scale is None else options.scale
        offset = offset if options.offset is None else options.offset
    return scale, offset, where


def _landsat_scaling(band: FileBand, name: str, *, sensor: str) -> tuple[float, float] | None:
    """Scale and offset of a band of a Landsat product by its file's name; None for what the sensor does not measure."""
    if _COLLECTION2.search(Path(band.path).stem) is None or band.dtype.startswith("float"):
        return None
    if is_optical(name):
        return LANDSAT_SR
    thermal = sensor.startswith("landsat") and find_band(name, sensor=sensor) is not None
    return LANDSAT_ST if thermal else None


def _known_fill(band: FileBand, name: str, *, sensor: str) -> bool:
    """Whether zero is known to be no data: integers of agencies' products, by their names."""
    if _landsat_scaling(band, name, sensor=sensor) is not None:
        return True
    return _SENTINEL2_IMAGE.search(Path(band.path).stem) is not None and not band.dtype.startswith("float")
