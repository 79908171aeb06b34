"""Series are read from bands and folders alike; what is no series is refused in one line."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio

from pipeline.errors import ConfigError, InputError, SceneError, SceneWarning
from pipeline.forecast.layers import Layers, read_known, read_layers, standardised
from pipeline.forecast.series import read_series
from tests.fakes.rasters import TRANSFORM, write_raster
from tests.forecast.conftest import planted_values

DATES = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]")
VALUES = planted_values(steps=len(DATES)).reshape(-1, 3, 4)


def one_file(path, values=VALUES, dates=DATES, **more):
    return str(write_raster(path, values, names=tuple(str(date) for date in dates), **more))


def test_bands_and_folders_give_the_same_series(tmp_path):
    for date, values in zip(DATES, VALUES, strict=True):
        write_raster(tmp_path / "flow" / f"flow_{str(date).replace('-', '')}.tif", values)
    stacked = read_series([one_file(tmp_path / "flow.tif")])
    filed = read_series([str(tmp_path / "flow")])
    assert np.array_equal(stacked.values, filed.values)
    assert (stacked.times == filed.times).all()
    assert stacked.channels == filed.channels == ("flow",)
    assert np.array_equal(stacked.on_cells(stacked.values)[:, 0], VALUES)


def test_channels_come_from_files_bands_and_descriptions(tmp_path):
    twice = np.concatenate([VALUES, VALUES + 1])
    names = tuple(f"{date} {channel}" for channel in ("in", "out") for date in DATES)
    both = read_series([str(write_raster(tmp_path / "flow.tif", twice, names=names))])
    for date, values in zip(DATES, VALUES, strict=True):
        path = write_raster(tmp_path / "days" / f"{date}.tif", np.stack([values, values + 1]), names=("in", "out"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIME="2020-02-09")
    folder = read_series([str(tmp_path / "days")])
    files = read_series([one_file(tmp_path / "in.tif"), one_file(tmp_path / "out.tif", VALUES + 1)])
    assert both.channels == folder.channels == files.channels == ("in", "out")
    assert np.array_equal(both.values, folder.values)
    assert np.array_equal(both.values, files.values)


def test_scale_offset_and_nodata_of_the_file_count(tmp_path):
    stored = np.round(VALUES * 100).astype(np.int16)
    stored[3, 1, 1] = -3000
    path = one_file(tmp_path / "ndvi.tif", stored, nodata=-3000)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [0.01] * len(DATES), [1.0] * len(DATES)
    values = read_series([path]).values
    assert np.isnan(values[3, 0, 5])
    assert np.nanmax(np.abs(values[:, 0] - VALUES.reshape(-1, 12) - 1)) < 0.006


def test_gaps_become_unknown_steps(tmp_path):
    kept = np.delete(np.arange(len(DATES)), [4, 20])
    with pytest.warns(SceneWarning, match="2 steps of 40 are missing"):
        series = read_series([one_file(tmp_path / "a.tif", VALUES[kept], DATES[kept])])
    assert np.isnan(series.values[[4, 20]]).all()
    assert np.isfinite(series.values).all(axis=(1, 2)).sum() == 38


def test_a_channel_that_ends_early_is_said(tmp_path):
    paths = [one_file(tmp_path / "a.tif"), one_file(tmp_path / "b.tif", VALUES[:-3], DATES[:-3])]
    with pytest.warns(
        SceneWarning, match=r"b\.tif: 3 steps of 40 of b are missing or without data .* such as 2020-02-09"
    ):
        series = read_series(paths)
    assert np.isnan(series.values[-3:, 1]).all()


def test_flat_steps_and_dead_cells_are_left_out(tmp_path):
    values = VALUES.copy()
    values[7] = 0
    with pytest.warns(SceneWarning, match="1 step with one value everywhere taken as unknown, such as 2020-01-08"):
        assert np.isnan(read_series([one_file(tmp_path / "a.tif", values)]).values[7]).all()
    values = VALUES.copy()
    values[:, 0, 2] = 5
    with pytest.warns(SceneWarning, match="1 of 12 cells are constant or hardly known"):
        assert len(read_series([one_file(tmp_path / "b.tif", values)]).row) == 11


def test_neighbours_are_cells_that_touch(tmp_path):
    near = read_series([one_file(tmp_path / "a.tif")]).neighbours()
    assert set(near[0].tolist()) == {-1, 1, 4, 5}
    assert set(near[5].tolist()) == {0, 1, 2, 4, 6, 8, 9, 10}


@pytest.mark.parametrize(
    ("values", "dates", "said"),
    [
        (VALUES[:9], DATES[:9], "too few steps; got 9; expected 24 or more"),
        (np.ones_like(VALUES), DATES, "constant or unknown in every cell"),
        (np.full_like(VALUES, np.nan), DATES, "constant or unknown in every cell"),
        (VALUES, ["a"] * 40, "band 1 has no date; got 'a'"),
        (VALUES, [*DATES[:-1], DATES[0]], "two rasters of a at 2020-01-01"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path, values, dates, said):
    with pytest.raises(SceneError, match=said):
        read_series([one_file(tmp_path / "a.tif", values, dates)])


def test_unequal_grids_are_refused(tmp_path):
    moved = TRANSFORM @ rasterio.Affine.translation(1, 0)
    paths = [one_file(tmp_path / "a.tif"), one_file(tmp_path / "b.tif", transform=moved)]
    with pytest.raises(
        SceneError, match=r"b\.tif: series has unequal grids; got 3 x 4 of 10 at 500010, .* at 500000, "
    ):
        read_series(paths)


def test_what_is_no_raster_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    for path in ("a.tif", "none.tif"):
        with pytest.raises(InputError, match="cannot be read as a raster"):
            read_series([str(tmp_path / path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be read as a raster"):
        read_series([str(tmp_path / "empty")])


def test_daily_rows_hold_for_the_hours_of_their_day(tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("time,holiday\n2020-01-01,1\n2020-01-02,0\n2020-01-03,0\n2020-01-04,1\n")
    hours = np.arange("2020-01-01T00", "2020-01-05T00", dtype="datetime64[h]").astype("datetime64[s]")
    known = read_known(str(path), hours)
    assert known.names == ("holiday",)
    assert np.allclose(known.scaling().of(known, path="")[:, 0], np.repeat([1, -1, -1, 1], 24))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,rain\n2020-01-01,1\n2020-01-02,wet\n2020-02-09,0\n", "column 'rain' has what is no number or time"),
        ("time,rain\n2020-01-05,1\n2020-01-06,1\n", "do not reach over the series"),
        ("day,rain\n2020-01-05,1\n2020-01-06,1\n", "got day, rain; expected columns time and a number"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, said):
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_known(str(tmp_path / "known.csv"), DATES.astype("datetime64[s]"))


@pytest.mark.parametrize(
    "values", [[5, 5, 5, 9], [5, np.nan, 5, 9], [np.nan, np.nan, np.nan, 9], [5e9, 5e9 + 512, 5e9, 9]]
)
def test_a_layer_constant_where_learned_is_none(values):
    layers = Layers(("a", "b"), np.array([values, [1, 2, 3, 4]], dtype=np.float32).T)
    assert layers.constant(slice(0, 3)).tolist() == [True, False]
    assert layers.constant().tolist() == [False, False] or np.isnan(values[:3]).all()
    scaled = layers.scaling(slice(0, 3)).of(layers, path="")
    assert scaled[:, 0].tolist() == [0, 0, 0, 0]
    assert np.allclose(scaled[:, 1], (np.arange(4) - 1.5) / np.sqrt(1.25))


def test_layers_of_one_value_are_said(recwarn):
    flat = Layers(("soil 1", "height 1"), np.array([[3, 1], [3, 2]], dtype=np.float32))
    before, whole = standardised({"layers": (flat, "soil.tif")}, learned=slice(1, 2), tested=slice(0, 1))
    assert before["layers"].spread.tolist() == whole["layers"].spread.tolist() == [0, 0.5]
    (said,) = [str(item.message) for item in recwarn]
    assert said == "soil.tif: 'soil 1' is constant over the cells and without influence on the forecasts"


def test_layers_are_read_at_the_cells(tmp_path):
    series = read_series([one_file(tmp_path / "a.tif")])
    height = np.arange(12, dtype=np.float32).reshape(3, 4)
    layer = read_layers([str(write_raster(tmp_path / "height.tif", height))], series)
    assert np.allclose(layer.scaling().of(layer, path="")[:, 0], (height.ravel() - 5.5) / height.std())


def test_values_that_stand_for_nodata_untold_are_refused(tmp_path):
    values = VALUES.copy()
    values[3, 1, 1] = np.finfo(np.float32).min
    with pytest.raises(SceneError, match="none can be"):
        read_series([one_file(tmp_path / "flow.tif", values)])


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
def test_a_pipe_is_no_series(tmp_path):
    os.mkfifo(tmp_path / "flow.tif")
    with pytest.raises(InputError, match="not a regular file"):
        read_series([str(tmp_path / "flow.tif")])


def test_layers_that_do_not_meet_the_series_are_refused(tmp_path):
    series = read_series([one_file(tmp_path / "flow.tif")])
    away = TRANSFORM @ TRANSFORM.translation(1000, 1000)
    layer = write_raster(tmp_path / "dem.tif", VALUES[:1], transform=away)
    with pytest.raises(SceneError, match="no data where the series lies"):
        read_layers([str(layer)], series)


def test_columns_too_many_are_refused(tmp_path):
    days = [str(date) for date in np.arange("2020-01-01", "2020-02-20", dtype="datetime64[D]")]
    (tmp_path / "comma.csv").write_text("time,x\n" + "".join(f"{day},{i},5\n" for i, day in enumerate(days)))
    with pytest.raises(ConfigError, match="more columns"):
        read_known(str(tmp_path / "comma.csv"), DATES.astype("datetime64[s]"))


def test_times_with_a_zone_are_utc(tmp_path):
    (tmp_path / "known.csv").write_text("time,rain\n2020-01-01T00:00Z,1\n2020-01-01T12:00Z,3\n2020-01-02T00:00Z,1\n")
    times = np.array(["2020-01-01T00", "2020-01-01T12"], dtype="datetime64[s]")
    assert np.allclose(read_known(str(tmp_path / "known.csv"), times).table[:, 0], [1, 3])
