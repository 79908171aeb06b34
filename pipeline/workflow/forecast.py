"""``landcover forecast``, ``init --kind forecast``, ``predict`` with its model: the next steps of a raster series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.documents import read_yaml
from pipeline.errors import ConfigError, InputError, SceneError, counted
from pipeline.files import check_target, write_text
from pipeline.forecast.frames import Past, all_rows, look_back
from pipeline.forecast.layers import Layers, Scaling, read_known, read_layers, standardised
from pipeline.forecast.learned import check_values, draw_sample
from pipeline.forecast.model_file import (
    ForecastModel,
    as_learned,
    check_beside,
    check_frames,
    load_forecast_model,
    save_forecast_model,
)  # fmt: skip
from pipeline.forecast.network import Trained, first_learned, train_forecast
from pipeline.forecast.rolling import evaluate
from pipeline.forecast.series import Cells, Series, read_series
from pipeline.forecast.settings import ForecastSettings
from pipeline.forecast.times import find_seasons, time_text, times_after
from pipeline.settings import INSIDE_FILE, Off, checked, commented_yaml, section_of
from pipeline.workflow.forecast_files import (
    STAMP,
    Forecast,
    finished,
    horizon_facts,
    inputs_of,
    plan_files,
    stamp_of,
    write_forecast,
)  # fmt: skip
from pipeline.workflow.init import seen_from
from pipeline.workflow.outcome import Outcome, Progress, Table

if TYPE_CHECKING:
    from pipeline.forecast.times import Times

_QUANTILES, _TEST_FRAC, _FEWEST_LEARNED = 3, 0.1, 16
# Of the settings, what belongs to a series and not to the network.
_OF_SERIES = frozenset({"series", "known", "layers"})
# Shown as comments: layers beside the series, and cycles where none is seen.
_EXAMPLES = {"known": Off("known.csv"), "layers": Off(["elevation.tif"])}


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


def write_forecast_config(series: Sequence[str], *, output: Path, overwrite: bool) -> Outcome:
    """Write a configuration that runs as it is, and say what the series holds.

    Raises:
        OutputError: ``output`` exists and is not to be overwritten.
        SceneError: a series that cannot be forecast.
    """
    check_target(output, overwrite=overwrite, inputs=series)
    settings = checked(ForecastSettings, {"series": tuple(series)})
    found = check_series(settings)
    held = [f"{name}: {value}" for name, value in found.tables[0].rows]
    head = ["Configuration of a forecast, written by landcover init --kind forecast. It runs as it is:",
            f"  landcover check {output.name}", f"  landcover run {output.name}", "",
            "What the series holds:", *(f"  {line}" for line in held)]  # fmt: skip
    plain = settings.model_dump(mode="json") | {
        "series": [seen_from(path, output.parent) for path in settings.series],
        "seasons": found.data["seasons"] or Off([12]),
        "test_steps": found.data["tested"],
        **_EXAMPLES,
    }
    checked(ForecastSettings, {key: value for key, value in plain.items() if not isinstance(value, Off)}, path=output)
    write_text(output, commented_yaml(plain, head=head, model=ForecastSettings), what="the configuration")
    summary = found.summary.replace("no error found; ", "")
    return replace(found, summary=f"{output}: {summary}", written=(output,), hint=f"next: landcover run {output}")


def check_series(settings: ForecastSettings) -> Outcome:
    """What a series holds and how it would be tested, before anything is learned.

    Raises:
        SceneError: a series that cannot be forecast.
    """
    series = read_series(settings.series)
    start, seasons = _tested(series, settings)
    rows = (
        ("steps", f"{len(series.times)}, {time_text(series.times[0])} to {time_text(series.times[-1])}"),
        ("cells", f"{len(series.row)} of {series.grid.height} x {series.grid.width}"),
        ("channels", ", ".join(series.channels)),
        ("known", f"{np.isfinite(series.values).mean():.1%} of the values"),
        ("cycles in steps", ", ".join(map(str, seasons)) or "none seen: name them in seasons"),
        ("tested on", f"the last {len(series.times) - start} steps, from {time_text(series.times[start])}"),
    )
    return Outcome(
        summary=f"{series.name}: no error found; {settings.ahead} steps ahead of {len(series.times)}",
        tables=(Table("series", ("", ""), rows),),
        data={"steps": len(series.times), "seasons": list(seasons), "tested": len(series.times) - start},
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
    _beside(series, settings, times_after(series.times, settings.ahead, seasons=seasons))
    return start, tuple(seasons)


def _beside(series: Series, settings: ForecastSettings, times: Times) -> dict[str, tuple[Layers, str]]:
    """Layers beside a series and the steps to come at ``times``, with their files: known of steps, layers of cells."""
    found = {}
    if settings.known:
        found["known"] = read_known(settings.known, np.concatenate([series.times, times])), settings.known
    if settings.layers:
        found["layers"] = read_layers(settings.layers, series), ", ".join(settings.layers)
    return found


def run_forecast(settings: ForecastSettings, *, output: Path, overwrite: bool, progress: Progress) -> Outcome:
    """:func:`forecast_series`, unless the forecast of these settings and inputs is there and not to be replaced."""
    there = None if overwrite else finished(settings, folder=output)
    return there or forecast_series(settings, output=output, overwrite=overwrite, progress=progress)


def forecast_series(settings: ForecastSettings, *, output: Path, overwrite: bool, progress: Progress) -> Outcome:
    """Test forecasts on the last steps of a series, then learn from all of it and write those of the next steps.

    Raises:
        SceneError: a series that cannot be forecast.
        OutputError: a file exists, or cannot be written.
    """
    inputs = inputs_of(settings)
    series = read_series(settings.series)
    start, seasons = _tested(series, settings)
    steps = len(series.times)
    times = times_after(series.times, settings.ahead, seasons=seasons)
    targets = plan_files(series, times, output=output, sources=settings.series, trained=True, overwrite=overwrite)
    layers = _beside(series, settings, times)
    tested, beside = standardised(layers, tested=_learned(seasons, start), learned=_learned(seasons, steps))
    past = _look(series, seasons, layers=layers, beside=tested, until=start)
    judged = train_forecast(past, until=start, settings=settings, progress=progress)
    horizons = evaluate(past, judged, start=start, channels=series.channels, progress=progress)
    past = _look(series, seasons, layers=layers, beside=beside, until=steps)
    trained = train_forecast(past, until=steps, settings=settings, progress=progress)
    facts = _facts(series, settings, seasons) | {
        "made": f"landcover {__version__}, from {steps} steps up to {time_text(series.times[-1])}",
        "tested": {"first": time_text(series.times[start]), "last": time_text(series.times[-1])},
        "horizons": horizon_facts(horizons),
        STAMP: stamp_of(settings, inputs=inputs, files=[*targets.made, targets.model]),
    }
    model = ForecastModel(
        trained, series.name, series.channels, seasons, Cells(series.grid, series.row, series.col), series.times[0],
        series.times[-1], steps, past.scales, draw_sample(series.values), beside,
        (facts["tested"]["first"], facts["tested"]["last"]), horizons,
    )  # fmt: skip
    made = Forecast(series, times, _ahead(past, trained), horizons, f"the last {counted(steps - start, 'step')}", facts)
    outcome = write_forecast(made, targets, overwrite=overwrite)
    saved = save_forecast_model(targets.model, model)
    later = f"once there are newer steps: landcover predict --model {saved} --scene SERIES -o next"
    return replace(outcome, written=(*outcome.written, saved), hint=f"{outcome.hint}\n{later}")


def predict_series(
    path: Path, series: Sequence[str], *, output: Path | None, changes: Sequence[str], overwrite: bool,
    progress: Progress,
) -> Outcome:  # fmt: skip
    """Forecast the next steps of a series that has grown, with the network of an earlier forecast.

    Where the series has steps that the network has not learned, it is tested on these, which it never saw. ``changes``
    name layers beside the series that lie elsewhere now: ``forecast.known=later.csv``.

    Raises:
        ConfigError: no series, no folder, or settings that a trained network has no choice of.
        ModelError: not the model of a forecast.
        SceneError: a series that is not the one that was learned.
        OutputError: a file exists, or cannot be written.
    """
    if not series or output is None:
        raise ConfigError("what to forecast", path=path, expected="--scene with the series that has grown, and -o")
    model = load_forecast_model(path)
    settings = _with_series(model, series, changes)
    grown = as_learned(model, read_series(settings.series, cells=model.cells), paths=settings.series)
    steps, start = len(grown.times), model.steps
    check_values(model.sample, grown.values, scale=model.scales.scale, path=settings.series[0])
    times = times_after(grown.times, settings.ahead, seasons=model.seasons)
    targets = plan_files(
        grown, times, output=output, sources=(*settings.series, str(path)), trained=False, overwrite=overwrite
    )
    layers = _beside(grown, settings, times)
    past = _look(grown, model.seasons, layers=layers, beside=model.beside, until=start, like=model)
    check_frames(model, past)
    horizons, whose, tested = (
        model.horizons,
        "the series that was learned",
        {"first": model.tested[0], "last": model.tested[1]},
    )
    over = f"{tested['first']} to {tested['last']}, before it learned these steps too, "
    over += "in the series that was learned (this one has no newer steps),"
    if np.isfinite(grown.values[start:]).any():
        horizons = evaluate(past, model.trained, start=start, channels=model.channels, progress=progress)
        whose = "steps that were not learned"
        tested = {"first": time_text(grown.times[start]), "last": time_text(grown.times[-1])}
        over = f"{counted(steps - start, 'step')} that it has not seen,"
    last = time_text(model.last)
    facts = _facts(grown, settings, model.seasons) | {
        "made": f"landcover {__version__}, from {steps} steps up to {time_text(grown.times[-1])} by a network of those "
        f"up to {last}",
        "model": str(path), "learned": {"first": time_text(model.first), "last": last, "steps": start},
        "tested": tested, "tested_on": whose, "horizons": horizon_facts(horizons),
    }  # fmt: skip
    made = Forecast(grown, times, _ahead(past, model.trained), horizons, over, facts)
    return write_forecast(made, targets, overwrite=overwrite)


def _with_series(model: ForecastModel, series: Sequence[str], changes: Sequence[str]) -> ForecastSettings:
    """The settings that a network was trained with, of another series and the layers beside it.

    Raises:
        ConfigError: other keys are set, or layers that the network has not learned from.
        InputError: a layer is not there.
    """
    given = section_of("forecast", ForecastSettings, changes, {"series": tuple(series)})
    if fixed := sorted(given.model_fields_set - _OF_SERIES):
        names = ", ".join(f"forecast.{name}" for name in fixed)
        raise ConfigError(f"{names} of a trained network", fix="leave it out, or train another: landcover forecast")
    settings = model.trained.settings.model_copy(update=given.model_dump(exclude_unset=True))
    check_beside(model, settings)
    beside = [("known", "FILE", settings.known)] if settings.known else []
    for name, value, file in [*beside, *(("layers", "[FILE, ...]", layer) for layer in settings.layers)]:
        elsewhere = file.startswith(("/vsi", "http://", "https://")) or INSIDE_FILE.fullmatch(file)
        if not elsewhere and not Path(file).exists():
            fix = f"say where it is: --set forecast.{name}={value}"
            raise InputError("a layer that the network learned from is missing", path=file, fix=fix)
    return settings


def _learned(seasons: Sequence[int], until: int) -> slice:
    """Steps before ``until`` that are learned."""
    return slice(first_learned(max(seasons, default=1), until=until), until)


def _look(
    series: Series, seasons: Sequence[int], *, layers: dict[str, tuple[Layers, str]], beside: dict[str, Scaling],
    until: int, like: ForecastModel | None = None,
) -> Past:  # fmt: skip
    """What is known of a series and the layers beside it, in the scales of the steps before ``until`` or a model's."""
    given = {name: beside[name].of(found, path=path) for name, (found, path) in layers.items()}
    fixed = given["layers"].T if "layers" in given else None
    return look_back(
        series.values, seasons=seasons, neighbours=series.neighbours(), until=until, known=given.get("known"),
        fixed=fixed, scales=None if like is None else like.scales,
    )  # fmt: skip


def _ahead(past: Past, trained: Trained) -> NDArray[np.float32]:
    """Quantiles of the steps to come, float32 [step, quantile, channel, cell]."""
    steps, channels, cells = past.values.shape
    horizons = range(1, trained.settings.ahead + 1)
    rows = (all_rows([steps - 1], number, channels=channels, cells=cells) for number in horizons)
    return np.stack([trained.predict(past, row).T.reshape(_QUANTILES, channels, cells) for row in rows])


def _facts(series: Series, settings: ForecastSettings, seasons: Sequence[int]) -> dict[str, Any]:
    """What a forecast was made from."""
    return {
        "settings": settings.model_dump(mode="json"), "channels": series.channels, "cells": len(series.row),
        "steps": len(series.times), "seasons": seasons,
    }  # fmt: skip
