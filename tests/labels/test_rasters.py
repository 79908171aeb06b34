"""Class rasters as labels: components as scipy finds them, whatever the strips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import distance_transform_cdt, label

from pipeline.errors import LabelError, LabelWarning
from pipeline.grid import Grid
from pipeline.labels import rasters
from pipeline.labels.rasterise import EDGE_CAP_PX
from pipeline.labels.rasters import labels_from_raster
from tests.labels.test_rasterise import GRID, SCHEME, dense_edge


def _write(path: Path, codes: np.ndarray, grid: Grid = GRID, *, crs: object = GRID.crs) -> Path:
    with rasterio.open(path, "w", driver="GTiff", dtype=codes.dtype, count=1, height=grid.height, width=grid.width,
                       crs=crs, transform=grid.transform) as file:  # fmt: skip
        file.write(codes, 1)
    return path


def _blobs(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), (12, 16), p=[0.2, 0.4, 0.3, 0.1]).repeat(5, 0).repeat(5, 1)


@pytest.mark.parametrize("strip_px", [1_000_000, 80, 560])
def test_connected_pixels_are_one_polygon_across_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip_px: int
) -> None:
    monkeypatch.setattr(rasters, "_STRIP_PX", strip_px)
    codes = _blobs()
    pixels = labels_from_raster(_write(tmp_path / "a.tif", codes), scheme=SCHEME, grid=GRID)
    dense, polygons = pixels.dense(GRID.window)
    assert np.array_equal(dense, np.where(np.isin(codes, (1, 2)), codes, 255))
    edge = dense_edge(pixels)
    total = 0
    for code in (1, 2):
        numbered, count = label(codes == code)
        total += count
        for number in range(1, count + 1):
            assert len(np.unique(polygons[numbered == number])) == 1
        padded = np.pad(codes == code, EDGE_CAP_PX, mode="edge")
        distance = distance_transform_cdt(padded, metric="chessboard")[
            EDGE_CAP_PX:-EDGE_CAP_PX, EDGE_CAP_PX:-EDGE_CAP_PX
        ]
        assert np.array_equal(edge[codes == code], np.minimum(distance, EDGE_CAP_PX)[codes == code])
    assert pixels.polygon_ids().tolist() == list(range(1, total + 1))


def test_pieces_cut_a_map_into_polygons_no_larger_than_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.tif", np.ones(GRID.shape, np.uint8))
    whole = labels_from_raster(path, scheme=SCHEME, grid=GRID, piece_px=20)
    monkeypatch.setattr(rasters, "_STRIP_PX", 80 * 7)
    strips = labels_from_raster(path, scheme=SCHEME, grid=GRID, piece_px=20)
    assert len(whole.polygon_ids()) == 12
    assert np.bincount(whole.polygon)[1:].tolist() == [400] * 12
    assert np.array_equal(whole.polygon, strips.polygon)


def test_a_raster_on_another_grid_comes_by_nearest_neighbour(tmp_path: Path) -> None:
    codes = _blobs(3)
    finer = Grid(GRID.crs, GRID.transform @ rasterio.Affine.scale(0.5), 120, 160)
    pixels = labels_from_raster(_write(tmp_path / "a.tif", codes), scheme=SCHEME, grid=finer)
    expected = np.where(np.isin(codes, (1, 2)), codes, 255).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(pixels.dense(finer.window)[0], expected)


def test_values_beyond_the_legend_are_warned_about(tmp_path: Path) -> None:
    codes = np.ones(GRID.shape, np.int16)
    codes[0, 0], codes[0, 1] = 77, -5
    with pytest.warns(LabelWarning, match=r"values \[-5, 77\] are not in the legend"):
        assert len(labels_from_raster(_write(tmp_path / "a.tif", codes), scheme=SCHEME, grid=GRID)) == codes.size - 2


@pytest.mark.parametrize("kind", ["uint16", "int32"])
def test_values_that_no_code_can_have_are_named_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(rasters, "_STRIP_PX", 80 * 7)
    codes = np.full(GRID.shape, 300, kind)
    codes[10:20], codes[-1, :3], codes[0, :2] = 1, (256, 511, 5000), (0, 255)
    with pytest.warns(LabelWarning, match=r"values \[256, 300, 511, 5000\] are not in the legend"):
        pixels = labels_from_raster(_write(tmp_path / "a.tif", codes), scheme=SCHEME, grid=GRID)
    assert (len(pixels), set(pixels.code.tolist())) == (codes[codes == 1].size, {1})
    codes[10:20] = 257
    with pytest.raises(LabelError, match=r"got values \[256, 257, 300, 511, 5000\]; expected codes 1, 2, 3"):
        labels_from_raster(_write(tmp_path / "b.tif", codes), scheme=SCHEME, grid=GRID)


def test_nodata_and_unlabelled_are_no_strange_values(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    codes = np.full(GRID.shape, 65535, np.uint16)
    codes[0], codes[1], codes[2] = 1, 0, 255
    path = _write(tmp_path / "a.tif", codes)
    with rasterio.open(path, "r+") as file:
        file.nodata = 65535
    assert len(labels_from_raster(path, scheme=SCHEME, grid=GRID)) == 80
    assert not recwarn.list


def test_aliases_rename_values_and_leave_some_out(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    codes = np.full(GRID.shape, 1, np.uint16)
    codes[0], codes[1], codes[2] = 300, 2, 400
    path = _write(tmp_path / "a.tif", codes)
    aliases = {"300": SCHEME.by_code(3).name, "2": "", "400": ""}
    dense, _ = labels_from_raster(path, scheme=SCHEME, grid=GRID, aliases=aliases).dense(GRID.window)
    assert [set(row.tolist()) for row in dense[:4]] == [{3}, {255}, {255}, {1}]
    assert not recwarn.list
    with pytest.raises(LabelError, match="alias of a class raster; got 'wald'; expected a value"):
        labels_from_raster(path, scheme=SCHEME, grid=GRID, aliases={"wald": SCHEME.by_code(3).name})


def test_rasters_that_cannot_be_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tif").write_text("text", encoding="utf-8")
    with pytest.raises(LabelError, match="not a raster"):
        labels_from_raster(tmp_path / "t.tif", scheme=SCHEME, grid=GRID)
    with pytest.raises(LabelError, match="has no CRS"):
        labels_from_raster(_write(tmp_path / "n.tif", _blobs(), crs=None), scheme=SCHEME, grid=GRID)
    with pytest.raises(LabelError, match="without integer codes; got float32"):
        labels_from_raster(_write(tmp_path / "f.tif", _blobs().astype("f4")), scheme=SCHEME, grid=GRID)
    with pytest.raises(LabelError, match=r"no pixel of a class of the legend over the scene; got values \[9\]"):
        labels_from_raster(_write(tmp_path / "z.tif", np.full(GRID.shape, 9, np.uint8)), scheme=SCHEME, grid=GRID)
