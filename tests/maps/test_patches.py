"""Patches outlined band by band are those that GDAL outlines in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import shapes

from pipeline.maps.patches import patches


def normal(geometry):
    return shapely.normalize(geometry).wkt


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 2)), st.integers(1, 15)
)
def test_bands_of_any_height_give_the_patches_of_one_pass(codes, band_rows):
    whole = sorted((int(v), normal(shapely.geometry.shape(g))) for g, v in shapes(codes, connectivity=4) if v)
    made = [(shapely.Polygon(rings[0], rings[1:]), code) for rings, code in patches(codes, band_rows=band_rows)]
    assert all(polygon.is_valid for polygon, _ in made)
    assert sorted((code, normal(polygon)) for polygon, code in made) == whole


@pytest.mark.parametrize("band_rows", [1, 7, 64])
def test_a_patch_that_winds_through_all_bands_is_one(band_rows):
    codes = np.ones((60, 41), np.uint8)
    codes[::4, 1:] = 2
    codes[2::4, :-1] = 2
    (first, _), *others = [(r, c) for r, c in patches(codes, band_rows=band_rows) if c == 1]
    assert shapely.Polygon(first[0], first[1:]).area == (codes == 1).sum()
    assert not others


def test_a_patch_with_too_many_corners_is_divided():
    codes = np.ones((60, 41), np.uint8)
    codes[::4, 1:] = 2
    codes[2::4, :-1] = 2
    cuts = []
    made = list(patches(codes, band_rows=10, max_corners=30, on_cut=lambda ends: cuts.append(ends.tolist())))
    parts = [shapely.Polygon(rings[0], rings[1:]) for rings, code in made if code == 1]
    assert 1 < len(parts) <= 6
    assert all(ends[0][1] == ends[1][1] and ends[0][1] % 10 == 0 for ends in cuts)
    assert shapely.union_all(parts).area == sum(part.area for part in parts) == (codes == 1).sum()
    assert all(len(rings[0]) < 100 for rings, _ in made)


def test_exteriors_go_one_way_round_and_holes_the_other():
    codes = np.ones((30, 30), np.uint8)
    codes[5:20, 5:20] = 2
    codes[9:12, 9:12] = 1
    for rings, _ in patches(codes, band_rows=8):
        ways = [shapely.LinearRing(ring).is_ccw for ring in rings]
        assert ways == [ways[0]] + [not ways[0]] * (len(ways) - 1)
