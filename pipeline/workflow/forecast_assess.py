"""``landcover assess`` of a step of a forecast, against the series that has come to hold its time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from pipeline.diagnostics.scoring import ValueScore, score_values
from pipeline.errors import InputError, ReferenceDataError, SceneWarning
from pipeline.files import check_target, write_json
from pipeline.forecast.series import read_dated
from pipeline.forecast.settings import FORECAST_TAG, LOWER, ORIGIN_TAG, TIME_TAG, UPPER
from pipeline.forecast.times import time_in
from pipeline.grid import Grid
from pipeline.raster import require_regular
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    Floats = NDArray[np.float32]

_WHAT, _LAST = "forecast", "last value"


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


def assess_step(path: Path, reference: Path, *, output: Path | None, overwrite: bool) -> Outcome:
    """Errors of a step of a forecast over all cells that the reference knows, beside the last value at its origin.

    Raises:
        ReferenceDataError: a reference without that time, on another grid, of other channels, or without a value.
        InputError: a file cannot be read.
        OutputError: ``output`` exists and is not to be overwritten.
    """
    if output is not None:
        check_target(output, overwrite=overwrite, inputs=(path, reference))
    step = _read_step(path)
    truth, before = _read_reference(reference, step)
    rows, scores = [], {}
    for channel, made in step.channels.items():
        own, last = _scores(made, truth[channel], before.get(channel), path=reference)
        skill = None if last is None or not last[1].mae else 1 - last[0].mae / last[1].mae
        scores[channel] = own.to_json() | {
            "last_value": None if last is None else last[1].to_json(), "skill": skill
        }  # fmt: skip
        rows.append((*_row(channel, own), "-" if skill is None else f"{100 * skill:+.0f} %"))
        if last is not None:
            rows.append((*_row(f"{channel}, {_LAST}", last[1]), ""))
    first = next(iter(scores.values()))
    inside = f"{100 * first['coverage']:.0f} % inside the 90 % interval"
    against = "" if first["skill"] is None else f", {100 * first['skill']:+.0f} % against the last value"
    data = {
        "time": _iso(step.time), "origin": step.origin and _iso(step.origin), "reference": str(reference),
        "channels": scores,
    }  # fmt: skip
    heads = ("", "cells", "MAE", "RMSE", "bias", "R2", "in interval", "skill")
    return Outcome(
        summary=f"{path.name}: mean absolute error {first['mae']:.4g}{against}; {inside}",
        tables=(Table("errors at the cells; skill against the last value at the origin", heads, tuple(rows)),),
        written=(write_json(output, data),) if output else (),
        data=data,
    )


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


def _read_reference(path: Path, step: _Step) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values [row, col] of each channel at the time of a step, and at its origin where the reference holds that."""
    if not path.is_dir():
        require_regular(path, error=ReferenceDataError)
    found: dict[datetime, dict[str, Floats]] = {}
    times: set[datetime] = set()
    for time, channel, values, grid in read_dated(path):
        if not step.grid.same_pixels_as(grid):
            raise ReferenceDataError(
                "reference has another grid than the forecast", path=path, got=f"{grid.height} x {grid.width}",
                expected=f"{step.grid.height} x {step.grid.width}, one origin and CRS",
                fix="warp it with gdalwarp -t_srs -te -ts",
            )  # fmt: skip
        times.add(time)
        if time in {step.time, step.origin}:
            found.setdefault(time, {})[channel] = values
    if step.time not in found:
        near = min(times, key=lambda time: abs(time - step.time))
        raise ReferenceDataError(
            "reference does not hold the time of the forecast", path=path, expected=_iso(step.time),
            got=f"{_iso(min(times))} to {_iso(max(times))}, {_iso(near)} the nearest",
        )  # fmt: skip
    names, own = list(step.channels), found[step.time]
    truth, before = _called(own, names, path=path), _called(found.get(step.origin or step.time, {}), names, path=path)
    if not set(names) <= set(truth):
        raise ReferenceDataError(
            "reference has other channels than the forecast", path=path, got=", ".join(own), expected=", ".join(names)
        )
    if truth is not own:
        warnings.warn(f"{path}: values of {path.stem} are taken for {names[0]}", SceneWarning, stacklevel=3)
    return truth, before if step.origin else {}


def _called(layers: dict[str, Floats], names: list[str], *, path: Path) -> dict[str, Floats]:
    """Layers by the channels of a step; a single one that is called after its file is the one that is asked for."""
    if len(names) == 1 and set(layers) == {path.stem} != set(names):
        return {names[0]: layers[path.stem]}
    return layers


def _scores(
    made: Floats, truth: Floats, before: Floats | None, *, path: Path
) -> tuple[ValueScore, tuple[ValueScore, ValueScore] | None]:
    """Figures of a channel; those of forecast and last value at the cells that both know, None where there are none."""
    known = np.isfinite(made).all(axis=0) & np.isfinite(truth)
    if not known.any():
        raise ReferenceDataError("reference knows no value where the forecast has one", path=path)
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


def _row(name: str, score: ValueScore) -> tuple[str, ...]:
    inside = "" if score.coverage is None else f"{100 * score.coverage:.0f} %"
    figures = (f"{score.mae:.4g}", f"{score.rmse:.4g}", f"{score.bias:+.3g}", f"{score.r2:.3f}")
    return (name, f"{score.samples:,}", *figures, inside)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="minutes").removesuffix("T00:00")
