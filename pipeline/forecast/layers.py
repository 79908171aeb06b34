"""Layers beside a series, standardised: columns known ahead of time, and rasters of one date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import ConfigError, InputError, SceneError
from pipeline.raster import on_grid, require_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.forecast.series import Series
    from pipeline.forecast.times import Times

    Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layers:
    """Layers as they were read."""

    names: tuple[str, ...]  # Of the layers
    table: Floats  # float32 [row, layer], NaN where unknown; a row is a step, or a cell

    def scaling(self) -> Scaling:
        """Mean and deviation of each layer over what is known of it."""
        known = np.isfinite(self.table)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, self.table, 0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, self.table - mean, 0) ** 2).sum(axis=0) / count)
        return Scaling(self.names, mean.astype(np.float32), np.where(spread > 0, spread, 1).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Scaling:
    """How layers are standardised, so that a trained network is shown later ones as it was shown the first."""

    names: tuple[str, ...]  # Of the layers
    mean: Floats  # Of what is known of each, float32 [layer]
    spread: Floats  # Its deviation, 1 where there is none, float32 [layer]

    def of(self, layers: Layers, *, path: str) -> Floats:
        """Values of the same layers less the mean, over the spread; unknown is 0, float32 [row, layer].

        Raises:
            ConfigError: other layers.
        """
        if sorted(layers.names) != sorted(self.names):
            got, expected = (", ".join(names) for names in (layers.names, self.names))
            raise ConfigError("layers beside the series are others than were learned", path=path, got=got,
                              expected=expected)  # fmt: skip
        values = layers.table[:, [layers.names.index(name) for name in self.names]]
        return np.asarray(np.nan_to_num((values - self.mean) / self.spread), dtype=np.float32)


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
