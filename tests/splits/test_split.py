"""Blocks keep parts apart, classes in every part, and every polygon whole."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipeline.errors import SplitError, SplitWarning
from pipeline.grid import Grid, Window
from pipeline.labels.rasterise import LabelledPixels
from pipeline.legend import ClassScheme, LandClass
from pipeline.splits.search import default_block_m, split_blocks
from pipeline.splits.split import ABSENT, Layout, Part, Split, check_leakage, metres, rim_mask

UTM32, UTM33 = CRS.from_epsg(32632), CRS.from_epsg(32633)
GRID = Grid(UTM32, Affine(10, 0, 500_000, 0, -10, 5_400_000), 400, 400)
SCHEME = ClassScheme(tuple(LandClass(i, f"class {i}", f"#00000{i}") for i in (1, 2, 3)))


def squares(
    corners: list[tuple[int, int]], codes: list[int], *, side: int = 6, grid: Grid = GRID, first_id: int = 1
) -> LabelledPixels:
    """Square polygons of ``side`` pixels at (row, col) corners."""
    rows, cols = np.mgrid[:side, :side]
    row = np.concatenate([rows.ravel() + r for r, _ in corners]).astype(np.int32)
    col = np.concatenate([cols.ravel() + c for _, c in corners]).astype(np.int32)
    polygon = np.repeat(np.arange(first_id, first_id + len(corners), dtype=np.int32), side * side)
    code = np.repeat(np.array(codes, dtype=np.uint8), side * side)
    order = np.lexsort((col, row))
    edge = np.ones(len(row), dtype=np.uint8)
    return LabelledPixels(row[order], col[order], code[order], polygon[order], edge, grid)


def scattered(seed: int = 0, *, count: int = 90, grid: Grid = GRID, first_id: int = 1) -> LabelledPixels:
    """Squares on distinct cells of a 10-pixel lattice, three classes."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(40 * 40, count, replace=False)
    corners = [(int(c // 40) * 10, int(c % 40) * 10) for c in cells]
    return squares(corners, [1 + i % 3 for i in range(count)], grid=grid, first_id=first_id)


def chessboard_m(pixels: LabelledPixels, one: np.ndarray, other: np.ndarray) -> float:
    """Least chessboard distance in metres between pixels of two sets of polygons, by brute force."""
    place = metres(pixels)
    a, b = place[np.isin(pixels.polygon, one)], place[np.isin(pixels.polygon, other)]
    if not len(a) or not len(b):
        return np.inf
    return float(np.abs(a[:, None] - b[None]).max(axis=2).min())


@pytest.mark.parametrize("buffer_m", [0.0, 160.0, 320.0])
def test_parts_are_beyond_the_buffer_and_hold_every_class(buffer_m: float) -> None:
    pixels = scattered()
    split = split_blocks([pixels], block_m=1000, buffer_m=buffer_m, seed=1)
    for one, other in ((Part.TRAIN, Part.TEST), (Part.TRAIN, Part.VALIDATION), (Part.VALIDATION, Part.TEST)):
        assert chessboard_m(pixels, split.polygons(one), split.polygons(other)) > buffer_m
    counts = split.counts([pixels], SCHEME)
    for part in ("train", "validation", "test"):
        assert all(counts[name][part]["polygons"] > 0 for name in SCHEME.names)
        assert all(counts[name][part]["pixels"] == 36 * counts[name][part]["polygons"] for name in SCHEME.names)
    check_leakage([pixels], split, reach_px=int(buffer_m // 10))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 50.0, 200.0]))
def test_no_layout_of_polygons_gives_a_split_that_leaks(seed: int, buffer_m: float) -> None:
    pixels = scattered(seed, count=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)
        split = split_blocks([pixels], block_m=800, buffer_m=buffer_m, seed=seed)
    check_leakage([pixels], split)
    parts = [set(split.polygons(part).tolist()) for part in Part]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 40


def test_without_buffer_every_block_is_for_one_part() -> None:
    pixels = scattered()
    split = split_blocks([pixels], block_m=800, buffer_m=0, seed=0)
    assert len(split.polygons(Part.BUFFER)) == 0
    for block in np.unique(split.block_of[1:]):
        assert len(np.unique(split.part[split.block_of == block])) == 1
    shares = [len(split.polygons(part)) / 90 for part in (Part.TRAIN, Part.VALIDATION, Part.TEST)]
    assert np.allclose(shares, (0.6, 0.2, 0.2), atol=0.07)


def test_one_seed_gives_one_split_and_absent_ids_are_marked() -> None:
    pixels = scattered()
    one, two = (split_blocks([pixels], block_m=800, buffer_m=100, seed=5) for _ in range(2))
    assert np.array_equal(one.part, two.part)
    fewer = pixels.select([i for i in range(1, 91) if i != 7])
    split = split_blocks([fewer], block_m=800, buffer_m=0, seed=5)
    assert split.part[7] == split.part[0] == ABSENT


def test_rare_class_is_in_train_before_test_before_validation() -> None:
    common = scattered(count=60)
    rare = squares([(5, 395 - 6), (390, 2)], [3, 3], first_id=61)
    keep = common.select(common.code != 3)
    merged = [keep, rare]
    with pytest.warns(SplitWarning, match="no validation polygon of class code 3"):
        split = split_blocks(merged, block_m=800, buffer_m=0, seed=0)
    assert sorted(split.part[[61, 62]].tolist()) == [Part.TRAIN, Part.TEST]
    with warnings.catch_warnings():  # where validation polygons decide nothing, nothing is said
        warnings.simplefilter("error")
        split_blocks(merged, block_m=800, buffer_m=0, seed=0, without_validation="")
    with pytest.warns(SplitWarning, match="no validation polygon of class peat;"):
        split_blocks(merged, block_m=800, buffer_m=0, seed=0, scheme=ClassScheme((LandClass(3, "peat", "#0072b2"),)))


def test_pixels_of_a_part_are_those_of_its_polygons() -> None:
    pixels = scattered()
    split = split_blocks([pixels], block_m=800, buffer_m=0, seed=0)
    test = split.pixels(pixels, Part.TEST)
    assert np.array_equal(test.polygon_ids(), split.polygons(Part.TEST))
    assert len(test) == 36 * len(split.polygons(Part.TEST))


def test_blocks_are_those_of_the_grid() -> None:
    pixels = squares([(0, 0), (0, 90), (0, 110), (110, 0)], [1, 1, 2, 2])
    split = polygon_free_blocks(pixels, 1000.0)
    assert split.tolist() == [0, 0, 1, 2]


def polygon_free_blocks(pixels: LabelledPixels, block_m: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)
        return split_blocks([pixels], block_m=block_m, buffer_m=0, seed=0).block_of[1:]


def test_buffer_that_leaves_nothing_is_an_error_that_says_so() -> None:
    with pytest.raises(SplitError, match=r"buffer leaves no polygon for .*smaller chips"):
        split_blocks([scattered()], block_m=800, buffer_m=9000, seed=0)


def test_polygons_without_a_pixel_are_named_with_few_blocks() -> None:
    pixels = replace(squares([(0, 0), (8, 8), (16, 0), (0, 16)], [1, 2, 1, 2]), too_small=(5, 6))
    with pytest.raises(SplitError, match=r"labels\.all_touched: true uses the 2 polygons"):
        split_blocks([pixels], block_m=1000, buffer_m=0, seed=0)


def test_all_polygons_in_one_corner_are_too_few_blocks() -> None:
    pixels = squares([(0, 0), (8, 8), (16, 0), (0, 16)], [1, 2, 1, 2])
    with pytest.raises(SplitError, match=r"too few blocks hold polygons; got 1 blocks of 1000 m; expected at least 3"):
        split_blocks([pixels], block_m=1000, buffer_m=0, seed=0)


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(SplitError, match="fractions"):
        split_blocks([scattered()], block_m=800, buffer_m=0, fractions=fractions, seed=0)
    with pytest.raises(SplitError, match="size of a block"):
        split_blocks([scattered()], block_m=0, buffer_m=0, seed=0)


def test_scenes_of_two_zones_share_one_plane() -> None:
    from pyproj import Transformer

    x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(501_000.0, 5_399_000.0)
    other = Grid(UTM33, Affine(10, 0, x - 1000, 0, -10, y + 1000), 200, 200)
    layout = Layout.of([squares([(97, 97)], [1]), squares([(97, 97)], [2], grid=other, first_id=2)])
    assert np.abs(layout.position_m[0] - layout.position_m[1]).max() < 15


def test_the_default_block_leaves_enough_and_exceeds_the_buffer() -> None:
    pixels = scattered()
    side = default_block_m(pixels, buffer_m=320)
    assert side >= 320
    assert side % 10 == pytest.approx(0)
    layout = Layout.of([pixels])
    occupied = len(np.unique(np.floor(layout.position_m / side), axis=0))
    assert occupied >= 25
    assert default_block_m([pixels], buffer_m=320) == side
    assert len(np.unique(np.floor(layout.position_m / default_block_m(pixels, buffer_m=3000)), axis=0)) >= 9


def test_default_block_works_on_a_grid_in_degrees() -> None:
    grid = Grid(CRS.from_epsg(4326), Affine(9e-5, 0, 10, 0, -7e-5, 50), 400, 400)
    side = default_block_m(scattered(grid=grid))
    assert 300 < side < 2500


def test_nothing_to_split_is_an_error() -> None:
    with pytest.raises(SplitError, match="no labelled pixel"):
        split_blocks([scattered().select([])], block_m=100, buffer_m=0, seed=0)
    with pytest.raises(SplitError, match="one labelled polygon"):
        default_block_m(squares([(0, 0)], [1]))


def _split(parts: dict[int, Part], *, buffer_m: float = 0.0) -> Split:
    part = np.full(max(parts) + 1, ABSENT, dtype=np.int8)
    for polygon, value in parts.items():
        part[polygon] = value
    return Split(part, np.zeros(len(part), dtype=np.int32), 100.0, buffer_m)


@pytest.mark.parametrize(("gap", "fine"), [(15, False), (16, False), (17, True)])
def test_leakage_is_found_to_the_pixel(gap: int, fine: bool) -> None:  # noqa: FBT001
    pixels = squares([(0, 0), (0, 5 + gap)], [1, 2])
    split = _split({1: Part.TRAIN, 2: Part.TEST})
    if fine:
        check_leakage([pixels], split, reach_px=16)
        return
    with pytest.raises(SplitError, match=f"polygons 1 and 2 are too near; got {gap * 10} m; expected more than 160 m"):
        check_leakage([pixels], split, reach_px=16)
    with pytest.raises(SplitError, match="train and test leak"):
        check_leakage([pixels], split, buffer_m=160)


def test_a_chip_on_a_training_pixel_sees_no_tested_pixel() -> None:
    pixels, reach = scattered(), 16
    split = split_blocks([pixels], block_m=1000, buffer_m=reach * 10.0, seed=1)
    train, test = split.pixels(pixels, Part.TRAIN), split.pixels(pixels, Part.TEST)
    for row, col in zip(train.row[::7], train.col[::7], strict=True):
        assert not len(test.within(Window(int(row) - reach, int(col) - reach, 2 * reach, 2 * reach)))


def test_buffer_polygons_may_be_near_anybody() -> None:
    pixels = squares([(0, 0), (0, 8)], [1, 2])
    check_leakage([pixels], _split({1: Part.BUFFER, 2: Part.TEST}), reach_px=16)


def test_a_pixel_that_belongs_to_two_polygons_is_leakage() -> None:
    pixels = squares([(0, 0), (3, 3)], [1, 1])
    with pytest.raises(SplitError, match=r"pixel \(row 3, column 3\) of scene 1 belongs to two polygons"):
        check_leakage([pixels], _split({1: Part.TRAIN, 2: Part.TEST}))


def test_rim_is_where_a_polygon_meets_anything_else() -> None:
    pixels = squares([(0, 0), (0, 6)], [1, 1])
    rim = pixels.select(rim_mask(pixels)).dense(Window(0, 0, 6, 12))[1] > 0
    expected = np.ones((6, 12), dtype=bool)
    expected[1:5, 1:5] = expected[1:5, 7:11] = False
    assert np.array_equal(rim, expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([40.0, 50.0, 140.0, 150.0]))
def test_neighbours_are_those_that_brute_force_finds(seed: int, distance_m: float) -> None:
    pixels = scattered(seed, count=25)
    found = {tuple(pair) for pair in Layout.of([pixels]).neighbours(distance_m).tolist()}
    expected = {
        (a, b)
        for a in range(25)
        for b in range(a + 1, 25)
        if chessboard_m(pixels, np.array([a + 1]), np.array([b + 1])) <= distance_m
    }
    assert found == expected


def test_blocks_that_share_a_group_are_one_block() -> None:
    pixels = scattered()
    groups = np.arange(91, dtype=np.int64)
    pairs = np.random.default_rng(3).permutation(np.arange(1, 91))[:12].reshape(-1, 2)
    groups[pairs[:, 0]] = groups[pairs[:, 1]]
    split = partial(split_blocks, [pixels], block_m=400.0, buffer_m=0.0, seed=1)
    plain, joined = split(), split(groups=groups)
    assert (plain.part[pairs[:, 0]] != plain.part[pairs[:, 1]]).any()
    assert (joined.part[pairs[:, 0]] == joined.part[pairs[:, 1]]).all()
    alone = split(groups=np.arange(91, dtype=np.int64))
    assert (alone.part == plain.part).all()
    assert (alone.block_of == plain.block_of).all()
