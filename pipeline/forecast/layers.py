"""Layers beside a series, standardised: columns known ahead of time, and rasters of one date."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import ConfigError, InputError, SceneError, SceneWarning
from pipeline.raster import on_grid, require_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.forecast.series import Series
    from pipeline.forecast.times import Times

    Floats = NDArray[np.float32]

# Layers known of steps, by which those of cells are told apart.
KNOWN = "known"
# Of the largest value of a layer: less spread is none.
_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Layers:
    """Layers as they were read."""

    names: tuple[str, ...]  # Of the layers
    table: Floats  # float32 [row, layer], NaN where unknown; a row is a step, or a cell

    def constant(self, learned: slice = slice(None)) -> NDArray[np.bool_]:
        """Layers of next to one value in the rows that are learned, bool [layer]."""
        rows = self.table[learned]
        known = np.isfinite(rows)
        low = np.where(known, rows, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, rows, -np.inf).max(axis=0, initial=-np.inf)
        largest = np.where(known, np.abs(rows), 0).max(axis=0, initial=0)
        return np.asarray(~(low < high) | ~(np.abs(high - low) > _SPREAD * largest))

    def scaling(self, learned: slice = slice(None)) -> Scaling:
        """Mean and deviation of each layer over what is known of it, 0 where it is constant in the rows learned.

        A network that has seen one value of a layer knows nothing of another.
        """
        known = np.isfinite(self.table)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, self.table, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, self.table - mean, 0) ** 2).sum(axis=0) / count)
        spread = np.where(self.constant(learned), 0, spread)
        return Scaling(self.names, mean.astype(np.float32), spread.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Scaling:
    """How layers are standardised, so that a trained network is shown later ones as it was shown the first."""

    names: tuple[str, ...]  # Of the layers
    mean: Floats  # Of what is known of each, float32 [layer]
    spread: Floats  # Its deviation, 0 where it was constant over what was learned, float32 [layer]

    def of(self, layers: Layers, *, path: str) -> Floats:
        """Values of the same layers less the mean, over the spread; 0 where unknown or constant, float32 [row, layer].

        Raises:
            ConfigError: other layers.
        """
        if sorted(layers.names) != sorted(self.names):
            got, expected = (", ".join(names) for names in (layers.names, self.names))
            raise ConfigError("layers beside the series are others than were learned", path=path, got=got,
                              expected=expected)  # fmt: skip
        values = layers.table[:, [layers.names.index(name) for name in self.names]]
        scaled = np.nan_to_num((values - self.mean) / np.where(self.spread > 0, self.spread, 1))
        return np.where(self.spread > 0, scaled, 0).astype(np.float32)


def standardised(
    layers: Mapping[str, tuple[Layers, str]], *, learned: slice, tested: slice
) -> tuple[dict[str, Scaling], dict[str, Scaling]]:
    """Scalings of layers beside a series with their files, for the network that is tested and for the one that is kept.

    ``learned`` are the steps of the series that the network learns from that is kept, ``tested`` those of the one that
    is tested; a SceneWarning on layers that are constant there, and so have no influence. Layers of cells are of all.
    """
    before, whole = {}, {}
    for name, (found, path) in layers.items():
        of_steps = name == KNOWN
        early, late = (tested, learned) if of_steps else (slice(None), slice(None))
        before[name], whole[name] = found.scaling(early), found.scaling(late)
        never = found.constant(late)
        over = "steps learned" if of_steps else "cells"
        _say(found.names, never, f"constant over the {over} and without influence on the forecasts", path=path)
        only = found.constant(early) & ~never
        _say(found.names, only, "constant over the steps learned before the test, which is without it", path=path)
    return before, whole


def _say(names: Sequence[str], which: NDArray[np.bool_], what: str, *, path: str) -> None:
    """SceneWarning on some of the layers, bool [layer]."""
    if which.any():
        own = ", ".join(repr(name) for name, odd in zip(names, which, strict=True) if odd)
        warnings.warn(f"{path}: {own} {'is' if which.sum() == 1 else 'are'} {what}", SceneWarning, stacklevel=4)


def read_known(path: str, times: Times) -> Layers:
    """Columns of a CSV at the times of all steps, those to come included, [step, column].

    A row holds until the next one.

    Raises:
        InputError: it cannot be read.
        ConfigError: no column ``time``, text among the numbers, or times that do not reach over all steps.
    """
    require_regular(path, error=InputError)
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as err:
        raise InputError("cannot be read as CSV", path=path, got=str(err).split("\n")[0]) from err
    if not isinstance(table.index, pd.RangeIndex):
        raise ConfigError("lines have more columns than the first", path=path, fix="write decimals with a point")
    if "time" not in table or len(table.columns) < 2 or len(table) < 2:  # noqa: PLR2004 - time and a number
        got = ", ".join(map(str, table.columns))
        raise ConfigError("layers known ahead", path=path, got=got, expected="columns time and a number, two rows")
    # Those with a zone are taken as UTC; series have their own clock and no zone.
    stamp = pd.to_datetime(table.pop("time"), errors="coerce", utc=True).dt.tz_localize(None)
    numbers = table.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)
    bad = [*(["time"] if stamp.isna().any() else []), *numbers.columns[numbers.isna().any()]]
    if bad:
        raise ConfigError(f"column {bad[0]!r} has what is no number or time", path=path, fix="mend or fill it")
    order = np.argsort(stamp.to_numpy(), kind="stable")
    stamps = stamp.to_numpy()[order]
    if times[0] < stamps[0] or times[-1] > stamps[-1] + np.max(np.diff(stamps)):
        raise ConfigError(
            "layers known ahead do not reach over the series and its forecast", path=path,
            got=f"{stamps[0]} to {stamps[-1]}", expected=f"{times[0]} to {times[-1]}",
        )  # fmt: skip
    values = numbers.to_numpy(np.float32)[order][np.searchsorted(stamps, times, side="right") - 1]
    return Layers(tuple(map(str, numbers.columns)), values)


def read_layers(paths: Sequence[str], series: Series) -> Layers:
    """Rasters of one date at the cells of a series, [cell, layer]; a raster of several bands is several layers.

    Raises:
        InputError: a file cannot be read, or does not meet the series.
    """
    rows: list[Floats] = []
    names: list[str] = []
    for path in paths:
        require_regular(path, error=InputError)
        try:
            with rasterio.open(path) as dataset:
                if dataset.crs is None:
                    raise SceneError("layer has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
                bare = dataset.nodata is None  # then what lies beyond its edges is told by a mask alone
                with on_grid(dataset, series.grid, resampling="average", add_alpha=bare) as warped:
                    values = warped.read(masked=True).astype(np.float32).filled(np.nan)
                if bare:
                    values = np.where(values[-1] > 0, values[:-1], np.nan)
        except RasterioError as err:
            raise InputError("cannot be read as a raster", path=path, got=str(err).split("\n")[0]) from err
        rows.append(values[:, series.row, series.col])
        names += [f"{Path(path).stem} {band}" for band in range(1, len(values) + 1)]
        if not np.isfinite(rows[-1]).any():
            raise SceneError("layer has no data where the series lies", path=path, fix="check its CRS and extent")
    return Layers(tuple(names), np.concatenate(rows).T)
