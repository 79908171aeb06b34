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
    count = len(times)
    if valid.all() and np.array_equal(times, targets):
        return values
    position = np.arange(count).reshape(-1, 1, 1)
    before = np.maximum.accumulate(np.where(valid, position, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, position, count)[::-1], axis=0)[::-1]
    none, end = np.full(valid.shape[1:], -1), np.full(valid.shape[1:], count)
    result = np.zeros((len(targets), *values.shape[1:]), dtype=np.float32)
    for layer, target in zip(result, targets, strict=True):
        last = int(np.searchsorted(times, target, side="right")) - 1
        low = before[last] if last >= 0 else none
        high = after[last + 1] if last + 1 < count else end
        seen = (low >= 0) | (high < count)
        low, high = np.where(low < 0, high, low), np.where(high == count, low, high)
        low, high = np.where(seen, low, 0), np.where(seen, high, 0)
        span = times[high] - times[low]
        weight = np.divide(target - times[low], span, out=np.zeros(span.shape), where=span > 0)
        if nearest:
            weight = (weight > 0.5).astype(np.float64)  # noqa: PLR2004 - the nearer half
        weight = weight.astype(np.float32)
        start = np.take_along_axis(values, low[None, None], axis=0)[0]
        stop = np.take_along_axis(values, high[None, None], axis=0)[0]
        layer[:] = np.where(seen, (1 - weight) * start + weight * stop, 0)
    return result
