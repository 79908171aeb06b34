"""The network of forecasts: value's quantiles from frames, the calendar and the cell, learned by the pinball loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pipeline.errors import SceneError
from pipeline.forecast.frames import Rows, frames
from pipeline.model.quantiles import CHANNELS, pinball, values_and_quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.forecast.frames import Past
    from pipeline.forecast.settings import ForecastSettings

    Floats = NDArray[np.float32]

_BATCH, _POOL = 1024, 100
_EMBEDDED, _LARGEST = 8, 8.0
_RATE, _DECAY, _WARM_UP = 3e-3, 0.1, 0.1
# Rows whose features are computed at once.
_AT_ONCE = 100_000


class ForecastNetwork(nn.Module):
    """A linear part and two layers beside it, on standardised frames and embeddings of cell and place in each cycle.

    Args:
        features: Columns of :func:`pipeline.forecast.frames.frames`.
        cells: Channels x cells.
        seasons: Lengths of the cycles.
        settings: Width and dropout.
    """

    def __init__(self, features: int, *, cells: int, seasons: tuple[int, ...], settings: ForecastSettings) -> None:
        super().__init__()
        self.scaled = nn.BatchNorm1d(features, affine=False)
        self.embedded = nn.ModuleList(nn.Embedding(size, _EMBEDDED) for size in (cells, *seasons))
        for table in self.embedded:
            nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]
        self.linear = nn.Linear(features, 1)
        width, drop = settings.width, settings.dropout
        self.body = nn.Sequential(
            nn.Linear(features + _EMBEDDED * len(self.embedded), width), nn.SiLU(), nn.Dropout(drop),
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(drop), nn.Linear(width, CHANNELS),
        )  # fmt: skip

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Quantiles float [row, 3] of frames float [row, feature] and ``places`` int64 [row, 1 + season]."""
        x = self.scaled(x).clamp(-_LARGEST, _LARGEST)
        known = [table(places[:, column]) for column, table in enumerate(self.embedded)]
        raw = self.body(torch.cat([x, *known], dim=1))
        quantiles: torch.Tensor = values_and_quantiles(raw)[:, 0, 1:] + self.linear(x)
        return quantiles


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network."""

    network: ForecastNetwork  # In evaluation mode
    settings: ForecastSettings  # It was trained with

    def predict(self, past: Past, rows: Rows) -> Floats:
        """Quantiles 0.05, 0.5 and 0.95 in the units of the series, float32 [row, quantile]."""
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            part = rows.take(slice(start, start + _AT_ONCE))
            with torch.inference_mode():
                quantiles = self.network(torch.from_numpy(frames(past, part, self.settings)), _places(past, part))
            found.append(past.base(part)[:, None] + past.spread(part)[:, None] * quantiles.numpy())
        return np.concatenate(found)


def train_forecast(
    past: Past, *, until: int, settings: ForecastSettings, progress: Callable[[str, int, int], None]
) -> Trained:
    """Train a network on the steps before ``until``.

    The loss is in the units of the series: an error of a cell that changes much counts for more.

    Raises:
        SceneError: no step is known whose past is known.
    """
    rng = np.random.default_rng(settings.seed)
    _, channels, cells = past.values.shape
    pool = _pool(past, rng, until=until, settings=settings)
    width = frames(past, pool.take(slice(0, 1)), settings).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = ForecastNetwork(width, cells=channels * cells, seasons=past.seasons, settings=settings).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=settings.steps, pct_start=_WARM_UP)
        for start in range(0, settings.steps, _POOL):
            progress("train", start, settings.steps)
            pool = _pool(past, rng, until=until, settings=settings)
            steps = min(_POOL, settings.steps - start)
            for batch in _batches(past, pool, steps=steps, settings=settings):
                loss = _loss(network, *batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    progress("train", settings.steps, settings.steps)
    return Trained(network.eval(), settings)


def draw_rows(past: Past, rng: np.random.Generator, *, until: int, ahead: tuple[int, int], count: int) -> Rows:
    """Rows drawn at random whose targets are known and lie before ``until``.

    Raises:
        SceneError: there is none.
    """
    _, channels, cells = past.values.shape
    first = first_target(past, until=until)
    steps = rng.integers(ahead[0], ahead[1] + 1, count)
    origin = rng.integers(first, until, count) - steps
    rows = Rows(origin, steps, rng.integers(0, channels, count), rng.integers(0, cells, count))
    rows = rows.take(np.isfinite(past.truth(rows)) & (origin >= 0))
    if len(rows) < 2:  # noqa: PLR2004 - a batch is standardised by its own deviation
        raise SceneError("series has no steps to learn from before those of the test", fix="set test_steps lower")
    return rows


def first_target(past: Past, *, until: int) -> int:
    """The first step that is learned: three cycles of past before it, or half of the steps."""
    return first_learned(past.season, until=until)


def first_learned(season: int, *, until: int) -> int:
    """The first step that is learned of those before ``until``, by the length of the longest cycle."""
    return min(3 * season, until // 2)


def _pool(past: Past, rng: np.random.Generator, *, until: int, settings: ForecastSettings) -> Rows:
    return draw_rows(past, rng, until=until, ahead=(1, settings.ahead), count=_BATCH * _POOL)


def _batches(
    past: Past, pool: Rows, *, steps: int, settings: ForecastSettings
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Frames, places, truth and weight of batches of the pool."""
    scale = past.spread(pool)
    truth = (past.truth(pool) - past.base(pool)) / scale
    table = (
        torch.from_numpy(frames(past, pool, settings)), _places(past, pool),
        torch.from_numpy(truth), torch.from_numpy(scale / scale.mean()),
    )  # fmt: skip
    size = min(_BATCH, len(pool))
    starts = [step * size % (len(pool) - size + 1) for step in range(steps)]
    return [(table[0][s : s + size], table[1][s : s + size], table[2][s : s + size], table[3][s : s + size])
            for s in starts]  # fmt: skip


def _loss(
    network: ForecastNetwork, x: torch.Tensor, places: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    return (weight * pinball(network(x, places), truth)).mean()


def _places(past: Past, rows: Rows) -> torch.Tensor:
    """Number of channel and cell, and where in each cycle the target lies, int64 [row, 1 + season]."""
    cells = past.values.shape[2]
    columns = [rows.channel * cells + rows.cell, *(rows.target % length for length in past.seasons)]
    return torch.from_numpy(np.stack(columns, axis=1))
