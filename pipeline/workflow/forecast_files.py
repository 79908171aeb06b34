"""Files of a forecast: a GeoTIFF per step with its style, a QGIS project, figures, report, facts and stamp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from pipeline.documents import read_json
from pipeline.errors import InputError, OutputError
from pipeline.files import check_target, fingerprint, hash_of, prepare_folder, whole_file, write_json, write_text
from pipeline.forecast.model_file import MODEL
from pipeline.forecast.rolling import NETWORK, POOLED, Horizon
from pipeline.forecast.settings import FACTS, FORECAST_TAG, LOWER, ORIGIN_TAG, TIME_TAG, UPPER
from pipeline.forecast.times import time_text
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
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pipeline.forecast.series import Series
    from pipeline.forecast.settings import ForecastSettings
    from pipeline.forecast.times import Times

STAMP = "stamp"
"""Key of the facts: what a finished forecast is known by."""
FIGURE, REPORT = "forecast", "report.html"
_MEDIAN = 1
# Of the horizons in the terminal; all are in the file.
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is written."""

    series: Series  # It follows
    times: Times  # Of the steps to come, datetime64[s] [step]
    quantiles: NDArray[np.float32]  # Lower, median and upper, float32 [step, quantile, channel, cell]
    horizons: tuple[Horizon, ...]  # Errors of its test
    tested: str  # Over which steps: "the last 15 steps"
    facts: dict[str, Any]  # Settings and what was tested, for forecast.json


@dataclass(frozen=True)
class Targets:
    """Names of the files of a forecast."""

    folder: Path  # That holds them
    steps: tuple[Path, ...]  # The GeoTIFFs
    project: Path  # For QGIS

    @property
    def made(self) -> tuple[Path, ...]:
        """All files but the model and the styles."""
        others = (self.folder / name for name in (FACTS, REPORT, f"{FIGURE}.png", f"{FIGURE}.svg"))
        return (*self.steps, self.project, *others)

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.folder / MODEL


def plan_files(
    series: Series, times: Times, *, output: Path, sources: Sequence[str], trained: bool, overwrite: bool
) -> Targets:
    """Names of the files of a forecast, and the folder; before anything is learned.

    Dates are in the names, with hours and minutes where the steps of the series have them. ``sources`` are what is
    read; the model is among the files where the network is ``trained`` now.

    Raises:
        OutputError: a file exists, forecasts would become steps of the series, or the folder cannot be made.
    """
    daily = (series.times.astype("datetime64[D]") == series.times).all()
    stamps = [str(time.astype(f"datetime64[{'D' if daily else 'm'}]")).replace(":", "") for time in times]
    if any(output.exists() and Path(source).is_dir() and output.samefile(source) for source in sources):
        raise OutputError("forecasts would become steps of the series", path=output, fix="choose another folder")
    steps = tuple(output / f"{series.name}_{stamp}.tif" for stamp in stamps)
    targets = Targets(prepare_folder(output), steps, output / f"{series.name}.qgz")
    for path in [*targets.made, *([targets.model] if trained else [])]:
        check_target(path, overwrite=overwrite, inputs=sources)
    return targets


def write_forecast(made: Forecast, targets: Targets, *, overwrite: bool) -> Outcome:
    """Write all files but the model.

    Raises:
        OutputError: one cannot be written.
    """
    series, facts = made.series, made.facts
    # Facts of an earlier forecast are none of files that are replaced.
    (targets.folder / FACTS).unlink(missing_ok=True)
    for path, time, layers in zip(targets.steps, made.times, made.quantiles, strict=True):
        tags = {TIME_TAG: time_text(time), FORECAST_TAG: facts["made"], ORIGIN_TAG: time_text(series.times[-1])}
        _write_step(path, series, layers, tags=tags, overwrite=overwrite)
    _write_styles(targets, series, made.quantiles, overwrite=overwrite)
    draw = partial(forecast_figure, series, horizons=made.horizons, times=made.times, quantiles=made.quantiles)
    figures, _ = save(draw, targets.folder / FIGURE)
    write_json(targets.folder / FACTS, facts, what="the facts of the forecast")
    summary, table = _summary(made), _table(made.horizons)
    first = np.asarray(series.on_cells(made.quantiles[0])[[1, 0, 2], 0])
    page = ReportData(
        title=series.name, scheme=Quantity(series.name).scheme, lead=f"Forecast of {summary}",
        forecast=ForecastView(
            draw, Quantity(series.channels[0]), ((targets.steps[0].stem, first),), table.heads, table.rows
        ),
        settings=yaml.safe_dump(facts["settings"], sort_keys=False), environment=environment(),
    )  # fmt: skip
    report = write_report(targets.folder / REPORT, page)[:1]
    return Outcome(
        summary=summary,
        written=(targets.project, *targets.steps, *report, *figures, targets.folder / FACTS),
        hint="each file has bands of median, lower and upper bound (90 %) and its TIME in its tags; open "
        f"{targets.project} in QGIS, or landcover view {targets.folder}",
        tables=(table,),
        data=facts,
    )


def horizon_facts(horizons: Sequence[Horizon]) -> list[dict[str, Any]]:
    """Errors by horizon, JSON-ready, with the best baseline and the skill against it.

    Where there are several channels they are means over these, with those of each as ``channels``.
    """
    return [_horizon_facts(horizon) for horizon in horizons]


def _horizon_facts(horizon: Horizon) -> dict[str, Any]:
    """Figures of a horizon."""
    own = asdict(replace(horizon, channels={})) | {"best": horizon.best, "skill": horizon.skill}
    del own["channels"]
    each = {name: _horizon_facts(item) for name, item in horizon.channels.items()}
    return own | ({"channels": each} if each else {})


def _write_step(
    path: Path, series: Series, quantiles: NDArray[np.float32], *, tags: dict[str, Any], overwrite: bool
) -> None:
    """Write a COG of float32 with three bands per channel, nodata NaN; ``quantiles`` is [quantile, channel, cell]."""
    laid = series.on_cells(quantiles)
    names = [(_MEDIAN, ""), (0, LOWER), (2, UPPER)]
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
                target.update_tags(number, TIME=tags[TIME_TAG])
            target.update_tags(TIFFTAG_SOFTWARE=f"landcover {__version__}", **tags)
        rasterio.shutil.copy(memory.name, part, driver="COG", compress="DEFLATE", predictor="YES")


def _write_styles(targets: Targets, series: Series, quantiles: NDArray[np.float32], *, overwrite: bool) -> None:
    """A style beside each step, and a project of all of them; one ramp per channel, so that steps can be compared."""
    layers = []
    for number, channel in enumerate(series.channels):
        low, high = np.nanpercentile(quantiles[:, _MEDIAN, number], [2, 98])
        pipe = ramp_pipe(3 * number + 1, VIRIDIS, minimum=low, maximum=high if high > low else low + 1, unit="")
        layers += [
            RasterLayer(path.stem.replace(series.name, channel), path, series.grid, pipe) for path in targets.steps
        ]
        if number == 0:
            for path in targets.steps:
                write_text(sidecar_paths(path)[1], qml(pipe))
    scheme, title = Quantity(series.name).scheme, f"Forecast of {series.name}"
    write_project(targets.project, (), scheme=scheme, steps=layers, title=title, overwrite=overwrite)


def _summary(made: Forecast) -> str:
    horizons = made.horizons
    least, most = (f"{100 * pick(h.skill for h in horizons):.0f} %" for pick in (min, max))
    behind = [h for h in horizons if h.skill <= 0]
    what = (
        f"{least} to {most} below that of the best baseline" if not behind
        else f"not below that of the best baseline at {len(behind)} of {len(horizons)} horizons: prefer the baseline"
    )  # fmt: skip
    pooled = f", {POOLED}," if horizons[0].channels else ""
    return f"{made.series.name}: {len(horizons)} steps ahead; mean absolute error{pooled} over {made.tested} {what}"


def _table(horizons: Sequence[Horizon]) -> Table:
    """Errors of the horizons: of each channel where there are several, and of all."""
    names = list(horizons[0].mae)
    picked = horizons if len(horizons) <= _SHOWN else horizons[:: -(-len(horizons) // _SHOWN)]
    heads = ("ahead", NETWORK, *names[1:], "skill", "in interval")
    title = "mean absolute error; skill against the best baseline; share inside the 90 % interval"
    channels = dict.fromkeys(channel for horizon in picked for channel in horizon.channels)
    if not channels:
        return Table(title, heads, tuple(_row(horizon, names) for horizon in picked))
    each = [(name, [h.channels[name] for h in picked if name in h.channels]) for name in channels]
    rows = ((name, *_row(horizon, names)) for name, own in [*each, (POOLED, picked)] for horizon in own)
    return Table(title, ("channel", *heads), tuple(rows))


def _row(horizon: Horizon, names: Sequence[str]) -> tuple[str, ...]:
    figures = (f"{horizon.mae[name]:.4g}" for name in names)
    return (str(horizon.ahead), *figures, f"{100 * horizon.skill:+.0f} %", f"{100 * horizon.coverage:.0f} %")


def stamp_of(settings: ForecastSettings, *, inputs: dict[str, str], files: Sequence[Path]) -> dict[str, Any]:
    """What a finished forecast is known by, JSON-ready: hashes of settings and ``inputs``, and names of its files."""
    return {"settings": _hash(settings), "inputs": inputs, "files": [path.name for path in files]}


def inputs_of(settings: ForecastSettings) -> dict[str, str]:
    """A hash of each file and folder that a forecast is made from; to be taken before they are read."""
    known = [settings.known] if settings.known else []
    return fingerprint([*settings.series, *known, *settings.layers])


def finished(settings: ForecastSettings, *, folder: Path) -> Outcome | None:
    """What lies in the folder of a forecast of these settings and inputs; None where it is another or not whole."""
    try:
        facts = read_json(folder / FACTS)
        stamp = facts[STAMP]
        files = [folder / name for name in stamp["files"]]
        same = stamp["settings"] == _hash(settings) and stamp["inputs"] == inputs_of(settings)
    except (InputError, KeyError, TypeError):
        return None
    # Of what lies elsewhere it cannot be told whether it has changed.
    here = all(Path(path).exists() for path in stamp["inputs"])
    if not (same and here and all(path.is_file() for path in files)):
        return None
    rows = tuple((path.name,) for path in files)
    return Outcome(
        summary=f"{folder}: nothing to do; settings and input files are those of the forecast that is there",
        tables=(Table("there already", ("file",), rows),),
        hint=f"look at it: landcover view {folder}; make it again: --overwrite",
        data=facts,
    )


def _hash(settings: ForecastSettings) -> str:
    return hash_of(settings.model_dump(mode="json"))
