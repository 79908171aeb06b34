"""Totals from one probability sample: of a continuous map's quantity, and of the classes' areas per year of a panel.

The regression estimator takes the map's mean over all pixels and corrects it by what the sample says of its errors. A
panel is units interpreted for every year; the trend of a class, the slope of the straight line through its yearly areas
(least squares), is a sum of these areas with fixed weights, so its variance is that of one total, with what a unit has
in common from year to year in it.

Source: Saerndal, Swensson & Wretman (1992), Model Assisted Survey Sampling, sections 6.4 to 6.6 (general regression
estimator, g-weighted residuals for the variance); Cochran (1977), Sampling Techniques, sect. 12.10 to 12.13 (the same
units on several occasions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.stats import t as student

from pipeline.accuracy.assess_estimators import NOT_PROBABILITY, Estimate, ratios
from pipeline.accuracy.assess_frame import Frame, variance_of_total
from pipeline.accuracy.assess_map import Assessment, assess_map, read_drawn, unit_area
from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import is_raster
from pipeline.accuracy.sample_design import read_design
from pipeline.accuracy.value_maps import check_reference, open_value_map, warn_of_units
from pipeline.errors import InputError, ReferenceDataError, counted
from pipeline.grid import Grid, Window
from pipeline.labels.values import numbers_of
from pipeline.labels.vectors import features_with

if TYPE_CHECKING:
    from pipeline.accuracy.series import AnnualMaps
    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.quantity import Quantity

CONFIDENCE = 0.95
# Units of a stratum that a variance needs, and of the whole sample that a line with two coefficients needs.
_LEAST, _LEAST_IN_ALL = 2, 5


@dataclass(frozen=True)
class MeanEstimate:
    """A figure with its standard error and interval of 95 %."""

    estimate: float
    se: float
    low: float
    high: float

    def times(self, factor: float) -> MeanEstimate:
        """The same of a quantity that is so many times as large."""
        return MeanEstimate(*(part * factor for part in (self.estimate, self.se, self.low, self.high)))


@dataclass(frozen=True)
class Totals:
    """What a sample says of the mapped area."""

    direct: MeanEstimate  # Mean from the sample alone
    regression: MeanEstimate  # Mean from sample and map
    map_mean: float  # The map's own mean
    # Variance of the direct mean over that of the regression: how many times as large a sample without the map
    # would have to be
    gain: float
    units: int  # Sample units


def estimate_mean(
    measured: NDArray[np.float64], mapped: NDArray[np.float64], *, stratum: NDArray[np.intp],
    sizes: NDArray[np.float64], map_mean: float, area: NDArray[np.float64] | None = None,
) -> Totals:  # fmt: skip
    """Mean of a quantity over a map, from values ``measured`` and ``mapped`` at units, float64 [unit] each.

    ``stratum`` of each unit counts from 0 (all 0 for a simple random sample), ``sizes`` are map units, float64
    [stratum]; ``map_mean`` is over its area. ``area`` float64 [unit], in mean map units, is None where all are alike.

    Raises:
        ReferenceDataError: too few units.
    """
    counts = np.bincount(stratum, minlength=len(sizes))
    if len(measured) < _LEAST_IN_ALL or (counts[sizes > 0] < _LEAST).any():
        raise ReferenceDataError(
            "too few units with a measured value", got=f"{counts.tolist()} in the strata",
            expected=f"{_LEAST} in each stratum, {_LEAST_IN_ALL} in all",
        )  # fmt: skip
    every = sizes.sum()
    design = (sizes / counts)[stratum]
    freedom = max(len(measured) - int((sizes > 0).sum()), 1)
    area = np.ones_like(mapped) if area is None else area
    seen = float((design * area).sum())
    plain = float((design * area * measured).sum() / seen)
    frame = Frame("stratified", stratum, sizes, tuple(map(str, range(len(sizes)))))
    spread = float(variance_of_total((area * (measured - plain))[:, None], frame)[0])
    direct = _interval(plain, spread / seen**2, freedom)
    x, y = np.stack([area, area * mapped], axis=1), area * measured
    cross = (x * design[:, None]).T @ x
    slope = np.linalg.lstsq(cross, (x * design[:, None]).T @ y, rcond=None)[0]
    goal = every * np.array([1.0, map_mean])
    g = 1.0 + x @ np.linalg.lstsq(cross, goal - design @ x, rcond=None)[0]
    corrected = float((design * g * y).sum() / every)
    variance = float(variance_of_total((g * (y - x @ slope))[:, None], frame)[0]) / every**2
    gain = (direct.se**2 / variance) if variance > 0 else float("inf")
    return Totals(direct, _interval(corrected, variance, max(freedom - 1, 1)), map_mean, float(gain), len(measured))


def _interval(estimate: float, variance: float, freedom: int) -> MeanEstimate:
    se = float(np.sqrt(variance))
    half = float(student.ppf(0.5 + CONFIDENCE / 2, freedom)) * se
    return MeanEstimate(estimate, se, estimate - half, estimate + half)


@dataclass(frozen=True)
class MapTotals:
    """A continuous map against a probability sample."""

    quantity: Quantity  # What the map holds
    totals: Totals  # Means
    area_ha: float  # Area that the figures speak of
    design: str  # How the sample was drawn
    measured: NDArray[np.float64]  # Value at each unit, float64 [n]
    mapped: NDArray[np.float64]  # The map's value, lower and upper bound there, float64 [n, 3]


def totals_of_map(path: Path, *, reference: Path, field: str, design: str | None) -> MapTotals:
    """Mean and total of a continuous map from measured points of a probability sample; blank is not measured.

    ``design`` is the sampling design file, or "simple random" or "systematic".

    Raises:
        ReferenceDataError: no probability sample, one of squares, too few units, or values that none can be.
        LabelError: no such file or field, or text where numbers are needed.
        InputError: the map cannot be read.
    """
    with open_value_map(path) as (source, quantity):
        grid = Grid.of(source)
        total, area_ha, count = 0.0, 0.0, 0
        for _, window in source.block_windows(1):
            block = source.read(1, window=window, masked=True)
            known, value = ~np.ma.getmaskarray(block), block.filled(0).astype(np.float64)
            here = grid.pixel_areas_ha(Window(window.row_off, window.col_off, window.height, window.width))
            total, area_ha = total + float((value * known * here).sum()), area_ha + float((known * here).sum())
            count += int(known.sum())
        frame = features_with(reference, fields=[field]).to_crs(str(grid.crs))
        at = shapely.get_coordinates(shapely.centroid(np.asarray(frame.geometry.array, dtype=object)))
        found = np.ma.filled(np.ma.stack(list(source.sample(at.tolist(), masked=True))), np.nan)
    if not count:
        raise InputError("the map has no pixel with data", path=path)
    measured = numbers_of(frame[field], path=reference)
    check_reference(measured[~np.isnan(measured)], quantity, what=repr(field), path=reference)
    rows = np.array([grid.rowcol(x, y) for x, y in at.tolist()])
    stratum, sizes, words = _drawn(design, rows, grid=grid, count=count, reference=reference)
    keep = ~np.isnan(measured) & np.isfinite(found).all(1) & (stratum >= 0)
    if not keep.any():
        raise ReferenceDataError("no unit has a measured value on the map", path=reference)
    warn_of_units(measured[keep], found[keep, 0].astype(np.float64), path=reference)
    totals = estimate_mean(
        measured[keep], found[keep, 0].astype(np.float64), stratum=stratum[keep], sizes=sizes,
        map_mean=total / area_ha, area=grid.areas_at_ha(*rows[keep].T) * count / area_ha,
    )  # fmt: skip
    return MapTotals(quantity, totals, area_ha, words, measured[keep], found[keep].astype(np.float64))


def _drawn(
    design: str | None, rows: NDArray[np.int64], *, grid: Grid, count: int, reference: Path
) -> tuple[NDArray[np.intp], NDArray[np.float64], str]:
    """Stratum of each unit (-1 for those that were not drawn), size of each stratum, and the design in words.

    Raises:
        ReferenceDataError: no probability sample, one of squares, or one of other pixels.
    """
    if design in {"simple random", "systematic"}:
        return np.zeros(len(rows), dtype=np.intp), np.array([float(count)]), str(design)
    if design is None:
        raise ReferenceDataError(
            "mean and total of a map need a probability sample", path=reference,
            fix="draw one with landcover design and give its file with --design, or say --design 'simple random'",
        )  # fmt: skip
    drawn = read_design(design)
    if drawn.clusters is not None:
        raise ReferenceDataError(f"a {drawn.kind} sample of a continuous map", path=design, expected="single pixels")
    if not drawn.grid.same_pixels_as(grid):
        raise ReferenceDataError(
            "sample was drawn from other pixels than those of the map", path=design, got=drawn.map_name,
            fix="draw it from a map of the same scene",
        )  # fmt: skip
    known = {(int(r), int(c)): int(h) for r, c, h in zip(drawn.row, drawn.col, drawn.stratum, strict=True)}
    stratum = np.array([known.get((int(row), int(col)), -1) for row, col in rows], dtype=np.intp)
    return stratum, np.array([float(item.units) for item in drawn.strata]), drawn.kind


# In the name of the attribute of each year.
YEAR = "{year}"


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel says of a series of maps."""

    years: tuple[int, ...]
    assessments: tuple[Assessment, ...]  # of each year's map, on the units that have all years
    trend_ha: dict[str, Estimate]  # by class, in ha per year
    gaps: int  # units that lack a year, and are left out

    @property
    def areas_ha(self) -> dict[str, tuple[Estimate, ...]]:
        """Area of each class in each year."""
        return {name: tuple(item.area(name) for item in self.assessments) for name in self.trend_ha}

    def words(self) -> str:
        """The design, and what was left out."""
        gaps = f" {self.gaps} units lack a year and are left out of all of them." if self.gaps else ""
        units = counted(len(self.assessments[0].units or ()), "unit")
        return f"{units} with all {len(self.years)} years.{gaps} " + (self.assessments[0].words())

    def to_json(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "years": list(self.years),
            "area_ha": {name: [item.to_json() for item in items] for name, items in self.areas_ha.items()},
            "trend_ha_per_year": {name: item.to_json() for name, item in self.trend_ha.items()},
            "overall_accuracy": [item.figures.overall_accuracy.to_json() for item in self.assessments],
            "units_with_gaps": self.gaps,
            "words": self.words(),
        }


def assess_panel(maps: AnnualMaps, paths: Sequence[Path], settings: ReferenceSettings) -> Panel:
    """Areas of every year and their trend.

    ``paths`` are the maps to assess, one for each year: the series, or the consistent maps made of it.

    Raises:
        ReferenceDataError: a field without ``{year}``, a year without a field, no unit that has all years, a design of
            another sample, or strata that are each year's own classes.
    """
    by_year, common, gaps = panel_units(maps, paths, settings)
    found = tuple(assess_map(path, item, only=common) for path, item in zip(paths, by_year, strict=True))
    return Panel(maps.years, found, _trend(maps, found), gaps)


def panel_units(
    maps: AnnualMaps, paths: Sequence[Path], settings: ReferenceSettings
) -> tuple[list[ReferenceSettings], frozenset[str], int]:
    """The settings for each year, the units that have all years, and how many lack one.

    Raises:
        ReferenceDataError: see :func:`assess_panel`.
    """
    if is_raster(settings.reference):
        raise ReferenceDataError("panel is a raster", path=settings.reference, expected="a sample of points")
    read_drawn(settings.design)
    field = settings.field or ""
    if YEAR not in field:
        raise ReferenceDataError(
            "one field for all years", path=settings.reference, got=field or None,
            expected="a field such as class_{year}",
        )  # fmt: skip
    if settings.strata is not None and str(settings.strata) == "map":
        fix = "name with --strata the map that the sample was drawn from, or its design with --design"
        raise ReferenceDataError("strata of a panel change with the map of each year", path=settings.reference, fix=fix)
    by_year = [settings.model_copy(update={"field": field.replace(YEAR, str(year))}) for year in maps.years]
    units = [
        read_reference(item.reference, map_path=path, scheme=maps.scheme, field=str(item.field), crosswalk=item.table())
        for item, path in zip(by_year, paths, strict=True)
    ]
    common = frozenset.intersection(*(frozenset(part.id) for part in units))
    every = frozenset.union(*(frozenset(part.id) for part in units))
    if not common:
        raise ReferenceDataError(
            "no unit of the panel has a class in every year", path=settings.reference,
            got=", ".join(f"{year}: {len(part)}" for year, part in zip(maps.years, units, strict=True)),
        )  # fmt: skip
    return by_year, common, len(every) - len(common)


def _trend(maps: AnnualMaps, found: Sequence[Assessment]) -> dict[str, Estimate]:
    first = found[0]
    if first.units is None:
        raise ReferenceDataError("trend from a raster", fix="give a sample of points")
    if not first.design.frame.is_probability:
        return dict.fromkeys(maps.scheme.names, Estimate(None, note=NOT_PROBABILITY))
    place = [{name: i for i, name in enumerate(item.units.id)} for item in found if item.units is not None]
    codes = np.stack(
        [item.units.reference_code[[own[name] for name in first.units.id]]
         for item, own in zip(found, place, strict=True) if item.units is not None]
    )  # fmt: skip
    area = unit_area(maps.grid, first.units.row, first.units.col)
    slopes = slope_weights(maps.years)
    top = np.stack([slopes @ (codes == code) * area for code in maps.scheme.codes], axis=1)
    bottom = np.broadcast_to(area[:, None], top.shape)
    shares = ratios(top, bottom, frame=first.design.frame, bounds=(-1.0, 1.0))
    return {name: share.scaled(first.area_ha) for name, share in zip(maps.scheme.names, shares, strict=True)}


def slope_weights(years: Sequence[int]) -> NDArray[np.float64]:
    """Weights whose sum with the values of the years is the slope of their line, float64 [year].

    >>> float(slope_weights([2000, 2001, 2002]) @ np.array([1.0, 3.0, 5.0]))
    2.0
    """
    away = np.asarray(years, dtype=np.float64) - np.mean(years)
    return np.asarray(away / (away**2).sum())
