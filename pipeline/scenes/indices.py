"""Bands computed from a scene's own and appended to it: spectral indices by name, and textures of its brightness.

Source of the formulas, which spyndex evaluates: Montero et al. (2023), A standardized catalogue of spectral indices to
advance the use of remote sensing in Earth system research, Scientific Data 10:197.
Textures are the mean, deviation, least and largest brightness around each pixel, at several sizes of window: networks
of pixels see 9 pixels, and in an aerial image a roof is wider than that. Source: first-order (occurrence) measures,
https://www.nv5geospatialsoftware.com/docs/backgroundtexturemetrics.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter

from pipeline.errors import SceneError
from pipeline.raster import Raster
from pipeline.scenes.derived import Derived, DerivedReader, refuse_twice

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source

# spyndex letters -> our names, best first: Landsat has no "nir" in the STAC sense, its near infrared is "nir08".
_LETTERS: dict[str, tuple[str, ...]] = {
    "A": ("coastal",),
    "B": ("blue",),
    "G": ("green",),
    "R": ("red",),
    "RE1": ("rededge071",),
    "RE2": ("rededge075",),
    "RE3": ("rededge078",),
    "N": ("nir", "nir08"),
    "N2": ("nir08", "nir"),
    "WV": ("nir09",),
    "S1": ("swir16",),
    "S2": ("swir22",),
    "T": ("lwir11",),
    "T1": ("lwir11",),
    "T2": ("lwir12",),
    "VV": ("vv",),
    "VH": ("vh",),
    "HH": ("hh",),
    "HV": ("hv",),
}
# Names that users type and the catalogue spells otherwise. BSI: Rikimaru et al. (2002), Tropical Ecology 43:39-47.
_ALSO = {"BSI": "BI"}
# |index| beyond which a quotient of small noisy numbers is no observation. A choice: (a-b)/(a+b) of reflectances
# a, b >= 0 lies in -1..1; offsets and noise push dark pixels beyond it without bound.
NORMALISED_LIMIT = 1.0
UNBOUNDED_LIMIT = 100.0


@dataclass(frozen=True)
class Index:
    """One spectral index."""

    name: str  # Band name of the result, lower case ("ndvi")
    key: str  # Name in the catalogue ("NDVI")
    inputs: tuple[tuple[str, str], ...]  # (spyndex letter, band name) pairs it is computed from
    formula: str  # As the catalogue has it
    limit: float  # Results are clipped to -limit .. limit


@dataclass(frozen=True)
class WithIndices(Derived):
    """A source with spectral indices appended, ``indices`` in the order of their bands; opened like a scene.

    On another grid the bands are resampled, then the indices computed.
    """

    indices: tuple[Index, ...]

    def ledger(self) -> dict[str, object]:
        """The source's ledger and the formula of every index."""
        given = [index for index in self.indices if index.name in self.names]
        formulas = [
            {"band": i.name, "index": i.key, "formula": i.formula, "from": dict(i.inputs), "clipped_to": i.limit}
            for i in given
        ]
        return self.inputs[0].ledger() | {"indices": formulas}

    def open(self) -> Reader:
        """A reader; bands that neither are asked for nor enter an index are not read."""
        used = [index for index in self.indices if index.name in self.names]
        wanted = {*self.names, *(band for index in used for _, band in index.inputs)}
        source = self.inputs[0]
        inner = source.select([name for name in source.band_names if name in wanted]).open()
        return DerivedReader(self.grid, self.names, (inner,), partial(_append, indices=used, names=self.names))


def with_indices(source: Source, indices: Sequence[str]) -> WithIndices:
    """``source`` with indices appended as bands, named in lower case.

    A pixel where an index is not defined (0/0, a logarithm of a negative number) is not valid; finite results are
    clipped to -1..1 for normalised differences and to -100..100 for others.

    Names are in any case: NDVI, NDWI, MNDWI, NDBI, NBR, BSI, EVI, SAVI, NDMI...; spyndex has 280.

    Raises:
        SceneError: an unknown index, or a band it needs that the source lacks.
    """
    found = tuple(find_index(name, bands=source.band_names, path=source.path) for name in indices)
    names = (*source.band_names, *(index.name for index in found))
    refuse_twice(names, path=source.path)
    return WithIndices(source.id, (source,), names, found)


def find_index(name: str, *, bands: Sequence[str], path: str = "") -> Index:
    """The index called ``name`` (any case), bound to ``bands``.

    >>> find_index("ndvi", bands=("red", "nir")).inputs
    (('N', 'nir'), ('R', 'red'))

    Raises:
        SceneError: unknown index, a parameter without a default, or a band that is not there.
    """
    import spyndex

    # Exact spelling first, then the all-capital one: BAI is burned area, BaI bareness.
    by_upper = {key.upper(): key for key in sorted(spyndex.indices, key=str.isupper)}
    key = name if name in spyndex.indices else by_upper.get(_ALSO.get(name.upper(), name.upper()))
    if key is None:
        near = ", ".join(sorted(k for k in spyndex.indices if k.upper().startswith(name.upper()[:2])))
        raise SceneError(f"no spectral index called {name!r}", got=name, expected=near or "a name such as NDVI")
    entry = spyndex.indices[key]
    inputs = []
    for letter in entry.bands:
        if letter in spyndex.constants and letter not in _LETTERS:
            _default(letter, key)
            continue
        band = next((b for b in _LETTERS.get(letter, ()) if b in bands), None)
        if band is None:
            need = " or ".join(_LETTERS.get(letter, (letter,)))
            raise SceneError(f"index {name} needs band {need}", path=path or None, got=", ".join(bands))
        inputs.append((letter, band))
    limit = NORMALISED_LIMIT if _is_normalised(entry.formula, entry.bands) else UNBOUNDED_LIMIT
    return Index(name.lower(), key, tuple(inputs), entry.formula, limit)


def _default(letter: str, key: str) -> float:
    import spyndex

    value = spyndex.constants[letter].default
    if value is None:
        raise SceneError(f"index {key} has parameter {letter} without a default", fix="use another index")
    return float(value)


def _is_normalised(formula: str, letters: Sequence[str]) -> bool:
    """Whether a formula is (a-b)/(a+b) of two bands, or that of two sums (BSI), which lies in -1..1."""
    text = formula.replace(" ", "")
    bare = re.sub("|".join(sorted(map(re.escape, letters), key=len, reverse=True)), "", text)
    if "*" in text or ")/(" not in text or any(char.isdigit() for char in bare):
        return False
    above, _, below = text.partition(")/(")
    signless = above.strip("()").replace(")-(", ")+(").replace("-", "+")
    return text.count("/") == 1 and signless == below.strip("()")


def compute_index(index: Index, raster: Raster) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(values float32 [row,col] clipped to the index' limit and 0 where undefined, defined bool [row,col])."""
    import spyndex

    entry = spyndex.indices[index.key]
    bands = dict(index.inputs)
    # Double precision: the catalogue's Python formulas square and subtract numbers that are nearly equal.
    params: dict[str, Any] = {
        letter: raster.band(bands[letter]).astype(np.float64) if letter in bands else _default(letter, index.key)
        for letter in entry.bands
    }
    with np.errstate(all="ignore"):
        result = np.asarray(spyndex.computeIndex(index.key, params=params), dtype=np.float64)
    defined = np.isfinite(result)
    clipped = np.clip(np.where(defined, result, 0.0), -index.limit, index.limit)
    return clipped.astype(np.float32), defined


def _append(inputs: Sequence[Reader], window: Window, *, indices: Sequence[Index], names: Sequence[str]) -> Raster:
    raster = inputs[0].read(window)
    layers = dict(zip(raster.bands, raster.values, strict=True))
    valid = raster.valid.copy()
    for index in indices:
        layers[index.name], defined = compute_index(index, raster)
        valid &= defined
    values = np.stack([layers[name] for name in names])
    np.multiply(values, valid, out=values)
    return Raster(values, valid, tuple(names), raster.grid)


MEASURES = ("mean", "sd", "min", "max")
_PREFIX = "texture_"
# What is proposed for objects in images of fewer bands than these. Measured on 43 buildings in one panchromatic band of
# 0.5 m, five block folds: F1 of the pixels 0.36 with textures of these windows, 0.14 without.
FEW_BANDS = 3
TEXTURES_PX = (5, 11, 21, 31)


@dataclass(frozen=True)
class WithTextures(Derived):
    """A source with textures of its brightness appended; ``windows`` in pixels, odd; opened like a scene."""

    windows: tuple[int, ...]

    def ledger(self) -> dict[str, object]:
        """The source's ledger, and the windows."""
        return self.inputs[0].ledger() | {"textures": {"windows_px": list(self.windows), "of": "mean of all bands"}}

    def open(self) -> Reader:
        """A reader; for a texture all bands of the source are read, as their mean is the brightness."""
        if not any(map(is_texture, self.names)):
            return self.inputs[0].select(self.names).open()
        asked = tuple(window for window in self.windows if set(texture_names([window])) & set(self.names))
        compute = partial(_textured, windows=asked, names=self.names)
        return DerivedReader(self.grid, self.names, (self.inputs[0].open(),), compute)


def is_texture(name: str) -> bool:
    """Whether a band is one of :func:`texture_names`, whatever the windows."""
    return name.startswith(_PREFIX)


def texture_names(windows: Sequence[int]) -> tuple[str, ...]:
    """Names of the bands, in order.

    >>> texture_names([5])
    ('texture_mean5', 'texture_sd5', 'texture_min5', 'texture_max5')
    """
    return tuple(f"{_PREFIX}{measure}{window}" for window in windows for measure in MEASURES)


def with_textures(source: Source, windows: Sequence[int]) -> WithTextures:
    """``source`` with the bands of :func:`texture_names`, all of the source's unit, which they do not repeat.

    Raises:
        SceneError: it has bands of these names.
    """
    names = (*source.band_names, *texture_names(windows))
    refuse_twice(names, path=source.path)
    return WithTextures(source.id, (source,), names, tuple(windows))


def _textured(inputs: Sequence[Reader], window: Window, *, windows: Sequence[int], names: Sequence[str]) -> Raster:
    reach = max(windows) // 2
    base = inputs[0].read(window.expand(reach))
    made = dict(zip(texture_names(windows), textures(base.values.mean(0), base.valid, windows), strict=True))
    found = dict(zip(base.bands, base.values, strict=True)) | made
    inner = (slice(reach, reach + window.height), slice(reach, reach + window.width))
    values, valid = np.stack([found[name][inner] for name in names]), base.valid[inner]
    np.multiply(values, valid, out=values)
    return Raster(values, valid, tuple(names), inputs[0].grid.crop(window))


def textures(
    brightness: NDArray[np.float32], valid: NDArray[np.bool_], windows: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Each of MEASURES over the valid pixels of each window, float32 [row, col]; 0 where a window has none."""
    seen, value = valid.astype(np.float64), np.where(valid, brightness, 0.0).astype(np.float64)
    low, high = np.where(valid, brightness, np.inf), np.where(valid, brightness, -np.inf)
    found: list[NDArray[np.float32]] = []
    for size in windows:
        part = uniform_filter(seen, size, mode="constant")
        some = part > 0.5 / size**2  # a valid pixel at least, whatever is lost to rounding
        of = np.where(some, part, 1.0)
        mean = uniform_filter(value, size, mode="constant") / of
        square = uniform_filter(value**2, size, mode="constant") / of
        least = minimum_filter(low, size, mode="constant", cval=np.inf)
        largest = maximum_filter(high, size, mode="constant", cval=-np.inf)
        measured = (mean, np.sqrt(np.maximum(square - mean**2, 0.0)), least, largest)
        found += [np.where(some, one, 0.0).astype(np.float32) for one in measured]
    return found
