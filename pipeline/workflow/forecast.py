"""``landcover forecast``: the next steps of a series of rasters, tested on its last steps, a GeoTIFF each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
import yaml
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from pipeline import __version__
from pipeline.documents import read_yaml
from pipeline.errors import ConfigError, OutputError, SceneError
from pipeline.files import check_target, prepare_folder, whole_file, write_json, write_text
from pipeline.forecast.frames import Past, all_rows, look_back
from pipeline.forecast.network import Trained, train_forecast
from pipeline.forecast.rolling import NETWORK, Horizon, evaluate
from pipeline.forecast.series import Series, read_known, read_layers, read_series
from pipeline.forecast.settings import FACTS, ForecastSettings
from pipeline.forecast.times import find_seasons, times_after
from pipeline.legend import VIRIDIS
from pipeline.maps.legends import sidecar_paths
from pipeline.maps.project import RasterLayer, write_project
from pipeline.maps.style import qml, ramp_pipe
from pipeline.quantity import Quantity
from pipeline.report.data import ForecastView, ReportData
from pipeline.report.page import write_report
from pipeline.report.style import save
from pipeline.report.target_figures import forecast_figure
from pipeline.runs import environment
from pipeline.settings import checked, section_of
from pipeline.workflow.outcome import Outcome, Progress, Table

if TYPE_CHECKING:
    from pipeline.forecast.times import Times


FIGURE, REPORT = "forecast", "report.html"
QUANTILES = ("lower", "median", "upper")
_TEST_FRAC = 0.1
_FEWEST_LEARNED = 16
# Of the horizons in the terminal; all are in the file.
_SHOWN = 12


def forecast_settings(given: Sequence[Path], *, changes: Sequence[str]) -> ForecastSettings:
    """Settings from a YAML file, or of series with all else at its default; ``changes`` as ``forecast.ahead=12``.

    Raises:
        ConfigError: an unknown key, or a value that does not fit.
    """
    data: Any = {"series": [str(path) for path in given]}
    path = given[0] if len(given) == 1 and given[0].suffix.lower() in {".yaml", ".yml"} else None
    if path is not None:
        data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError("configuration is not a mapping of keys", path=path, got=type(data).__name__)
    known = checked(ForecastSettings, data, path=path)  # paths of the file are relative to it, those of options are not
    own = section_of("forecast", ForecastSettings, changes, {"series": known.series})
    return known.model_copy(update=own.model_dump(exclude_unset=True))


def check_series(settings: ForecastSettings) -> Outcome:
    """What a series holds and how it would be tested, before anything is learned.

    Raises:
        SceneError: a series that cannot be forecast.
    """
    series = read_series(settings.series)
    start, seasons = _tested(series, settings)
    rows = (
        ("steps", f"{len(series.times)}, {_iso(series.times[0])} to {_iso(series.times[-1])}"),
        ("cells", f"{len(series.row)} of {series.grid.height} x {series.grid.width}"),
        ("channels", ", ".join(series.channels)),
        ("known", f"{np.isfinite(series.values).mean():.1%} of the values"),
        ("cycles in steps", ", ".join(map(str, seasons)) or "none seen: name them in seasons"),
        ("tested on", f"the last {len(series.times) - start} steps, from {_iso(series.times[start])}"),
    )
    return Outcome(
        summary=f"{series.name}: no error found; {settings.ahead} steps ahead of {len(series.times)}",
        tables=(Table("series", ("", ""), rows),), data={"steps": len(series.times), "seasons": list(seasons)},
    )  # fmt: skip


def _tested(series: Series, settings: ForecastSettings) -> tuple[int, tuple[int, ...]]:
    """The first step that is tested, and the cycles that the steps before it show.

    Raises:
        SceneError: too few steps before it, or layers that do not meet the series.
    """
    steps = len(series.times)
    start = steps - (settings.test_steps or max(1, round(_TEST_FRAC * steps)))
    seasons = settings.seasons or find_seasons(series.times, until=start)
    least = max(max(seasons, default=1) + settings.ahead, _FEWEST_LEARNED)
    if start < least:
        raise SceneError(
            "series has too few steps before those of the test", path=settings.series[0], got=start,
            expected=f"{least} or more: a cycle and the steps ahead", fix="set test_steps, seasons or ahead lower",
        )  # fmt: skip
    every = np.concatenate([series.times, times_after(series.times, settings.ahead, seasons=seasons)])
    _beside(series, settings, every)
    return start, tuple(seasons)


def _beside(
    series: Series, settings: ForecastSettings, times: Times
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """What is known at all times, and of all cells, beside the series."""
    known = read_known(settings.known, times) if settings.known else None
    return known, read_layers(settings.layers, series) if settings.layers else None


def forecast_series(settings: ForecastSettings, *, output: Path, overwrite: bool, progress: Progress) -> Outcome:
    """Test forecasts on the last steps of a series, then learn from all of it and write those of the next steps.

    Raises:
        SceneError: a series that cannot be forecast.
        OutputError: a file exists, or cannot be written.
    """
    series = read_series(settings.series)
    start, seasons = _tested(series, settings)
    steps = len(series.times)
    times = times_after(series.times, settings.ahead, seasons=seasons)
    # Dates in the names, with hours and minutes where the steps of the series have them.
    daily = (series.times.astype("datetime64[D]") == series.times).all()
    stamps = [str(time.astype(f"datetime64[{'D' if daily else 'm'}]")).replace(":", "") for time in times]
    targets = [output / f"{series.name}_{stamp}.tif" for stamp in stamps]
    if any(output.exists() and Path(source).is_dir() and output.samefile(source) for source in settings.series):
        raise OutputError("forecasts would become steps of the series", path=output, fix="choose another folder")
    prepare_folder(output)
    project = output / f"{series.name}.qgz"
    for path in [
        *targets,
        project,
        output / FACTS,
        output / REPORT,
        *(output / f"{FIGURE}.{kind}" for kind in ("png", "svg")),
    ]:
        check_target(path, overwrite=overwrite)
    learned = partial(_trained, series, settings, times=times, seasons=seasons, progress=progress)
    horizons = evaluate(*learned(until=start), start=start, progress=progress)
    quantiles = _ahead(*learned(until=steps), steps=steps, ahead=settings.ahead)
    facts = _facts(series, settings, start=start, seasons=seasons, horizons=horizons)
    for path, time, layers in zip(targets, times, quantiles, strict=True):
        _write_step(path, series, layers, tags={"TIME": _iso(time), "FORECAST": facts["made"]}, overwrite=overwrite)
    _write_styles(project, targets, series, quantiles, overwrite=overwrite)
    draw = partial(forecast_figure, series, horizons=horizons, times=times, quantiles=quantiles)
    figures, _ = save(draw, output / FIGURE)
    write_json(output / FACTS, facts, what="the facts of the forecast")
    summary, table = _summary(series, horizons, start=start), _table(horizons)
    first = np.asarray(series.on_cells(quantiles[0])[[1, 0, 2], 0])
    page = ReportData(
        title=series.name, scheme=Quantity(series.name).scheme, lead=f"Forecast of {summary}",
        forecast=ForecastView(draw, Quantity(series.channels[0]), ((targets[0].stem, first),), table.heads, table.rows),
        settings=yaml.safe_dump(facts["settings"], sort_keys=False), environment=environment(),
    )  # fmt: skip
    return Outcome(
        summary=summary,
        written=(project, *targets, *write_report(output / REPORT, page)[:1], *figures, output / FACTS),
        hint=f"each file has bands of median, lower and upper bound (90 %) and its TIME in its tags; open {project} in "
        f"QGIS, or landcover view {output}",
        tables=(table,),
        data=facts,
    )


def _trained(
    series: Series, settings: ForecastSettings, *, times: Times, until: int, seasons: Sequence[int], progress: Progress
) -> tuple[Past, Trained]:
    """What is known before a step, and a network that has learned from it."""
    known, fixed = _beside(series, settings, np.concatenate([series.times, times]))
    past = look_back(
        series.values, seasons=seasons, neighbours=series.neighbours(), until=until, known=known, fixed=fixed
    )
    return past, train_forecast(past, until=until, settings=settings, progress=progress)


def _ahead(past: Past, trained: Trained, *, steps: int, ahead: int) -> NDArray[np.float32]:
    """Quantiles of the steps to come, float32 [step, quantile, channel, cell], by a network of the whole series."""
    _, channels, cells = past.values.shape
    rows = (all_rows([steps - 1], number, channels=channels, cells=cells) for number in range(1, ahead + 1))
    return np.stack([trained.predict(past, row).T.reshape(len(QUANTILES), channels, cells) for row in rows])


def _write_step(
    path: Path, series: Series, quantiles: NDArray[np.float32], *, tags: dict[str, Any], overwrite: bool
) -> None:
    """Write a COG of float32 with three bands per channel, nodata NaN; ``quantiles`` is [quantile, channel, cell]."""
    laid = series.on_cells(quantiles)
    names = [(1, ""), (0, " lower"), (2, " upper")]
    bands = [(f"{channel}{ending}", laid[q, c]) for c, channel in enumerate(series.channels) for q, ending in names]
    profile = {
        "driver": "GTiff", "dtype": "float32", "nodata": np.nan, "crs": series.grid.crs, "count": len(bands),
        "transform": series.grid.transform, "height": series.grid.height, "width": series.grid.width,
    }  # fmt: skip
    failures = (RasterioError, CPLE_BaseError)
    with whole_file(path, what="the forecast", failures=failures, overwrite=overwrite) as part, MemoryFile() as memory:
        with memory.open(**profile) as target:
            for number, (name, values) in enumerate(bands, 1):
                target.write(values, number)
                target.set_band_description(number, name)
                target.update_tags(number, TIME=tags["TIME"])
            target.update_tags(TIFFTAG_SOFTWARE=f"landcover {__version__}", **tags)
        rasterio.shutil.copy(memory.name, part, driver="COG", compress="DEFLATE", predictor="YES")


def _write_styles(
    project: Path, targets: Sequence[Path], series: Series, quantiles: NDArray[np.float32], *, overwrite: bool
) -> None:
    """A style beside each step, and a project of all of them; one ramp per channel, so that steps can be compared."""
    layers = []
    for number, channel in enumerate(series.channels):
        low, high = np.nanpercentile(quantiles[:, QUANTILES.index("median"), number], [2, 98])
        pipe = ramp_pipe(3 * number + 1, VIRIDIS, minimum=low, maximum=high if high > low else low + 1, unit="")
        layers += [RasterLayer(path.stem.replace(series.name, channel), path, series.grid, pipe) for path in targets]
        if number == 0:
            for path in targets:
                write_text(sidecar_paths(path)[1], qml(pipe))
    scheme, title = Quantity(series.name).scheme, f"Forecast of {series.name}"
    write_project(project, (), scheme=scheme, steps=layers, title=title, overwrite=overwrite)


def _facts(
    series: Series, settings: ForecastSettings, *, start: int, seasons: Sequence[int], horizons: Sequence[Horizon]
) -> dict[str, Any]:
    return {
        "made": f"landcover {__version__}, from {len(series.times)} steps up to {_iso(series.times[-1])}",
        "settings": settings.model_dump(mode="json"),
        "channels": series.channels, "cells": len(series.row), "steps": len(series.times), "seasons": seasons,
        "tested": {"first": _iso(series.times[start]), "last": _iso(series.times[-1])},
        "horizons": [asdict(horizon) | {"best": horizon.best, "skill": horizon.skill} for horizon in horizons],
    }  # fmt: skip


def _summary(series: Series, horizons: Sequence[Horizon], *, start: int) -> str:
    least, most = (f"{100 * pick(h.skill for h in horizons):.0f} %" for pick in (min, max))
    behind = [h for h in horizons if h.skill <= 0]
    what = (
        f"{least} to {most} below that of the best baseline" if not behind
        else f"not below that of the best baseline at {len(behind)} of {len(horizons)} horizons: prefer the baseline"
    )  # fmt: skip
    tested = len(series.times) - start
    return f"{series.name}: {len(horizons)} steps ahead; mean absolute error over the last {tested} steps {what}"


def _table(horizons: Sequence[Horizon]) -> Table:
    names = list(horizons[0].mae)
    picked = horizons if len(horizons) <= _SHOWN else horizons[:: -(-len(horizons) // _SHOWN)]
    rows = tuple(
        (
            str(h.ahead),
            *(f"{h.mae[name]:.4g}" for name in names),
            f"{100 * h.skill:+.0f} %",
            f"{100 * h.coverage:.0f} %",
        )
        for h in picked
    )
    heads = ("ahead", NETWORK, *names[1:], "skill", "in interval")
    return Table("mean absolute error; skill against the best baseline; share inside the 90 % interval", heads, rows)


def _iso(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]")).removesuffix("T00:00")
