"""Other inputs stacked on a scene's grid: a DEM with slope and aspect, Sentinel-1 backscatter, any raster.

A layer is resampled to the scene's grid by the same reader as the scene's own bands. What is derived from it (slope,
decibels) is computed on that grid, from a window with a halo of one pixel, so windows have no seams.

Source of the gradients: Horn (1981), Hill shading and the reflectance map, Proceedings of the IEEE 69(1):14-47; as
``gdaldem slope -alg Horn`` takes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform

from pipeline.errors import SceneError, SceneWarning
from pipeline.ground import GEOD, ground_area_scale
from pipeline.raster import Raster
from pipeline.scenes.derived import Derived, DerivedReader, refuse_twice
from pipeline.scenes.describe import Embedding, is_embedding
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions

if TYPE_CHECKING:
    from pipeline.grid import Grid, Window
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Scene, Source
Kind = Literal["raster", "mean", "dem", "linear_power"]
HALO_PX = 1
# Places looked at on each side of a scene: the share is known to some per mille, at no cost that shows.
PLACES = 64
# Below this share a layer misses more than the rim that another projection or pixel size leaves uncovered.
WHOLE = 0.99
# A layer without a value takes the pixel out of the map, so one that lies elsewhere would make a map of nothing.
FIX = "give one that covers the scene (several tiles of one layer join with gdalbuildvrt)"


@dataclass(frozen=True)
class Layer:
    """One other input."""

    # "raster" (as it is), "mean" (of its bands), "dem" (elevation to terrain bands), "linear_power"
    # (backscatter to decibels)
    kind: Kind
    scene: Scene  # Its files, on their own grid
    names: tuple[str, ...]  # Bands it gives, in order


def embedding_layer(path: Path | str, rule: Embedding, *, bands: Sequence[str] | None = None) -> Layer:
    """Annual embeddings (``pipeline.scenes.describe``), all of their bands or some by their names."""
    scene = open_geotiff(path, options=SceneOptions(embedding=rule))
    chosen = scene if bands is None else scene.select([name.lower() for name in bands])
    return Layer("raster", chosen, chosen.band_names)


def raster_layer(path: Path | str, *, bands: Sequence[str] | None = None) -> Layer:
    """Any raster, its bands called ``bands`` (default: the file's descriptions)."""
    scene = open_geotiff(path, options=SceneOptions(bands=tuple(bands) if bands is not None else None))
    return Layer("raster", scene, scene.band_names)


def dem_layer(path: Path | str, *, derive: Sequence[str] = ("elevation", "slope", "northness")) -> Layer:
    """A digital elevation model: ``derive`` any of elevation (m), slope (degrees), northness, eastness (-1..1)."""
    unknown = [name for name in derive if name not in TERRAIN]
    if unknown or not derive:
        got, expected = ", ".join(unknown) or "none", ", ".join(TERRAIN)
        raise SceneError("terrain bands of a DEM", path=path, got=got, expected=expected)
    scene = open_geotiff(path)
    first = replace(scene.bands[0], band="elevation", unit="m")
    return Layer("dem", replace(scene, bands=(first,)), tuple(derive))


def sentinel1_layer(path: Path | str, *, bands: Sequence[str] = ("vv", "vh")) -> Layer:
    """Sentinel-1 backscatter in linear power (sigma0 or gamma0), given as decibels: 10 log10(power).

    Resampled in linear power, then converted; power of 0 and below has no logarithm and is not valid. Backscatter that
    is in decibels already is a ``raster_layer``.
    """
    scene = open_geotiff(path, options=SceneOptions(bands=tuple(bands)))
    in_db = tuple(replace(source, unit="dB") for source in scene.bands)
    return Layer("linear_power", replace(scene, bands=in_db), scene.band_names)


@dataclass(frozen=True)
class WithLayers(Derived):
    """A source with ``layers`` appended in the order of their bands, on its grid; opened like a scene.

    Layers of which no band is selected are not read.
    """

    layers: tuple[Layer, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the source and of the layers."""
        layers = (file for layer in self.layers for file in layer.scene.files)
        return tuple(dict.fromkeys((*self.inputs[0].files, *layers)))

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each band; of layers that of embeddings alone, as others are computed or of any unit."""
        bands = [band for layer in self.layers for band in layer.scene.bands]
        known = {band.band: band.unit for band in bands if is_embedding(band.unit)}
        return tuple(known.get(name, unit) for name, unit in zip(self.names, super().units, strict=True))

    @property
    def used(self) -> tuple[Layer, ...]:
        """The layers of which any band is given."""
        return tuple(layer for layer in self.layers if set(layer.names) & set(self.names))

    def only(self, layer: Layer) -> WithLayers:
        """The source with one of its layers, of which only the first band is given."""
        return replace(self, layers=(layer,), names=layer.names[:1])

    def ledger(self) -> dict[str, object]:
        """The source's ledger and that of every layer."""
        layers = [{"kind": layer.kind, "gives": list(layer.names), **layer.scene.ledger()} for layer in self.used]
        return self.inputs[0].ledger() | {"layers": layers}

    def open(self) -> Reader:
        """A reader."""
        # The layers' grid is one pixel larger all round, so that the halo at the scene's edge has values too.
        around = self.grid.crop(self.grid.window.expand(HALO_PX))
        inputs = (self.base().open(), *(layer.scene.on_grid(around).open() for layer in self.used))
        return DerivedReader(self.grid, self.names, inputs, partial(_joined, layers=self.used, names=self.names))


def with_layers(source: Source, layers: Sequence[Layer]) -> WithLayers:
    """``source`` with the bands of ``layers`` appended, on the source's grid.

    A pixel is valid where the source and all layers asked for are. Warns where a layer's extent leaves some of the
    source uncovered.

    Raises:
        SceneError: a band name is used twice, or a layer covers nothing of the source.
    """
    names = (*source.band_names, *(name for layer in layers for name in layer.names))
    refuse_twice(names, path=source.path)
    for layer in layers:
        check_covered(source, layer.scene)
    return WithLayers(source.id, (source,), names, tuple(layers))


def covered_share(grid: Grid, *, by: Grid) -> float:
    """Share of ``grid`` inside the extent of another grid, whatever its CRS, 0..1; from 64 x 64 places."""
    rows = (np.arange(PLACES) + 0.5) * grid.height / PLACES
    cols = (np.arange(PLACES) + 0.5) * grid.width / PLACES
    x = grid.transform.c + grid.transform.a * np.tile(cols, PLACES)
    y = grid.transform.f + grid.transform.e * np.repeat(rows, PLACES)
    there = [np.asarray(part) for part in transform(grid.crs, by.crs, x, y)]
    left, bottom, right, top = by.bounds
    # Places that the other projection has no coordinates for are infinite: not inside.
    inside = (there[0] >= left) & (there[0] <= right) & (there[1] >= bottom) & (there[1] <= top)
    return float(inside.mean())


def check_covered(scene: Source, layer: Scene) -> float:
    """The share of a scene's ground that a layer's extent covers; warns where it is not all.

    Raises:
        SceneError: nothing of it.
    """
    share = covered_share(scene.grid, by=layer.grid)
    if share == 0:
        what, got = f"layer does not cover scene {scene.id}", f"{layer.grid.crs} {_rounded(layer.grid)}"
        raise SceneError(what, path=layer.path, got=got, expected=f"{scene.grid.crs} {_rounded(scene.grid)}", fix=FIX)
    if share < WHOLE:
        text = f"{layer.path}: layer covers {share:.0%} of scene {scene.id}; the rest has no data"
        warnings.warn(text, SceneWarning, stacklevel=4)
    return share


def _rounded(grid: Grid) -> tuple[float, ...]:
    digits = 4 if grid.crs.is_geographic else 0
    return tuple(round(side, digits) for side in grid.bounds)


def _joined(inputs: Sequence[Reader], window: Window, *, layers: Sequence[Layer], names: Sequence[str]) -> Raster:
    base = inputs[0].read(window)
    found: dict[str, NDArray[np.float32]] = dict(zip(base.bands, base.values, strict=True))
    valid = base.valid.copy()
    # Row 0 of the layers' grid is row -1 of the scene's, so the halo's window has the scene's own row and column.
    halo = replace(window, height=window.height + 2 * HALO_PX, width=window.width + 2 * HALO_PX)
    for layer, reader in zip(layers, inputs[1:], strict=True):
        values, usable = _layer(layer, reader.read(halo))
        found |= values
        valid &= usable
    result = np.stack([found[name] for name in names])
    np.multiply(result, valid, out=result)
    return Raster(result, valid, tuple(names), base.grid)


def _layer(layer: Layer, raster: Raster) -> tuple[Mapping[str, NDArray[np.float32]], NDArray[np.bool_]]:
    inner = (slice(HALO_PX, -HALO_PX), slice(HALO_PX, -HALO_PX))
    usable = raster.valid[inner]
    if layer.kind == "dem":
        return terrain(raster, derive=layer.names), usable
    values = raster.values[:, *inner]
    if layer.kind == "mean":
        values = values.mean(axis=0, keepdims=True)
    if layer.kind == "linear_power":
        usable = usable & (values > 0).all(axis=0)
        values = to_decibels(np.where(usable, values, np.float32(1)))
    return dict(zip(layer.names, values, strict=True)), usable


def to_decibels(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """10 log10 of linear power, which must be positive.

    >>> float(to_decibels(np.float32([0.01]))[0])
    -20.0
    """
    return np.asarray(10 * np.log10(power.astype(np.float64)), dtype=np.float32)


TERRAIN = ("elevation", "slope", "northness", "eastness")


def terrain(raster: Raster, *, derive: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Terrain bands of the inner pixels of ``raster``, whose first band is elevation in metres.

    Args:
        raster: With a halo of one pixel on each side.
        derive: Any of ``TERRAIN``: elevation; slope in degrees 0..90; northness and eastness, the cosine and sine of
            the direction in which the slope falls (1: to the north, to the east), 0 on level ground.

    Returns:
        Name -> float32 [row-2, col-2]. Where a neighbour is missing the surface is continued from the opposite one.
    """
    east, north = gradient(raster)
    steepness = np.hypot(east, north)
    level = steepness == 0
    scale = np.where(level, 1.0, steepness)
    bands = {
        "elevation": raster.values[0, 1:-1, 1:-1],
        "slope": np.degrees(np.arctan(steepness)),
        "northness": np.where(level, 0.0, -north / scale),
        "eastness": np.where(level, 0.0, -east / scale),
    }
    return {name: bands[name].astype(np.float32) for name in derive}


def gradient(raster: Raster) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rise per metre towards (east, north) of the inner pixels, float64 [row-2, col-2]."""
    nw, n, ne, w, e, sw, s, se = _neighbours(raster.values[0].astype(np.float64), raster.valid)
    size_x, size_y = pixel_size_m(raster.grid)
    per_col = ((ne + 2 * e + se) - (nw + 2 * w + sw)) / (8 * size_x[1:-1, None])
    per_row = ((sw + 2 * s + se) - (nw + 2 * n + ne)) / (8 * size_y[1:-1, None])
    transform = raster.grid.transform
    return per_col * np.sign(transform.a), per_row * np.sign(transform.e)


def _neighbours(z: NDArray[np.float64], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """The eight neighbours, row by row; a missing one continues the surface (exact on a plane)."""
    rows, cols = z.shape

    def at(row: int, col: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        part = (slice(1 + row, rows - 1 + row), slice(1 + col, cols - 1 + col))
        return z[part], valid[part]

    centre = at(0, 0)[0]

    def beside(row: int, col: int) -> NDArray[np.float64]:
        (here, seen), (opposite, opposite_seen) = at(row, col), at(-row, -col)
        return np.where(seen, here, np.where(opposite_seen, 2 * centre - opposite, centre))

    def diagonal(row: int, col: int) -> NDArray[np.float64]:
        here, seen = at(row, col)
        return np.where(seen, here, sides[row, 0] + sides[0, col] - centre)

    sides = {place: beside(*place) for place in ((-1, 0), (1, 0), (0, -1), (0, 1))}
    around = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
    return tuple(sides[place] if place in sides else diagonal(*place) for place in around)


def pixel_size_m(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) size of a pixel in metres on the ground for each row, float64 [row].

    It depends on the row's own latitude and on nothing else of the window, so neighbouring windows agree.
    """
    y = np.asarray(grid.transform.f + grid.transform.e * (np.arange(grid.height) + 0.5), dtype=np.float64)
    if grid.crs.is_geographic:
        width, height = grid.pixel_size
        lat, lon = np.clip(y, height / 2 - 90, 90 - height / 2), np.zeros(grid.height)
        across = GEOD.inv(lon, lat, lon + width, lat)[2]
        return across, GEOD.inv(lon, lat - height / 2, lon, lat + height / 2)[2]
    scale = np.ones(grid.height)
    if not grid.keeps_metres:
        # Of a conformal plane (Mercator, stereographic), in the middle column: across a window the others differ by
        # less than the slope is known.
        x = np.full(grid.height, grid.transform.c + grid.transform.a * grid.width / 2)
        scale = np.sqrt(ground_area_scale(grid.crs, x, y))
    size_x, size_y = grid.plane_size_m
    return size_x * scale, size_y * scale
