"""Dates in texts, equal steps, cycles and the times to come."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import SceneError
from pipeline.forecast.times import find_seasons, regular_steps, time_in, times_after


def modis_dates(years):
    """Every 16 days from the first of January of each year, as MOD13Q1: the last step has 13 or 14 days."""
    days = [np.datetime64(f"{year}-01-01") + 16 * step for year in years for step in range(23)]
    return np.array(days, dtype="datetime64[s]")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("ndvi_20190131.tif", "2019-01-31T00:00:00"),
        ("S2A_MSIL2A_20240601T103031_N0510", "2024-06-01T10:30:31"),
        ("2019-01-01T05 inflow", "2019-01-01T05:00:00"),
        ("MOD13Q1.A2015065.h12v10", "2015-03-06T00:00:00"),
        ("rain_2010-01.tif", "2010-01-01T00:00:00"),
        ("NDVI A2000049", "2000-02-18T00:00:00"),
        ("2010-01-45 ndvi", None),
        ("2010-13", None),
        ("band 20191331", None),
        ("B04_60m", None),
    ],
)
def test_dates_are_found_in_names(text, time):
    found = time_in(text)
    assert (found and found[0].isoformat()) == time


def test_the_short_last_step_of_a_year_is_a_step():
    times = modis_dates(range(2001, 2009))
    number, every = regular_steps(times, path="x")
    assert (number == np.arange(len(times))).all()
    assert (every == times).all()
    assert find_seasons(times, until=150) == (23,)


def test_times_to_come_keep_the_day_of_the_year():
    times = modis_dates(range(2001, 2010))
    assert (times_after(times[:-23], 23, seasons=(23,)) == times[-23:]).all()


def test_months_to_come_begin_on_the_first():
    months = np.arange("2001-01", "2005-01", dtype="datetime64[M]").astype("datetime64[s]")
    assert (times_after(months[:36], 12, seasons=(12,)) == months[36:]).all()


def test_hours_to_come_follow_each_other():
    hours = np.arange("2019-01-01T00", "2019-02-01T00", dtype="datetime64[h]").astype("datetime64[s]")
    assert (times_after(hours[:-5], 5, seasons=(24, 168)) == hours[-5:]).all()


def test_missing_steps_are_numbered():
    times = modis_dates(range(2001, 2005))
    number, every = regular_steps(np.delete(times, [5, 6, 40]), path="x")
    assert sorted(set(range(len(times))) - set(number.tolist())) == [5, 6, 40]
    assert len(every) == len(times)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ([*range(0, 300, 10), 294, 300], "unequal time steps; got 4 days after 1970-10-18; expected 10 days"),
        ([*range(0, 300, 10), 700, 1500], "too many gaps"),
    ],
)
def test_times_that_are_no_series_are_refused(days, said):
    times = np.array(days, dtype="datetime64[D]").astype("datetime64[s]")
    with pytest.raises(SceneError, match=said):
        regular_steps(times, path="x")
