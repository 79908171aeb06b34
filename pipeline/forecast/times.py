"""Times of a series: dates in names and tags, equal steps with gaps, the cycles that fit, the times to come."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SceneError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]

DAY_S = 86_400.0
# Tropical year, as the calendar has it on average.
CYCLES_S = (DAY_S, 7 * DAY_S, 365.2425 * DAY_S)
# A cycle of a year is one of so many cycles at least before anything is tested.
FEWEST_CYCLES = 3
_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:18|19|20|21)\d\d)-?(?P<month>0[1-9]|1[0-2])-?(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:[T _]?(?P<hour>[01]\d|2[0-3])(?::?(?P<minute>[0-5]\d))?(?::?(?P<second>[0-5]\d))?(?:\.\d+)?Z?)?(?!\d)"
)
# MODIS and VIIRS: A2015065 is the 65th day of 2015.
_DAY_OF_YEAR = re.compile(r"(?<![A-Za-z0-9])A?(?P<year>(?:18|19|20|21)\d\d)(?P<day>[0-3]\d\d)(?!\d)")
# A month stands for its first day.
_MONTH = re.compile(r"(?<![A-Za-z0-9])(?P<year>(?:18|19|20|21)\d\d)-(?P<month>0[1-9]|1[0-2])(?!-?\d)")
# Of the usual step: shorter and longer ones are no step of the same series.
_SHORTEST, _LONGEST, _WHOLE, _GAPS = 0.6, 1.4, 0.25, 1 / 3


def time_in(text: str) -> tuple[datetime, str] | None:
    """The first date, with its time of day, in a text, and the text without it; None where there is none.

    >>> time_in("2019-01-01T05 inflow")
    (datetime.datetime(2019, 1, 1, 5, 0), 'inflow')
    >>> time_in("MOD13Q1.A2015065.h12v10")
    (datetime.datetime(2015, 3, 6, 0, 0), 'MOD13Q1. .h12v10')
    >>> time_in("2010-01 rain")
    (datetime.datetime(2010, 1, 1, 0, 0), 'rain')
    """
    found = _DATE.search(text)
    try:
        if found is not None:
            parts = [int(found[part] or 0) for part in ("hour", "minute", "second")]
            day = datetime(int(found["year"]), int(found["month"]), int(found["day"]))  # noqa: DTZ001 - its own clock
            time = day + timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2])
        elif (found := _MONTH.search(text)) is not None:
            time = datetime(int(found["year"]), int(found["month"]), 1)  # noqa: DTZ001 - its own clock
        else:
            found = _DAY_OF_YEAR.search(text)
            if found is None:
                return None
            time = datetime(int(found["year"]), 1, 1) + timedelta(days=int(found["day"]) - 1)  # noqa: DTZ001 - likewise
    except ValueError:
        return None
    return time, f"{text[: found.start()]} {text[found.end() :]}".strip(" _-")


def regular_steps(times: Times, *, path: Path | str) -> tuple[NDArray[np.int64], Times]:
    """Number of the step that each of sorted times is, and the times of all steps, those of gaps between.

    The last composite of a year is shorter in several products, so a step may be 0.6 to 1.4 times the usual one.

    Raises:
        SceneError: two steps of one time, steps of unequal length, or more gaps than a third of the steps.
    """
    seconds = times.astype("datetime64[s]").astype(np.int64)
    between = np.diff(seconds)
    if (between == 0).any():
        raise SceneError("series has two rasters of one time", path=path, got=time_text(times[:-1][between == 0][0]))
    usual = float(np.median(between))
    ratio = between / usual
    count = np.where(ratio > _LONGEST, np.rint(ratio), 1.0)
    odd = (ratio < _SHORTEST) | ((count > 1) & (np.abs(ratio - count) > _WHOLE))
    if odd.any():
        first = int(odd.argmax())
        raise SceneError(
            "series has unequal time steps", path=path,
            got=f"{between[first] / DAY_S:g} days after {time_text(times[first])}", expected=f"{usual / DAY_S:g} days",
            fix="aggregate it to equal steps",
        )  # fmt: skip
    number = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    steps = int(number[-1]) + 1
    if steps - len(times) > _GAPS * steps:
        raise SceneError(
            "series has too many gaps", path=path, got=f"{len(times)} of {steps} steps",
            expected=f"a step every {usual / DAY_S:g} days, at most a third of them missing",
        )  # fmt: skip
    every = np.interp(np.arange(steps), number, seconds).astype(np.int64).astype("datetime64[s]")
    return number, every


def find_seasons(times: Times, *, until: int) -> tuple[int, ...]:
    """Lengths in steps of day, week and year where they are whole numbers of steps, with three cycles before ``until``.

    >>> find_seasons(np.arange("2019-01-01T00", "2019-03-01T00", dtype="datetime64[h]"), until=1000)
    (24, 168)
    """
    seconds = times.astype("datetime64[s]").astype(np.int64)
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    found = [(round(cycle / step), cycle / step) for cycle in CYCLES_S]
    return tuple(
        length for length, exact in found if length > 1 and abs(exact - length) < 0.02 * length
        if length * FEWEST_CYCLES <= until
    )  # fmt: skip


def times_after(times: Times, count: int, *, seasons: Sequence[int]) -> Times:
    """Times of the steps to come: as a year before where a cycle is a year, else at equal distances."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    yearly = [length for length in seasons if abs(length * step - CYCLES_S[-1]) < 0.02 * CYCLES_S[-1]]
    if not yearly or step < DAY_S:
        usual = int(np.median(np.diff(seconds)))
        return np.asarray((seconds[-1] + usual * np.arange(1, count + 1)).astype("datetime64[s]"))
    made: list[datetime] = [time.item() for time in times.astype("datetime64[s]")]
    monthly = len({time.day for time in made}) == 1
    for _ in range(count):
        made.append(_year_later(made[-yearly[-1]], monthly=monthly))
    return np.array(made[len(times) :], dtype="datetime64[s]")


def _year_later(time: datetime, *, monthly: bool) -> datetime:
    """The same day of the month, or of the year, a year later."""
    if monthly and (time.month, time.day) != (2, 29):
        return time.replace(year=time.year + 1)
    return time.replace(year=time.year + 1, month=1, day=1) + (time - time.replace(month=1, day=1))


def time_text(time: np.datetime64 | datetime) -> str:
    """A time to the minute, to the second where it has some, or a date where it is midnight.

    >>> time_text(np.datetime64("2020-03-01T10:26:00")), time_text(np.datetime64("2020-03-01", "s"))
    ('2020-03-01T10:26', '2020-03-01')
    """
    moment = np.datetime64(time, "s") if isinstance(time, datetime) else time.astype("datetime64[s]")
    text = str(moment).removesuffix("T00:00:00")
    return text.removesuffix(":00") if "T" in text else text
