"""Areas per year, and their trend, from one panel: units of one probability sample, interpreted for every year.

The trend of a class is the slope of the straight line through its yearly areas (least squares), which is a sum of these
areas with fixed weights: of each unit it takes the same sum of its own years. So its variance is that of one total, and
what a unit has in common from year to year (the covariance that makes a panel worth its trouble) is in it.

Source: Cochran (1977), Sampling Techniques, sect. 12.10 to 12.13 (the same units on several occasions); the variance
of the total: :mod:`pipeline.accuracy.assess_estimators`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.assess_estimators import NOT_PROBABILITY, Estimate, ratios
from pipeline.accuracy.assess_map import assess_map, read_drawn, unit_area
from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import is_raster
from pipeline.errors import ReferenceDataError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.accuracy.assess_map import Assessment
    from pipeline.accuracy.series import AnnualMaps
    from pipeline.accuracy.settings import ReferenceSettings

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

    Args:
        maps: The series.
        paths: The maps to assess, one for each year: the series, or the consistent maps made of it.
        settings: The panel; ``{year}`` in its field stands for the year.

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
            "one field for all years",
            path=settings.reference,
            got=field or None,
            expected="a field such as class_{year}",
        )
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
    area = np.ones(len(first.units)) if area is None else area
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
