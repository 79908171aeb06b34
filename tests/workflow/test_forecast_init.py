"""A configuration of a forecast that is written for a series is checked and run as it is."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from pipeline.cli import main
from pipeline.forecast.settings import ForecastSettings
from tests.fakes.rasters import write_raster
from tests.forecast.conftest import planted_values

MONTHS = np.arange("2000-01", "2010-01", dtype="datetime64[M]")
VALUES = planted_values(steps=len(MONTHS)).reshape(-1, 3, 4)
NAMES = tuple(f"{month}-01" for month in MONTHS)


@pytest.fixture
def series(tmp_path):
    return write_raster(tmp_path / "ndvi.tif", VALUES, names=NAMES)


def init(*options):
    return main(["init", *map(str, options)])


def test_it_says_what_was_seen_and_runs_as_it_is(series, tmp_path, capsys):
    config = tmp_path / "forecast.yaml"
    assert init("--scene", series, "--kind", "forecast", "-o", config) == 0
    said = capsys.readouterr().out
    assert "forecast.yaml: ndvi: 6 steps ahead of 120" in said
    assert "the last 12 steps, from 2009-01-01" in said
    text = config.read_text()
    assert "# Steps to forecast.\nahead: 6" in text
    assert "#   steps: 120, 2000-01-01 to 2009-12-01" in text
    assert "#known: known.csv" in text
    found = yaml.safe_load(text)
    assert found["series"] == ["ndvi.tif"]
    assert found["seasons"] == [12]
    assert found["test_steps"] == 12
    assert set(found) == set(ForecastSettings.model_fields) - {"known", "layers"}
    assert main(["check", str(config)]) == 0
    assert main(["run", str(config), "-q", "--set", "forecast.steps=50"]) == 0
    assert (tmp_path / "forecast-run/model.safetensors").is_file()


def test_several_scenes_are_channels_and_a_folder_is_one(series, tmp_path, capsys):
    for name, values in zip(NAMES, VALUES, strict=True):
        write_raster(tmp_path / "evi" / f"{name}.tif", values)
    config = tmp_path / "configs" / "both.yaml"
    assert init("--scene", series, "--scene", tmp_path / "evi", "--kind", "forecast", "-o", config) == 0
    assert "ndvi, evi" in capsys.readouterr().out
    assert yaml.safe_load(config.read_text())["series"] == ["../ndvi.tif", "../evi"]


def test_cycles_that_are_not_seen_are_a_comment(tmp_path):
    yearly = write_raster(tmp_path / "ice.tif", VALUES[:30], names=tuple(f"{year}-01-01" for year in range(1990, 2020)))
    config = tmp_path / "ice.yaml"
    assert init("--scene", yearly, "--kind", "forecast", "-o", config) == 0
    assert "#seasons: [12]" in config.read_text()
    assert main(["check", str(config)]) == 0


def test_a_configuration_is_not_replaced_unasked(series, tmp_path, capsys):
    config = tmp_path / "forecast.yaml"
    config.write_text("mine")
    assert init("--scene", series, "--kind", "forecast", "-o", config) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert config.read_text() == "mine"


@pytest.mark.parametrize(
    "option",
    ["--labels", "--field", "--layer", "--encoding", "--chips", "--complete", "--objects"],
)
def test_what_belongs_to_labels_is_refused(series, capsys, option):
    assert init("--scene", series, "--kind", "forecast", option, "x") == 2
    assert f"--kind forecast with {option}; leave it out" in capsys.readouterr().err
    assert init("--kind", "forecast") == 2
    assert "expected --scene" in capsys.readouterr().err


def test_a_dated_series_without_labels_is_told_apart(series, tmp_path, capsys):
    for name in NAMES[:2]:
        write_raster(tmp_path / "evi" / f"{name}.tif", VALUES[0])
    for path in (series, tmp_path / "evi"):
        assert init("--scene", path) == 2
        assert capsys.readouterr().err.strip().endswith("for a forecast of this dated series: --kind forecast")
    scene = write_raster(tmp_path / "bands" / "scene_2020-01-01.tif", VALUES[:3], names=("red", "green", "nir"))
    for path in (scene, scene.parent, tmp_path / "none.tif", "https://example.org/item.json"):
        assert init("--scene", path) == 2
        assert "--kind forecast" not in capsys.readouterr().err
