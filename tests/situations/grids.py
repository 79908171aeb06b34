"""Grids that are called equal by their bounds; areas and distances in a CRS that keeps neither."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from tests.situations.case import situation
from tests.situations.files import (
    HALVES,
    NORTH_UP,
    PLACES,
    ROWS,
    SIDE,
    UTM,
    class_map,
    command,
    opened,
    pixels,
    same,
    write,
)

# --- 1. grids that are called equal by their bounds


@situation("1", "a raster that runs south to north, alone")
def _(folder: Path) -> str:
    scene = opened(write(folder / "a.tif", PLACES, south_up=True))
    return same(pixels(scene.on_grid(Grid(CRS.from_user_input(UTM), NORTH_UP, SIDE, SIDE))).values[0], PLACES)


@situation("1", "one band of a folder runs south to north")
def _(folder: Path) -> str:
    write(folder / "s" / "x_B02.tif", PLACES)
    write(folder / "s" / "x_B03.tif", PLACES, south_up=True)
    raster = pixels(opened(folder / "s"))
    return same(raster.values[0], raster.values[1])


@situation("1", "one date of a stack or composite runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.joining import composite_scenes
    from pipeline.scenes.stack import stack_scenes

    dates = []
    for number in range(2):
        path = write(folder / f"{number}.tif", PLACES, south_up=number == 1, names=("red",))
        dates.append(opened(path, acquired_utc=datetime(2024, 5, 1 + number, tzinfo=UTC)))
    stack, merged = pixels(stack_scenes(dates)).values, pixels(composite_scenes(dates)).values
    return same(np.concatenate([stack, merged]), np.stack([PLACES] * 3))


@situation("1", "a layer that runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.layers import raster_layer, with_layers

    scene = opened(write(folder / "a.tif", PLACES, names=("red",)))
    layer = raster_layer(write(folder / "b.tif", PLACES, south_up=True, names=("other",)))
    return same(pixels(with_layers(scene, [layer])).values[1], PLACES)


@situation("1", "a quality mask that runs south to north")
def _(folder: Path) -> str:
    from pipeline.scenes.quality import scl

    codes = np.where(ROWS < 10, 9, 4).astype(np.uint8)
    scene = opened(write(folder / "a.tif", PLACES, names=("red",)))
    mask = scl(str(write(folder / "SCL.tif", codes, south_up=True)), ("cloud",))
    return same(pixels(replace(scene, quality=(mask,))).valid, codes == 4, "the mask")


@situation("1", "a class raster as labels that runs south to north")
def _(folder: Path) -> str:
    from pipeline.labels.rasters import labels_from_raster
    from pipeline.legend import ClassScheme, LandClass

    scheme = ClassScheme((LandClass(1, "field", "#f096ff"), LandClass(2, "forest", "#006400")))
    grid = Grid(CRS.from_user_input(UTM), NORTH_UP, SIDE, SIDE)
    found = labels_from_raster(write(folder / "a.tif", HALVES, south_up=True), scheme=scheme, grid=grid)
    return same(found.dense(grid.window)[0], HALVES)


@situation("1", "change of a map against its own copy that runs south to north")
def _(folder: Path) -> str:
    earlier, later = class_map(folder / "a.tif", HALVES), class_map(folder / "b.tif", HALVES, south_up=True)
    legend = folder / "legend.json"
    status, text = command("change", earlier, later, "-o", folder / "change.tif", "--legend", legend, "--json")
    if status:
        return f"refused: {text}"
    with rasterio.open(folder / "change.tif") as file:
        codes = file.read(1)
    return same(codes, np.where(HALVES == 1, codes[0, 0], codes[-1, 0]), "the change")


@situation("1", "strata of a sample from a raster that runs south to north")
def _(folder: Path) -> str:
    mapped = class_map(folder / "map.tif", HALVES)
    strata = write(folder / "strata.tif", HALVES, south_up=True)
    more = ("--strata", strata, "-n", 40, "--legend", folder / "legend.json", "-o", folder / "sample.gpkg")
    status, text = command("design", mapped, "--allocation", "equal", *more)
    if status:
        return f"refused: {text}"
    frame = gpd.read_file(folder / "sample.gpkg")
    row = ((NORTH_UP.f - frame.geometry.centroid.y) / 10).astype(int)
    return same(np.sort(np.bincount((row < SIDE // 4).astype(int), minlength=2)), np.array([20, 20]), "the strata")


# --- 2. areas and distances in a CRS that keeps neither


@situation("2", "hectares of a map in EPSG:3857 at 60 N")
def _(folder: Path) -> str:
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, 1_000_000, 0, -10, 8_399_738), SIDE, SIDE)
    area = getattr(grid, "pixel_areas_ha", None) or grid.pixel_area_ha  # type: ignore[attr-defined]
    return same(np.asarray(area()).ravel()[:1], np.array([0.0025083]), "hectares")


@situation("2", "blocks and buffers in metres in EPSG:3857 at 60 N")
def _(folder: Path) -> str:
    grid = Grid(CRS.from_epsg(3857), Affine(10, 0, 1_000_000, 0, -10, 8_399_738), SIDE, SIDE)
    return "right" if np.allclose(grid.pixel_size_m, 5.01, atol=0.02) else f"wrong: pixels of {grid.pixel_size_m} m"
