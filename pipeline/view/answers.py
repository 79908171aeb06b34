"""What the page may ask: what there is, a tile, the values at a point, a length or an area on the ground."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import rasterio
from pyproj import Geod
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from pipeline import __version__
from pipeline.bands import centre_um
from pipeline.errors import InputError
from pipeline.grid import Window
from pipeline.ground import SQUARE_METRES_PER_HECTARE
from pipeline.maps.look import credit
from pipeline.view.layers import CLASSES
from pipeline.view.tiles import Pool, SceneTiles, file_tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rasterio.io import DatasetReader

    from pipeline.grid import Grid
    from pipeline.view.layers import FileLayer, ViewedMap
    from pipeline.view.tiles import Kind

_GEOD = Geod(ellps="WGS84")
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
        paths = {layer.path for item in maps for layer in item.layers}
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
            "legend": item.scheme.hash,
            "classes": [
                {**entry, "area_ha": item.area_ha.get(int(entry["code"]))} for entry in item.scheme.to_json()
            ],
            "layers": [
                {
                    "id": layer.id, "label": layer.label, "nodata": layer.nodata, "colors": list(layer.colors),
                    "maximum": layer.maximum, "unit": layer.unit,
                }
                for layer in item.layers
            ],
            "scene": _describe_scene(scene) if scene else None,
        }  # fmt: skip

    def tile(self, number: int, layer: str, tile: Grid) -> tuple[str, bytes] | None:
        """(content type, bytes) of a tile; None where there is no such layer.

        A file's layer is its 256 x 256 stored values, row by row, one byte each: the page colours them, so that a class
        is switched off without asking again. The scene ("true", "false") is a PNG.

        Raises:
            InputError: a file cannot be read.
        """
        found = self._layer(number, layer)
        if found is not None:
            with self._borrow(found.path) as dataset:
                return BYTES, file_tile(dataset, tile, band=found.band, nodata=found.nodata).tobytes()
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

    def _layer(self, number: int, name: str) -> FileLayer | None:
        if not 0 <= number < len(self.maps):
            return None
        return next((layer for layer in self.maps[number].layers if layer.id == name), None)

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
            "class": next((entry for entry in item.scheme.to_json() if entry["code"] == code), None),
            "values": [
                {"id": layer.id, "label": layer.label, "value": values[layer.id], "unit": layer.unit}
                for layer in item.layers
                if layer.id in values
            ],
            "scene": self._scene_values(number, lon, lat),
        }

    def _values(self, item: ViewedMap, row: int, col: int) -> dict[str, int | None]:
        """Layer -> stored value, None for nodata; every file is asked once."""
        window = Window(row, col, 1, 1).to_rasterio()
        found: dict[str, int | None] = {}
        for path in dict.fromkeys(layer.path for layer in item.layers):
            layers = [layer for layer in item.layers if layer.path == path]
            with self._borrow(path) as dataset:
                pixel = dataset.read([layer.band for layer in layers], window=window)[:, 0, 0]
            for layer, value in zip(layers, pixel.tolist(), strict=True):
                found[layer.id] = None if value == layer.nodata else value
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
        return {"length_m": float(_GEOD.line_length(lons, lats))}
    area, perimeter = _GEOD.polygon_area_perimeter(lons, lats)
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
