"""SceneReader: what it gives equals rasterio's own reads, in place, masked and scaled once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow

from pipeline.errors import SceneError
from pipeline.grid import Grid, Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.reader import open_reader
from pipeline.scenes.scene import Scene
from pipeline.scenes.sources import BandSource, QualitySource

UTM = CRS.from_epsg(32633)
LEFT, TOP = 500_000.0, 5_500_000.0


def write(path: Path, pixels: NDArray[np.generic], *, size: float = 10.0, **profile: object) -> Path:
    """A GeoTIFF of [band, row, col] whose upper left corner is (LEFT, TOP)."""
    count, height, width = pixels.shape
    place = {"crs": UTM, "transform": Affine(size, 0, LEFT, 0, -size, TOP)} | profile
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=pixels.dtype, **place
    ) as file:
        file.write(pixels)
    return path


def scene_of(path: Path, *, shape: tuple[int, int], count: int = 1, **source: object) -> Scene:
    bands = tuple(BandSource(f"band{i}", str(path), index=i, **source) for i in range(1, count + 1))
    return Scene("s", str(path), Grid(UTM, Affine(10, 0, LEFT, 0, -10, TOP), *shape), bands)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint16]]:
    """A file whose pixels hold their own row and column."""
    rows, cols = np.mgrid[0:37, 0:53]
    pixels = np.stack([rows * 100 + cols + 1, cols * 100 + rows + 1]).astype(np.uint16)
    path = write(tmp_path_factory.mktemp("numbered") / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16)
    return path, pixels


@given(st.integers(-20, 50), st.integers(-20, 70), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window_equals_rasterios_own_boundless_read(
    numbered: tuple[Path, NDArray[np.uint16]], row: int, col: int, height: int, width: int
) -> None:
    path, pixels = numbered
    window = Window(row, col, height, width)
    with open_reader(scene_of(path, shape=(37, 53), count=2)) as reader:
        raster = reader.read(window)
    inside = window.intersect(Window(0, 0, 37, 53))
    expected = np.zeros((2, height, width))
    if inside is not None:
        with rasterio.open(path) as file:
            part = file.read(window=RasterioWindow(inside.col, inside.row, inside.width, inside.height))
        rows, cols = inside.relative_to(window).slices
        expected[:, rows, cols] = part
    assert np.array_equal(raster.values, expected)
    assert np.array_equal(raster.valid, expected[0] > 0)
    assert raster.grid.transform @ (-col, -row) == (LEFT, TOP)
    assert pixels.dtype == np.uint16


def test_coordinates_come_back_in_place_from_halos_and_tiles(numbered: tuple[Path, NDArray[np.uint16]]) -> None:
    path, pixels = numbered
    scene = scene_of(path, shape=(37, 53), count=2)
    back = np.zeros_like(pixels, dtype=np.float32)
    with scene.open() as reader:
        for write_window in scene.grid.tiles(16):
            read = write_window.expand(5)
            rows, cols = write_window.relative_to(read).slices
            back[:, write_window.slices[0], write_window.slices[1]] = reader.read(read).values[:, rows, cols]
    assert np.array_equal(back, pixels)


def test_scale_is_applied_once_and_nodata_is_zero_not_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[[0, 1000, 2000]]], np.uint16))
    with open_reader(scene_of(path, shape=(1, 3), scale=1e-4, offset=-0.1, nodata=0)) as reader:
        raster = reader.read(reader.grid.window)
    assert raster.values[0, 0].tolist() == pytest.approx([0, 0, 0.1], abs=1e-6)
    assert raster.valid[0].tolist() == [False, True, True]


def test_a_pixel_is_valid_only_where_every_band_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[[0, 1, 1]], [[1, 0, 1]]], np.uint16))
    with open_reader(scene_of(path, shape=(1, 3), count=2, nodata=0)) as reader:
        raster = reader.read(reader.grid.window)
    assert raster.valid[0].tolist() == [False, False, True]
    assert raster.values[:, 0, :2].max() == 0


def test_nan_and_infinity_are_never_valid_and_never_come_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[[np.nan, np.inf, -np.inf, 3.0]]], np.float32))
    for nodata in (None, np.nan, -9999.0):
        with open_reader(scene_of(path, shape=(1, 4), nodata=nodata)) as reader:
            raster = reader.read(reader.grid.window)
        assert raster.values[0, 0].tolist() == [0, 0, 0, 3]
        assert raster.valid[0].tolist() == [False, False, False, True]


def test_an_all_nodata_scene_and_a_scene_of_one_pixel_are_read(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.tif", np.zeros((1, 8, 8), np.uint16))
    with open_reader(scene_of(empty, shape=(8, 8), nodata=0)) as reader:
        assert not reader.read(reader.grid.window).valid.any()
    single = write(tmp_path / "one.tif", np.full((1, 1, 1), 7, np.uint16))
    with open_reader(scene_of(single, shape=(1, 1))) as reader:
        assert reader.read(Window(-1, -1, 3, 3)).values[0].tolist() == [[0, 0, 0], [0, 7, 0], [0, 0, 0]]


def test_dn_above_the_largest_observation_are_not_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[[5, 6, 7, 8]]], np.uint16))
    with open_reader(scene_of(path, shape=(1, 4), valid_max=7)) as reader:
        assert reader.read(reader.grid.window).valid[0].tolist() == [True, True, True, False]


def test_a_mask_band_of_the_file_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, np.ones((1, 2, 2), np.uint16))
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.array([[True, False], [True, True]]))
    with open_reader(scene_of(path, shape=(2, 2), use_dataset_mask=True)) as reader:
        assert reader.read(reader.grid.window).valid.tolist() == [[True, False], [True, True]]


def test_bilinear_from_coarser_pixels_reproduces_a_plane(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:20, 0:30]
    plane = (rows * 20 + 10) * 3.0 + (cols * 20 + 10) * 7.0
    path = write(tmp_path / "a.tif", plane[None].astype(np.float32), size=20)
    with open_reader(scene_of(path, shape=(40, 60))) as reader:
        got = reader.read(Window(3, 5, 30, 40)).values[0]
    fine_rows, fine_cols = np.mgrid[3:33, 5:45]
    assert got == pytest.approx((fine_rows * 10 + 5) * 3.0 + (fine_cols * 10 + 5) * 7.0, abs=0.01)


def test_interpolation_mixes_no_nodata_into_an_orbits_edge(tmp_path: Path) -> None:
    pixels = np.full((1, 10, 10), 4000, np.uint16)
    pixels[0, :, :5] = 0
    path = write(tmp_path / "a.tif", pixels, size=20)
    with open_reader(scene_of(path, shape=(20, 20), nodata=0, scale=1e-4)) as reader:
        raster = reader.read(reader.grid.window)
    assert raster.valid[:, 10:].all()
    assert not raster.valid[:, :9].any()
    assert np.unique(raster.values[0][raster.valid]).tolist() == pytest.approx([0.4])


def test_ground_that_a_coarser_file_does_not_cover_is_not_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 5, 5), np.uint16), size=20)
    with open_reader(scene_of(path, shape=(14, 14), resampling="nearest")) as reader:
        raster = reader.read(reader.grid.window)
    assert raster.valid[:10, :10].all()
    assert raster.valid.sum() == 100


def test_quality_bits_values_and_fields_take_pixels_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 1, 5), np.uint16))
    codes = np.array([[[0b0, 0b1000, 9, 0b11 << 8, 0b10 << 8]]], np.uint16)
    qa = write(tmp_path / "qa.tif", codes)
    rules = {
        "bad_bits": (QualitySource("q", str(qa), bad_bits=1 << 3), [True, False, False, True, True]),
        "bad_values": (QualitySource("q", str(qa), bad_values=(0, 9)), [False, True, False, True, True]),
        "bad_fields": (QualitySource("q", str(qa), bad_fields=((0b11 << 8, 0b11 << 8),)), [True] * 3 + [False, True]),
    }
    for quality, expected in rules.values():
        scene = replace(scene_of(path, shape=(1, 5)), quality=(quality,))
        with open_reader(scene) as reader:
            assert reader.read(reader.grid.window).valid[0].tolist() == expected


def test_another_crs_is_warped_onto_the_grid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((1, 50, 50), 5, np.uint16), size=100)
    grid = Grid(CRS.from_epsg(4326), Affine(0.001, 0, 15.0, 0, -0.001, 49.65), 100, 150)
    scene = replace(scene_of(path, shape=(1, 1)), grid=grid)
    with open_reader(scene) as reader:
        raster = reader.read(grid.window)
    assert 0 < raster.valid.sum() < raster.valid.size
    assert set(np.unique(raster.values)) == {0, 5}
    assert (raster.values[0] > 0).tolist() == raster.valid.tolist()


def test_a_truncated_file_names_file_band_and_window(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 9999, (1, 256, 256)).astype(np.uint16)
    path = write(tmp_path / "cut.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with (
        open_reader(scene_of(path, shape=(256, 256))) as reader,
        pytest.raises(SceneError, match=r"cut\.tif: cannot read band \[1\] in rows 128\.\.256, columns 0\.\.256"),
    ):
        reader.read(Window(128, 0, 128, 256))


def test_a_cut_alpha_band_names_file_bands_and_window(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, (4, 128, 128)).astype(np.uint8)
    options = {"interleave": "band", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write(tmp_path / "cut.tif", pixels, photometric="RGB", alpha="yes", **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 9000])  # the last band lies at the end of the file
    with open_geotiff(path).open() as reader, pytest.raises(SceneError) as caught:
        reader.read(Window(0, 0, 128, 128))
    told = f"{path}: cannot read the mask of band [1, 2, 3] in rows 0..128, columns 0..128; got "
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("; check the file; it may be cut off or damaged")


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with (
        open_reader(scene_of(tmp_path / "gone.tif", shape=(4, 4))) as reader,
        pytest.raises(SceneError, match=r"gone\.tif"),
    ):
        reader.read(Window(0, 0, 2, 2))


def test_selected_bands_come_in_the_order_asked_for(numbered: tuple[Path, NDArray[np.uint16]]) -> None:
    path, pixels = numbered
    scene = scene_of(path, shape=(37, 53), count=2).select(["band2", "band1"])
    with scene.open() as reader:
        raster = reader.read(scene.grid.window)
    assert raster.bands == ("band2", "band1")
    assert np.array_equal(raster.values, pixels[::-1])
    with pytest.raises(SceneError, match="lacks band swir"):
        scene.select(["swir"])
