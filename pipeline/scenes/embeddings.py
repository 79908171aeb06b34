"""Annual embeddings as bands: what an encoder of somebody else saw in a year, read by the rule of its producer.

- ``alphaearth``: 64 bands A00 to A63, int8, -128 is no data in all of them; value = sign(q) (q / 127.5)^2. Source:
  Google, AlphaEarth Foundations GCS data, "File structure" and "De-quantization"
  (developers.google.com/earth-engine/guides/aef_on_gcs_readme). Floating point (Earth Engine) is taken as it is.
- ``tessera``: 128 bands, value = q times a scale per pixel, NaN where there is no data. Source: README of
  ucam-eo/geotessera, "Dequantization"; its GeoTIFFs are floating point, scaled already, and their tags say version
  and variant, which are never mixed: vectors of two encoders have nothing in common.

The vectors already hold a pixel's surroundings, so they are never interpolated, and nothing is computed around them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rasterio.errors import RasterioError

from pipeline.errors import SceneError
from pipeline.raster import open_raster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.scenes.describe import Described
    from pipeline.scenes.sources import BandSource

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
        try:
            seen = scales.read(1, out_shape=shape)
        except RasterioError as err:
            raise SceneError("scales of an embedding cannot be read", path=beside, got=err) from err
    usable = np.isfinite(seen) & (seen > 0)
    if not usable.any() or (seen[np.isfinite(seen)] < 0).any():
        got = "none of them a number above 0" if not usable.any() else "negative numbers"
        raise SceneError("scales of an embedding", path=beside, got=got, expected="positive numbers, NaN for no data")
    return str(beside)
