from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

from pipeline.errors import ConfigError, GridError, InputError, LegendError
from pipeline.grid import Grid, Window
from pipeline.inference.mosaic import MapFile, join_maps, target_grid
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE
from tests.fakes.pixels import ArrayPixels
from tests.inference.models import grid_of, scheme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = grid_of(60, 90)
RNG = np.random.default_rng(5)


def map_file(folder: Path, name: str, window: Window, *, day: int, classes: int = 4, crs: int = 32633) -> MapFile:
    place = WHOLE.crop(window)
    grid = Grid(CRS.from_epsg(crs), place.transform, *window.shape)
    codes = (3 * RNG.integers(0, 4, grid.shape) + 1).astype(np.uint8)
    sure = RNG.integers(30, 101, grid.shape).astype(np.uint8)
    codes[:5, :7], sure[:5, :7] = 0, 255
    paths = folder / f"{name}_lc.tif", folder / f"{name}_conf.tif"
    write_class_map(paths[0], ArrayPixels(codes), grid=grid, scheme=scheme(classes))
    write_percent(paths[1], ArrayPixels(sure), grid=grid, layer=CONFIDENCE)
    return MapFile(paths[0], paths[1], datetime(2024, 5, day, tzinfo=UTC))


def read(path: Path | None, window: Window, *, fill: int) -> np.ndarray:
    """The map's pixels on the whole grid, ``fill`` elsewhere."""
    out = np.full(WHOLE.shape, fill, dtype=np.uint8)
    with rasterio.open(path) as dataset:
        out[window.slices] = dataset.read(1)
    return out


def test_each_rule_decides_every_overlap(tmp_path: Path) -> None:
    windows = Window(0, 0, 60, 50), Window(0, 30, 60, 60)
    maps = [map_file(tmp_path, f"m{i}", window, day=i + 1) for i, window in enumerate(windows)]
    (a, b) = (read(item.codes, window, fill=0) for item, window in zip(maps, windows, strict=True))
    (sure_a, sure_b) = (read(item.confidence, window, fill=255) for item, window in zip(maps, windows, strict=True))
    grid = target_grid(maps)
    assert grid == WHOLE
    only_b = a == 0
    surer_b = only_b | ((b != 0) & (sure_b > sure_a))
    for rule, take_b in (("first", only_b), ("latest", b != 0), ("confidence", surer_b)):
        mosaic = join_maps(maps, grid=grid, rule=rule, out=tmp_path / rule)
        assert np.array_equal(mosaic.codes.read(grid.window), np.where(take_b, b, a))
        assert mosaic.confidence is not None
        assert np.array_equal(mosaic.confidence.read(grid.window), np.where(take_b, sure_b, sure_a))
        assert mosaic.sources_used == [str(item.codes) for item in (maps if rule != "latest" else maps[::-1])]
        mosaic.remove()
        assert not list((tmp_path / rule).iterdir())


def test_maps_of_two_zones_need_a_grid_and_land_as_with_gdal(tmp_path: Path) -> None:
    maps = [map_file(tmp_path, f"z{crs}", Window(0, 0, 60, 50), day=1, crs=crs) for crs in (32633, 32634)]
    with pytest.raises(GridError, match=r"several CRSs.*choose"):
        target_grid(maps)
    grid = target_grid(maps[1:], crs=CRS.from_epsg(3035), pixel_size=10.0)
    assert all(abs(edge / 10 - round(edge / 10)) < 1e-6 for edge in grid.bounds)
    mosaic = join_maps(maps[1:], grid=grid, rule="first", out=tmp_path / "out")
    expected = np.zeros(grid.shape, dtype=np.uint8)
    with rasterio.open(maps[1].codes) as dataset:
        reproject(
            rasterio.band(dataset, 1), expected, dst_transform=grid.transform, dst_crs=grid.crs,
            resampling=Resampling.nearest, dst_nodata=0, tolerance=0.01,
        )  # fmt: skip
    got = mosaic.codes.read(grid.window)
    assert (got == expected).mean() > 0.999
    assert (got != 0).sum() > 2500
    mosaic.remove()


def test_different_legends_are_refused(tmp_path: Path) -> None:
    window = Window(0, 0, 20, 20)
    maps = [map_file(tmp_path, f"l{classes}", window, day=1, classes=classes) for classes in (4, 5)]
    with pytest.raises(LegendError, match="one legend"):
        join_maps(maps, grid=WHOLE, rule="first", out=tmp_path)


def test_rules_that_lack_their_facts_are_refused(tmp_path: Path) -> None:
    whole = map_file(tmp_path, "a", Window(0, 0, 20, 20), day=1)
    bare = MapFile(whole.codes)
    with pytest.raises(ConfigError, match="without confidence"):
        join_maps([bare], grid=WHOLE, rule="confidence", out=tmp_path)
    with pytest.raises(ConfigError, match="without date"):
        join_maps([bare], grid=WHOLE, rule="latest", out=tmp_path)
    with pytest.raises(ConfigError, match="no maps"):
        join_maps([], grid=WHOLE, rule="first", out=tmp_path)


def test_a_coarser_mosaic_keeps_the_corner(tmp_path: Path) -> None:
    item = map_file(tmp_path, "a", Window(0, 0, 60, 50), day=1)
    grid = target_grid([item], pixel_size=20.0)
    assert grid.transform == Affine(20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0)
    assert grid.shape == (30, 25)


@contextmanager
def open_files(more: int) -> Iterator[None]:
    """So many files more than now may be open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - numbers, no paths
    # The limit is on the number of a new file, and numbers in between may be free.
    limit = next(end for end in count(1) if end - sum(number < end for number in used) == more)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the files that are open")
@pytest.mark.parametrize("apart", [True, False])
def test_more_maps_are_joined_than_files_may_be_open(tmp_path: Path, *, apart: bool) -> None:
    """Side by side, and a pile of which every window reads all."""
    windows = [Window(6 * (i // 9), 10 * (i % 9), 6, 10) if apart else Window(0, 0, 6, 10) for i in range(40)]
    maps = [map_file(tmp_path, f"m{i}", window, day=1) for i, window in enumerate(windows)]
    for item in maps:
        for path, nodata in ((item.codes, 0), (item.confidence, 255)):
            assert path is not None
            with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
                values = dataset.read(1)
                values[values == nodata] = 1
                dataset.write(values, 1)
    expected = np.zeros(WHOLE.shape, dtype=np.uint8)
    for item, window in reversed(list(zip(maps, windows, strict=True))):
        with rasterio.open(item.codes) as dataset:
            expected[window.slices] = dataset.read(1)
    with open_files(60):
        mosaic = join_maps(maps, grid=WHOLE, rule="first", out=tmp_path / "out")
    assert len(mosaic.sources_used) == 40
    assert np.array_equal(mosaic.codes.read(WHOLE.window), expected)
    mosaic.remove()


def test_a_mosaic_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    maps = [map_file(tmp_path, f"m{i}", Window(0, 0, 20, 20), day=1) for i in range(2)]
    whole = maps[1].codes.read_bytes()
    # The header says where the pixels are; the last of them are not there any more.
    maps[1].codes.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"m1_lc\.tif: map cannot be read"):
        join_maps(maps, grid=WHOLE, rule="first", out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
