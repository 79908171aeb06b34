"""The command writes a GeoTIFF per step, figures of its test, and refuses what it cannot forecast in one line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from pipeline.cli import main
from pipeline.forecast.settings import ForecastSettings
from pipeline.workflow.forecast import forecast_settings
from pipeline.workflow.forecast_files import finished, inputs_of, stamp_of
from pipeline.workflow.view import gather_maps
from tests.fakes.rasters import write_raster
from tests.forecast.conftest import planted_values

EXAMPLE = Path(__file__).resolve().parents[2] / "configs/forecast/ndvi.yaml"
MONTHS = np.arange("2000-01", "2012-07", dtype="datetime64[M]")
FAST = ("--steps", "50", "--width", "8")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    values = planted_values(steps=len(MONTHS)).reshape(-1, 3, 4)
    values[:, 2, 3] = -9
    path = tmp_path_factory.mktemp("series") / "ndvi.tif"
    return write_raster(path, values, nodata=-9, names=tuple(f"{month}-01" for month in MONTHS))


@pytest.fixture(scope="module")
def made(series):
    assert main(["forecast", str(series), "--ahead", "3", "-o", str(series.parent / "out"), *FAST]) == 0
    return series.parent / "out"


def test_a_geotiff_per_step_has_its_time_and_bounds(made, series):
    files = sorted(made.glob("*.tif"))
    assert [file.name for file in files] == ["ndvi_2012-07-01.tif", "ndvi_2012-08-01.tif", "ndvi_2012-09-01.tif"]
    for file in files:
        with rasterio.open(file) as step, rasterio.open(series) as read:
            assert (step.crs, step.transform, step.shape) == (read.crs, read.transform, read.shape)
            assert step.descriptions == ("ndvi", "ndvi lower", "ndvi upper")
            assert step.tags()["TIME"] == step.tags(1)["TIME"] == file.stem.removeprefix("ndvi_")
            median, lower, upper = step.read()
            assert np.isnan(median[2, 3])
            assert np.isfinite(median).sum() == 11
            assert ((lower <= median) & (median <= upper))[np.isfinite(median)].all()


def test_facts_and_figure_are_written(made):
    facts = json.loads((made / "forecast.json").read_text())
    assert facts["seasons"] == [12]
    assert facts["tested"] == {"first": "2011-04-01", "last": "2012-06-01"}
    assert [horizon["ahead"] for horizon in facts["horizons"]] == [1, 2, 3]
    for horizon in facts["horizons"]:
        assert horizon["count"] == 15 * 11
        assert horizon["best"] in horizon["mae"]
    assert (made / "forecast.png").stat().st_size > 10_000
    page = (made / "report.html").read_text(encoding="utf-8")
    assert "Forecast of ndvi: 3 steps ahead" in page
    assert all(f"<td>{horizon['mae']['network']:.4g}</td>" in page for horizon in facts["horizons"])
    assert "Values of ndvi_2012-07-01" in page


def test_qgis_and_the_viewer_show_steps_in_the_same_colours(made):
    maps = gather_maps([made])
    assert [item.name for item in maps] == [f"ndvi_2012-{month}-01" for month in ("07", "08", "09")]
    assert len({(item.layers[0].minimum, item.layers[0].maximum) for item in maps}) == 1
    assert [layer.label for layer in maps[0].layers] == ["ndvi", "ndvi lower", "ndvi upper"]
    (style,) = {path.read_text() for path in made.glob("*.qml")}
    assert "singlebandpseudocolor" in style
    with zipfile.ZipFile(made / "ndvi.qgz") as archive:
        assert archive.read("ndvi.qgs").decode().count("<maplayer ") == 3


def test_a_configuration_is_checked_run_and_looked_at(series, tmp_path, capsys):
    config = tmp_path / "ndvi.yaml"
    config.write_text(yaml.safe_dump({"series": [str(series)], "ahead": 2, "steps": 50, "width": 8}))
    assert main(["check", str(config)]) == 0
    assert "ndvi: no error found; 2 steps ahead of 150" in capsys.readouterr().out
    assert main(["run", str(config), "-q"]) == 0
    assert [item.name for item in gather_maps([config])] == ["ndvi_2012-07-01", "ndvi_2012-08-01"]
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ndvi-run").iterdir()}
    assert main(["run", str(config)]) == 0
    said = capsys.readouterr().out
    assert "nothing to do; settings and input files are those of the forecast that is there" in said
    assert "ndvi_2012-07-01.tif" in said
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ndvi-run").iterdir()}
    assert main(["crossval", str(config)]) == 2
    assert "configuration of a forecast, which has no scene" in capsys.readouterr().err


def test_a_forecast_is_not_replaced_unasked(made, series, capsys):
    assert main(["forecast", str(series), "--ahead", "3", "-o", str(made), *FAST, "-q"]) == 2
    assert capsys.readouterr().err.strip().endswith("the file exists; add --overwrite, or choose another name")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--test-steps", "140"], "series has too few steps before those of the test; got 10"),
        (["--set", "forecast.season=12"], "unknown key 'forecast.season'"),
        (["--ahead", "none"], "key 'forecast.ahead'"),
        (["--layers", "none.tif"], "cannot be read as a raster"),
        (["--known", "none.csv"], "cannot be read as CSV"),
    ],
)
def test_bad_input_is_one_line(series, tmp_path, capsys, arguments, said):
    assert main(["forecast", str(series), "-o", str(tmp_path / "out"), "-q", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_the_example_names_every_key_and_its_paths():
    settings = forecast_settings([EXAMPLE], changes=["forecast.ahead=2"])
    assert settings.ahead == 2
    assert settings.series == tuple(str(EXAMPLE.parent / name) for name in ("ndvi.tif", "evi.tif"))
    assert set(yaml.safe_load(EXAMPLE.read_text())) == set(ForecastSettings.model_fields)


def test_forecasts_do_not_become_steps_of_the_series(tmp_path, capsys):
    folder = tmp_path / "ndvi"
    values = planted_values(steps=len(MONTHS)).reshape(-1, 3, 4)
    for month, step in zip(MONTHS, values, strict=True):
        write_raster(folder / f"{month}-01.tif", step)
    before = sorted(folder.iterdir())
    assert main(["forecast", str(folder), "-o", str(folder), *FAST]) == 2
    assert "steps of the series" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def horizons_with(series, folder, rows, capsys):
    """Errors of a forecast with a column of 1 at some rows and 0 else, and what was said."""
    days = [*(f"{month}-01" for month in MONTHS), "2012-07-01", "2012-08-01"]
    lines = [f"{day},{int(number in rows)}" for number, day in enumerate(days)]
    folder.mkdir()
    (folder / "known.csv").write_text("\n".join(["time,holiday", *lines]))
    known = ("--known", str(folder / "known.csv"))
    assert main(["forecast", str(series), "--ahead", "2", "-o", str(folder / "out"), *FAST, *known]) == 0
    return json.loads((folder / "out/forecast.json").read_text())["horizons"], capsys.readouterr().err


def test_a_column_constant_before_the_test_is_harmless(series, tmp_path, capsys):
    never, said = horizons_with(series, tmp_path / "never", (), capsys)
    assert "'holiday' is constant over the steps learned and without influence on the forecasts" in said
    once, said = horizons_with(series, tmp_path / "once", (140,), capsys)
    assert "'holiday' is constant over the steps learned before the test, which is without it" in said
    assert once == never


def test_several_channels_have_figures_of_their_own(series, tmp_path, capsys):
    values = 50 * planted_values(steps=len(MONTHS), seed=2).reshape(-1, 3, 4)
    other = write_raster(tmp_path / "evi.tif", values, names=tuple(f"{month}-01" for month in MONTHS))
    out = tmp_path / "out"
    assert main(["forecast", str(series), str(other), "--ahead", "2", "-o", str(out), *FAST]) == 0
    said = capsys.readouterr().out
    assert "mean absolute error, mean over channels, over the last 15 steps" in said
    assert "channel" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    for horizon in json.loads((out / "forecast.json").read_text())["horizons"]:
        ndvi, evi = horizon["channels"]["ndvi"], horizon["channels"]["evi"]
        assert evi["mae"]["last value"] > 20 * ndvi["mae"]["last value"]
        assert horizon["mae"]["last value"] == pytest.approx((ndvi["mae"]["last value"] + evi["mae"]["last value"]) / 2)
        assert {"best", "skill", "coverage"} <= set(ndvi)
        assert all(f"<td>{part['mae']['network']:.4g}</td>" in page for part in (ndvi, evi, horizon))
    assert "mean over channels" in page
    assert main(["predict", "-m", str(out / "model.safetensors"), "--scene", str(series), "--scene", str(other),
                 "-o", str(tmp_path / "next")]) == 0  # fmt: skip
    again = json.loads((tmp_path / "next/forecast.json").read_text())
    assert again["horizons"] == json.loads((out / "forecast.json").read_text())["horizons"]


@pytest.mark.parametrize("change", ["settings", "input", "file"])
def test_a_forecast_of_something_else_is_not_there(tmp_path, change):
    source, folder = tmp_path / "ndvi.tif", tmp_path / "out"
    source.write_bytes(b"one")
    settings = ForecastSettings(series=(str(source),))
    folder.mkdir()
    stamp = stamp_of(settings, inputs=inputs_of(settings), files=[folder / "ndvi_2012-07-01.tif"])
    (folder / "forecast.json").write_text(json.dumps({"stamp": stamp}))
    (folder / "ndvi_2012-07-01.tif").write_text("")
    assert "nothing to do" in finished(settings, folder=folder).summary
    if change == "settings":
        settings = settings.model_copy(update={"ahead": 3})
    elif change == "input":
        source.write_bytes(b"two")
    else:
        (folder / "ndvi_2012-07-01.tif").unlink()
    assert finished(settings, folder=folder) is None
    assert finished(settings, folder=tmp_path) is None
