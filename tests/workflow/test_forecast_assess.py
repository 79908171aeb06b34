"""A step of a forecast is assessed against what came, beside the last value that was known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from pipeline.cli import main
from tests.fakes.rasters import TRANSFORM, write_raster

TRUTH = np.array([[1, 2], [3, 6]], dtype=np.float32)
# Errors by hand: 1, 0, -1 and 2; the last value is wrong by 2, 2, -2 and 0 at the cells that it is known at.
MEDIAN = TRUTH + np.array([[1, 0], [-1, 2]], dtype=np.float32)
LAST = TRUTH + np.array([[2, 2], [-2, 0]], dtype=np.float32)


@pytest.fixture
def step(tmp_path):
    bands = np.stack([MEDIAN, MEDIAN - 1.5, MEDIAN + 1.5])
    path = write_raster(tmp_path / "ndvi_2020-03-01.tif", bands, names=("ndvi", "ndvi lower", "ndvi upper"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIME="2020-03-01", FORECAST="by hand", ORIGIN="2020-02-01")
    return path


def reference(path, *layers, names=("2020-02-01 ndvi", "2020-03-01 ndvi"), **more):
    return write_raster(path, np.stack(layers), names=names, **more)


def assess(step, truth, *more):
    return main(["assess", str(step), "--reference", str(truth), *map(str, more)])


def test_errors_and_skill_are_those_by_hand(step, tmp_path, capsys):
    found = tmp_path / "figures.json"
    assert assess(step, reference(tmp_path / "newer.tif", LAST, TRUTH), "-o", found) == 0
    said = capsys.readouterr().out
    assert "mean absolute error 1, +33 % against the last value; 75 % inside the 90 % interval" in said
    figures = json.loads(found.read_text())
    assert (figures["time"], figures["origin"]) == ("2020-03-01", "2020-02-01")
    ndvi = figures["channels"]["ndvi"]
    assert ndvi["samples"] == 4
    assert (ndvi["mae"], ndvi["bias"], ndvi["coverage"]) == (1, 0.5, 0.75)
    assert ndvi["rmse"] == pytest.approx(np.sqrt(6 / 4))
    assert ndvi["r2"] == pytest.approx(1 - 6 / 14)
    assert ndvi["last_value"]["mae"] == 1.5
    assert ndvi["skill"] == pytest.approx(1 / 3)


def test_skill_is_over_cells_that_both_know(step, tmp_path, capsys):
    last = np.where(np.arange(4).reshape(2, 2) == 3, -9, LAST)
    assert assess(step, reference(tmp_path / "newer.tif", last, TRUTH, nodata=-9), "--json") == 0
    ndvi = json.loads(capsys.readouterr().out)["channels"]["ndvi"]
    assert ndvi["samples"] == 4
    assert ndvi["last_value"]["samples"] == 3
    assert ndvi["skill"] == pytest.approx(1 - (2 / 3) / 2)


def test_times_of_one_step_may_differ_by_seconds(step, tmp_path, capsys):
    with rasterio.open(step, "r+") as dataset:
        dataset.update_tags(TIME="2020-03-01T10:26:31", ORIGIN="2020-02-01T10:26")
    names = ("2020-02-01T10:26:29 ndvi", "2020-03-01T10:26:04 ndvi")
    assert assess(step, reference(tmp_path / "newer.tif", LAST, TRUTH, names=names), "--json") == 0
    ndvi = json.loads(capsys.readouterr().out)["channels"]["ndvi"]
    assert (ndvi["mae"], ndvi["last_value"]["mae"]) == (1, 1.5)
    later = ("2020-02-01T10:26 ndvi", "2020-03-01T10:28 ndvi")
    assert assess(step, reference(tmp_path / "later.tif", LAST, TRUTH, names=later)) == 2
    assert "expected 2020-03-01T10:26:31" in capsys.readouterr().err


def test_a_folder_of_what_came_alone_has_no_baseline(step, tmp_path, capsys):
    truth = reference(tmp_path / "months" / "2020-03-01.tif", TRUTH, names=("ndvi",)).parent
    assert assess(step, truth) == 0
    said = capsys.readouterr().out
    assert "mean absolute error 1; 75 %" in said
    assert "last value at the origin" in said
    assert "ndvi, last value" not in said


def test_a_channel_called_after_its_file_is_said(step, tmp_path, capsys):
    truth = reference(tmp_path / "newer.tif", LAST, TRUTH, names=("2020-02-01", "2020-03-01"))
    assert assess(step, truth) == 0
    assert "newer.tif: values of newer are taken for ndvi" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"names": ("2020-01-01 ndvi", "2020-04-01 ndvi")}, "got 2020-01-01 to 2020-04-01, 2020-04-01 the nearest"),
        ({"names": ("2020-02-01 evi", "2020-03-01 evi")}, "other channels than the forecast; got evi; expected ndvi"),
        (
            {"transform": TRANSFORM @ TRANSFORM.translation(1, 0)},
            "got 2 x 2 of 10 at 500010, 5e+06; expected 2 x 2 of 10 at 500000",
        ),
        ({"nodata": 6}, ""),
        ({"names": ("ndvi", "evi")}, "band 1 has no date"),
    ],
)
def test_a_reference_that_does_not_fit_is_one_line(step, tmp_path, capsys, more, said):
    truth = reference(tmp_path / "newer.tif", LAST, TRUTH, **more)
    assert assess(step, truth, "-q") == (2 if said else 0)
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_options_of_samples_are_refused(step, tmp_path, capsys):
    truth = reference(tmp_path / "newer.tif", LAST, TRUTH)
    options = ("--field", "a", "--strata", "map", "--legend", "ESA WorldCover", "--kappa")
    assert assess(step, truth, *options) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("with --field, --kappa, --strata, --legend; leave it out")
    assert "\n" not in error


def test_a_reference_that_knows_nothing_there_is_refused(step, tmp_path, capsys):
    truth = reference(tmp_path / "newer.tif", LAST, np.full_like(TRUTH, -9), nodata=-9)
    assert assess(step, truth) == 2
    assert "reference knows no value where the forecast has one" in capsys.readouterr().err


def test_figures_are_not_replaced_unasked(step, tmp_path, capsys):
    (tmp_path / "figures.json").write_text("mine")
    assert assess(step, reference(tmp_path / "newer.tif", LAST, TRUTH), "-o", tmp_path / "figures.json") == 2
    assert "add --overwrite" in capsys.readouterr().err


@pytest.fixture
def two_channels(tmp_path):
    """A step of inflow and outflow, twice of which came, and a folder "came" with a file of each."""
    twice = [MEDIAN, MEDIAN - 1.5, MEDIAN + 1.5, 2 * MEDIAN, 2 * MEDIAN - 1, 2 * MEDIAN + 1]
    names = [f"{channel}{end}" for channel in ("inflow", "outflow") for end in ("", " lower", " upper")]
    path = write_raster(tmp_path / "step.tif", np.stack(twice), names=tuple(names))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(TIME="2020-03-01", FORECAST="by hand", ORIGIN="2020-02-01")
    dates = ("2020-02-01", "2020-03-01")
    reference(tmp_path / "came/inflow.tif", LAST, TRUTH, names=dates)
    reference(tmp_path / "came/outflow.tif", 2 * LAST, 2 * TRUTH, names=dates)
    return path


def test_a_reference_of_one_channel_is_enough(two_channels, tmp_path, capsys):
    assert assess(two_channels, tmp_path / "came/outflow.tif", "--json") == 0
    told = capsys.readouterr()
    assert "outflow.tif: no values of inflow, not assessed" in told.err
    found = json.loads(told.out)["channels"]
    assert list(found) == ["outflow"]
    assert (found["outflow"]["mae"], found["outflow"]["last_value"]["mae"]) == (2, 3)


def test_channels_come_from_a_folder_or_from_files(two_channels, tmp_path, capsys):
    came = tmp_path / "came"
    for given in ([came], [came / "inflow.tif", "--reference", came / "outflow.tif"]):
        assert assess(two_channels, *given) == 0
        told = capsys.readouterr()
        assert "not assessed" not in told.err
        assert "mean absolute error of inflow 1, +33 % against" in told.out
        assert "mean absolute error of outflow 2, +33 % against" in told.out


def test_one_reference_of_each_channel(two_channels, tmp_path, capsys):
    path = tmp_path / "came/inflow.tif"
    assert assess(two_channels, path, "--reference", path) == 2
    assert "a second reference of inflow; give one of each channel" in capsys.readouterr().err


def test_maps_have_one_reference(tmp_path, capsys):
    path = reference(tmp_path / "map.tif", LAST, TRUTH)
    assert assess(path, path, "--reference", path) == 2
    assert "--reference is given more than once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factor", "rc", "said"),
    [
        (1, 0, ""),
        (
            10,
            0,
            "newer.tif: values of ndvi are some 10 times larger than the forecast: median 50, forecast median 5; check",
        ),
        (0.1, 0, "values of ndvi are some 10 times smaller than the forecast"),
        (1.5, 0, "values of ndvi are some 1.5 times larger than the forecast"),
        (
            10_000,
            2,
            "some 10,000 times larger than the forecast; got median 5e+04; expected median 5 as forecast; give",
        ),
    ],
)
def test_another_scale_than_the_forecast_is_said(tmp_path, capsys, factor, rc, said):
    median = np.array([[4.5, 4.8, 5, 5], [5, 5, 5.2, 5.5], [4.9, 5, 5.1, 5]], dtype=np.float32)
    bands = np.stack([median, median - 0.5, median + 0.5])
    step = write_raster(tmp_path / "step.tif", bands, names=("ndvi", "ndvi lower", "ndvi upper"))
    with rasterio.open(step, "r+") as dataset:
        dataset.update_tags(TIME="2020-03-01", FORECAST="by hand")
    truth = reference(tmp_path / "newer.tif", median * np.float32(factor), names=("2020-03-01 ndvi",))
    assert assess(step, truth) == rc
    error = capsys.readouterr().err.strip()
    assert said in error
    assert bool(error) == bool(said)
