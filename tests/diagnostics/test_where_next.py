from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pipeline.diagnostics.where_next import likely_wrong, look_at_map, main_reasons
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE, DISSIMILARITY, ENTROPY
from tests.fakes.pixels import ArrayPixels

SCHEME, _ = scheme_for(["forest", "water", "field"])
SHAPE = (64, 96)
GRID = Grid(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 5_800_000), *SHAPE)


@pytest.fixture
def mapped(tmp_path):
    """A map of forest with nodata on the right, doubtful in one square and unlike the training data in another."""
    codes = np.full(SHAPE, SCHEME.codes[0], dtype=np.uint8)
    codes[:, 80:] = 0
    sure, entropy, unlike = np.full(SHAPE, 95), np.full(SHAPE, 10), np.full(SHAPE, 50)
    sure[8:16, 16:24], entropy[8:16, 16:24] = 40, 90
    unlike[40:48, 40:48] = 250
    write_class_map(tmp_path / "s_lc.tif", ArrayPixels(codes), grid=GRID, scheme=SCHEME)
    for name, values, layer in (
        ("conf", sure, CONFIDENCE), ("entropy", entropy, ENTROPY), ("aoa", unlike, DISSIMILARITY)
    ):  # fmt: skip
        write_percent(tmp_path / f"s_{name}.tif", ArrayPixels(values.astype(np.uint8)), grid=GRID, layer=layer)
    return tmp_path / "s_lc.tif"


def test_the_doubtful_square_comes_first_then_the_unlike_one(mapped):
    squares = look_at_map(mapped)
    assert len(squares) == 8 * 10  # without nodata
    order = np.argsort(-likely_wrong(squares), kind="stable")
    assert [(squares.row[i], squares.col[i]) for i in order[:2]] == [(8, 16), (40, 40)]
    assert squares.signals["doubt"][order[0]] == pytest.approx(0.6)
    assert squares.signals["dissimilarity"][order[1]] == pytest.approx(1.0)
    assert squares.grid.crop(squares.window(int(order[0]))).bounds == (500_160.0, 5_799_840.0, 500_240.0, 5_799_920.0)
    assert main_reasons(squares)[order[1]] == "unlike the training data"


def test_the_area_that_hangs_on_a_square_is_that_of_its_like(mapped):
    squares = look_at_map(mapped)
    doubtful = int(np.argmax(squares.signals["doubt"]))
    assert squares.area_ha[doubtful] == pytest.approx(0.64, rel=1e-2)
    assert squares.area_ha[0] == pytest.approx(64 * 80 / 100 - 0.64, rel=1e-2)


def test_other_maps_that_disagree_bring_a_square_forward(mapped, tmp_path):
    codes = np.full(SHAPE, SCHEME.codes[0], dtype=np.uint8)
    codes[56:64, 72:80] = SCHEME.codes[1]
    write_class_map(tmp_path / "other_lc.tif", ArrayPixels(codes), grid=GRID, scheme=SCHEME)
    squares = look_at_map(mapped, others=[tmp_path / "other_lc.tif"])
    here = (squares.row == 56) & (squares.col == 72)
    assert squares.signals["disagreement"][here].tolist() == [1.0]
    assert not squares.signals["disagreement"][~here].any()


def test_strips_do_not_change_the_squares(mapped, monkeypatch):
    whole = look_at_map(mapped)
    monkeypatch.setattr("pipeline.accuracy.class_maps.STRIP_PIXELS", 96 * 9)
    parts = look_at_map(mapped)
    assert likely_wrong(parts) == pytest.approx(likely_wrong(whole))


def test_a_map_without_confidence_is_refused_in_a_line(tmp_path):
    codes = np.full(SHAPE, SCHEME.codes[0], dtype=np.uint8)
    write_class_map(tmp_path / "s_lc.tif", ArrayPixels(codes), grid=GRID, scheme=SCHEME)
    with pytest.raises(ReferenceDataError, match=r"s_lc\.tif: no confidence beside the map"):
        look_at_map(tmp_path / "s_lc.tif")


@pytest.mark.parametrize(("cell_px", "shape"), [(1, (4, 6)), (8, (17, 17)), (8, (9, 10))])
def test_squares_without_a_class_are_left_out_however_small(cell_px, shape, tmp_path):
    codes = np.full(shape, SCHEME.codes[0], dtype=np.uint8)
    codes[-1, -2:] = 0
    grid = Grid(GRID.crs, GRID.transform, *shape)
    write_class_map(tmp_path / "s_lc.tif", ArrayPixels(codes), grid=grid, scheme=SCHEME)
    write_percent(tmp_path / "s_conf.tif", ArrayPixels(np.full(shape, 90, np.uint8)), grid=grid, layer=CONFIDENCE)
    assert look_at_map(tmp_path / "s_lc.tif", cell_px=cell_px).code.all()
