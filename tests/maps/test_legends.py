"""A map's legend comes back from the file alone, and different legends never meet silently."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from pipeline.errors import GridError, InputError, LegendError
from pipeline.grid import Window
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import LEGEND_TAG, write_class_map
from pipeline.maps.legends import check_same_legend, read_scheme
from pipeline.maps.vrt import write_mosaic
from tests.fakes.pixels import ArrayPixels

from .conftest import PROJECTED
from .qgis import what_qgis_shows


@pytest.fixture
def written(tmp_path, codes, scheme):
    path = tmp_path / "a_lc.tif"
    write_class_map(path, ArrayPixels(codes), grid=PROJECTED, scheme=scheme)
    return path


def strip_tag(path):
    with rasterio.open(path) as dataset:
        profile, pixels, colours = dataset.profile, dataset.read(1), dataset.colormap(1)
    profile.update(driver="GTiff", tiled=False, blockysize=1)
    profile.pop("interleave", None)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels, 1)
        dataset.write_colormap(1, colours)


def test_legend_comes_back_from_the_tag(written, scheme):
    assert read_scheme(written) == scheme


def test_legend_comes_back_from_the_attribute_table(written, scheme):
    aux = written.with_name("a_lc.tif.aux.xml")
    text = aux.read_text()
    strip_tag(written)
    aux.write_text(text)
    with rasterio.open(written) as dataset:
        assert LEGEND_TAG not in dataset.tags()
    assert read_scheme(written) == scheme


def test_legend_comes_back_from_category_names_and_palette(written, scheme):
    strip_tag(written)
    names = "".join(f"<Category>{n.replace('&', '&amp;').replace('<', '&lt;')}</Category>" for n in ("", *scheme.names))
    aux = f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
    written.with_name("a_lc.tif.aux.xml").write_text(aux)
    assert read_scheme(written) == scheme


def test_a_map_without_names_is_refused(written):
    strip_tag(written)
    written.with_name("a_lc.tif.aux.xml").unlink(missing_ok=True)
    with pytest.raises(LegendError, match="does not say"):
        read_scheme(written)


def test_a_file_that_is_no_map_is_an_input_error(tmp_path):
    (tmp_path / "x.tif").write_text("no")
    with pytest.raises(InputError):
        read_scheme(tmp_path / "x.tif")


def test_different_legends_are_named_and_refused(tmp_path, written, codes):
    other, _ = scheme_for(["water & ice", "forest <dry>", "Äcker", "village"])
    write_class_map(tmp_path / "b_lc.tif", ArrayPixels(codes), grid=PROJECTED, scheme=other)
    with pytest.raises(LegendError, match="village"):
        check_same_legend([written, tmp_path / "b_lc.tif"])
    with pytest.raises(LegendError, match="village"):
        write_mosaic(tmp_path / "m.vrt", [written, tmp_path / "b_lc.tif"])


def test_a_mosaic_puts_every_pixel_back_and_keeps_names(tmp_path, codes, scheme):
    halves = [Window(0, 0, 300, 220), Window(0, 180, 300, 220)]
    paths = [tmp_path / "x" / f"{k}_lc.tif" for k in range(2)]
    for path, window in zip(paths, halves, strict=True):
        part = codes[window.slices]
        write_class_map(path, ArrayPixels(part), grid=PROJECTED.crop(window), scheme=scheme)
    grid = write_mosaic(tmp_path / "mosaic.vrt", paths)
    assert grid.same_pixels_as(PROJECTED)
    with rasterio.open(tmp_path / "mosaic.vrt") as dataset:
        assert np.array_equal(dataset.read(1), codes)
        assert dataset.nodata == 0
    assert read_scheme(tmp_path / "mosaic.vrt") == scheme
    (tmp_path / "moved").mkdir()
    for name in ("x", "mosaic.vrt", "mosaic.qml"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with rasterio.open(tmp_path / "moved" / "mosaic.vrt") as dataset:
        assert np.array_equal(dataset.read(1), codes)
    (layer,) = what_qgis_shows(tmp_path / "moved" / "mosaic.vrt")
    assert layer["labels"] == list(scheme.names)


def test_maps_on_other_pixels_are_not_mosaicked(tmp_path, written, codes, scheme):
    shifted = PROJECTED.crop(Window(0, 0, 300, 400))
    off = type(shifted)(shifted.crs, shifted.transform.translation(3, 4) @ shifted.transform, 300, 400)
    write_class_map(tmp_path / "b_lc.tif", ArrayPixels(codes), grid=off, scheme=scheme)
    with pytest.raises(GridError, match="other pixels"):
        write_mosaic(tmp_path / "m.vrt", [written, tmp_path / "b_lc.tif"])
