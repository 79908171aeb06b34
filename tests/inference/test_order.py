"""In which order tiles are mapped, and how often GDAL would decode a block for it: counted on a cache like GDAL's."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.inference.plan import engine_of, make_plan
from pipeline.inference.predict import open_run
from pipeline.inference.settings import MapSettings
from pipeline.inference.tiles import SMALLEST_PX, Blocks, Order, in_stripes, order_of, plan_tiles, quickest
from tests.inference.models import grid_of, noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.inference.plan import Plan
    from pipeline.inference.tiles import Tile
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

TILED, STRIPS = Blocks(512, 512, 20.0, 60e-9), Blocks(1, 10980, 20.0, 60e-9)
TEN_M, TWENTY_M = Blocks(1024, 1024, 2.0, 130e-9), Blocks(2048, 2048, 0.5, 33e-9)
JPEG2000 = [TEN_M] * 4 + [TWENTY_M] * 6
SIDE_PX = 10980


def decoded_again(files: list[Blocks], tiles: list[Tile], *, cache_bytes: int) -> float:
    """Pixels decoded for each pixel of the scene, weighted by what they cost; the least recently used block goes."""
    cache: OrderedDict[tuple[int, int, int], float] = OrderedDict()
    held, cost = 0.0, 0.0
    for tile in tiles:
        seen = tile.read.intersect(grid_of(SIDE_PX, SIDE_PX).window)
        assert seen is not None
        for number, file in enumerate(files):
            for row in range(seen.row // file.rows, (seen.row_stop - 1) // file.rows + 1):
                for col in range(seen.col // file.cols, (seen.col_stop - 1) // file.cols + 1):
                    key = (number, row, col)
                    if key in cache:
                        cache.move_to_end(key)
                        continue
                    high = min(file.rows, SIDE_PX - row * file.rows)
                    wide = min(file.cols, SIDE_PX - col * file.cols)
                    cost += file.decode_s_per_px * high * wide
                    cache[key] = file.bytes_per_px * file.rows * file.cols
                    held += cache[key]
                    while held > cache_bytes:
                        held -= cache.popitem(last=False)[1]
    return cost / (sum(file.decode_s_per_px for file in files) * SIDE_PX**2)


@pytest.mark.parametrize("cache_mb", [128, 350])
@pytest.mark.parametrize(("tile_px", "halo_px"), [(512, 4), (832, 32), (1664, 4)])
@pytest.mark.parametrize("files", [[TILED], [STRIPS], JPEG2000], ids=["tiled", "strips", "jpeg2000"])
def test_a_block_is_decoded_no_more_often_than_row_by_row(
    files: list[Blocks], tile_px: int, halo_px: int, cache_mb: int
) -> None:
    tiles = list(plan_tiles(grid_of(SIDE_PX, SIDE_PX), tile_px=tile_px, halo_px=halo_px))
    cache = cache_mb * 10**6
    order = order_of(files, tile_px=tile_px, halo_px=halo_px, width_px=SIDE_PX, cache_bytes=cache)
    assert order.cache_bytes <= cache
    by_rows = decoded_again(files, tiles, cache_bytes=order.cache_bytes)
    found = decoded_again(files, in_stripes(tiles, order.columns), cache_bytes=order.cache_bytes)
    # A tenth of the cache is left for the other worker: near the limit rows would just have fitted.
    assert found <= by_rows * 1.06
    assert found <= order.decode_again * 1.05
    assert order.decode_s_per_px == pytest.approx(order.decode_again * sum(file.decode_s_per_px for file in files))


@pytest.mark.parametrize(
    ("files", "tile_px", "cache_mb", "again"),
    [([TILED], 832, 128, 1.21), ([STRIPS], 1664, 128, 7.0), (JPEG2000, 512, 250, 1.18), ([TILED], 512, 350, 1.0)],
)
def test_what_is_expected_is_what_is_found(files: list[Blocks], tile_px: int, cache_mb: int, again: float) -> None:
    tiles = list(plan_tiles(grid_of(SIDE_PX, SIDE_PX), tile_px=tile_px, halo_px=4))
    cache = cache_mb * 10**6
    order = order_of(files, tile_px=tile_px, halo_px=4, width_px=SIDE_PX, cache_bytes=cache)
    found = decoded_again(files, in_stripes(tiles, order.columns), cache_bytes=cache)
    assert (order.decode_again, found) == (pytest.approx(again, rel=0.07), pytest.approx(again, rel=0.07))


def test_stripes_save_where_a_row_of_blocks_leaves_the_cache() -> None:
    tiles = list(plan_tiles(grid_of(SIDE_PX, SIDE_PX), tile_px=832, halo_px=32))
    order = order_of([TILED], tile_px=832, halo_px=32, width_px=SIDE_PX, cache_bytes=128_000_000)
    assert order.columns > 1
    by_rows = decoded_again([TILED], tiles, cache_bytes=128_000_000)
    assert decoded_again([TILED], in_stripes(tiles, order.columns), cache_bytes=128_000_000) < 0.8 * by_rows


def test_what_a_tile_leaves_is_cached_where_decoding_is_slow() -> None:
    def orders(files: list[Blocks], side: int) -> Order:
        cache = 128_000_000 + 2 * 41 * (1664**2 - side**2)
        return order_of(files, tile_px=side, halo_px=4, width_px=SIDE_PX, cache_bytes=cache)

    def chosen(files: list[Blocks]) -> tuple[int, Order]:
        return quickest(lambda side: orders(files, side), largest_px=1664, halo_px=4, stride_px=1)

    side, order = chosen(JPEG2000)
    assert SMALLEST_PX <= side < 1664
    assert order.decode_again < 1.3 < orders(JPEG2000, 1664).decode_again
    # Strips as wide as the scene: the tiles of a row share them all, or each tile decodes them anew.
    side, order = chosen([STRIPS])
    assert side < 1664
    assert order.decode_again == 1.0
    assert orders([STRIPS], 1664).decode_again > 6
    assert chosen([])[0] == 1664


def test_stripes_hold_every_tile_once_row_by_row_within_them() -> None:
    tiles = plan_tiles(grid_of(50, 70), tile_px=10, halo_px=2)
    striped = in_stripes(tiles, 3)
    assert sorted(striped, key=lambda tile: (tile.write.row, tile.write.col)) == list(tiles)
    assert [tile.write.col for tile in striped[:6]] == [0, 10, 20, 0, 10, 20]
    assert [tile.write.row for tile in striped[:6]] == [0, 0, 0, 10, 10, 10]
    assert striped[-1].write.col == 60
    assert in_stripes(tiles, 0) == list(tiles)


def test_the_order_does_not_change_the_map(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=150, width=210), small_bundle()

    def codes(columns: int) -> NDArray[np.uint8]:
        def planner(bundle: ModelBundle, source: Source, settings: MapSettings) -> Plan:
            return replace(make_plan(bundle, source, settings), columns=columns)

        asked = MapSettings(engine="torch", dtype="float32", tile_px=32, halo_px=8)
        run = open_run(bundle, scene, out=tmp_path / str(columns), settings=asked, planner=planner)
        with run.writing(None) as writing:
            run.steps.map(engine_of(bundle, run.steps.plan.choice, threads=1), run.left, writing)
        with run.finish() as mapped:
            return np.array(mapped.codes.read(scene.grid.window))

    assert np.array_equal(codes(0), codes(3))
