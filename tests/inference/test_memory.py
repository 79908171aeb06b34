from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.inference.live import activation_bytes
from pipeline.inference.memory import Demand, Held, choose_tile, footprint, parse_bytes
from tests.inference.models import small_bundle


@pytest.mark.parametrize("text", ["", "2 potatoes", "-1GB", "0", "I", "1e3MB"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="amount of memory"):
        parse_bytes(text)


def test_the_peak_of_a_chain_is_its_largest_pair_of_neighbours() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1))
    # The input is the caller's; 8 + 4 channels meet.
    peak = activation_bytes(chain, bands=1, side_px=64, dtype=torch.float32)
    assert peak == 64 * 64 * 4 * (8 + 4)
    assert activation_bytes(chain, bands=1, side_px=64, dtype=torch.bfloat16) == peak / 2


def demand(**changes: object) -> Demand:
    plain = {
        "network": small_bundle().network(), "bands": 3, "bands_read": 3, "classes": 4, "dtype": torch.float32,
        "halo_px": 32, "stride_px": 4, "width_px": 10980,
    }  # fmt: skip
    return Demand(**(plain | changes))


def test_tiles_grow_with_the_memory_and_fit_it() -> None:
    sizes = [choose_tile(demand(), memory_bytes=mb * 10**6, longest_px=10980) for mb in (1200, 1500, 2500)]
    assert sizes == sorted(set(sizes))
    for size, mb in zip(sizes, (1200, 1500, 2500), strict=True):
        assert footprint(demand(), tile_px=size).total <= mb * 1e6 < footprint(demand(), tile_px=size + 64).total


def test_tiles_are_no_larger_than_the_scene() -> None:
    assert choose_tile(demand(), memory_bytes=10**11, longest_px=200) == 224


def test_tiles_fit_the_gpu_that_runs_them() -> None:
    many = {"memory_bytes": 10**11, "longest_px": 4096}
    sizes = [choose_tile(demand(), gpu_bytes=mb * 10**6, **many) for mb in (1, 500, 2000, 10**6)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 128  # the smallest, where nothing fits: the GPU has the last word
    assert sizes[-1] == choose_tile(demand(), **many)


def test_blending_costs_a_band_of_rows() -> None:
    assert footprint(demand(blended=True), tile_px=512).blending == (512 + 64) * 10980 * 5 * 4


@pytest.mark.parametrize("more", [{"batch": 4}, {"flipped": True}, {"blended": True}])
def test_what_settings_need_more_is_within_the_memory(more: dict[str, object]) -> None:
    plain, asked = (
        choose_tile(one, memory_bytes=1_500_000_000, longest_px=10980) for one in (demand(), demand(**more))
    )
    assert asked < plain
    assert footprint(demand(**more), tile_px=asked).total <= 1_500_000_000
    assert footprint(demand(**more), tile_px=plain).total > 1_500_000_000


def test_what_is_needed_before_the_first_tile_counts_where_it_is_more() -> None:
    plain, made = demand(), demand(held=Held(making=10**9))
    found = footprint(made, tile_px=128)
    assert found.total == found.base + found.weights + 10**9
    large = 8192
    assert footprint(made, tile_px=large) == footprint(plain, tile_px=large)


def test_what_an_engine_holds_grows_with_weights_and_pixels_by_its_own_measure() -> None:
    plain, held = demand(), demand(held=Held(times=3.0, fixed=10**8, weights=4.0))
    one, other = (footprint(each, tile_px=1024) for each in (plain, held))
    assert other.base - one.base == 10**8
    assert other.weights == 2 * one.weights
    assert 2.9 * one.activations < other.activations <= 3 * one.activations


def test_too_little_memory_says_how_much_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"at least \d+ MB; raise --memory"):
        choose_tile(demand(), memory_bytes=10**8, longest_px=1000)
