"""What there is to look at (a map, its layers, its scene), and what the page may ask: tiles, values, lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from pipeline import __version__
from pipeline.bands import centre_um
from pipeline.errors import InputError, LegendError
from pipeline.grid import Grid, Window
from pipeline.ground import GEOD, SQUARE_METRES_PER_HECTARE
from pipeline.legend import NODATA, VIRIDIS, ClassScheme
from pipeline.maps.geotiff import classes_title, scene_files
from pipeline.maps.legends import read_counts, read_scheme
from pipeline.maps.look import credit
from pipeline.maps.style import LAYERS, PERCENT_NODATA
from pipeline.raster import as_error
from pipeline.view.tiles import MOST_BYTE, Kind, ObjectTiles, Pool, SceneTiles, file_tile

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.scenes.scene import Source

CLASSES, OBJECTS = "lc", "objects"
# Values of a map of three bands per quantity: the value or median, and its bounds.
_BOUNDS = 3
_LOOK_PX = 512


@dataclass(frozen=True)
class FileLayer:
    """One band of a file, classes or per cents as uint8 or values as floating point numbers; or polygons of objects."""

    id: str  # Short and unique in its map: "lc", "conf", "probability-3" (the class with code 3), "value-1", "objects"
    label: str  # What it is called
    path: Path  # The file
    band: int = 1  # From 1
    nodata: int = PERCENT_NODATA  # Byte of a tile that means "not seen"
    # Stops of the colour ramp ``#rrggbb``, evenly spread from ``minimum`` to ``maximum``; empty for classes
    colors: tuple[str, ...] = ()
    minimum: float = 0  # Value of the first stop
    maximum: float = 100  # Value of the last stop
    unit: str = "%"  # Of the values
    scaled: bool = False  # Values that tiles hold scaled to bytes, MOST_BYTE for ``maximum``; else bytes are values


@dataclass(frozen=True)
class ViewedMap:
    """A map of classes or values with what belongs to it."""

    name: str  # What the user calls it
    grid: Grid  # Where its pixels lie
    scheme: ClassScheme | None  # Its legend; None of values without classes
    layers: tuple[FileLayer, ...]  # The classes first, where there are any
    area_ha: Mapping[int, float]  # Area of each class code, as far as the file says
    scene: Source | None = None  # What it was made from, None where that is not known


def open_viewed(
    path: Path, *, name: str, scene: Source | None = None, alike: Sequence[Path] = ()
) -> ViewedMap:  # fmt: skip
    """A map with the files beside it that bear its name: ``<scene>_conf.tif`` of ``<scene>_lc.tif`` ...

    ``path`` is a class map, or a map of values or a step of a forecast; ``alike`` are maps of values that are shown in
    the same colours.

    Raises:
        InputError: a file cannot be opened, or is no map of uint8 or floating point numbers with a CRS.
        LegendError: a class map does not say what its codes mean.
    """
    grid, _, kind = _look(path)
    if kind.startswith("float"):
        return ViewedMap(name, grid, None, tuple(_values_of(path, alike or (path,))), {}, scene)
    if kind != "uint8":
        raise InputError("not a class map", path=path, got=kind, expected="uint8, or floating point numbers of values")
    scheme, files = read_scheme(path), scene_files(path)
    layers = [FileLayer(CLASSES, classes_title(path), path, nodata=NODATA)]
    if files.values and _look(files.values)[0].same_pixels_as(grid):
        layers += _values_of(files.values, alike or (files.values,))
    layers += _beside(path, grid, scheme)
    if files.objects:
        layers.append(FileLayer(OBJECTS, "Objects", files.objects, nodata=NODATA, unit=""))
    return ViewedMap(name, grid, scheme, tuple(layers), _areas(path), scene)


def _values_of(path: Path, alike: Sequence[Path]) -> Iterator[FileLayer]:
    """The bands of a map of values; bounds are coloured as the value that they belong to."""
    with as_error(InputError, "cannot open the map", path=path), rasterio.open(path) as dataset:
        names, units = dataset.descriptions, dataset.units
    limits: dict[int, tuple[float, float]] = {}
    for band, (name, unit) in enumerate(zip(names, units, strict=True), 1):
        main = band - (band - 1) % _BOUNDS if len(names) % _BOUNDS == 0 else band
        if main not in limits:
            limits[main] = _limits([path, *(file for file in alike if file != path)], main)
        label = (name or f"Band {band}").replace(f" ({unit})", "")
        label = label.removeprefix(f"{(names[main - 1] or '').replace(f' ({unit})', '')}, ") if band != main else label
        low, high = limits[main]
        yield FileLayer(
            f"value-{band}", label, path, band, colors=VIRIDIS, minimum=low, maximum=high, unit=unit or "", scaled=True
        )


def _limits(paths: Sequence[Path], band: int) -> tuple[float, float]:
    """Second and 98th percentile of a band of all files, from a thin sample."""
    seen = []
    for path in paths:
        with as_error(InputError, "cannot open the map", path=path), rasterio.open(path) as dataset:
            shape = tuple(min(side, _LOOK_PX) for side in dataset.shape)
            values = dataset.read(band, out_shape=shape, masked=True).filled(np.nan)
        seen.append(values[np.isfinite(values)])
    every = np.concatenate(seen)
    low, high = np.percentile(every, [2, 98]) if len(every) else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1.0)


def _beside(path: Path, grid: Grid, scheme: ClassScheme) -> Iterator[FileLayer]:
    """The layers in percent on the same pixels."""
    files = scene_files(path)
    for layer in LAYERS:
        file = files.layers.get(layer.key)
        if file and _byte_grid(file)[0].same_pixels_as(grid):
            yield FileLayer(
                layer.suffix, layer.label, file, colors=layer.colors, maximum=layer.maximum, unit=layer.unit
            )
    if files.probabilities:
        own, bands = _byte_grid(files.probabilities)
        if own.same_pixels_as(grid) and bands == len(scheme):
            for band, item in enumerate(scheme.classes, start=1):
                label = f"Probability of {item.name}"
                yield FileLayer(f"probability-{item.code}", label, files.probabilities, band, colors=VIRIDIS)


def _look(path: Path) -> tuple[Grid, int, str]:
    """Grid, number of bands and type of a file, types with a comma between them where they differ."""
    with as_error(InputError, "cannot open the map", path=path), rasterio.open(path) as dataset:
        types, crs, count = set(dataset.dtypes), dataset.crs, dataset.count
        place = (dataset.transform, dataset.height, dataset.width)
    if crs is None:
        raise InputError("the map has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
    return Grid(crs, *place), count, ", ".join(sorted(types))


def _byte_grid(path: Path) -> tuple[Grid, int]:
    """Grid and number of bands of a file of uint8."""
    grid, count, kind = _look(path)
    if kind != "uint8":
        raise InputError("not a layer of a class map", path=path, got=kind, expected="uint8")
    return grid, count


def _areas(path: Path) -> dict[int, float]:
    """Area in ha of each class code, from the attribute table beside the map; empty where there is none to read."""
    try:
        counts = read_counts(path)
    except LegendError:
        return {}
    return dict(zip(counts.scheme.codes, counts.area_ha, strict=True)) if counts else {}


_WGS84 = "EPSG:4326"
BYTES, PNG = "application/octet-stream", "image/png"


@dataclass(frozen=True)
class Basemap:
    """A background from elsewhere: an address with {z}, {x} and {y}, and who is to be named for it."""

    url: str
    credit: str


class Answers:
    """Everything the server can say of some maps; safe to ask from many threads."""

    def __init__(self, maps: Sequence[ViewedMap], *, title: str, basemap: Basemap | None = None) -> None:
        """Open nothing yet."""
        self.maps = tuple(maps)
        self.title = title
        self.basemap = basemap
        layers = [layer for item in maps for layer in item.layers]
        paths = {layer.path for layer in layers if layer.id != OBJECTS}
        self._objects = {layer.path: ObjectTiles(layer.path) for layer in layers if layer.id == OBJECTS}
        self._files = {path: Pool(partial(rasterio.open, path)) for path in paths}
        # Maps of one scene share its tiles.
        scenes = {id(item.scene): SceneTiles(item.scene) for item in maps if item.scene is not None}
        self._scenes = [scenes.get(id(item.scene)) for item in maps]

    def close(self) -> None:
        """Close all files."""
        for pool in self._files.values():
            pool.close()
        for scene in self._scenes:
            if scene is not None:
                scene.close()

    def describe(self) -> dict[str, Any]:
        """What there is, JSON-ready."""
        return {
            "title": self.title,
            "version": __version__,
            "maps": [self._describe_map(number) for number in range(len(self.maps))],
            "basemap": vars(self.basemap) if self.basemap else None,
        }

    def _describe_map(self, number: int) -> dict[str, Any]:
        item, scene = self.maps[number], self._scenes[number]
        return {
            "name": item.name,
            "bounds": _bounds(item),
            "crs": _crs_name(item),
            "size": list(item.grid.shape),
            "pixel_m": list(item.grid.pixel_size_m),
            "legend": item.scheme.hash if item.scheme else "",
            "classes": [
                {**entry, "area_ha": item.area_ha.get(int(entry["code"]))} for entry in _classes(item)
            ],
            "layers": [
                {key: getattr(layer, key) for key in ("id", "label", "nodata", "colors", "minimum", "maximum", "unit")}
                | {"top": MOST_BYTE if layer.scaled else layer.maximum}
                for layer in item.layers
            ],
            "scene": _describe_scene(scene) if scene else None,
        }  # fmt: skip

    def tile(self, number: int, layer: str, tile: Grid) -> tuple[str, bytes] | None:
        """(content type, bytes) of a tile; None where there is no such layer.

        A file's layer is its 256 x 256 stored values, row by row, one byte each: the page colours them, so that a class
        is switched off without asking again. Values are scaled to bytes, and objects are the codes of their classes
        along their outlines. The scene ("true", "false") is a PNG.

        Raises:
            InputError: a file cannot be read.
        """
        layers = self.maps[number].layers if 0 <= number < len(self.maps) else ()
        found = next((one for one in layers if one.id == layer), None)
        if found is not None and layer == OBJECTS:
            return BYTES, self._objects[found.path].tile(tile).tobytes()
        if found is not None:
            limits = (found.minimum, found.maximum) if found.scaled else None
            with self._borrow(found.path) as dataset:
                pixels = file_tile(dataset, tile, band=found.band, nodata=found.nodata, limits=limits)
                return BYTES, pixels.tobytes()
        scene = self._scenes[number] if 0 <= number < len(self._scenes) else None
        kind: Kind = "true" if layer == "true" else "false"
        return (PNG, scene.tile(tile, kind)) if scene and layer in scene.bands else None

    @contextmanager
    def _borrow(self, path: Path) -> Iterator[DatasetReader]:
        try:
            with self._files[path].borrow() as dataset:
                yield dataset
        except (RasterioError, OSError) as err:
            fix = "check the file; it may have been moved, cut off or damaged"
            raise InputError("cannot read the map", path=path, got=err, fix=fix) from err

    def point(self, number: int, lon: float, lat: float) -> dict[str, Any] | None:
        """The values of a map's layers and its scene in the pixel that holds a place; None where there is no such map.

        Degrees on WGS84. Nothing is interpolated: these are the values in the files.

        Raises:
            InputError: a file cannot be read.
        """
        if not 0 <= number < len(self.maps):
            return None
        item = self.maps[number]
        place = _project(lon, lat, item.grid.crs)
        row, col = item.grid.rowcol(*place) if place else (-1, -1)
        inside = 0 <= row < item.grid.height and 0 <= col < item.grid.width
        values = self._values(item, row, col) if inside else {}
        code = values.pop(CLASSES, None)
        return {
            "name": item.name,
            "inside": inside,
            "crs": _crs_name(item),
            "x": place[0] if place else None,
            "y": place[1] if place else None,
            "row": row,
            "col": col,
            "class": next((entry for entry in _classes(item) if entry["code"] == code), None),
            "object": next(
                (self._objects[layer.path].at(lon, lat) for layer in item.layers if layer.id == OBJECTS), None
            ),
            "values": [
                {"id": layer.id, "label": layer.label, "value": values[layer.id], "unit": layer.unit}
                for layer in item.layers
                if layer.id in values
            ],
            "scene": self._scene_values(number, lon, lat),
        }

    def _values(self, item: ViewedMap, row: int, col: int) -> dict[str, float | None]:
        """Layer -> stored value, None for nodata; every file is asked once."""
        window = Window(row, col, 1, 1).to_rasterio()
        found: dict[str, float | None] = {}
        for path in dict.fromkeys(layer.path for layer in item.layers if layer.id != OBJECTS):
            layers = [layer for layer in item.layers if layer.path == path]
            with self._borrow(path) as dataset:
                pixel = dataset.read([layer.band for layer in layers], window=window, masked=True)[:, 0, 0]
            for layer, value in zip(layers, pixel.tolist(), strict=True):
                blank = value is None or not math.isfinite(value) or (not layer.scaled and value == layer.nodata)
                found[layer.id] = None if blank else value
        return found

    def _scene_values(self, number: int, lon: float, lat: float) -> dict[str, Any] | None:
        scene = self._scenes[number]
        if scene is None:
            return None
        source = scene.source
        place = _project(lon, lat, source.grid.crs)
        values = scene.values_at(*source.grid.rowcol(*place)) if place else None
        units = dict(zip(source.band_names, source.units, strict=True))
        return {
            "name": source.id,
            "valid": values is not None,
            "bands": [
                {"name": name, "value": float(value), "unit": units.get(name, ""), "um": centre_um(name)}
                for name, value in zip(source.band_names, values if values is not None else (), strict=False)
            ],
        }


def measure_ground(points: Sequence[tuple[float, float]], *, closed: bool) -> dict[str, float]:
    """Length in metres of a line through points (lon, lat in degrees), or perimeter and area in ha of a polygon.

    Geodesic on the WGS84 ellipsoid. Source: Karney (2013), Algorithms for geodesics, J. Geodesy 87, as in PROJ.
    """
    lons, lats = [lon for lon, _ in points], [lat for _, lat in points]
    if not closed:
        return {"length_m": float(GEOD.line_length(lons, lats))}
    area, perimeter = GEOD.polygon_area_perimeter(lons, lats)
    return {"length_m": float(perimeter), "area_ha": abs(float(area)) / SQUARE_METRES_PER_HECTARE}


def _describe_scene(tiles: SceneTiles) -> dict[str, Any]:
    source = tiles.source
    when = source.acquired_utc
    return {
        "name": source.id,
        "pictures": {kind: list(names) for kind, names in tiles.bands.items()},
        "acquired": when.date().isoformat() if when else None,
        "credit": credit(source),
    }


def _classes(item: ViewedMap) -> list[dict[str, Any]]:
    return item.scheme.to_json() if item.scheme else []


def _bounds(item: ViewedMap) -> list[float]:
    """[west, south, east, north] in degrees; east is beyond 180 for a map across the date line."""
    west, south, east, north = transform_bounds(item.grid.crs, _WGS84, *item.grid.bounds, densify_pts=21)
    return [west, south, east + 360.0 if east < west else east, north]


def _crs_name(item: ViewedMap) -> str:
    authority = item.grid.crs.to_authority()
    return ":".join(authority) if authority else "the map's own CRS"


def _project(lon: float, lat: float, crs: object) -> tuple[float, float] | None:
    """Coordinates in ``crs``; None where it has none for the place."""
    try:
        (x,), (y,) = transform(_WGS84, crs, [lon], [lat])[:2]
    except RasterioError:
        return None
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None
