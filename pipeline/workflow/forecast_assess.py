"""``landcover assess`` of a step of a forecast, against the series that has come to hold its time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from pipeline.diagnostics.scoring import ValueScore, score_values
from pipeline.errors import InputError, ReferenceDataError, SceneWarning, factor_text, shortened
from pipeline.files import check_target, write_json
from pipeline.forecast.series import read_dated, shape_text
from pipeline.forecast.settings import FORECAST_TAG, LOWER, ORIGIN_TAG, TIME_TAG, UPPER
from pipeline.forecast.times import time_in, time_text
from pipeline.grid import Grid
from pipeline.raster import require_regular
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    Floats = NDArray[np.float32]

_WHAT, _LAST = "forecast", "last value"
# Ratios of values to those forecast that are suspect, and those of another scale (that of pipeline.model.checks);
# cells that are enough for intervals that hold none to tell.
_SUSPECT, _OTHER, _ENOUGH = 8.0, 50.0, 10
# Times of one step: steps that are forecast follow each other exactly, those of a satellite nearly.
_ALIKE = timedelta(minutes=1)


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of a forecast."""

    time: datetime  # That it is for
    origin: datetime | None  # Last step that it was made from; None where the file does not tell
    grid: Grid  # Of the cells
    channels: Mapping[str, Floats]  # Median, lower and upper bound of each, float32 [3, row, col], NaN elsewhere


def is_step(path: Path) -> bool:
    """Whether a file is a step of a forecast; False for what cannot be read, which whoever reads it says."""
    with contextlib.suppress(OSError, RasterioError):
        if path.is_file():
            with rasterio.open(path) as dataset:
                return {TIME_TAG, FORECAST_TAG} <= set(dataset.tags())
    return False


def assess_step(path: Path, references: Sequence[Path], *, output: Path | None, overwrite: bool) -> Outcome:
    """Errors of a step of a forecast over all cells that the reference knows, beside the last value at its origin.

    Channels may come from several references; those that none holds are left out with a SceneWarning.

    Raises:
        ReferenceDataError: a reference without that time, on another grid, of other channels, without a value, or on
            another scale.
        InputError: a file cannot be read.
        OutputError: ``output`` exists and is not to be overwritten.
    """
    if output is not None:
        check_target(output, overwrite=overwrite, inputs=(path, *references))
    step = _read_step(path)
    truth, before = _read_references(references, step)
    rows, scores, said = [], {}, []
    for channel, made in step.channels.items():
        if channel not in truth:
            continue
        own, last = _scores(made, truth[channel], before.get(channel), channel=channel, path=references[0])
        skill = None if last is None or not last[1].mae else 1 - last[0].mae / last[1].mae
        scores[channel] = own.to_json() | {
            "last_value": None if last is None else last[1].to_json(), "skill": skill
        }  # fmt: skip
        said.append(_said(own, skill, of=channel if len(step.channels) > 1 else ""))
        rows.append((*_row(channel, own), "-" if skill is None else f"{100 * skill:+.0f} %"))
        if last is not None:
            rows.append((*_row(f"{channel}, {_LAST}", last[1]), ""))
    data = {
        "time": time_text(step.time), "origin": step.origin and time_text(step.origin),
        "reference": ", ".join(map(str, references)), "channels": scores,
    }  # fmt: skip
    heads = ("", "cells", "MAE", "RMSE", "bias", "R2", "in interval", "skill")
    return Outcome(
        summary=f"{path.name}: {'; '.join(said)}",
        tables=(Table("errors at the cells; skill against the last value at the origin", heads, tuple(rows)),),
        written=(write_json(output, data),) if output else (),
        data=data,
    )


def _said(score: ValueScore, skill: float | None, *, of: str) -> str:
    """What came of a channel, whose name is told where there are several."""
    against = "" if skill is None else f", {100 * skill:+.0f} % against the last value"
    inside = f"{100 * (score.coverage or 0):.0f} % inside the 90 % interval"
    return f"mean absolute error {f'of {of} ' if of else ''}{score.mae:.4g}{against}; {inside}"


def _read_step(path: Path) -> _Step:
    """Time and channels of a step, by its tags and the names of its bands."""
    with rasterio.open(path) as dataset:
        tags, names = dataset.tags(), list(dataset.descriptions)
        grid = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
        values = dataset.read(masked=True).astype(np.float32).filled(np.nan)
    times = [time_in(tags.get(key, "")) for key in (TIME_TAG, ORIGIN_TAG)]
    channels = [name for name in names if {f"{name}{LOWER}", f"{name}{UPPER}"} <= set(names)]
    if times[0] is None or not channels:
        raise InputError(
            "step of a forecast that has been changed", path=path, got=f"bands {', '.join(map(str, names))}",
            expected="a TIME, and each channel with its lower and upper bound",
        )  # fmt: skip
    laid = {name: values[[names.index(f"{name}{end}") for end in ("", LOWER, UPPER)]] for name in channels}
    return _Step(times[0][0], times[1] and times[1][0], grid, laid)


def _read_references(references: Sequence[Path], step: _Step) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values [row, col] of each channel at the time of a step, and at its origin where a reference holds that."""
    truth: dict[str, Floats] = {}
    before: dict[str, Floats] = {}
    for reference in references:
        for path in _files(reference, step):
            new, old = _read_reference(path, step)
            if twice := sorted(truth.keys() & new.keys()):
                raise ReferenceDataError(f"a second reference of {twice[0]}", path=path, fix="give one of each channel")
            truth, before = truth | new, before | old
    if missing := [name for name in step.channels if name not in truth]:
        said = f"{references[0]}: no values of {shortened(missing)}, not assessed"
        warnings.warn(said, SceneWarning, stacklevel=3)
    return truth, before


def _files(path: Path, step: _Step) -> list[Path]:
    """The files of a folder that are called after channels of a step, or the folder or file itself."""
    if not path.is_dir():
        require_regular(path, error=ReferenceDataError)
        return [path]
    named = [path / f"{channel}{ending}" for channel in step.channels for ending in (".tif", ".tiff")]
    return [file for file in named if file.is_file()] or [path]


def _read_reference(path: Path, step: _Step) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values [row, col] of the channels of a file or folder at the time of a step, and at its origin."""
    found: dict[datetime, dict[str, Floats]] = {}
    times: set[datetime] = set()
    for time, channel, values, grid in read_dated(path):
        if not step.grid.same_pixels_as(grid):
            raise ReferenceDataError(
                "reference has another grid than the forecast", path=path, got=shape_text(grid),
                expected=f"{shape_text(step.grid)}, one origin and CRS", fix="warp it with gdalwarp -t_srs -te -ts",
            )  # fmt: skip
        times.add(time)
        for wanted in (step.time, step.origin):
            if wanted is not None and abs(time - wanted) <= _ALIKE:
                found.setdefault(wanted, {})[channel] = values
    if step.time not in found:
        near = min(times, key=lambda time: abs(time - step.time))
        raise ReferenceDataError(
            "reference does not hold the time of the forecast", path=path, expected=time_text(step.time),
            got=f"{time_text(min(times))} to {time_text(max(times))}, {time_text(near)} the nearest",
        )  # fmt: skip
    names, own = list(step.channels), found[step.time]
    truth, before = _called(own, names, path=path), _called(found.get(step.origin or step.time, {}), names, path=path)
    if not set(names) & set(truth):
        raise ReferenceDataError(
            "reference has other channels than the forecast", path=path, got=shortened(own), expected=shortened(names)
        )
    if truth is not own:
        warnings.warn(f"{path}: values of {path.stem} are taken for {names[0]}", SceneWarning, stacklevel=4)
    truth = {name: values for name, values in truth.items() if name in names}
    return truth, before if step.origin else {}


def _called(layers: dict[str, Floats], names: list[str], *, path: Path) -> dict[str, Floats]:
    """Layers by the channels of a step; a single one that is called after its file is the one that is asked for."""
    if len(names) == 1 and set(layers) == {path.stem} != set(names):
        return {names[0]: layers[path.stem]}
    return layers


def _scores(
    made: Floats, truth: Floats, before: Floats | None, *, channel: str, path: Path
) -> tuple[ValueScore, tuple[ValueScore, ValueScore] | None]:
    """Figures of a channel; those of forecast and last value at the cells that both know, None where there are none."""
    known = np.isfinite(made).all(axis=0) & np.isfinite(truth)
    if not known.any():
        raise ReferenceDataError("reference knows no value where the forecast has one", path=path)
    _check_scale(made[:, known], truth[known], channel=channel, path=path)
    both = known & np.isfinite(before) if before is not None else np.zeros_like(known)
    measured = truth.astype(np.float64)
    bounds = made[1:, known].T.astype(np.float64)
    own = score_values(_WHAT, measured[known], made[0, known].astype(np.float64), bounds)
    if before is None or not both.any():
        return own, None
    pair = [
        score_values(name, measured[both], values[both].astype(np.float64))
        for name, values in ((_WHAT, made[0]), (_LAST, before))
    ]
    return own, (pair[0], pair[1])


def _check_scale(made: Floats, truth: Floats, *, channel: str, path: Path) -> None:
    """Refuse values [cell] that are on another scale than the forecast [3, cell], warn where they may be.

    A step without traffic, or under snow, has other values than were forecast, too: what is none is not judged.
    """
    found, expected = (abs(float(np.median(values))) + float(values.std()) for values in (truth, made[0]))
    apart = truth.max() < made[1].min() or truth.min() > made[2].max()
    ratio = found / expected if found and expected else 1.0
    if 1 / _SUSPECT < ratio < _SUSPECT and not (apart and len(truth) >= _ENOUGH):
        return
    what = (
        f"values of {channel} are some {factor_text(ratio)} than the forecast"
        if ratio != 1
        else f"no value of {channel} as forecast"
    )
    figures = [f"median {np.median(values):.4g}" for values in (truth, made[0])]
    if not 1 / _OTHER < ratio < _OTHER:
        fix = "give the reference the scale and unit of the series that was learned (gdal_edit.py -scale)"
        raise ReferenceDataError(what, path=path, got=figures[0], expected=f"{figures[1]} as forecast", fix=fix)
    said = f"{path}: {what}: {figures[0]}, forecast {figures[1]}; check the unit of the reference"
    warnings.warn(said, SceneWarning, stacklevel=4)


def _row(name: str, score: ValueScore) -> tuple[str, ...]:
    inside = "" if score.coverage is None else f"{100 * score.coverage:.0f} %"
    figures = (f"{score.mae:.4g}", f"{score.rmse:.4g}", f"{score.bias:+.3g}", f"{score.r2:.3f}")
    return (name, f"{score.samples:,}", *figures, inside)
