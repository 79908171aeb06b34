"""Forecasts of two real series beside simple rules: NDVI of fields (the last 46 steps), taxis of a city (28 days).

Width, steps and dropout were chosen on the steps before the test. The bars of NDVI are a damped anomaly one step ahead
and the better of season and average further on; those of the taxis the hour of the week with a damped anomaly.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio

from pipeline.forecast.rolling import NETWORK
from pipeline.forecast.settings import ForecastSettings
from pipeline.workflow.forecast import forecast_series
from pipeline.workflow.outcome import no_progress

if TYPE_CHECKING:
    from pipeline.workflow.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LANDCOVER_SHARED", ROOT.parent / "shared")) / "data"
# Mean absolute errors of the best baseline of each README, by steps ahead.
BARS = {"ndvi": {1: 0.0854, 3: 0.103, 6: 0.103}, "evi": {1: 0.0790, 3: 0.0924, 6: 0.0924},
        "taxis": {1: 19.65, 3: 30.44, 6: 36.11}}  # fmt: skip
# Federal holidays of the United States.
HOLIDAYS = {"01-01", "01-21", "02-18", "05-27", "07-04", "09-02", "10-14", "11-11", "11-28", "12-25"}


def taxis(folder: Path) -> tuple[str, ...]:
    """The flows of taxis as a GeoTIFF per channel with an hour in each band, and the holidays."""
    with np.load(DATA / "traffic/nyc_taxi_2019.npz") as file:
        flow, hours, channels = file["flow"], file["time"], file["channels"]
    with rasterio.open(DATA / "traffic/grid.tif") as grid:
        profile, empty = grid.profile, grid.read(1) == 0
    profile |= {"driver": "GTiff", "count": len(hours), "dtype": "uint16", "nodata": 65535, "interleave": "band"}
    paths = []
    for number, channel in enumerate(channels):
        paths.append(str(folder / f"{channel}.tif"))
        with rasterio.open(paths[-1], "w", **profile) as target:
            target.write(np.where(empty, 65535, flow[:, number]).astype(np.uint16))
            target.descriptions = tuple(map(str, hours))
    days = [date(2019, 1, 1) + timedelta(days=day) for day in range(368)]
    rows = [f"{day},{int(f'{day:%m-%d}' in HOLIDAYS)}" for day in days]
    (folder / "holidays.csv").write_text("\n".join(["time,holiday", *rows]) + "\n", encoding="utf-8")
    return tuple(paths)


def run() -> dict[str, float]:
    """Errors at the horizons of the bars, their share below bar and best baseline, coverage and seconds."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        flows = taxis(Path(folder))
        jobs = {
            "ndvi": {"series": (str(DATA / "ndvi_series/ndvi.tif"),), "test_steps": 46},
            "evi": {"series": (str(DATA / "ndvi_series/evi.tif"),), "test_steps": 46},
            "taxis": {
                "series": flows,
                "known": f"{folder}/holidays.csv",
                "test_steps": 28 * 24,
                "width": 96,
                "steps": 2000,
                "dropout": 0.1,
            },
        }
        for name, keys in jobs.items():
            start = time.perf_counter()
            settings = ForecastSettings.model_validate(keys)
            outcome = forecast_series(settings, output=Path(folder) / name, overwrite=True, progress=no_progress)
            figures[f"{name}: seconds, test and forecast"] = time.perf_counter() - start
            figures |= errors(name, outcome)
    return figures


def errors(name: str, outcome: Outcome) -> dict[str, float]:
    """Figures of one series."""
    found: dict[str, float] = {}
    for horizon in outcome.data["horizons"]:
        ahead, mae = horizon["ahead"], horizon["mae"]
        if ahead in BARS[name]:
            at = f"{name}, {ahead} ahead: "
            found |= {f"{at}MAE of {method}": value for method, value in mae.items()}
            found[f"{at}RMSE of network"] = horizon["rmse"][NETWORK]
            found[f"{at}% below the bar"] = 100 * (1 - mae[NETWORK] / BARS[name][ahead])
            found[f"{at}% below {horizon['best']}"] = 100 * horizon["skill"]
            found[f"{at}% in the interval"] = 100 * horizon["coverage"]
    return found
