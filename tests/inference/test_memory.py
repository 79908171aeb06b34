from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.inference import memory
from pipeline.inference.engine import Choice
from pipeline.inference.memory import Needs, activation_bytes
from pipeline.inference.settings import memory_for, parse_bytes
from pipeline.model.bundle import ModelBundle
from pipeline.model.network import build_network
from pipeline.model.preprocess import Preprocess
from pipeline.training.networks import network_specs
from pipeline.training.settings import TrainingSettings
from tests.inference.models import small_bundle


def test_the_peak_of_a_chain_is_its_largest_pair_of_neighbours() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1))
    # The input is the caller's; 8 + 4 channels meet.
    peak = activation_bytes(chain, bands=1, side_px=64, dtype=torch.float32)
    assert peak == 64 * 64 * 4 * (8 + 4)
    assert activation_bytes(chain, bands=1, side_px=64, dtype=torch.bfloat16) == peak / 2


def needs(**changes: object) -> Needs:
    plain = {"network": small_bundle().network(), "choice": Choice(), "bands_read": 3, "channels": 3, "stride_px": 4}
    return Needs(**(plain | changes))


def largest(wanted: Needs, mb: int, *, longest_px: int = 10980) -> int:
    return wanted.largest_tile_px(halo_px=32, memory_bytes=mb * 10**6, longest_px=longest_px)


def test_tiles_grow_with_the_memory_and_fit_it() -> None:
    sizes = [largest(needs(), mb) for mb in (1200, 1500, 2500)]
    assert sizes == sorted(set(sizes))
    for size, mb in zip(sizes, (1200, 1500, 2500), strict=True):
        peak, next_peak = (needs().peak_bytes(px, halo_px=32) for px in (size, size + 64))
        assert peak <= mb * 1e6 < next_peak


def test_tiles_are_no_larger_than_the_scene() -> None:
    assert largest(needs(), 10**5, longest_px=200) == 224


def test_each_worker_has_a_tile_of_a_large_scene() -> None:
    assert largest(needs(), 10**5, longest_px=2000) == 1024


def test_tiles_fit_the_gpu_that_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = needs(choice=Choice(device="cuda"))
    sizes = []
    for free in (10**6, 5 * 10**8, 2 * 10**9, 10**12):
        monkeypatch.setattr(memory, "free_gpu_bytes", lambda _, free=free: free)
        sizes.append(largest(on_gpu, 10**5, longest_px=4096))
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 128  # the smallest, where nothing fits: the GPU has the last word
    assert sizes[-1] == 4096


def test_tiles_that_go_together_take_more_memory() -> None:
    plain, asked = largest(needs(), 1500), largest(needs(batch=4), 1500)
    assert asked < plain
    assert needs(batch=4).peak_bytes(asked, halo_px=32) <= 1_500_000_000 < needs(batch=4).peak_bytes(plain, halo_px=32)


def test_too_little_memory_says_how_much_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"at least \d+ MB; raise map\.memory \(--memory of predict\)"):
        largest(needs(), 100, longest_px=1000)


@pytest.mark.parametrize("bands", [4, 224])
def test_memory_that_init_writes_fits_the_smallest_tile(bands: int) -> None:
    (spec, _) = network_specs(TrainingSettings(), bands_in=bands, classes=len(small_bundle().scheme), chip_px=64)
    assert spec is not None
    names = tuple(f"b{number}" for number in range(bands))
    bundle = ModelBundle(
        members=(build_network(spec).eval(),), scheme=small_bundle().scheme, units=("",) * bands, gsd_m=10.0,
        preprocess=Preprocess(names, (0.0,) * bands, (1.0,) * bands), value_range=((0.0, 1.0),) * bands,
    )  # fmt: skip
    wanted = Needs.of(bundle, Choice(), stride_px=1)
    assert wanted.largest_tile_px(halo_px=4, memory_bytes=parse_bytes(memory_for(bands)), longest_px=2000) >= 128
