"""What a forecast is made from: frames of the near past, of the season's past and of the trend, of cell and region.

Everything about an origin is computed from steps up to it, so a forecast of the past sees what it would have seen then.

Source: Zhang, Zheng & Qi (2017), Deep spatio-temporal residual networks for citywide crowd flows prediction, AAAI,
sect. 3 (closeness, period and trend frames, external factors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipeline.forecast.settings import ForecastSettings

    Floats = NDArray[np.float32]

# Cycles after which a season's past counts half: cycles shift, but one alone is noise.
HALF_LIFE = 3.0
# Steps around the same step of the last cycle, of which frames are taken too.
AROUND = (-3, -2, -1, 1, 2, 3)
_EARLIER, _HARMONICS = 3, 2
# A cell's scale is this share of the usual one at least.
_LEAST = 0.02


@dataclass(frozen=True, eq=False)
class Rows:
    """Forecasts asked for, one a row: from which step, how many steps ahead, of which channel and cell, int64 [row]."""

    origin: NDArray[np.int64]
    ahead: NDArray[np.int64]
    channel: NDArray[np.int64]
    cell: NDArray[np.int64]

    def __len__(self) -> int:
        """Rows."""
        return len(self.origin)

    @property
    def target(self) -> NDArray[np.int64]:
        """The step that is forecast, int64 [row]."""
        return self.origin + self.ahead

    def take(self, which: slice | NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(self.origin[which], self.ahead[which], self.channel[which], self.cell[which])


def all_rows(origins: Sequence[int], ahead: int, *, channels: int, cells: int) -> Rows:
    """A row for every origin, channel and cell, in this order."""
    grid = np.meshgrid(np.asarray(origins, dtype=np.int64), np.arange(channels), np.arange(cells), indexing="ij")
    origin, channel, cell = (axis.ravel() for axis in grid)
    return Rows(origin, np.full(len(origin), ahead, dtype=np.int64), channel, cell)


@dataclass(frozen=True, eq=False)
class Scales:
    """What values are measured in; a network that forecasts a longer series keeps those of the steps it learned."""

    scale: Floats  # Mean absolute anomaly of a cell, float32 [channel, cell]
    usual: Floats  # Mean value of a cell over ``unit``, float32 [channel, cell]
    unit: Floats  # Deviation of all values, float32 [channel]


@dataclass(frozen=True, eq=False)
class Past:
    """A series, and what is computed from it once."""

    values: Floats  # float32 [step, channel, cell], NaN where unknown
    seasons: tuple[int, ...]  # Lengths of the cycles in steps, the longest last; at least one
    # For each season, the weighted mean of the same step of all cycles up to a step, [step, channel, cell]
    normal: tuple[Floats, ...]
    mean: Floats  # The same with equal weights, of the longest season
    level: Floats  # Mean of the last cycle up to a step, [step, channel, cell]
    anomaly: Floats  # Values less the normal of one cycle before, over the cell's scale, [step, channel, cell]
    around: Floats  # Mean anomaly of the neighbours of a cell, [step, channel, cell]
    region: Floats  # Mean anomaly of all cells, [step, channel]
    whole: Floats  # Mean value of all cells over their unit, [step, channel]
    scales: Scales  # Of the steps before the first one that is tested
    known: Floats  # Layers known ahead of time, [step, layer], the steps ahead included
    fixed: Floats  # Layers of single cells [layer, cell]

    @property
    def season(self) -> int:
        """Length of the longest cycle in steps."""
        return self.seasons[-1]

    def base(self, rows: Rows) -> Floats:
        """What the longest season says of each row, float32 [row]; 0 where it says nothing."""
        return np.nan_to_num(_at(self.normal[-1], rows, rows.target - cycles(rows, self.season)))

    def spread(self, rows: Rows) -> Floats:
        """Scale of each row's cell, float32 [row]."""
        return self.scales.scale[rows.channel, rows.cell]

    def truth(self, rows: Rows) -> Floats:
        """Values that came, float32 [row]; NaN where unknown."""
        return self.value(rows, rows.target)

    def value(self, rows: Rows, step: NDArray[np.int64]) -> Floats:
        """Values of the rows' channels and cells at a step of each, float32 [row]; NaN where unknown."""
        return _at(self.values, rows, step)


def look_back(
    values: Floats, *, seasons: Sequence[int], neighbours: NDArray[np.int64], until: int,
    known: Floats | None = None, fixed: Floats | None = None, scales: Scales | None = None,
) -> Past:  # fmt: skip
    """Compute what frames are taken from.

    Args:
        values: float32 [step, channel, cell], NaN where unknown.
        seasons: Lengths of cycles in steps; none is one of a single step.
        neighbours: Of each cell, int64 [cell, neighbour], -1 where there is none.
        until: Steps before this one give the scale of each cell.
        known: Layers of whole steps known ahead, float32 [step, layer].
        fixed: Layers of cells, float32 [layer, cell].
        scales: Those that a network was trained with; None for those of the steps before ``until``.
    """
    steps, _, cells = values.shape
    lengths = tuple(sorted(seasons)) or (1,)
    normal = tuple(cycle_mean(values, length, half_life=HALF_LIFE) for length in lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        away = values - _lag(normal[-1], lengths[-1])
    own = scales or _scales(values[:until], away[:until])
    anomaly = (away / own.scale).astype(np.float32)
    return Past(
        values=values, seasons=lengths, normal=normal,
        mean=cycle_mean(values, lengths[-1], half_life=np.inf), level=running_mean(values, lengths[-1]),
        anomaly=anomaly, around=_around(anomaly, neighbours), region=_mean(anomaly, axis=2),
        whole=_mean(values, axis=2) / own.unit, scales=own,
        known=np.zeros((steps, 0), dtype=np.float32) if known is None else known,
        fixed=np.zeros((0, cells), dtype=np.float32) if fixed is None else fixed,
    )  # fmt: skip


def _scales(values: Floats, away: Floats) -> Scales:
    """Scales of steps, of their values and how far these are from the cycle before, both [step, channel, cell]."""
    scale = _mean(np.abs(away), axis=0)
    usual = float(np.nanmean(scale)) if np.isfinite(scale).any() else 1.0
    scale = np.maximum(np.nan_to_num(scale, nan=usual), _LEAST * usual or 1.0).astype(np.float32)
    seen = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    away_from_mean = _mean((seen - _mean(seen, axis=0)) ** 2, axis=0)
    unit = np.sqrt(np.maximum(np.nan_to_num(away_from_mean), np.finfo(np.float32).tiny)).astype(np.float32)
    return Scales(scale, np.nan_to_num(_mean(values, axis=0)) / unit[:, None], unit)


def _around(values: Floats, neighbours: NDArray[np.int64]) -> Floats:
    """Mean of the known values of the neighbours of each cell, [step, channel, cell]."""
    total, count = np.zeros_like(values), np.zeros_like(values)
    for column in neighbours.T:
        near = np.where(column >= 0, values[:, :, column], np.float32(np.nan))
        known = np.isfinite(near)
        total += np.where(known, near, 0)
        count += known
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def cycle_mean(values: Floats, length: int, *, half_life: float) -> Floats:
    """Weighted mean of a step and the same steps of all cycles before it, of known values, [step, ...].

    >>> cycle_mean(np.array([[1.0], [5.0], [3.0], [5.0]], dtype=np.float32), 2, half_life=np.inf).ravel().tolist()
    [1.0, 5.0, 2.0, 5.0]
    """
    kept = 0.5 ** (1 / half_life)
    weight = np.isfinite(values).astype(np.float32)
    total = np.nan_to_num(values).astype(np.float32)
    for start in range(length, len(values), length):
        now, before = slice(start, start + length), slice(start - length, start)
        size = len(total[now])
        total[now] += kept * total[before][:size]
        weight[now] += kept * weight[before][:size]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)


def running_mean(values: Floats, length: int) -> Floats:
    """Mean of the known values of the last ``length`` steps up to each, NaN where there is none, [step, ...]."""
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0), axis=0, dtype=np.float64)
    count = np.cumsum(known, axis=0, dtype=np.int64)
    total[length:], count[length:] = total[length:] - total[:-length], count[length:] - count[:-length]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, dtype=np.float32)


def cycles(rows: Rows, length: int) -> NDArray[np.int64]:
    """Steps from the target back to the last same step of a cycle that is no later than the origin, int64 [row]."""
    return -(-rows.ahead // length) * length


def frames(past: Past, rows: Rows, settings: ForecastSettings) -> Floats:
    """Features float32 [row, feature] in units of the cell's scale, less what its season says; 0 where unknown."""
    columns = [*_closeness(past, rows, settings), *_seasons(past, rows), *_calendar(past, rows),
               *_external(past, rows, settings)]  # fmt: skip
    table = np.stack(np.broadcast_arrays(*columns), axis=1).astype(np.float32)
    return np.clip(np.nan_to_num(table), -50.0, 50.0)


def _closeness(past: Past, rows: Rows, settings: ForecastSettings) -> Iterator[Floats]:
    """The near past: values and anomalies of the cell, its neighbours, the region and the other channels."""
    base, scale = past.base(rows), past.spread(rows)
    channels = past.values.shape[1]
    for back in range(settings.closeness):
        at = rows.origin - back
        yield _at(past.anomaly, rows, at)
        yield (_at(past.values, rows, at) - base) / scale
        if back < _EARLIER:
            yield _at(past.values, rows, at) / past.scales.unit[rows.channel]
            yield past.whole[np.maximum(at, 0), rows.channel]
            yield _at(past.around, rows, at)
            yield past.region[np.maximum(at, 0), rows.channel]
            for other in range(1, min(channels, _EARLIER)):
                moved = Rows(rows.origin, rows.ahead, (rows.channel + other) % channels, rows.cell)
                yield _at(past.anomaly, moved, at)


def _seasons(past: Past, rows: Rows) -> Iterator[Floats]:
    """Period and trend: the same step of earlier cycles, the steps around it, and what the season says around it."""
    base, scale = past.base(rows), past.spread(rows)
    for length, normal in zip(past.seasons, past.normal, strict=True):
        back = cycles(rows, length)
        for earlier in range(_EARLIER):
            yield (_at(past.values, rows, rows.target - back - earlier * length) - base) / scale
        yield _at(past.anomaly, rows, rows.target - back)
        yield _at(past.around, rows, rows.target - back)
        yield past.region[np.maximum(rows.target - back, 0), rows.channel]
        yield (_at(normal, rows, rows.target - back) - base) / scale
        for step in AROUND:
            # A step that is later than the origin is taken from the cycle before.
            at = rows.target - back + step
            at = at - np.where(at > rows.origin, -(-(at - rows.origin) // length) * length, 0)
            yield (_at(past.values, rows, at) - base) / scale
            yield (_at(normal, rows, at) - base) / scale
    yield (_at(past.mean, rows, rows.target - cycles(rows, past.season)) - base) / scale
    yield (_at(past.level, rows, rows.origin) - base) / scale
    yield base / scale
    yield base / past.scales.unit[rows.channel]
    yield past.scales.usual[rows.channel, rows.cell]
    yield _at(past.values, rows, rows.target - cycles(rows, past.season)) / past.scales.unit[rows.channel]
    yield np.log(scale)
    yield (_at(past.normal[-1], rows, rows.origin) - base) / scale


def _calendar(past: Past, rows: Rows) -> Iterator[Floats]:
    """Where in its cycles the target lies, and how far ahead it is."""
    yield (rows.ahead - 1).astype(np.float32)
    yield (1 / rows.ahead).astype(np.float32)
    for length in past.seasons:
        for harmonic in range(1, _HARMONICS + 1):
            turn = 2 * np.pi * harmonic * (rows.target % length) / length
            yield np.sin(turn).astype(np.float32)
            yield np.cos(turn).astype(np.float32)


def _external(past: Past, rows: Rows, settings: ForecastSettings) -> Iterator[Floats]:
    """Layers known ahead, at the target, one short cycle before and after it and at the origin; layers of cells.

    They are known no further than forecasts reach, also where those of the past are tested.
    """
    short, last = past.seasons[0], rows.origin + settings.ahead
    for column in past.known.T:
        for at in (rows.target, rows.target - short, rows.target + short, rows.origin):
            yield column[np.clip(np.minimum(at, last), 0, len(column) - 1)]
    for layer in past.fixed:
        yield layer[rows.cell]


def _at(values: Floats, rows: Rows, step: NDArray[np.int64]) -> Floats:
    """Values of the rows' channels and cells at a step of each, NaN outside the series, float32 [row]."""
    inside = (step >= 0) & (step < len(values))
    return np.where(inside, values[np.clip(step, 0, len(values) - 1), rows.channel, rows.cell], np.float32(np.nan))


def _lag(values: Floats, by: int) -> Floats:
    """Values of ``by`` steps before; NaN at the beginning."""
    empty = np.full_like(values[:by], np.nan)
    return np.concatenate([empty, values[:-by]])[: len(values)]


def _mean(values: Floats, *, axis: int) -> Floats:
    """Mean of known values, NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = np.where(known, values, 0).sum(axis=axis, dtype=np.float32) / known.sum(axis=axis)
    return mean.astype(np.float32)
