"""Virtual rasters with relative paths: a scene's bands as one file to look at, and a mosaic of class maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from affine import Affine

from pipeline.errors import GridError, InputError
from pipeline.files import check_target, relative_path, write_text
from pipeline.grid import Grid
from pipeline.legend import NODATA, UNLABELLED, ClassScheme
from pipeline.maps.legends import check_same_legend
from pipeline.maps.look import FALSE_COLOUR, choose_bands, look_at, shown_bands, stretch_limits
from pipeline.maps.style import from_template, paletted_pipe, qml
from pipeline.raster import as_error, grid_of

if TYPE_CHECKING:
    from pipeline.scenes.scene import Scene
    from pipeline.scenes.sources import BandSource

_LOOK_PX = 600
_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip
Limits = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class View:
    """Three bands of a file, from 1, for red, green and blue, with their stretch in stored values."""

    bands: tuple[int, int, int]  # Numbers of the bands
    limits: Limits  # (low, high) of each
    name: str  # What the layer is called


@dataclass(frozen=True)
class SceneView:
    """A scene as a file to look at."""

    path: Path  # The file
    grid: Grid  # Its grid
    first: View  # In true colour, or what else it can show
    false_colour: View | None  # With near infrared as red; None where the scene lacks a band for it


def write_scene_view(path: Path, scene: Scene, *, overwrite: bool = False) -> SceneView:
    """A VRT of the scene's visible and near-infrared bands on the scene's grid, pointing at the scene's own files.

    The first view shows what :func:`pipeline.maps.look.shown_bands` chooses.

    Raises:
        InputError: a file of the scene cannot be opened, or is not on the CRS of its grid.
        OutputError: the VRT cannot be written.
    """
    check_target(path, overwrite=overwrite)
    first = scene.band_names
    chosen, words = shown_bands(first, sensor=scene.sensor)
    red, green, blue = shown = chosen if len(chosen) > 1 else chosen * 3
    false = choose_bands(first, FALSE_COLOUR, sensor=scene.sensor)
    false = None if false == shown else false
    names = tuple(dict.fromkeys([*shown, *(false or ())]))
    bands = [_scene_band(source, grid=scene.grid, folder=path.parent) for source in scene.select(names).bands]
    write_text(path, from_template("raster.vrt.jinja", grid=scene.grid, bands=bands, scheme=None))
    small = look_at(scene, names, max_px=_LOOK_PX)
    by_name = dict(zip(names, stretch_limits(small), strict=True))
    stored = {s.band: tuple((v - s.offset) / s.scale for v in by_name[s.band]) for s in scene.select(names).bands}

    def view(chosen: tuple[str, str, str], name: str) -> View:
        red, green, blue = (names.index(band) + 1 for band in chosen)
        return View((red, green, blue), tuple((stored[band][0], stored[band][1]) for band in chosen), name)

    infrared = view(false, "False colour (infrared)") if false else None
    return SceneView(path, scene.grid, view((red, green, blue), words[:1].upper() + words[1:]), infrared)


def write_mosaic(path: Path, maps: Sequence[Path], *, overwrite: bool = False) -> Grid:
    """A VRT over class maps of one legend on one lattice of pixels, with names and style; later maps lie on top.

    Raises:
        LegendError: the maps have different legends.
        GridError: the maps differ in CRS or pixels.
        OutputError: the VRT cannot be written.
    """
    check_target(path, overwrite=overwrite)
    scheme = check_same_legend(maps)
    grids = [grid_of(item) for item in maps]
    grid = _union(grids, maps)
    places = [
        _place(item, 1, size=own.shape, source_grid=own, grid=grid, folder=path.parent)
        for item, own in zip(maps, grids, strict=True)
    ]
    band = {"type": "Byte", "name": "land cover", "nodata": NODATA, "kind": "ComplexSource", "places": places}
    write_text(path, from_template("raster.vrt.jinja", grid=grid, bands=[band], scheme=scheme))
    write_text(path.with_suffix(".qml"), qml(paletted_pipe(scheme)))
    return grid


def write_groups(
    path: Path, class_map: Path, *, group_of: Mapping[int, int], scheme: ClassScheme, overwrite: bool = False
) -> None:
    """A VRT that shows a class map with its classes merged into groups, with names and style; the map stays as it is.

    Raises:
        InputError: the map cannot be opened.
        OutputError: the VRT cannot be written.
    """
    check_target(path, overwrite=overwrite)
    grid = grid_of(class_map)
    place = _place(class_map, 1, size=grid.shape, source_grid=grid, grid=grid, folder=path.parent)
    place["table"] = ",".join(f"{code}:{group_of.get(code, NODATA)}" for code in range(UNLABELLED + 1))
    band = {"type": "Byte", "name": "groups of classes", "nodata": NODATA, "kind": "ComplexSource", "places": [place]}
    write_text(path, from_template("raster.vrt.jinja", grid=grid, bands=[band], scheme=scheme))
    write_text(path.with_suffix(".qml"), qml(paletted_pipe(scheme)))


def relative(target: Path | str, folder: Path) -> str:
    """A path as seen from ``folder``, with forward slashes; ``./`` in front of what lies inside it."""
    text = relative_path(Path(target).resolve(), folder.resolve())
    return text if text.startswith("..") or Path(text).is_absolute() else f"./{text}"


def _scene_band(source: BandSource, *, grid: Grid, folder: Path) -> dict[str, Any]:
    with as_error(InputError, f"cannot open band {source.band}", path=source.path), rasterio.open(source.path) as file:
        own = Grid(file.crs or grid.crs, file.transform, file.height, file.width)
        kind = _TYPES[file.dtypes[source.index - 1]]
    if own.crs != grid.crs:
        raise InputError(f"band {source.band} has another CRS than the scene", path=source.path, got=own.crs)
    nodata = None if source.nodata is None else f"{source.nodata:.17g}"
    place = _place(source.path, source.index, size=own.shape, source_grid=own, grid=grid, folder=folder)
    return {"type": kind, "name": source.band, "nodata": nodata, "kind": "SimpleSource", "places": [place]}


def _place(
    path: Path | str, band: int, *, size: tuple[int, int], source_grid: Grid, grid: Grid, folder: Path
) -> dict[str, Any]:
    """Where a band of a file lies on a grid."""
    virtual = str(path).startswith("/vsi")
    onto = ~grid.transform @ source_grid.transform
    numbers = {"xOff": onto.c, "yOff": onto.f, "xSize": onto.a * size[1], "ySize": onto.e * size[0]}
    return {
        "relative": 0 if virtual else 1,
        "name": str(path) if virtual else relative(path, folder),
        "band": band,
        "width": size[1],
        "height": size[0],
        "table": "",
        "onto": {key: f"{round(value, 6):.12g}" for key, value in numbers.items()},
    }


def _union(grids: Sequence[Grid], paths: Sequence[Path]) -> Grid:
    first = grids[0]
    corners = []
    for grid, path in zip(grids, paths, strict=True):
        col, row = ~first.transform @ (grid.transform.c, grid.transform.f)
        same = grid.crs == first.crs and all(
            abs(a - b) <= 1e-6 * b for a, b in zip(grid.pixel_size, first.pixel_size, strict=True)
        )
        if not same or max(abs(col - round(col)), abs(row - round(row))) > 1e-3:  # noqa: PLR2004 - pixels
            what = f"map lies on other pixels than {paths[0]}"
            fix = "warp one onto the other's pixels with gdalwarp -tap"
            away = f"origin off by ({col % 1:.3f}, {row % 1:.3f}) pixels"
            got = f"{grid.crs}, pixel {grid.pixel_size}, {away}"
            raise GridError(what, path=path, got=got, expected=f"{first.crs}, pixel {first.pixel_size}", fix=fix)
        corners.append((round(row), round(col), round(row) + grid.height, round(col) + grid.width))
    top, left = min(c[0] for c in corners), min(c[1] for c in corners)
    bottom, right = max(c[2] for c in corners), max(c[3] for c in corners)
    return Grid(first.crs, first.transform @ Affine.translation(left, top), bottom - top, right - left)
