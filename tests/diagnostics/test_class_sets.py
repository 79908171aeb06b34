from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from pipeline.diagnostics.class_sets import LEVELS, SetLimits, coverage_by_block, fit_limits, least_blocks, write_sets
from pipeline.errors import ModelError
from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.legends import read_counts, read_scheme
from tests.fakes.pixels import ArrayPixels

SCHEME, _ = scheme_for(["forest", "water", "field"])


def places(rng: np.random.Generator, blocks: int, *, pixels: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, classes and blocks of pixels: blocks differ in how hard they are, by far more than pixels do."""
    hard = np.repeat(rng.normal(0, 1.5, blocks), pixels)
    block = np.repeat(np.arange(blocks), pixels)
    index = rng.integers(0, 3, blocks * pixels)
    scores = rng.normal(0, 1, (len(index), 3))
    scores[np.arange(len(index)), index] += 2 - hard
    p = np.exp(scores)
    return p / p.sum(axis=1, keepdims=True), index, block


@pytest.mark.parametrize("blocks", [12, 30])
def test_new_blocks_are_covered_as_often_as_promised(blocks):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        limits = fit_limits(*places(rng, blocks)[:2], block=np.repeat(np.arange(blocks), 30))
        p, index, block = places(rng, 20)
        found.append(coverage_by_block(limits, p, index, block=block, level=0.9)["coverage"])
    assert 0.9 - 0.015 <= np.mean(found) <= 0.97


def test_pixels_taken_one_by_one_would_promise_too_much():
    rng = np.random.default_rng(1)
    alone, together = [], []
    for _ in range(100):
        p, index, block = places(rng, 10)
        fresh = places(rng, 20)
        for limits, into in (
            (fit_limits(p, index, block=np.arange(len(index))), alone),
            (fit_limits(p, index, block=block), together),
        ):
            into.append(coverage_by_block(limits, *fresh[:2], block=fresh[2])["coverage"])
    assert np.mean(alone) < np.mean(together) - 0.02


def test_few_blocks_are_refused_by_rule():
    limits = fit_limits(*places(np.random.default_rng(0), 8)[:2], block=np.repeat(np.arange(8), 30))
    with pytest.raises(ModelError, match=r"class sets of 90%; got 8 blocks held out; expected 9 or more"):
        limits.row(0.9)
    assert limits.row(0.8) == np.searchsorted(LEVELS, 0.8)
    assert least_blocks(0.9) == 9
    again = SetLimits.of(limits.tensors())
    assert again.blocks == 8
    assert again.limit == pytest.approx(limits.limit, nan_ok=True, abs=1e-6)
    with pytest.raises(ModelError, match="no limits of class sets"):
        SetLimits.of({})


def limits_at(limit: float) -> SetLimits:
    full = np.full(len(LEVELS), limit)
    return SetLimits(full, full, full, full, 20)


def test_sets_are_named_in_the_raster(tmp_path):
    percent = np.zeros((3, 4, 6), dtype=np.uint8)
    percent[0], percent[1, :, :2], percent[2, 0, 0] = 60, 30, 25
    percent[:, 3] = 255
    codes = np.full((4, 6), SCHEME.codes[0], dtype=np.uint8)
    codes[3] = 0
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), 4, 6)
    write_sets(
        tmp_path / "s_sets.tif", ArrayPixels(percent), ArrayPixels(codes), limits=limits_at(0.25), level=0.9,
        grid=grid, scheme=SCHEME,
    )  # fmt: skip
    scheme = read_scheme(tmp_path / "s_sets.tif")
    assert scheme.names == ("forest", "forest or water", "forest or water or field")
    assert scheme.classes[0].color == SCHEME.classes[0].color
    assert read_counts(tmp_path / "s_sets.tif").pixels == (12, 5, 1)
    with rasterio.open(tmp_path / "s_sets.tif") as dataset:
        assert (dataset.read(1)[3] == 0).all()
        assert "blocks held out" in dataset.tags()["LANDCOVER_SETS"]


def test_more_sets_than_codes_share_one(tmp_path):
    scheme, _ = scheme_for([f"class {number}" for number in range(10)])
    rng = np.random.default_rng(0)
    percent = rng.integers(0, 100, (10, 40, 60)).astype(np.uint8)
    codes = np.array(scheme.codes, dtype=np.uint8)[percent.argmax(axis=0)]
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), 40, 60)
    write_sets(
        tmp_path / "s_sets.tif", ArrayPixels(percent), ArrayPixels(codes), limits=limits_at(0.6), level=0.9,
        grid=grid, scheme=scheme,
    )  # fmt: skip
    found = read_scheme(tmp_path / "s_sets.tif")
    assert len(found) == 254
    assert found.names[-1] == "other sets"


def test_a_class_of_no_probability_is_in_no_set(tmp_path):
    percent = np.array([[[97, 99]], [[2, 1]], [[1, 0]]], dtype=np.uint8)
    codes = np.full((1, 2), SCHEME.codes[0], dtype=np.uint8)
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0), 1, 2)
    write_sets(
        tmp_path / "s_sets.tif", ArrayPixels(percent), ArrayPixels(codes), limits=limits_at(0.012), level=0.9,
        grid=grid, scheme=SCHEME,
    )  # fmt: skip
    assert read_scheme(tmp_path / "s_sets.tif").names == ("forest or water", "forest or water or field")
