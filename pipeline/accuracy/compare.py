"""Two maps on one reference: which is better, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest, chi2

from pipeline.accuracy.assess import Assessment, assess_map
from pipeline.accuracy.crosswalk import read_crosswalk
from pipeline.accuracy.estimates import Estimate, ratios
from pipeline.accuracy.frame import unit_weights
from pipeline.accuracy.pixels import map_scheme, read_grid
from pipeline.accuracy.translate import translate_map
from pipeline.errors import ReferenceDataError
from pipeline.maps.legends import check_same_legend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.accuracy.design import SampleDesign
    from pipeline.legend import ClassScheme

# Below 25 discordant units the normal approximation is poor: Fleiss, Levin & Paik (2003), sect. 13.1.
EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two maps on the same units.

    Attributes:
        only_first: Units that only the first map has right.
        only_second: Units that only the second map has right.
        statistic: Chi-square with continuity correction, None for the exact test.
        p_value: Of the hypothesis that both maps are equally often right.
        exact: Whether the exact binomial test was used.
    """

    only_first: int
    only_second: int
    statistic: float | None
    p_value: float
    exact: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two assessments, the difference of their overall accuracies (first - second) and McNemar's test."""

    first: Assessment
    second: Assessment
    difference: Estimate
    mcnemar: McNemar
    units: int

    def to_json(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": self.difference.to_json(),
            "mcnemar": vars(self.mcnemar),
            "units": self.units,
            "words": self.words(),
        }

    def words(self) -> str:
        """What the comparison says, and under which design."""
        test = self.mcnemar
        verdict = "differ" if test.p_value < 0.05 else "cannot be told apart"  # noqa: PLR2004 - the usual level
        kind = "exact" if test.exact else "with continuity correction"
        return (
            f"On {self.units} common units {self.first.map_name} alone is right on {test.only_first} and "
            f"{self.second.map_name} alone on {test.only_second}: the maps {verdict} (McNemar's test, {kind}, "
            f"p = {test.p_value:.3g}; it takes the units as equally likely and independent). {self.first.words()}"
        )


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
    *,
    reference: Path | str,
    field: str,
    strata: Path | str | None = None,
    strata_field: str | None = None,
    strata_edges: Sequence[float] = (),
    design: Path | str | SampleDesign | None = None,
    crosswalk: Path | str | Mapping[str, str] | None = None,
    second_crosswalk: Path | str | Mapping[str, str] | None = None,
    scheme: ClassScheme | None = None,
) -> Comparison:
    """Assess two maps on the same units; arguments as for :func:`pipeline.accuracy.assess.assess_map`.

    The maps have one legend, or ``second_crosswalk`` leads from the values of the second (any raster of integers) to
    the classes of the first. Strata "map" are the first map's classes.

    The difference of overall accuracies has the variance of the paired difference, which is smaller than that of two
    independent samples; its strata are those of the first map's assessment.

    Raises:
        ReferenceDataError: a reference raster, or no unit that both maps cover.
    """
    legend = map_scheme(first, scheme)
    assess = partial(
        assess_map, reference=reference, field=field, strata_field=strata_field, strata_edges=strata_edges,
        design=design, crosswalk=crosswalk, scheme=legend,
    )  # fmt: skip
    one = assess(first, strata=strata)
    same_strata = first if str(strata) == "map" else strata
    if second_crosswalk is None:
        if scheme is None:
            check_same_legend([first, second])
        two = assess(second, strata=same_strata)
    else:
        table = second_crosswalk if isinstance(second_crosswalk, Mapping) else read_crosswalk(second_crosswalk)
        with TemporaryDirectory() as folder:
            own = translate_map(
                second, Path(folder) / f"{Path(second).stem}.tif", scheme=legend, crosswalk=table,
                around=read_grid(first),
            )  # fmt: skip
            two = assess(own, strata=same_strata)
    if one.units is None or two.units is None:
        raise ReferenceDataError("maps are compared on points or polygons", path=reference)
    place = {name: i for i, name in enumerate(two.units.id)}
    if set(one.units.id) != set(place):
        only = sorted(set(one.units.id) ^ set(place))
        raise ReferenceDataError(
            "units that only one of the maps covers: " + ", ".join(only[:10]), fix="cut the reference to both maps"
        )
    order = np.array([place[name] for name in one.units.id])
    right_one = one.units.map_code == one.units.reference_code
    right_two = two.units.map_code[order] == two.units.reference_code[order]
    gain = (right_one.astype(np.float64) - right_two)[:, None]
    frame = one.framing.frame
    difference = ratios(gain, np.ones_like(gain), frame=frame, bounds=(-1.0, 1.0))[0]
    if not frame.is_probability:
        difference = Estimate(float(unit_weights(frame) @ gain[:, 0] / len(gain)), note=difference.note)
    return Comparison(one, two, difference, mcnemar(right_one, right_two), len(gain))
