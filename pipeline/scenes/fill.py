"""Fill the missing dates of pixel series from their own valid dates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fill_in_time(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    *,
    times: NDArray[np.float64],
    targets: NDArray[np.float64],
    nearest: bool = False,
) -> NDArray[np.float32]:
    """Values at ``targets`` from each pixel's own valid dates: linear between two, constant beyond the ends.

    Args:
        values: float32 [date, band, row, col].
        valid: bool [date, row, col].
        times: Days, ascending, [date].
        targets: Days, [target].
        nearest: Take the nearer of the two dates (the earlier on a tie) instead of the line between them.

    Returns:
        float32 [target, band, row, col]; 0 where no date is valid. A valid date comes back bit for bit.
    """
    if valid.all() and np.array_equal(times, targets):
        return values
    position = np.arange(len(times)).reshape(-1, 1, 1)
    before = np.maximum.accumulate(np.where(valid, position, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, position, len(times))[::-1], axis=0)[::-1]
    result = np.empty((len(targets), *values.shape[1:]), dtype=np.float32)
    for layer, target in zip(result, targets, strict=True):
        last = int(np.searchsorted(times, target, side="right")) - 1
        low, high = max(last, 0), min(last + 1, len(times) - 1)
        if times[low] >= target:
            high = low
        # Most pixels have both neighbours in time: one weight for all of them. The others are looked up one by one.
        layer[:] = _between(values[low], values[high], _weight(times[low], times[high], target, nearest=nearest))
        rows, cols = np.nonzero(~(valid[low] & valid[high]))
        if rows.size:
            previous = before[last, rows, cols] if last >= 0 else np.full(rows.size, -1)
            following = after[last + 1, rows, cols] if last + 1 < len(times) else np.full(rows.size, len(times))
            layer[:, rows, cols] = _looked_up(
                values, rows, cols, previous=previous, following=following, times=times, target=target, nearest=nearest
            )
    return result


def _looked_up(
    values: NDArray[np.float32],
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    *,
    previous: NDArray[np.intp],
    following: NDArray[np.intp],
    times: NDArray[np.float64],
    target: float,
    nearest: bool,
) -> NDArray[np.float32]:
    """Values [band, pixel] between each pixel's own neighbouring valid dates (-1 and len(times): there is none)."""
    count = len(times)
    seen = (previous >= 0) | (following < count)
    low = np.where(seen, np.where(previous < 0, following, previous), 0)
    high = np.where(seen, np.where(following == count, previous, following), 0)
    weight = _weight(times[low], times[high], target, nearest=nearest)[:, None]
    pixels = _between(values[low, :, rows, cols], values[high, :, rows, cols], weight)
    return np.asarray(np.where(seen, pixels.T, 0), dtype=np.float32)


def _weight(
    start: NDArray[np.float64], stop: NDArray[np.float64], target: float, *, nearest: bool
) -> NDArray[np.float32]:
    """Share of ``stop`` in the value at ``target``; 0 where both are one date."""
    span = np.asarray(stop - start, dtype=np.float64)
    weight = np.divide(target - start, span, out=np.zeros(span.shape), where=span > 0)
    if nearest:
        weight = (weight > 0.5).astype(np.float64)  # noqa: PLR2004 - the nearer half
    return weight.astype(np.float32)


def _between(start: NDArray[np.float32], stop: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """On the line from ``start`` to ``stop``; exactly ``start`` for weight 0 and ``stop`` for 1."""
    if not weight.any():
        return start
    return np.asarray((1 - weight) * start + weight * stop, dtype=np.float32)
