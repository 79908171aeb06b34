"""Two maps on one reference: which is better, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest, chi2

from pipeline.accuracy.assess_estimators import CENSUS, Estimate, cross_tabulate, ratios
from pipeline.accuracy.assess_map import Assessment, assess_map, census_assessment, unit_area
from pipeline.accuracy.assess_rasters import compare_with_raster
from pipeline.accuracy.class_maps import is_raster, map_names, map_scheme, read_grid
from pipeline.accuracy.crosswalk import read_crosswalk, translate_map
from pipeline.errors import ReferenceDataError
from pipeline.maps.legends import check_same_legend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme

# Below 25 discordant units the normal approximation is poor: Fleiss, Levin & Paik (2003), sect. 13.1.
EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two maps on the same units."""

    only_first: int  # Units that only the first map has right
    only_second: int  # Units that only the second map has right
    statistic: float | None  # Chi-square with continuity correction, None for the exact test
    p_value: float  # Of the hypothesis that both maps are equally often right
    exact: bool  # Whether the exact binomial test was used


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two assessments on the same units."""

    first: Assessment  # Assessment of the first map
    second: Assessment  # Assessment of the second
    difference: Estimate  # Overall accuracy of the first less that of the second
    # [first is right, second is right] (0 wrong, 1 right); units, or pixels of a reference raster
    right: NDArray[np.int64]
    mcnemar: McNemar | None  # The test; None where every pixel was compared and nothing was sampled

    @property
    def units(self) -> int:
        """Units (or pixels) that both maps and the reference have."""
        return int(self.right.sum())

    def to_json(self) -> dict[str, object]:
        """JSON-ready."""
        (neither, only_second), (only_first, both) = self.right.tolist()
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": self.difference.to_json(),
            "right": {"both": both, "only_first": only_first, "only_second": only_second, "neither": neither},
            "mcnemar": None if self.mcnemar is None else vars(self.mcnemar),
            "units": self.units,
            "words": self.words(),
        }

    def words(self) -> str:
        """What the comparison says, and under which design."""
        what = "pixels" if self.mcnemar is None else "units"
        alone = (
            f"On {self.units:,} common {what} {self.first.map_name} alone is right on {self.right[1, 0]:,} and "
            f"{self.second.map_name} alone on {self.right[0, 1]:,}"
        )
        return f"{alone}{self._verdict()} {self.first.words()}"

    def _verdict(self) -> str:
        test = self.mcnemar
        if test is None:
            return (
                ". Every pixel was compared, so the difference has no sampling error and no interval; McNemar's test, "
                "which asks whether the draw of a sample could explain it, has nothing to ask."
            )
        verdict = "differ" if test.p_value < 0.05 else "cannot be told apart"  # noqa: PLR2004 - the usual level
        kind = "exact" if test.exact else "with continuity correction"
        words = (
            f": the maps {verdict} (McNemar's test, {kind}, p = {test.p_value:.3g}; it takes the units as equally "
            "likely and independent"
        )
        frame = self.first.design.frame
        if not frame.is_probability:
            return f"{words}, which units that are no probability sample need not be, so it speaks of them alone)."
        if frame.clusters is not None or frame.kind == "stratified":
            return f"{words}, which those of this design are not: the interval of the difference counts)."
        return f"{words})."


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """McNemar's test from bool [unit] "is right" of two maps.

    Source: McNemar (1947), Psychometrika 12, 153-157; Foody (2004), Photogramm. Eng. Remote Sens. 70, 627-633;
    continuity correction: Edwards (1948).

    >>> right, wrong = np.array([True] * 6), np.array([False] * 6)
    >>> mcnemar(right, wrong).p_value
    0.03125
    """
    b, c = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    if b + c == 0:
        return McNemar(0, 0, None, 1.0, exact=True)
    if b + c < EXACT_BELOW:
        return McNemar(b, c, None, float(binomtest(b, b + c).pvalue), exact=True)
    statistic = (abs(b - c) - 1) ** 2 / (b + c)
    return McNemar(b, c, statistic, float(chi2.sf(statistic, 1)), exact=False)


def compare_maps(
    first: Path | str,
    second: Path | str,
    settings: ReferenceSettings,
    *,
    second_crosswalk: Path | str | Mapping[str, str] | None = None,
    scheme: ClassScheme | None = None,
) -> Comparison:
    """Assess two maps on the same units.

    The maps have one legend, or ``second_crosswalk`` leads from the values of the second (any raster of integers) to
    the classes of the first. Strata "map" are the first map's classes. Units that only one of the maps has a class for
    are left out of both, and counted.

    The difference of overall accuracies has the variance of the paired difference, which is smaller than that of two
    independent samples; its strata are those of the first map's assessment. With a raster as reference all pixels are
    compared: no test and no interval, as nothing was sampled.

    Raises:
        ReferenceDataError: no unit that both maps cover.
        LegendError: two legends and no crosswalk.
    """
    legend, names = map_scheme(first, scheme), map_names(first, second)
    with ExitStack() as stack:
        if second_crosswalk is not None:
            folder = stack.enter_context(TemporaryDirectory())
            table = second_crosswalk if isinstance(second_crosswalk, Mapping) else read_crosswalk(second_crosswalk)
            second = translate_map(
                second, Path(folder) / f"{Path(second).stem}.tif", scheme=legend, crosswalk=table,
                around=read_grid(first),
            )  # fmt: skip
        elif scheme is None:
            check_same_legend([first, second])
        if is_raster(settings.reference):
            return _named(_on_raster(first, second, settings, scheme=legend), names)
        strata = str(first) if settings.strata == "map" else settings.strata
        theirs = settings.model_copy(update={"strata": strata})
        one, two = assess_map(first, settings, scheme=legend), assess_map(second, theirs, scheme=legend)
        common = _ids(one) & _ids(two)
        if not common:
            raise ReferenceDataError("no reference unit has a class in both maps", path=settings.reference)
        if common != _ids(one) | _ids(two):
            one = assess_map(first, settings, scheme=legend, only=common)
            two = assess_map(second, theirs, scheme=legend, only=common)
    return _named(_paired(one, two, grid=read_grid(first)), names)


def _named(found: Comparison, names: tuple[str, str]) -> Comparison:
    """The comparison with names that tell its maps apart."""
    one, two = (replace(item, map_name=name) for item, name in zip((found.first, found.second), names, strict=True))
    return replace(found, first=one, second=two)


def _ids(found: Assessment) -> frozenset[str]:
    return frozenset(found.units.id if found.units is not None else ())


def _paired(one: Assessment, two: Assessment, *, grid: Grid) -> Comparison:
    """The difference on units that both assessments have, each with its area on the first map's grid."""
    if one.units is None or two.units is None:
        raise ReferenceDataError("maps without common units")
    place = {name: i for i, name in enumerate(two.units.id)}
    order = np.array([place[name] for name in one.units.id])
    right_one = one.units.map_code == one.units.reference_code
    right_two = (two.units.map_code == two.units.reference_code)[order]
    gain = right_one.astype(np.float64) - right_two
    known = unit_area(grid, one.units.row, one.units.col)
    area = np.ones(len(gain)) if known is None else known
    top, bottom = (gain * area)[:, None], area[:, None]
    difference = ratios(top, bottom, frame=one.design.frame, bounds=(-1.0, 1.0))[0]
    right = cross_tabulate(right_one.astype(np.intp), right_two.astype(np.intp), classes=2)
    return Comparison(one, two, difference, right, mcnemar(right_one, right_two))


def _on_raster(
    first: Path | str, second: Path | str, settings: ReferenceSettings, *, scheme: ClassScheme
) -> Comparison:
    """The difference on all pixels of a reference raster."""
    reference = settings.plain_raster()
    found = compare_with_raster([first, second], reference, scheme=scheme, crosswalk=settings.table())
    one, two = (
        census_assessment(path, found, scheme=scheme, number=number) for number, path in enumerate((first, second))
    )
    gain = float(found.right_ha[1, 0] - found.right_ha[0, 1]) / found.area_ha
    return Comparison(one, two, Estimate(gain, note=CENSUS), found.right_px, None)
