from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.blend import HannBlender, Products, classify, hann_profile
from pipeline.inference.tiles import plan_tiles
from tests.inference.models import grid_of, scheme


@given(inner=st.integers(1, 60), halo=st.integers(0, 20))
def test_the_weights_of_neighbours_sum_to_one(inner: int, halo: int) -> None:
    inner = max(inner, 2 * halo)
    profile = hann_profile(inner=inner, halo=halo)
    assert len(profile) == inner + 2 * halo
    assert (profile > 0).all()
    summed = profile.copy()
    summed[: 2 * halo] += profile[len(profile) - 2 * halo :]
    assert np.allclose(summed[: len(profile) - 2 * halo], 1.0, atol=1e-6)


@given(height=st.integers(1, 70), width=st.integers(1, 70), halo=st.integers(0, 6), tile=st.integers(12, 40))
def test_blending_gives_back_what_all_tiles_agree_on(height: int, width: int, halo: int, tile: int) -> None:
    grid = grid_of(height, width)
    truth = np.random.default_rng(height).dirichlet(np.ones(3), (height, width)).astype(np.float32).transpose(2, 0, 1)
    padded = np.pad(truth, ((0, 0), (64, 64), (64, 64)))
    rows: dict[int, list] = {}
    for item in plan_tiles(grid, tile_px=tile, halo_px=halo):
        rows.setdefault(item.write.row, []).append(item)
    blender = HannBlender(list(rows.values()), shape=grid.shape, classes=3)
    got = np.zeros_like(truth)
    seen = np.zeros(grid.shape, dtype=int)
    for number, row in enumerate(rows.values()):
        for item in row:
            read = item.read
            part = padded[:, read.row + 64 : read.row_stop + 64, read.col + 64 : read.col_stop + 64]
            blender.add(item, part, np.ones(read.shape, dtype=bool))
        band = blender.finish(number)
        if band is not None:
            got[(slice(None), *band.window.slices)] = band.probabilities
            seen[band.window.slices] += 1
            assert band.valid.all()
    assert (seen == 1).all()
    assert np.allclose(got, truth, atol=1e-5)


@given(
    height=st.integers(1, 120), halo=st.integers(0, 12), tile=st.integers(1, 40), shift=st.integers(0, 40),
    one_size=st.booleans(), start=st.integers(0, 200),
)  # fmt: skip
def test_rows_that_are_blended_from_any_row_of_tiles_on_are_the_same_to_the_bit(
    height: int, halo: int, tile: int, shift: int, start: int, *, one_size: bool
) -> None:
    grid = grid_of(height, 5)
    tiles = plan_tiles(grid, tile_px=tile, halo_px=halo, shift_px=shift, one_size=one_size)
    rows = [[item] for item in tiles if item.write.col == 0]
    rng = np.random.default_rng(height)
    shares = [rng.random((3, *item.read.shape), dtype=np.float32) for (item,) in rows]

    def bands(first: int) -> dict[int, bytes]:
        blender = HannBlender(rows, shape=grid.shape, classes=3)
        found = {}
        for number in range(blender.start(first), len(rows)):
            blender.add(rows[number][0], shares[number], np.ones(rows[number][0].read.shape, dtype=bool))
            if number >= first and (band := blender.finish(number)) is not None:
                found[band.window.row] = band.probabilities.tobytes()
        return found

    later = bands(start % len(rows))
    assert later
    assert later.items() <= bands(0).items()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_classify_agrees_with_numpy(dtype: torch.dtype) -> None:
    logits = (3 * torch.randn(6, 75, 41, generator=torch.Generator().manual_seed(1))).to(dtype)
    valid = np.random.default_rng(0).random((75, 41)) > 0.2
    legend = scheme(6)
    got = classify(logits, valid, index_to_code=legend.index_to_code, products=Products(margin=True))
    exact = np.exp(logits.float().numpy().astype(np.float64))
    exact /= exact.sum(0)
    ordered = np.sort(exact, axis=0)
    clear = valid & (ordered[-1] > ordered[-2])
    assert np.array_equal(got["codes"][clear], legend.index_to_code[exact.argmax(0)][clear])
    assert np.abs(got["confidence"][valid] - 100 * ordered[-1][valid]).max() < 0.501
    assert np.abs(got["margin"][valid] - 100 * (ordered[-1] - ordered[-2])[valid]).max() < 0.501
    assert (got["codes"][~valid] == 0).all()
    assert (got["confidence"][~valid] == 255).all()


def test_a_legend_of_one_class_is_sure_and_without_entropy() -> None:
    asked = Products(probabilities=True, entropy=True, margin=True)
    got = classify(
        torch.zeros(1, 2, 2), np.ones((2, 2), dtype=bool), index_to_code=scheme(1).index_to_code, products=asked
    )
    assert {name: int(layer.max()) for name, layer in got.items()} == {
        "codes": 1, "confidence": 100, "probabilities": 100, "entropy": 0, "margin": 100,
    }  # fmt: skip
