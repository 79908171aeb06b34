"""Which of two maps is better, from units looked at one after the other, with a stop as soon as it is known.

Two maps differ in accuracy only where they differ: with p the share of the area where they do, and x = 1 where the
first alone is right, -1 where the second alone is, 0 where both are wrong, the difference of overall accuracies is p
times the mean of x. Units are drawn there (``landcover design --for compare``), all pixels with one chance, and
numbered at random, so each is a fair draw whatever was seen before. A bet on x against each possible mean gains where
that mean is wrong; by Ville's inequality its capital exceeds 1/a with chance a at most, ever. So the interval of means
that no bet has ruled out holds at all times together, and one may look after every unit and stop when one likes.

Source: Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting, J. R. Stat. Soc. B 86,
1-27: hedged capital (sect. 4.4) with bets by the approximate GRAPA rule (sect. B.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.assess_rasters import cross_maps
from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import map_names, map_scheme, read_grid
from pipeline.accuracy.sample_design import read_design
from pipeline.accuracy.sample_strata import DIFFERENCES
from pipeline.accuracy.settings import MARGIN
from pipeline.errors import ReferenceDataError
from pipeline.maps.legends import check_same_legend

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.legend import ClassScheme

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
    first: Path | str,
    second: Path | str,
    settings: ReferenceSettings,
    *,
    margin: float = MARGIN,
    scheme: ClassScheme | None = None,
) -> SequentialComparison:
    """Compare two maps on the units interpreted so far of a sample drawn where they differ.

    ``margin`` is the difference of overall accuracies that is none to care about.

    Raises:
        ReferenceDataError: no design, one of another kind or of other maps, units left out between others.
        LegendError: two legends.
    """
    if not 0 < margin < 1:
        raise ReferenceDataError("difference that is none to care about", got=margin, expected="between 0 and 1")
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
    return SequentialComparison(**(vars(found) | {"more": _more(y, margin / scale)}))


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
