"""The trained network of a forecast, and all that must travel with it, in one safetensors file; never pickle.

A network reads frames in units of the cells that it has learned, so the file holds these cells, their scales, and how
layers beside the series were standardised: the same series gives the same forecasts. Like other model files it carries
a SHA-256 of its header and tensors.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pipeline.errors import ConfigError, ModelError, SceneError, SceneWarning, shortened
from pipeline.files import write_bytes
from pipeline.forecast.frames import Past, Scales, all_rows, frames
from pipeline.forecast.layers import Scaling
from pipeline.forecast.learned import Sample
from pipeline.forecast.network import ForecastNetwork, Trained
from pipeline.forecast.rolling import Horizon
from pipeline.forecast.series import Cells, Series
from pipeline.forecast.settings import ForecastSettings
from pipeline.forecast.times import DAY_S, time_text
from pipeline.grid import Grid
from pipeline.model.bundle import digest_of, refuse_changed, refuse_not_finite
from pipeline.model.describe import FORECAST_FORMAT, FORECAST_KEY, read_forecast_header

MODEL = "model.safetensors"
_KNOWN, _LAYERS, _NETWORK, _SAMPLE = "known", "layers", "network.", "sample."
# Of a step: how far dates may lie from those learned. Of the length of a step: how far it may differ.
_NEAR, _ALIKE = 0.25, 0.02


@dataclass(frozen=True, eq=False)
class ForecastModel:
    """What the next steps of a series that has grown are forecast with."""

    trained: Trained  # The network and its settings
    name: str  # Of the series
    channels: tuple[str, ...]  # Names, in the order of the network
    seasons: tuple[int, ...]  # Lengths of the cycles in steps; may be empty
    cells: Cells  # That it has learned
    first: np.datetime64  # Time of the first step, by which phases of the cycles are counted
    last: np.datetime64  # Time of the last step that it has learned
    steps: int  # From the first to the last
    scales: Scales  # Of the cells
    sample: Sample  # Of the values that it has learned
    beside: dict[str, Scaling]  # Layers by what they are: ``known`` of steps, ``layers`` of cells
    tested: tuple[str, str]  # Times of the first and last step of the test before it
    horizons: tuple[Horizon, ...]  # Its errors in that test

    @property
    def step_s(self) -> float:
        """Mean length of a step in seconds."""
        return float((self.last - self.first) / np.timedelta64(1, "s")) / (self.steps - 1)

    def header(self) -> dict[str, Any]:
        """What the file says about itself, JSON-ready."""
        grid = self.cells.grid
        return {
            "format": FORECAST_FORMAT, "settings": self.trained.settings.model_dump(mode="json"), "name": self.name,
            "channels": list(self.channels), "seasons": list(self.seasons), "cells": len(self.cells.row),
            "grid": {"crs": grid.crs.to_wkt(), "transform": list(grid.transform)[:6], "shape": list(grid.shape)},
            "steps": {"count": self.steps, "first": time_text(self.first), "last": time_text(self.last)},
            "beside": {name: list(item.names) for name, item in self.beside.items()},
            "tested": {"first": self.tested[0], "last": self.tested[1], "horizons": list(map(asdict, self.horizons))},
        }  # fmt: skip

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights, cells, scales and the sample of values by name."""
        arrays = {"row": self.cells.row, "col": self.cells.col, **vars(self.scales)}
        arrays |= {f"{_SAMPLE}{name}": value for name, value in vars(self.sample).items()}
        for name, item in self.beside.items():
            arrays |= {f"{name}.mean": item.mean, f"{name}.spread": item.spread}
        weights = {f"{_NETWORK}{name}": value for name, value in self.trained.network.state_dict().items()}
        made = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        return {name: value.detach().contiguous() for name, value in (weights | made).items()}


def save_forecast_model(path: Path, model: ForecastModel) -> Path:
    """Write a model file, whole or not at all.

    Raises:
        ModelError: weights that are not finite.
        OutputError: the folder cannot be written.
    """
    about, tensors = model.header(), model.tensors()
    refuse_not_finite(tensors)
    header = json.dumps(about | {"sha256": digest_of(about, tensors)}, allow_nan=False)  # methods keep their order
    return write_bytes(path, bytes(save(tensors, metadata={FORECAST_KEY: header})), what="the model")


def load_forecast_model(path: Path) -> ForecastModel:
    """Read a model file.

    Raises:
        ModelError: not the model of a forecast, cut in half, changed since it was written, or of a newer version.
    """
    about = read_forecast_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        if about.pop("sha256", None) != digest_of(about, tensors):
            refuse_changed()
        return _from_parts(about, tensors)
    except SafetensorError as err:
        raise ModelError("weights of the model cannot be read", path=path, got=err) from err
    except ModelError as err:
        raise ModelError(f"model cannot be used: {err}", path=path) from err
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        raise ModelError("weights or header of the model do not fit together", path=path, got=err) from err


def _from_parts(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> ForecastModel:
    settings, seasons = ForecastSettings.model_validate(about["settings"]), tuple(about["seasons"])
    arrays = {name: value.numpy() for name, value in tensors.items() if not name.startswith(_NETWORK)}
    weights = {name.removeprefix(_NETWORK): value for name, value in tensors.items() if name.startswith(_NETWORK)}
    sample = {name.removeprefix(_SAMPLE): value for name, value in arrays.items() if name.startswith(_SAMPLE)}
    if not sample:
        raise ModelError("it is of an earlier version and does not hold what it learned", fix="train it again")
    # Random weights that are replaced at once.
    with torch.random.fork_rng(devices=[]):
        network = ForecastNetwork(
            weights["linear.weight"].shape[1], cells=len(about["channels"]) * len(arrays["row"]),
            seasons=tuple(sorted(seasons)) or (1,), settings=settings,
        )  # fmt: skip
    network.load_state_dict(weights)
    grid, steps, tested = about["grid"], about["steps"], about["tested"]
    return ForecastModel(
        Trained(network.eval(), settings), about["name"], tuple(about["channels"]), seasons,
        Cells(
            Grid(CRS.from_wkt(grid["crs"]), Affine(*grid["transform"]), *grid["shape"]), arrays["row"], arrays["col"]
        ),
        np.datetime64(steps["first"], "s"), np.datetime64(steps["last"], "s"), int(steps["count"]),
        Scales(arrays["scale"], arrays["usual"], arrays["unit"]), Sample(**sample),
        {
            name: Scaling(tuple(names), arrays[f"{name}.mean"], arrays[f"{name}.spread"])
            for name, names in about["beside"].items()
        },
        (tested["first"], tested["last"]), tuple(map(Horizon.from_json, tested["horizons"])),
    )  # fmt: skip


def as_learned(model: ForecastModel, series: Series, *, paths: Sequence[str]) -> Series:
    """A series with the names and the order of the channels that a network has learned.

    Raises:
        SceneError: other channels, time steps or beginning than were learned, or an end before the last step learned.
    """
    series = _with_channels(model, series, paths=paths)
    seconds = series.times.astype("datetime64[s]").astype(np.int64)
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    if abs(step / model.step_s - 1) > _ALIKE:
        raise SceneError(
            "series has other time steps than were learned", path=paths[0], got=f"{step / DAY_S:.4g} days",
            expected=f"{model.step_s / DAY_S:.4g} days",
        )  # fmt: skip
    if abs(float(seconds[0] - model.first.astype(np.int64))) > _NEAR * model.step_s:
        raise SceneError(
            "series begins at another time than the one that was learned", path=paths[0],
            got=time_text(series.times[0]), expected=time_text(model.first),
            fix="give it from its first step on, with its later steps",
        )  # fmt: skip
    if len(seconds) < model.steps:
        raise SceneError(
            "series ends before the last step that was learned", path=paths[0], got=time_text(series.times[-1]),
            expected=f"{time_text(model.last)} or later",
        )  # fmt: skip
    if abs(float(seconds[model.steps - 1] - model.last.astype(np.int64))) > _NEAR * model.step_s:
        raise SceneError(
            "series has other time steps than were learned", path=paths[0],
            got=f"{time_text(series.times[model.steps - 1])} as step {model.steps}", expected=time_text(model.last),
        )  # fmt: skip
    return replace(series, name=model.name)


def _with_channels(model: ForecastModel, series: Series, *, paths: Sequence[str]) -> Series:
    """Channels in the order of the network; those called after their file alone are taken in the order given."""
    own, learned = series.channels, model.channels
    if sorted(own) == sorted(learned):
        order = [own.index(name) for name in learned]
        return replace(series, channels=learned, values=np.ascontiguousarray(series.values[:, order]))
    of_files = {Path(path).stem for path in paths}
    if len(own) != len(learned) or not set(own) <= of_files:
        raise SceneError(
            "series has other channels than were learned", path=paths[0], got=shortened(own),
            expected=shortened(learned),
        )  # fmt: skip
    ordered = ", in this order" if len(own) > 1 else ""
    said = f"{paths[0]}: values of {', '.join(own)} are taken for {', '.join(learned)}{ordered}"
    warnings.warn(said, SceneWarning, stacklevel=4)
    return replace(series, channels=learned)


def check_frames(model: ForecastModel, past: Past) -> None:
    """Refuse a network that was trained on other frames than this version makes.

    Raises:
        ModelError: another number of frames.
    """
    made = frames(past, all_rows([len(past.values) - 1], 1, channels=1, cells=1), model.trained.settings).shape[1]
    if made != (learned := model.trained.network.linear.in_features):
        raise ModelError(
            "model of a forecast by another version", got=f"{learned} frames", expected=made,
            fix="train it again: landcover forecast",
        )  # fmt: skip


def check_beside(model: ForecastModel, settings: ForecastSettings) -> None:
    """Refuse settings with layers that the network has not learned from, or without those that it has.

    Raises:
        ConfigError: one of them.
    """
    for name, given in ((_KNOWN, settings.known), (_LAYERS, settings.layers)):
        if given and name not in model.beside:
            raise ConfigError(f"forecast.{name} for a network that learned without", fix="leave it out")
        if name in model.beside and not given:
            expected = ", ".join(model.beside[name].names)
            raise ConfigError(f"no forecast.{name} for a network that learned with", expected=expected)
