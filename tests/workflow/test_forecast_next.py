"""A network that is kept forecasts a series that has grown: as it did, and tested on what it never saw."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from pipeline.cli import main
from tests.fakes.rasters import write_raster
from tests.forecast.conftest import planted_values

LEARNED, GROWN = 132, 144
MONTHS = np.arange("2000-01", "2013-01", dtype="datetime64[M]")
VALUES = planted_values(steps=len(MONTHS)).reshape(-1, 3, 4)
FAST = ("--ahead", "3", "--steps", "50", "--width", "8")


def write_series(path, steps, *, values=VALUES, channel="ndvi", **more):
    names = tuple(f"{month}-01 {channel}".strip() for month in MONTHS[:steps])
    return write_raster(path, values[:steps], names=names, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a series, a YAML of known rain and a folder "out" with its forecast."""
    folder = tmp_path_factory.mktemp("series")
    series = write_series(folder / "ndvi.tif", LEARNED)
    rain = np.random.default_rng(0).random(len(MONTHS)).round(3)
    lines = [f"{month}-01,{value}" for month, value in zip(MONTHS, rain, strict=True)]
    (folder / "rain.csv").write_text("\n".join(["time,rain", *lines]))
    write_raster(folder / "height.tif", np.arange(12, dtype=np.float32).reshape(3, 4))
    beside = ("--known", str(folder / "rain.csv"), "--layers", str(folder / "height.tif"))
    assert main(["forecast", str(series), *FAST, *beside, "-o", str(folder / "out"), "-q"]) == 0
    return folder


def predict(made, series, output, *more):
    return main(
        ["predict", "-m", str(made / "out/model.safetensors"), "--scene", str(series), "-o", str(output), *more]
    )


@pytest.fixture(scope="module")
def grown(made):
    series = write_series(made / "grown.tif", GROWN, channel="")
    assert predict(made, series, made / "next", "-q") == 0
    return made / "next"


def test_the_same_series_gives_the_same_forecasts(made, tmp_path, capsys):
    assert predict(made, made / "ndvi.tif", tmp_path) == 0
    assert "2009-12-01 to 2010-12-01, before it learned these steps too" in capsys.readouterr().out
    files = sorted(path.name for path in (made / "out").glob("*.tif"))
    assert files == [f"ndvi_2011-0{month}-01.tif" for month in (1, 2, 3)]
    for name in files:
        with rasterio.open(made / "out" / name) as first, rasterio.open(tmp_path / name) as again:
            assert np.allclose(first.read(), again.read(), rtol=0, atol=1e-6, equal_nan=True)
            assert first.tags()["ORIGIN"] == again.tags()["ORIGIN"] == "2010-12-01"
    before, after = (json.loads((folder / "forecast.json").read_text()) for folder in (made / "out", tmp_path))
    assert before["horizons"] == after["horizons"]
    assert before["tested"] == after["tested"]
    assert after["tested_on"] == "the series that was learned"


def test_a_longer_series_is_forecast_after_its_end(grown):
    files = sorted(grown.glob("*.tif"))
    assert [file.stem for file in files] == [f"ndvi_2012-0{month}-01" for month in (1, 2, 3)]
    for file in files:
        with rasterio.open(file) as step:
            assert np.isfinite(step.read()).all()
            assert step.tags()["ORIGIN"] == "2011-12-01"
            assert step.descriptions == ("ndvi", "ndvi lower", "ndvi upper")
            assert file.with_suffix(".qml").is_file()
    assert (grown / "ndvi.qgz").is_file()
    assert "Forecast of ndvi: 3 steps ahead" in (grown / "report.html").read_text(encoding="utf-8")


def test_new_steps_are_an_honest_test(grown):
    facts = json.loads((grown / "forecast.json").read_text())
    assert facts["tested"] == {"first": "2011-01-01", "last": "2011-12-01"}
    assert facts["tested_on"] == "steps that were not learned"
    assert facts["learned"] == {"first": "2000-01-01", "last": "2010-12-01", "steps": LEARNED}
    for horizon in facts["horizons"]:
        assert horizon["count"] == 12 * 12
        new = np.arange(LEARNED, GROWN)
        last = np.abs(VALUES[new] - VALUES[new - horizon["ahead"]]).mean()
        assert horizon["mae"]["last value"] == pytest.approx(last, rel=1e-5)
        assert np.isfinite(horizon["mae"]["network"])


def test_cells_that_were_not_learned_are_left_out(made, tmp_path, capsys):
    values = VALUES[:LEARNED].copy()
    values[:, 0, 0] = -9
    series = write_series(tmp_path / "ndvi.tif", LEARNED, values=values, nodata=-9)
    assert main(["forecast", str(series), *FAST, "-o", str(tmp_path / "out"), "-q"]) == 0
    assert predict(tmp_path, made / "ndvi.tif", tmp_path / "next") == 0
    assert "1 cell that the network has not learned is left out" in capsys.readouterr().err
    with rasterio.open(tmp_path / "next/ndvi_2011-01-01.tif") as step:
        assert np.isnan(step.read(1)).sum() == 1


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("grid", {"transform": rasterio.Affine.translation(1, 0)}, "series has another grid than the one that was"),
        (
            "cells",
            {"values": np.where(np.arange(12).reshape(3, 4) == 5, -9, VALUES), "nodata": -9},
            "got nothing known",
        ),
        ("channel", {"channel": "evi"}, "other channels than were learned; got evi; expected ndvi"),
    ],
)
def test_another_series_is_refused(made, tmp_path, capsys, name, changes, said):
    series = write_series(tmp_path / f"{name}.tif", GROWN, **changes)
    assert predict(made, series, tmp_path / "next", "-q") == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "forecast.ahead=9"], "forecast.ahead of a trained network; leave it out"),
        (["--set", "forecast.seasons=[6]"], "forecast.seasons of a trained network"),
        (["--set", "forecast.known=none.csv"], "none.csv: a layer that the network learned from is missing; say where"),
        (["--set", "forecast.known=null"], "no forecast.known for a network that learned with; expected rain"),
        (["--set", "map.tile_px=512"], "unknown key 'map"),
        (["--dask", "local"], "the model of a forecast with --dask; leave it out"),
        (["--chips", "."], "the model of a forecast with --chips; leave it out"),
        (["--scenes", "list.txt", "--memory", "1GB"], "the model of a forecast with --scenes, --memory"),
    ],
)
def test_what_a_trained_network_has_no_choice_of(made, tmp_path, capsys, more, said):
    assert predict(made, made / "ndvi.tif", tmp_path / "next", "-q", *more) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_layers_may_lie_elsewhere(made, tmp_path):
    later = tmp_path / "later.csv"
    later.write_text((made / "rain.csv").read_text())
    assert predict(made, made / "ndvi.tif", tmp_path / "next", "--set", f"forecast.known={later}", "-q") == 0
    name = "ndvi_2011-03-01.tif"
    with rasterio.open(made / "out" / name) as first, rasterio.open(tmp_path / "next" / name) as again:
        assert np.allclose(first.read(), again.read(), atol=1e-6)


def test_other_commands_say_what_the_model_is(made, capsys):
    model = str(made / "out/model.safetensors")
    assert main(["model", "show", model]) == 0
    said = capsys.readouterr().out
    assert "of a forecast of ndvi" in said
    assert "132 steps, 2000-01-01 to 2010-12-01" in said
    assert main(["export", model]) == 2
    assert "the model of a forecast, which maps no scene" in capsys.readouterr().err
    assert main(["predict", "-m", model, "-o", "next"]) == 2
    assert "what to forecast; expected --scene" in capsys.readouterr().err
    assert main(["predict", "config.yaml", "-m", model]) == 2
    assert "the model of a forecast with a configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (planted_values(steps=len(MONTHS), seed=1).reshape(-1, 3, 4), "values of the steps learned are not those"),
        (VALUES * 10_000, "values are 10,000 times larger than those learned"),
        (VALUES / 10, "values are 10 times smaller than those learned"),
    ],
)
def test_other_values_under_the_same_names_are_refused(made, tmp_path, capsys, values, said):
    for steps in (LEARNED, GROWN):
        series = write_series(tmp_path / f"{steps}.tif", steps, values=values)
        assert predict(made, series, tmp_path / "next", "-q") == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error
        assert not (tmp_path / "next").exists()


def test_a_revised_series_is_forecast_with_a_warning(made, tmp_path, capsys):
    values = VALUES.copy()
    values[LEARNED - 3 : LEARNED] += 1
    series = write_series(tmp_path / "revised.tif", LEARNED, values=values)
    assert predict(made, series, tmp_path / "next") == 0
    told = capsys.readouterr()
    assert "are others, by 1 on average" in told.err
    assert "in the series that was learned (this one has no newer steps)" in told.out
