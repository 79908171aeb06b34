"""Whether a series holds the values that a network has learned: a sample of them travels with it.

Another series of the same grid, channels and length has other values; one without its scale has the same ones times a
number; products that were processed again have nearly the same ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SceneError, SceneWarning, factor_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

# Values that are kept, and steps that they are of; every step is among them where there are no more.
_KEPT, _MOST_STEPS = 16_384, 4096
# Of the mean absolute anomaly of a cell: what a value may differ by to be the same one, as files are rounded.
_SAME = 1e-3
# Revised are at most this share of the values, or all of them by this share of the usual anomaly on average. Measured:
# NDVI and EVI of the same fields differ by 1.9 of it, taxis that arrive and those that leave by 2.0, weeks by 1.2.
_FEW, _SMALL = 0.1, 0.25
# A factor that tells of another unit, and what may be left when it is taken out, of the usual anomaly.
_FACTOR, _LEFT = 2.0, 0.25


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of the known values that a network has learned from."""

    step: NDArray[np.int64]  # Of each value, int64 [value]
    channel: NDArray[np.int64]  # Likewise
    cell: NDArray[np.int64]  # Likewise
    value: Floats  # float32 [value]


def draw_sample(values: Floats) -> Sample:
    """Some known values of every step and channel, or of 4,096 steps; ``values`` are float32 [step, channel, cell]."""
    steps, channels, cells = values.shape
    chosen = np.unique(np.linspace(0, steps - 1, min(steps, _MOST_STEPS)).round().astype(np.int64))
    each = min(cells, max(1, _KEPT // (len(chosen) * channels)))
    grid = np.meshgrid(chosen, np.arange(channels), np.arange(each), indexing="ij")
    step, channel = grid[0].ravel(), grid[1].ravel()
    cell = np.random.default_rng(0).integers(0, cells, len(step))
    found = values[step, channel, cell]
    known = np.isfinite(found)
    return Sample(step[known], channel[known], cell[known], found[known])


def check_values(sample: Sample, values: Floats, *, scale: Floats, path: str) -> None:
    """Compare a series float32 [step, channel, cell] with what was learned; ``scale`` is [channel, cell].

    Nearly the same values are taken, with a SceneWarning.

    Raises:
        SceneError: another unit, or another series.
    """
    given = values[sample.step, sample.channel, sample.cell]
    known = np.isfinite(given)
    lost = 1 - float(known.mean()) if len(known) else 0.0
    usual = scale[sample.channel, sample.cell][known].astype(np.float64)
    new, old = given[known].astype(np.float64), sample.value[known].astype(np.float64)
    apart = np.abs(new - old)
    # A value of float32 has seven digits.
    changed = apart > np.maximum(_SAME * usual, 1e-6 * np.abs(old))
    share = float(changed.mean()) if len(changed) else 0.0
    by = float(apart[changed].mean()) if share else 0.0
    if lost <= _FEW and (share <= _FEW or apart.sum() <= _SMALL * usual.sum()):
        if share or lost:
            _say(share, lost, by=by, usual=float(usual.mean()), path=path)
        return
    _refuse_factor(new, old, usual, path=path)
    unknown = f", {lost:.0%} are unknown" if lost > 1 / 200 else ""
    raise SceneError(
        "values of the steps learned are not those that were learned", path=path,
        got=f"{share:.0%} of {len(new):,} values compared are others, by {by:.3g} on average (mean "
        f"{_mean(new)}){unknown}",
        expected=f"the series that was learned (mean {_mean(old)}) with its later steps",
        fix="give that one, or train on this series: landcover forecast",
    )  # fmt: skip


def _refuse_factor(new: Doubles, old: Doubles, usual: Doubles, *, path: str) -> None:
    """Refuse values that are those learned times a number."""
    much = np.abs(old) > _SAME * usual
    factor = float(np.median(new[much] / old[much])) if much.any() else 0.0
    if not factor > 0 or 1 / _FACTOR < factor < _FACTOR:
        return
    if np.abs(new / factor - old).sum() > _LEFT * usual.sum():
        return
    raise SceneError(
        f"values are {factor_text(factor)} than those learned", path=path, got=f"mean {_mean(new)}",
        expected=f"mean {_mean(old)} over the same steps",
        fix=f"give it the unit of the series that was learned (its scale times {1 / factor:.6g}: gdal_edit.py -scale), "
        "or train on this series: landcover forecast",
    )  # fmt: skip


def _say(share: float, lost: float, *, by: float, usual: float, path: str) -> None:
    """SceneWarning on values that have been revised."""
    parts = [f"{share:.2%} are others, by {by:.3g} on average (a usual change is {usual:.3g})"] if share else []
    parts += [f"{lost:.2%} are unknown now"] if lost else []
    what = f"{path}: of the values of the steps learned {' and '.join(parts)}; taken for the same series, revised"
    warnings.warn(f"{what}; where the revision goes on, train again: landcover forecast", SceneWarning, stacklevel=4)


def _mean(values: Doubles) -> str:
    return f"{values.mean():.4g}" if len(values) else "of nothing"
