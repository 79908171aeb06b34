"""The largest part of a map whose error is at most so much, with 95 % confidence, from a probability sample.

Parts are nested: pixels of at least some confidence (and, if asked for, inside the area of applicability), tested from
the surest on; the zone is the last before the first that fails. docs/accuracy.md says how often zones do not hold.

Source: fixed sequence testing, Angelopoulos, Bates, Candes, Jordan & Lei (2021), Learn then test, arXiv 2110.01052,
sect. 3.2; upper limit of the error of each part: Clopper & Pearson (1934), and for samples whose units stand for
different areas with the effective number of units of Korn & Graubard (1998), Survey Methodology 24, 193-201.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from scipy.stats import beta

from pipeline.accuracy.assess_assisted import SURE, confidence_areas, confidence_beside, open_percent
from pipeline.accuracy.assess_frame import Frame, unit_weights, variance_of_total
from pipeline.accuracy.assess_map import assess_map, covers_map, unit_area
from pipeline.accuracy.class_maps import BLOCK_PX, byte_profile, open_class_map, read_codes, read_grid, strips
from pipeline.accuracy.settings import MAX_ERROR, ReferenceSettings
from pipeline.errors import ReferenceDataError
from pipeline.files import whole_file
from pipeline.grid import Grid
from pipeline.legend import NODATA

LEVEL = 0.95
# A class with fewer units than that in the zone is not judged.
MIN_UNITS = 10


@dataclass(frozen=True)
class Zone:
    """What can be trusted."""

    threshold: int | None  # Least confidence in per cent of the zone's pixels; None where no part passed
    share: float  # Share of the map's area that is in the zone, 0..1
    units: int  # Units in it
    wrong: int  # Wrong ones among them
    upper: float  # Upper limit of its error with 95 % confidence, 0..1
    max_error: float  # Error that it may have
    inside_only: bool  # Whether only pixels inside the area of applicability are in it
    # Classes of the map that are wrong more often than ``max_error`` within the zone, with 95 % confidence each
    not_trusted: tuple[str, ...]
    few: tuple[str, ...]  # Classes with fewer than 10 units in the zone, which cannot be judged one by one
    advice: str = ""  # Where no part passed: which was looked at, and about how many units would do

    def words(self) -> str:
        """The zone in sentences."""
        limit = f"{100 * self.max_error:g} %"
        if self.threshold is None:
            return (
                f"No part of the map along the order of confidence can be said to be wrong on at most {limit} of its "
                f"area: {self.advice} The mask is 0 everywhere."
            )
        where = " inside the area of applicability" if self.inside_only else ""
        said = (
            f"Where the map's confidence is at least {self.threshold} %{where}, on {100 * self.share:.1f} % of its "
            f"area, at most {limit} is wrong (with 95 % confidence; {self.wrong} of {self.units} units are, limit "
            f"{100 * self.upper:.1f} %)."
        )
        if self.not_trusted:
            said += f" This holds for the zone as a whole; not to be trusted even there: {', '.join(self.not_trusted)}."
        if self.few:
            said += f" Too few units in the zone to judge by itself: {', '.join(self.few)}."
        return said

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self) | {"not_trusted": list(self.not_trusted), "few": list(self.few), "words": self.words()}


def find_zone(
    wrong: NDArray[np.bool_], confidence: NDArray[np.integer], map_index: NDArray[np.integer],
    *, names: Sequence[str], frame: Frame, area_by_confidence: NDArray[np.float64],
    unit_area: NDArray[np.float64] | None = None, max_error: float = MAX_ERROR, inside_only: bool = False,
) -> Zone:  # fmt: skip
    """The zone of a sample.

    ``wrong`` bool [unit] says where the map is; ``confidence`` int [unit] is 0..100, negative for units that no zone
    may have; ``map_index`` int [unit] counts ``names`` from 0. ``area_by_confidence`` float64 [102] is the share of the
    map's area of each confidence 0..100, and last of what no zone has; ``unit_area`` float64 [unit] is None where all
    are equal. With ``inside_only`` pixels outside the area of applicability have negative confidence.

    Raises:
        ReferenceDataError: no probability sample, one in clusters or with strata that have no unit.
    """
    _check_frame(frame)
    area = np.ones(len(wrong)) if unit_area is None else unit_area
    shares = np.cumsum(area_by_confidence[: SURE + 1][::-1])[::-1]
    needed = least_units(max_error)
    best = first = None
    for threshold in range(SURE, -1, -1):
        inside = confidence >= threshold
        if kish_units(inside, frame=frame, area=area) < needed:
            continue  # whatever its units are, this part could not pass
        upper = upper_limit(wrong & inside, inside, frame=frame, area=area)
        part = (threshold, float(shares[threshold]), int(inside.sum()), int((wrong & inside).sum()), upper)
        first = first or part
        if upper > max_error:
            break
        best = part
    if best is None or first is None:
        known = confidence >= 0
        units, bad, upper = first[2:] if first is not None else (int(known.sum()), int((wrong & known).sum()), 1.0)
        advice = _advice(first, units=units, needed=needed, max_error=max_error)
        return Zone(None, 0.0, units, bad, upper, max_error, inside_only, (), (), advice)
    # Classes whose error within the zone is above the limit (lower Clopper-Pearson limit), and those of few units.
    not_trusted, few, inside = [], [], confidence >= best[0]
    for k, name in enumerate(names):
        here = inside & (np.asarray(map_index) == k)
        units, bad = int(here.sum()), int((wrong & here).sum())
        if units < MIN_UNITS:
            few.append(name)
        elif bad and beta.ppf(1 - LEVEL, bad, units - bad + 1) > max_error:
            not_trusted.append(name)
    return Zone(*best, max_error, inside_only, tuple(not_trusted), tuple(few))


def _advice(first: tuple[int, float, int, int, float] | None, *, units: int, needed: int, max_error: float) -> str:
    """What would do, from the surest part that was tested (None: no part had units enough)."""
    if first is None:
        return f"the sample's {units} units are too few; a part needs about {needed}, of which one at most is wrong."
    threshold, share, inside, bad, upper = first
    said = (
        f"the surest part that has units enough (confidence of at least {threshold} %, {100 * share:.1f} % of the "
        f"area) has {bad} of {inside} wrong (at most {100 * upper:.1f} %, with 95 % confidence)."
    )
    passing = units_to_pass(bad / inside, max_error)
    if passing is None:
        return f"{said} More units do not help while so many of them are wrong."
    return f"{said} About {max(passing - inside, 1):,} more units there would do if as small a share of them is wrong."


def units_to_pass(share: float, max_error: float) -> int | None:
    """Units with which a part passes of which this share is wrong; None where no number of them does.

    >>> units_to_pass(0.02, 0.05), units_to_pass(0.05, 0.05)
    (157, None)
    """
    if share >= max_error:
        return None
    sizes = np.unique(np.geomspace(2, 1e7, 4000).astype(int))
    passed = sizes[beta.ppf(LEVEL, share * sizes + 1, sizes * (1 - share)) <= max_error]
    return int(passed[0]) if len(passed) else None


def _check_frame(frame: Frame) -> None:
    """Refuse samples whose limit would be too small: units of a cluster are alike, and empty strata have no error."""
    if not frame.is_probability:
        raise ReferenceDataError(
            "a zone from units that are no probability sample", fix="give the design of the sample"
        )
    if frame.clusters is not None:
        raise ReferenceDataError(
            "a zone from a sample in clusters, whose units are alike and would promise too much", got=frame.kind,
            expected="units drawn one by one",
            fix="draw a simple random or stratified sample",
        )  # fmt: skip
    if frame.unsampled_share:
        empty = [name for name, count in zip(frame.names, frame.counts, strict=True) if not count]
        raise ReferenceDataError(
            "a zone from a sample with strata that have no unit", got=", ".join(empty), fix="interpret units of each"
        )


def least_units(max_error: float) -> int:
    """Units that a part needs to pass with one of them wrong.

    >>> least_units(0.05)
    93
    """
    return next(n for n in range(2, 10_000_000) if beta.ppf(LEVEL, 2, n - 1) <= max_error)


def kish_units(inside: NDArray[np.bool_], *, frame: Frame, area: NDArray[np.float64]) -> float:
    """Units of equal weight that those of a part are worth; the sample's classes are not looked at.

    Source: Kish (1965), Survey Sampling, sect. 11.2.
    """
    weights = unit_weights(frame) * area * inside
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def upper_limit(
    wrong: NDArray[np.bool_], inside: NDArray[np.bool_], *, frame: Frame, area: NDArray[np.float64]
) -> float:
    """Upper 95 % limit of the share of a part's area that is wrong.

    ``inside`` bool [unit] is the part, ``wrong`` its wrong units.
    """
    weights = unit_weights(frame) * area * inside
    share = float(weights @ wrong) / float(weights.sum())
    effective = kish_units(inside, frame=frame, area=area)
    if 0 < share < 1:
        residual = (wrong - share) * inside * area
        variance = float(variance_of_total(residual[:, None], frame)[0]) / float(weights.sum()) ** 2
        if np.isfinite(variance) and variance > 0:
            effective = min(effective, share * (1 - share) / variance)
    count = share * effective
    return float(beta.ppf(LEVEL, count + 1, max(effective - count, 1e-9)))


def zone_of_map(
    map_path: Path | str, settings: ReferenceSettings,
    *, confidence: Path | str | None = None, applicability: Path | str | None = None, max_error: float = MAX_ERROR,
) -> Zone:  # fmt: skip
    """The zone of a map from its reference sample.

    Only pixels of at most 100 per cent of the threshold of ``applicability`` may be in the zone.

    Raises:
        ReferenceDataError: no probability sample, one in clusters or of a part of the map, or no confidence.
    """
    found = assess_map(map_path, settings)
    if found.units is None:
        raise ReferenceDataError("a zone from a raster", path=settings.reference, fix="give a sample of points")
    path = confidence if confidence is not None else confidence_beside(map_path, "confidence")
    frame = found.design.frame
    if frame.is_probability and not covers_map(found.design, map_path, scheme=found.scheme):
        raise ReferenceDataError(
            "a zone from a sample of a part of the map", path=settings.reference, fix="draw a sample of the whole map"
        )
    area, sure = confidence_areas(map_path, path, found.units, applicability=applicability)
    by_confidence = area[list(found.scheme.codes)].sum(axis=0)
    shares = np.append(by_confidence[: SURE + 1], by_confidence[SURE + 1 :].sum()) / by_confidence.sum()
    return find_zone(
        found.units.map_code != found.units.reference_code, np.where(sure <= SURE, sure, -1),
        found.scheme.code_to_index[found.units.map_code], names=found.scheme.names, frame=frame,
        area_by_confidence=shares, unit_area=unit_area(read_grid(map_path), found.units.row, found.units.col),
        max_error=max_error, inside_only=applicability is not None,
    )  # fmt: skip


def write_zone(
    path: Path, zone: Zone, *, map_path: Path | str, confidence: Path | str, applicability: Path | str | None = None
) -> Path:
    """The zone as a mask on the map's pixels, uint8: 1 in it, 0 outside, 255 where the map has no class.

    Raises:
        OutputError: the file cannot be written.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_class_map(map_path))
        grid = Grid.of(dataset)
        layers = [open_percent(layer, grid, stack) for layer in (confidence, applicability) if layer is not None]
        part = stack.enter_context(whole_file(path, what="the zone", failures=(RasterioError,)))
        with rasterio.open(part, "w", **byte_profile(grid, nodata=255)) as target:
            target.update_tags(ZONE=zone.words())
            target.set_band_description(1, "1: zone of small error, 0: outside")
            target.write_colormap(1, {0: (217, 217, 217), 1: (0, 114, 178)})
            for window in strips(grid, BLOCK_PX):
                values = [layer.read(1, window=window.to_rasterio()) for layer in layers]
                inside = (values[0] <= SURE) & (values[0] >= (SURE + 1 if zone.threshold is None else zone.threshold))
                if len(values) > 1:
                    inside &= values[1] <= SURE
                mask = np.where(read_codes(dataset, window) == NODATA, np.uint8(255), inside.astype(np.uint8))
                target.write(mask, 1, window=window.to_rasterio())
    return path
