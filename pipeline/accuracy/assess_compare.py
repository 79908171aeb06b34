"""Two maps on one reference: which is better, and is that more than chance; from a whole sample, or unit by unit.

Unit by unit: with p the share of the area where the maps differ, and x = 1 where the first alone is right, -1 where the
second alone is, 0 where both are wrong, the difference of overall accuracies is p times the mean of x over units drawn
there. A bet on x against each possible mean gains where that mean is wrong, and the interval of means that no bet has
ruled out holds at all times together: one may look after every unit. docs/accuracy.md has its error rates.

Source: Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting, J. R. Stat. Soc. B 86,
1-27: hedged capital (sect. 4.4) with bets by the approximate GRAPA rule (sect. B.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2

from pipeline.accuracy.assess_estimators import CENSUS, Estimate, cross_tabulate, ratios
from pipeline.accuracy.assess_map import Assessment, assess_map, census_assessment, unit_area
from pipeline.accuracy.assess_rasters import compare_with_raster, cross_maps
from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import is_raster, map_names, map_scheme, read_grid
from pipeline.accuracy.crosswalk import read_crosswalk, translate_map
from pipeline.accuracy.sample_design import read_design
from pipeline.accuracy.sample_strata import DIFFERENCES
from pipeline.accuracy.settings import MARGIN, ReferenceSettings
from pipeline.errors import ReferenceDataError
from pipeline.maps.legends import check_same_legend

if TYPE_CHECKING:
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
    first: Path | str, second: Path | str, settings: ReferenceSettings,
    *, second_crosswalk: Path | str | Mapping[str, str] | None = None, scheme: ClassScheme | None = None,
) -> Comparison:  # fmt: skip
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
        if is_raster(settings.reference):  # the difference on all of its pixels
            both, reference = [first, second], settings.plain_raster()
            found = compare_with_raster(both, reference, scheme=legend, crosswalk=settings.table())
            one, two = (census_assessment(path, found, scheme=legend, number=i) for i, path in enumerate(both))
            gain = float(found.right_ha[1, 0] - found.right_ha[0, 1]) / found.area_ha
            return _named(Comparison(one, two, Estimate(gain, note=CENSUS), found.right_px, None), names)
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
    area = unit_area(grid, one.units.row, one.units.col)
    top, bottom = (gain * area)[:, None], area[:, None]
    difference = ratios(top, bottom, frame=one.design.frame, bounds=(-1.0, 1.0))[0]
    right = cross_tabulate(right_one.astype(np.intp), right_two.astype(np.intp), classes=2)
    return Comparison(one, two, difference, right, mcnemar(right_one, right_two))


ALPHA = 0.05
# Bets risk at most this share of the capital: half or three quarters are what the paper uses (sect. 4.2).
_MOST = 0.5
_MEANS = 801
# Missing units that a message names.
_SHOWN = 10
_MANY = 100_000


@dataclass(frozen=True)
class SequentialComparison:
    """What the units so far say about two maps."""

    first: str  # File name of the first map
    second: str  # File name of the second
    units: int  # Units looked at
    only_first: int  # Units where the first map alone is right
    only_second: int  # Units where the second map alone is right
    differ_share: float  # Share of the common area where the maps differ, 0..1
    difference: float | None  # Estimated overall accuracy of the first less that of the second
    interval: tuple[float, float]  # What it is with 95 % confidence, however often one has looked
    margin: float  # Difference that is none to care about
    more: int | None  # Units that a verdict needs further, about; 0 with a verdict, None where no number would do

    @property
    def verdict(self) -> str:
        """``first``, ``second``, ``no difference`` or ``go on``."""
        low, high = self.interval
        if low > 0 or high < 0:
            return "first" if low > 0 else "second"
        return "no difference" if -self.margin <= low and high <= self.margin else "go on"

    def words(self) -> str:
        """The verdict in a sentence, and what it rests on."""
        low, high = (100 * end for end in self.interval)
        name = {"first": self.first, "second": self.second}.get(self.verdict)
        if name is not None:
            said = f"{name} is better (p < {ALPHA:g})"
        elif self.verdict == "no difference":
            said = f"no difference above {100 * self.margin:g} %"
        else:
            said = "go on: " + ("more units than can be looked at" if self.more is None else f"about {self.more} more")
        return (
            f"{said}. The maps differ on {100 * self.differ_share:.1f} % of their common area; of {self.units} units "
            f"there {self.first} alone is right on {self.only_first} and {self.second} alone on {self.only_second}: "
            f"the overall accuracies differ by {low:+.1f} to {high:+.1f} % (95 %, however often you look: "
            "Waudby-Smith & Ramdas 2024)."
        )

    def to_json(self) -> dict[str, object]:
        """JSON-ready."""
        return vars(self) | {"interval": list(self.interval), "verdict": self.verdict, "words": self.words()}


def compare_sequentially(
    first: Path | str, second: Path | str, settings: ReferenceSettings,
    *, margin: float = MARGIN, scheme: ClassScheme | None = None,
) -> SequentialComparison:  # fmt: skip
    """Compare two maps on the units interpreted so far of a sample drawn where they differ.

    ``margin`` is the difference of overall accuracies that is none to care about.

    Raises:
        ReferenceDataError: no design, one of another kind or of other maps, units left out between others.
        LegendError: two legends.
    """
    if settings.design is None or settings.field is None:
        raise ReferenceDataError(
            "sequential comparison without a design and a field",
            path=settings.reference,
            fix="add --design and --field",
        )
    design = read_design(settings.design)
    if not design.strata_source.startswith(DIFFERENCES):
        raise ReferenceDataError(
            "sample was not drawn where two maps differ", path=settings.design, got=design.strata_source,
            fix="draw one with: landcover design --for compare A B",
        )  # fmt: skip
    legend = map_scheme(first, scheme)
    if scheme is None:
        check_same_legend([first, second])
    table = settings.table()
    one, two = (
        read_reference(settings.reference, map_path=path, scheme=legend, field=settings.field, crosswalk=table)
        for path in (first, second)
    )
    if (
        one.id != two.id
        or not one.has_ids
        or not all(name.isdigit() and 1 <= int(name) <= len(design) for name in one.id)
    ):
        raise ReferenceDataError("units that are not those of the design", path=settings.reference)
    order = np.argsort([int(name) for name in one.id])
    position = np.array([int(name) - 1 for name in one.id], dtype=np.intp)[order]
    _check_no_gaps(position, settings.reference)
    if not (one.map_code[order] == design.map_code[position]).all() or (one.map_code == two.map_code).any():
        raise ReferenceDataError(
            "the sample was drawn from other maps",
            path=settings.design,
            got=f"{design.map_name}, {design.strata_source}",
        )
    gain = (one.map_code == one.reference_code).astype(np.int64) - (two.map_code == two.reference_code)
    grid = read_grid(first)
    pixels, area = (table[1:, 1:] for table in cross_maps(first, second))
    apart = int(pixels.sum() - np.trace(pixels))
    # On grids whose pixels differ in area, y = x times the area over that of the largest pixel is bounded as x is.
    largest = grid.pixel_area_range_ha[1]
    y = gain[order] * grid.areas_at_ha(one.row[order], one.col[order]) / largest
    return summarise(
        np.asarray(y), names=map_names(first, second), scale=apart * largest / float(area.sum()),
        differ_share=1 - float(np.trace(area) / area.sum()), margin=margin,
    )  # fmt: skip


def _check_no_gaps(position: NDArray[np.intp], path: Path | str) -> None:
    """Refuse units other than the first ones of the sample."""
    missing = sorted(set(range(int(position.max(initial=-1)) + 1)) - set(position.tolist()))
    if missing:
        # Which units were interpreted could depend on what they show: the test holds in the order of the draw only.
        ids = ", ".join(str(number + 1) for number in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ReferenceDataError(
            "units are left out between others", path=path, got=f"none of id {ids}{more}",
            expected="the first units of the sample without a gap", fix="interpret these too",
        )  # fmt: skip


def summarise(
    y: NDArray[np.float64], *, names: tuple[str, str], scale: float, differ_share: float, margin: float = MARGIN
) -> SequentialComparison:
    """The comparison that units in the order of their numbers make.

    ``y`` float64 [unit] is the gain of the first map over the second, -1..1; ``scale`` the difference of overall
    accuracies over its mean.
    """
    means = np.linspace(-1.0, 1.0, _MEANS)
    best = log_capital(y, means).max(axis=0, initial=0.0) if len(y) else np.zeros(_MEANS)
    held = means[best < math.log(1 / ALPHA)]
    low, high = (float(held[0]), float(held[-1])) if len(held) else (float(y.mean()), float(y.mean()))
    # Between two means of the grid: the interval is wider by less than a step, never narrower.
    step = means[1] - means[0]
    low, high = max(low - step, -1.0), min(high + step, 1.0)
    if len(y) and low <= 0 <= high and log_capital(y, np.zeros(1)).max() >= math.log(1 / ALPHA):
        low, high = (max(low, 1e-9), high) if y.mean() > 0 else (low, min(high, -1e-9))
    found = SequentialComparison(
        *names, len(y), int((y > 0).sum()), int((y < 0).sum()), differ_share,
        float(y.mean() * scale) if len(y) else None, (low * scale, high * scale), margin, 0,
    )  # fmt: skip
    if found.verdict != "go on":
        return found
    return replace(found, more=_more(y, margin / scale))


def log_capital(y: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the hedged capital after each unit, float64 [unit, mean]; it exceeds log(1/a) with chance a at most.

    Args:
        y: float64 [unit], -1..1, in the order in which the units were drawn.
        means: float64 [mean], means of ``y`` to bet against, -1..1.
    """
    z, m = (y + 1) / 2, np.clip((means + 1) / 2, 1e-6, 1 - 1e-6)
    count = np.arange(1, len(z) + 1)
    # What is known before each unit: mean and variance with one unit in the middle and of variance 1/4 put in front.
    mean = (0.5 + np.concatenate([[0.0], np.cumsum(z)[:-1]])) / count
    spread = np.concatenate([[0.0], np.cumsum((z - (0.5 + np.cumsum(z)) / (count + 1)) ** 2)[:-1]])
    variance = (0.25 + spread) / count
    away = mean[:, None] - m
    bet = away / (variance[:, None] + away**2)
    up, down = np.clip(bet, 0.0, _MOST / m), np.clip(-bet, 0.0, _MOST / (1 - m))
    gains = np.cumsum(np.log1p(up * (z[:, None] - m)), axis=0), np.cumsum(np.log1p(-down * (z[:, None] - m)), axis=0)
    return np.asarray(np.maximum(*gains) - math.log(2))


def _more(y: NDArray[np.float64], margin: float) -> int | None:
    """Units that a verdict needs further, about, if those to come are like those so far; None where none would do."""
    if not len(y):
        return 20
    z = (y + 1) / 2
    # One unit of each kind put in front: ten units alike are no proof that all are.
    known = np.concatenate([z, [0.0, 0.5, 1.0]])

    def needed(mean: float) -> float:
        m = (mean + 1) / 2
        if not 0 < m < 1:
            return 0.0
        away = known.mean() - m
        bet = float(np.clip(away / (known.var() + away**2), -_MOST / (1 - m), _MOST / m))
        rate = float(np.log1p(bet * (known - m)).mean())
        lacking = math.log(2 / ALPHA) - max(float(log_capital(y, np.array([mean]))[-1, 0]) + math.log(2), 0.0)
        return max(lacking, 0.0) / rate if rate > 0 else math.inf

    units = min(needed(0.0), max(needed(-margin), needed(margin)) if abs(y.mean()) < margin else math.inf)
    return None if units > _MANY else max(math.ceil(units / 10) * 10, 10)
