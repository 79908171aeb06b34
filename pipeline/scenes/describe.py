"""What a raster file says about each of its bands: name, scaling, nodata, mask; a look at a doubtful alpha; embeddings.

Annual embeddings are what an encoder of somebody else saw in a year, read by the rule of its producer:

- ``alphaearth``: 64 bands A00 to A63, int8, -128 is no data in all of them; value = sign(q) (q / 127.5)^2. Source:
  Google, AlphaEarth Foundations GCS data, "File structure" and "De-quantization"
  (developers.google.com/earth-engine/guides/aef_on_gcs_readme). Floating point (Earth Engine) is taken as it is.
- ``tessera``: 128 bands, value = q times a scale per pixel, NaN where there is no data. Source: README of
  ucam-eo/geotessera, "Dequantization"; its GeoTIFFs are floating point, scaled already, and their tags say version
  and variant, which are never mixed: vectors of two encoders have nothing in common.

The vectors already hold a pixel's surroundings, so they are never interpolated, and nothing is computed around them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from pipeline.documents import parse_xml, read_json
from pipeline.errors import GridError, InputError, SceneError, SceneWarning
from pipeline.grid import Grid
from pipeline.raster import as_error, open_raster, sample_windows
from pipeline.scenes.remote import plain_url

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.scenes.sources import BandSource

# T33UUU_20170216T102101_B04_10m, LC08_..._SR_B5, or whatever stands behind the last underscore or point.
_BAND_IN_NAME = re.compile(r"(?P<band>(SR_|ST_|QA_|SR_QA_)?[A-Za-z0-9]+)(_[126]0m)?$")
# Names that writers give to every band alike (ENVI, Erdas Imagine); numbered they say the position and no more.
_NO_NAME = re.compile(r"(layer|band|raster)?[ _]?\d*", re.IGNORECASE)
# An alpha channel is 0 or full but for a soft edge; a fourth band of measurements takes all values between.
ALPHA_SHARE = 0.95
_SHOWN = 5
_PALETTE = (
    "values are places in a palette, classes or colours and no measurements: write the colours of a picture first "
    "(gdal_translate -expand rgb)"
)


@dataclass(frozen=True)
class FileBand:
    """What a file says about one of its bands."""

    path: str  # What GDAL opens
    number: int  # Of the band, from 1
    text: str  # Its name, "" where nothing names it
    scale: float  # Of its tags; 1 where there is none
    offset: float  # Likewise; 0
    nodata: float | None  # DN that means no data, None where the file has none
    dtype: str  # Of its DN
    use_dataset_mask: bool  # The file has a mask band or an alpha channel
    gsd_m: float | None  # Pixel size in a projected CRS


@dataclass(frozen=True)
class Described:
    """One file: where its pixels lie, its bands without alpha, what may tell the sensor, what the ledger should say."""

    grid: Grid
    bands: tuple[FileBand, ...]
    name: str
    tags: tuple[str, ...]
    notes: tuple[str, ...]


def describe_file(file: Path | str, *, in_folder: bool, trust: bool = False) -> Described:
    """What a file says about itself; a file of one band in a folder is called by the end of its own name.

    Raises:
        SceneError: not a raster, several rasters in one file, no CRS, no geotransform, or rotated.
    """
    try:
        with _open(file, trust=trust) as dataset:
            _refuse_complex(dataset, shown(file))
            alpha, notes = _alpha(dataset)
            if not in_folder and dataset.count == 1 and dataset.colorinterp[0] == ColorInterp.palette:
                warnings.warn(f"{shown(file)}: {_PALETTE}", SceneWarning, stacklevel=3)
            numbers = [number for number in dataset.indexes if number != alpha]
            texts = _texts(dataset, file, numbers, in_folder=in_folder)
            masked = alpha is not None or (
                MaskFlags.per_dataset in dataset.mask_flag_enums[0]
                and MaskFlags.alpha not in dataset.mask_flag_enums[0]
            )
            bands = [_band(dataset, file, number, text) for number, text in zip(numbers, texts, strict=True)]
            tags = (f"{key} {value}" for key, value in dataset.tags().items() if len(value) < 200)  # noqa: PLR2004 - a line
            return Described(
                _grid(dataset, shown(file)),
                tuple(replace(band, use_dataset_mask=masked and band.nodata is None) for band in bands),
                Path(str(file)).stem,
                tuple(tags),
                notes,
            )
    except UnicodeDecodeError as err:
        raise SceneError("names or tags of the file are no text", path=shown(file), got=err) from err


def shown(file: Path | str) -> str:
    """A file in a message: the address of a signed URL is a secret."""
    return str(file) if isinstance(file, Path) else plain_url(file)


def band_in_name(stem: str) -> str:
    """The band in T33UUU_20170216T102101_B04_10m, HLS.S30.T33UUU.2024153T101031.v2.0.B04 or LC08_..._SR_B5."""
    last = stem.rpartition(".")[2] or stem
    match = _BAND_IN_NAME.search(last)
    return match["band"] if match else last


def _open(file: Path | str, *, trust: bool) -> DatasetReader:
    if isinstance(file, Path) and not os.path.lexists(file):
        raise SceneError("no such file or folder", path=file)
    dataset = open_raster(file, trust=trust)
    if dataset.count == 0:
        inside = dataset.subdatasets
        dataset.close()
        got = "; ".join(inside[:_SHOWN]) + (f"; {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else "")
        fix = "give one of these names in the place of the file" if inside else None
        raise SceneError("file with several rasters inside", path=shown(file), got=got or "none", fix=fix)
    return dataset


def _grid(dataset: DatasetReader, file: str) -> Grid:
    if dataset.crs is None:
        raise SceneError("scene has no CRS", path=file, fix="assign one with gdal_edit.py -a_srs EPSG:... FILE")
    if dataset.transform.is_identity:
        fix = "georeference it, for example with gdal_translate -a_ullr"
        raise SceneError("scene has no geotransform", path=file, fix=fix)
    try:
        grid = Grid.of(dataset).north_up()
    except GridError as err:
        raise SceneError("scene lies on a grid that cannot be used", path=file, got=err) from err
    grid.check_place(what="scene", path=file, error=SceneError)
    return grid


def _band(dataset: DatasetReader, file: Path | str, number: int, text: str) -> FileBand:
    return FileBand(
        path=str(file),
        number=number,
        text=text,
        scale=dataset.scales[number - 1],
        offset=dataset.offsets[number - 1],
        nodata=dataset.nodatavals[number - 1],
        dtype=dataset.dtypes[number - 1],
        use_dataset_mask=False,
        gsd_m=round(abs(dataset.transform.a), 3) if dataset.crs is not None and dataset.crs.is_projected else None,
    )


def _refuse_complex(dataset: DatasetReader, file: str) -> None:
    """Refuse pixels whose numbers are no measurements yet.

    Raises:
        SceneError: says how to make measurements of them.
    """
    kind = next((kind for kind in dataset.dtypes if kind.startswith("c")), None)
    if kind is not None:
        fix = "write their intensity first (gdal_calc.py, or the program of the radar product)"
        raise SceneError("pixels are complex numbers", path=file, got=kind, expected="measurements", fix=fix)


def _alpha(dataset: DatasetReader) -> tuple[int | None, tuple[str, ...]]:
    """Number of the alpha channel, and a note about a band that is tagged as one: GDAL tags any fourth byte band so."""
    number = next((i for i in dataset.indexes if dataset.colorinterp[i - 1] == ColorInterp.alpha), None)
    if number is None or dataset.count == 1:
        return None, ()
    text = (dataset.descriptions[number - 1] or "").strip()
    if text and not re.search(r"alpha|opacity|mask", text, re.IGNORECASE):
        return None, (f"band {number} is tagged alpha but called {text!r}: read as a band",)
    grid = Grid(dataset.crs or "EPSG:3857", dataset.transform, dataset.height, dataset.width)
    try:
        read = [dataset.read(number, window=window.to_rasterio()).ravel() for window in sample_windows(grid)]
    except RasterioError:
        return number, ()  # whoever reads the scene says what is damaged
    pixels = np.concatenate(read)
    extreme = np.isin(pixels, (0, 1, 255, 65535, pixels.max())).mean()
    if extreme >= ALPHA_SHARE:
        return number, (f"band {number} is an alpha channel: read as a mask",)
    values = len(np.unique(pixels))
    return None, (f"band {number} is tagged alpha but takes {values} values: read as a band",)


def _texts(dataset: DatasetReader, file: Path | str, numbers: list[int], *, in_folder: bool) -> list[str]:
    """A name per band, "" where nothing gives one: descriptions, file names inside a VRT, a STAC item beside."""
    texts = [(dataset.descriptions[number - 1] or "").strip() for number in numbers]
    counts = Counter(text.lower() for text in texts)
    texts = ["" if counts[text.lower()] > 1 and _NO_NAME.fullmatch(text) else text for text in texts]
    if len(numbers) == 1 and in_folder and (not texts[0] or _NO_NAME.fullmatch(texts[0])):
        return [band_in_name(Path(str(file)).stem)]
    if any(texts) or not isinstance(file, Path):
        return texts
    known = _inside_vrt(dataset) if dataset.driver == "VRT" else _beside(file)
    return [known.get(number, "") for number in numbers]


def _inside_vrt(dataset: DatasetReader) -> dict[int, str]:
    """Bands called by the file that each comes from, where every file gives one."""
    try:
        root = parse_xml(next(iter(dataset.tags(ns="xml:VRT").values()), ""))
    except InputError:
        return {}
    names = {
        int(band.get("band", "0")): PurePosixPath((source.text or "").replace("\\", "/")).stem
        for band in root.iter("VRTRasterBand")
        if (source := band.find(".//SourceFilename")) is not None
    }
    distinct = len(set(names.values())) == len(names)
    return {number: band_in_name(name) for number, name in names.items()} if distinct else {}


def _beside(file: Path) -> dict[int, str]:
    """Bands as a STAC item beside the file names those of the asset that the file is."""
    for item in (file.with_suffix(".json"), file.with_name(f"{file.stem}.stac.json"), file.parent / "item.json"):
        try:
            assets: dict[str, Any] = read_json(item)["assets"]
            own = next(a for a in assets.values() if PurePosixPath(a["href"]).name == file.name)
            listed = own.get("bands") or own.get("eo:bands") or ()
            names = [str(b.get("eo:common_name") or b.get("common_name") or b.get("name") or "") for b in listed]
        except (InputError, KeyError, TypeError, AttributeError, StopIteration):
            continue
        return dict(enumerate(names, start=1))
    return {}


Embedding = Literal["alphaearth", "tessera"]
ALPHAEARTH, TESSERA = "alphaearth", "tessera"
BANDS = {ALPHAEARTH: 64, TESSERA: 128}
ALPHAEARTH_NODATA = -128.0
# Rows and columns of the scales that are looked at when a file is opened.
_LOOKED_AT = 256
# What geotessera calls the tags of its GeoTIFFs.
_VERSION, _VARIANT = "TESSERA_DATASET_VERSION", "TESSERA_DATASET_VARIANT"
_NAME = {ALPHAEARTH: re.compile(r"A\d\d"), TESSERA: re.compile(r"tessera_band_\d+", re.IGNORECASE)}


def is_embedding(unit: str) -> bool:
    """Whether a band of this unit is one of an embedding's.

    >>> is_embedding("tessera 1.0 vultr"), is_embedding("reflectance")
    (True, False)
    """
    return unit.partition(" ")[0] in BANDS


def embedding_of(described: Sequence[Described]) -> Embedding | None:
    """The embedding that a file is by the names of its bands, None where it is none."""
    texts = [band.text for file in described for band in file.bands]
    if texts and all(_NAME["alphaearth"].fullmatch(text) for text in texts):
        return "alphaearth"
    return "tessera" if texts and all(_NAME["tessera"].fullmatch(text) for text in texts) else None


def as_embedding(
    bands: Sequence[BandSource], described: Sequence[Described], rule: Embedding
) -> tuple[BandSource, ...]:
    """The bands of a file read by the rule of its producer.

    Raises:
        SceneError: another number of bands (fewer if their names say which), another type, no version, or no scales.
    """
    path = bands[0].path
    texts = [band.text for file in described for band in file.bands]
    named = all(_NAME[rule].fullmatch(text) for text in texts)
    if len(bands) > BANDS[rule] or (not named and len(bands) != BANDS[rule]):
        expected = f"{BANDS[rule]}, or some of them called {_called(rule, 0)}, {_called(rule, 1)} and so on"
        raise SceneError(f"bands of {rule}", path=path, got=len(bands), expected=expected)
    names = [band.band for band in bands] if named else [_called(rule, number) for number in range(len(bands))]
    kinds = {band.dtype for file in described for band in file.bands}
    quantised = kinds == {"int8"}
    if not quantised and not all(kind.startswith("float") for kind in kinds):
        got = ", ".join(sorted(kinds))
        raise SceneError(f"values of {rule}", path=path, got=got, expected="int8, or floating point")
    unit: str = rule
    told = "floating point as stored"
    own: dict[str, Any] = {}
    if rule == TESSERA:
        unit = f"{TESSERA} {_version(described, path)}"
        if quantised:
            own, told = {"scales": _scales_of(path)}, "q times the scale of the pixel"
    elif quantised:
        own, told = {"squared": True, "nodata": ALPHAEARTH_NODATA}, "sign(q) (q / 127.5)^2"
    return tuple(
        replace(
            band, band=name, unit=unit, scale=1.0, offset=0.0, resampling="nearest", provenance=f"{unit}: {told}", **own
        )
        for band, name in zip(bands, names, strict=True)
    )


def _called(rule: str, number: int) -> str:
    return f"a{number:02d}" if rule == ALPHAEARTH else f"tessera_band_{number}"


def _version(described: Sequence[Described], path: str) -> str:
    tags = dict(tag.partition(" ")[::2] for file in described for tag in file.tags)
    if _VERSION not in tags:
        fix = f"set it with gdal_edit.py -mo {_VERSION}=... to the version that was downloaded"
        raise SceneError(f"no tag {_VERSION}: which encoder made these is not known", path=path, fix=fix)
    return f"{tags[_VERSION]} {tags.get(_VARIANT, '')}".strip()


def _scales_of(path: str) -> str:
    """The raster of scales beside a quantised file: a.tif has a_scales.tif."""
    file = Path(path)
    beside = file.with_name(f"{file.stem}_scales{file.suffix}")
    if not beside.is_file():
        raise SceneError("int8 without scales", path=path, expected=f"{beside.name} beside it, one band of float32")
    with open_raster(path) as whole, open_raster(beside) as scales:
        if scales.count != 1 or not scales.dtypes[0].startswith("float"):
            got = f"{scales.count} of {scales.dtypes[0]}"
            raise SceneError("scales of an embedding", path=beside, got=got, expected="one band of float32")
        if scales.shape != whole.shape or not scales.transform.almost_equals(whole.transform):
            raise SceneError("scales lie on other pixels", path=beside, expected=f"those of {file.name}")
        shape = (min(scales.height, _LOOKED_AT), min(scales.width, _LOOKED_AT))
        with as_error(SceneError, "scales of an embedding cannot be read", path=beside):
            seen = scales.read(1, out_shape=shape)
    usable = np.isfinite(seen) & (seen > 0)
    if not usable.any() or (seen[np.isfinite(seen)] < 0).any():
        got = "none of them a number above 0" if not usable.any() else "negative numbers"
        raise SceneError("scales of an embedding", path=beside, got=got, expected="positive numbers, NaN for no data")
    return str(beside)
