"""A trained network comes back from its file as it was, and takes no series but the one that it has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.crs import CRS
from safetensors.torch import save_file
from torch import zeros

from pipeline.errors import ConfigError, ModelError, SceneError, SceneWarning
from pipeline.forecast.frames import all_rows, look_back
from pipeline.forecast.layers import Layers
from pipeline.forecast.learned import draw_sample
from pipeline.forecast.model_file import (
    ForecastModel,
    as_learned,
    check_beside,
    load_forecast_model,
    save_forecast_model,
)
from pipeline.forecast.network import train_forecast
from pipeline.forecast.rolling import Horizon
from pipeline.forecast.series import Cells, Series
from pipeline.forecast.settings import ForecastSettings
from pipeline.grid import Grid
from pipeline.model.describe import is_forecast_model, read_header
from pipeline.workflow.outcome import no_progress
from tests.fakes.rasters import TRANSFORM
from tests.forecast.conftest import COLS, ROWS, SEASON, planted_values

LEARNED = 120
MONTHS = np.arange("2000-01", "2011-01", dtype="datetime64[M]").astype("datetime64[s]")
VALUES = planted_values(steps=len(MONTHS))
NEAR = np.full((ROWS * COLS, 8), -1, dtype=np.int64)
ROW, COL = np.nonzero(np.ones((ROWS, COLS)))
CELLS = Cells(Grid(CRS.from_epsg(32633), TRANSFORM, ROWS, COLS), ROW, COL)


def past_of(values, scales=None):
    return look_back(values, seasons=(SEASON,), neighbours=NEAR, until=LEARNED, scales=scales)


def series_of(**changes):
    return replace(Series("ndvi", ("ndvi",), MONTHS, VALUES, ROW, COL, CELLS.grid), **changes)


@pytest.fixture(scope="module")
def model():
    settings = ForecastSettings(series=("/ndvi.tif",), ahead=3, steps=50, width=8)
    past = past_of(VALUES[:LEARNED])
    trained = train_forecast(past, until=LEARNED, settings=settings, progress=no_progress)
    scaling = {"known": Layers(("rain", "holiday"), np.array([[1, 5], [3, 5]], dtype=np.float32)).scaling()}
    tested = Horizon(1, 9, {"network": 1.0, "last value": 2.0}, {"network": 1.0}, 0.9, 3.0)
    return ForecastModel(
        trained, "ndvi", ("ndvi",), (SEASON,), CELLS, MONTHS[0], MONTHS[LEARNED - 1], LEARNED, past.scales,
        draw_sample(VALUES[:LEARNED]), scaling, ("2009-01-01", "2009-12-01"), (tested,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return save_forecast_model(tmp_path_factory.mktemp("model") / "model.safetensors", model)


def test_a_model_comes_back_as_it_was(model, file):
    again = load_forecast_model(file)
    assert again.header() == model.header()
    assert again.trained.settings == model.trained.settings
    assert again.cells.grid.same_pixels_as(CELLS.grid)
    assert again.horizons == model.horizons
    assert list(again.horizons[0].mae) == ["network", "last value"]
    rows = all_rows([LEARNED - 1], 2, channels=1, cells=12)
    expected, found = (one.trained.predict(past_of(VALUES[:LEARNED]), rows) for one in (model, again))
    assert np.array_equal(expected, found)
    assert is_forecast_model(file)


def test_scales_stay_those_that_were_learned(model, file):
    wild = VALUES.copy()
    wild[LEARNED:] *= 100
    rows = all_rows([LEARNED - 1], 1, channels=1, cells=12)
    scales = load_forecast_model(file).scales
    before, after = past_of(VALUES[:LEARNED]), look_back(
        wild, seasons=(SEASON,), neighbours=NEAR, until=len(wild), scales=scales
    )  # fmt: skip
    assert np.array_equal(before.spread(rows), after.spread(rows))
    assert np.array_equal(*(model.trained.predict(past, rows) for past in (before, after)))


def test_a_changed_file_is_refused(file, tmp_path):
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="changed since it was written"):
        load_forecast_model(tmp_path / "model.safetensors")


def test_each_kind_of_model_says_which_it_is_not(file, tmp_path):
    with pytest.raises(ModelError, match=r"model of a forecast, which maps no scene; .* landcover predict --model"):
        read_header(file)
    other = tmp_path / "weights.safetensors"
    save_file({"x": zeros(1)}, other)
    assert not is_forecast_model(other)
    assert not is_forecast_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="not the model of a forecast"):
        load_forecast_model(other)


def test_a_series_that_has_grown_is_taken(model):
    assert as_learned(model, series_of(), paths=["ndvi.tif"]).times[-1] == MONTHS[-1]
    with pytest.warns(SceneWarning, match="values of later are taken for ndvi"):
        assert as_learned(model, series_of(channels=("later",)), paths=["later.tif"]).channels == ("ndvi",)


def test_channels_come_in_the_order_that_was_learned(model):
    pair = replace(model, channels=("ndvi", "evi"))
    values = np.concatenate([VALUES, VALUES + 1], axis=1)
    found = as_learned(pair, series_of(channels=("evi", "ndvi"), values=values), paths=["both.tif"])
    assert found.channels == ("ndvi", "evi")
    assert np.array_equal(found.values, values[:, ::-1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": ("evi",)}, "other channels than were learned; got evi; expected ndvi"),
        ({"channels": ("ndvi", "evi")}, "other channels than were learned; got ndvi, evi; expected ndvi"),
        ({"times": MONTHS[0] + np.arange(len(MONTHS)) * np.timedelta64(8, "D")}, "other time steps .*got 8 days"),
        ({"times": MONTHS + np.timedelta64(365, "D")}, "begins at another time .*got 2000-12-31; expected 2000-01-01"),
        ({"times": MONTHS[:100], "values": VALUES[:100]}, "ends before the last .*got 2008-04-01; expected 2009-12-01"),
    ],
)
def test_a_series_that_is_another_is_refused(model, changes, said):
    with pytest.raises(SceneError, match=said):
        as_learned(model, series_of(**changes), paths=["x.tif"])


def test_layers_are_shown_as_they_were_learned(model):
    scaling = model.beside["known"]
    later = Layers(("holiday", "rain"), np.array([[6, 4], [5, np.nan]], dtype=np.float32))
    assert scaling.of(later, path="").tolist() == [[2, 0], [0, 0]]  # rain is (4 - 2) / 1; holiday was always 5
    with pytest.raises(ConfigError, match=r"k\.csv: layers beside the series are others .*got snow; expected rain"):
        scaling.of(Layers(("snow",), later.table[:, :1]), path="k.csv")


def test_a_network_without_layers_takes_none(model):
    settings = model.trained.settings
    check_beside(replace(model, beside={}), settings)
    with pytest.raises(ConfigError, match=r"forecast\.layers for a network that learned without; leave it out"):
        check_beside(replace(model, beside={}), settings.model_copy(update={"layers": ("height.tif",)}))
    with pytest.raises(ConfigError, match=r"no forecast\.known for a network that learned with; expected rain, hol"):
        check_beside(model, settings)


def test_a_model_without_what_it_learned_is_refused(model, tmp_path, monkeypatch):
    kept = {name: value for name, value in model.tensors().items() if not name.startswith("sample.")}
    monkeypatch.setattr(ForecastModel, "tensors", lambda _: kept)
    old = save_forecast_model(tmp_path / "model.safetensors", model)
    with pytest.raises(ModelError, match="of an earlier version and does not hold what it learned; train it again"):
        load_forecast_model(old)
