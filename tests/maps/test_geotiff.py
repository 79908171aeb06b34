"""Maps as files: valid COGs that say what they hold, whole or not there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from pipeline.errors import GridError, LegendError, OutputError
from pipeline.grid import Grid
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.pixels import FilePixels
from pipeline.maps.style import CONFIDENCE, ENTROPY, MARGIN
from tests.fakes.pixels import ArrayPixels

from .conftest import PROJECTED
from .qgis import what_qgis_shows


def write(folder, codes, scheme, grid=PROJECTED, **more):
    return write_class_map(folder / "a_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme, **more)


def test_pixels_grid_and_nodata_come_back(tmp_path, codes, scheme, grid):
    write(tmp_path, codes, scheme, grid)
    with rasterio.open(tmp_path / "a_lc.tif") as dataset:
        assert np.array_equal(dataset.read(1), codes)
        assert dataset.nodata == 0
        assert dataset.descriptions == ("land cover",)
        assert Grid(dataset.crs, dataset.transform, *dataset.shape).same_pixels_as(grid)
        assert dataset.colorinterp == (ColorInterp.palette,)
        assert all(dataset.colormap(1)[item.code][:3] == item.rgb for item in scheme.classes)


def test_every_product_is_a_valid_cog_with_overviews(tmp_path, scheme):
    large = Grid(PROJECTED.crs, PROJECTED.transform, 900, 1100)
    codes = np.random.default_rng(0).integers(0, 5, large.shape).astype(np.uint8)
    write(tmp_path, codes, scheme, large)
    write_percent(tmp_path / "c.tif", ArrayPixels(codes), grid=large, layer=CONFIDENCE)
    write_percent(tmp_path / "e.tif", ArrayPixels(codes), grid=large, layer=ENTROPY)
    write_percent(tmp_path / "p.tif", ArrayPixels(np.stack([codes] * 4)), grid=large, layer=scheme)
    for name in ("a_lc.tif", "c.tif", "e.tif", "p.tif"):
        valid, errors, warnings = cog_validate(tmp_path / name)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(tmp_path / name) as dataset:
            assert dataset.overviews(1)


def test_overviews_of_classes_hold_only_classes_below_them(tmp_path, scheme):
    large = Grid(PROJECTED.crs, PROJECTED.transform, 1024, 1024)
    codes = np.kron(np.random.default_rng(1).integers(1, 5, (512, 512)), np.ones((2, 2), int)).astype(np.uint8)
    write(tmp_path, codes, scheme, large)
    with rasterio.open(tmp_path / "a_lc.tif", overview_level=0) as dataset:
        half = dataset.read(1)
    assert np.array_equal(half, codes[::2, ::2])


def test_counts_and_areas_agree_with_the_pixels(tmp_path, codes, scheme, grid):
    counts = write(tmp_path, codes, scheme, grid)
    assert counts.pixels == tuple((codes == code).sum() for code in scheme.codes)
    rows = grid.pixel_areas_ha()[:, 0]
    assert counts.area_ha == pytest.approx([((codes == code).sum(axis=1) * rows).sum() for code in scheme.codes])
    assert counts.nodata_pixels == (codes == 0).sum()
    assert sum(entry["share"] for entry in counts.to_json()) == pytest.approx(1)


def test_names_and_table_are_found_by_gdal_and_qgis(tmp_path, codes, scheme, grid):
    write(tmp_path, codes, scheme, grid)
    (layer,) = what_qgis_shows(tmp_path / "a_lc.tif")
    assert layer["valid"]
    assert layer["crs"] == f"EPSG:{grid.crs.to_epsg()}"
    assert (layer["renderer"], layer["labels"]) == ("paletted", list(scheme.names))


def test_percent_layers_are_ramps_in_qgis(tmp_path, codes, percent, scheme):
    write_percent(tmp_path / "c.tif", ArrayPixels(percent), grid=PROJECTED, layer=CONFIDENCE)
    write_percent(tmp_path / "m.tif", ArrayPixels(percent), grid=PROJECTED, layer=MARGIN)
    write_percent(tmp_path / "p.tif", ArrayPixels(np.stack([percent] * 4)), grid=PROJECTED, layer=scheme)
    layers = what_qgis_shows(tmp_path / "c.tif", tmp_path / "m.tif", tmp_path / "p.tif")
    assert {layer["renderer"] for layer in layers} == {"singlebandpseudocolor"}


def test_four_probability_bands_are_no_rgba(tmp_path, percent, scheme):
    write_percent(tmp_path / "p.tif", ArrayPixels(np.stack([percent] * 4)), grid=PROJECTED, layer=scheme)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.descriptions == scheme.names
        assert ColorInterp.alpha not in dataset.colorinterp
        assert dataset.nodata == 255


def test_tags_travel_and_equal_input_gives_equal_bytes(tmp_path, codes, scheme):
    tags = {"model": "m1", "settings": {"b": 2, "a": 1}}
    write(tmp_path / "one", codes, scheme, tags=tags)
    write(tmp_path / "two", codes, scheme, tags=dict(reversed(tags.items())))
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == ["a_lc.qml", "a_lc.tif", "a_lc.tif.aux.xml"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    with rasterio.open(one[1]) as dataset:
        found = dataset.tags()
    assert found["MODEL"] == "m1"
    assert found["SETTINGS"] == '{"a": 1, "b": 2}'
    assert found["LANDCOVER_LEGEND_HASH"] == scheme.hash


def test_a_code_that_is_no_class_is_refused_and_leaves_nothing(tmp_path, codes, scheme):
    codes[7, 7] = 99
    with pytest.raises(LegendError, match="99"):
        write(tmp_path, codes, scheme)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_map_is_kept_unless_told(tmp_path, codes, scheme):
    write(tmp_path, codes, scheme)
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path, codes, scheme)
    write(tmp_path, np.ones_like(codes), scheme, overwrite=True)
    with FilePixels(tmp_path / "a_lc.tif") as pixels:
        assert (pixels.read(pixels.grid.window) == 1).all()


def test_pixels_of_another_shape_or_type_are_refused(tmp_path, codes, scheme):
    with pytest.raises(GridError, match="fill the grid"):
        write(tmp_path, codes[:-1], scheme)
    with pytest.raises(OutputError, match="int32"):
        write(tmp_path, codes.astype(np.int32), scheme)


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path, codes, scheme):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "file", codes, scheme)


# A limit on file size is a full disk that needs no disk: writes fail in the middle of a file.
_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.errors import OutputError
from pipeline.grid import Grid
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import write_class_map
from tests.fakes.pixels import ArrayPixels
from tests.maps.conftest import PROJECTED

grid = Grid(PROJECTED.crs, PROJECTED.transform, 1200, 1200)
scheme, _ = scheme_for(["a", "b", "c", "d"])
codes = np.random.default_rng(0).integers(0, 5, grid.shape).astype(np.uint8)
folder = Path(sys.argv[1])
whole = 700_000
for share in (0.01, 0.3, 0.6, 0.8, 0.9):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * whole), resource.RLIM_INFINITY))
    try:
        write_class_map(folder / "a_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme)
    except OutputError:
        assert list(folder.iterdir()) == [], list(folder.iterdir())
        print("refused")
"""


def test_a_full_disk_leaves_no_partial_map(tmp_path):
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count("refused") >= 3
