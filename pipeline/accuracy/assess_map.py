"""Assess a map: from files to figures that say which design they assume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_assisted import assist, centred_confidence, confidence_beside
from pipeline.accuracy.assess_design import AssumedDesign, assume_drawn, assume_plain, assume_strata
from pipeline.accuracy.assess_estimators import NOT_PROBABILITY, Estimate, Figures, agreement, estimate_accuracy
from pipeline.accuracy.assess_rasters import OnEveryPixel, compare_with_raster
from pipeline.accuracy.assess_reference import POLYGON_RULE, ReferenceUnits, read_reference
from pipeline.accuracy.class_maps import class_areas, is_raster, map_scheme, read_grid
from pipeline.accuracy.sample_design import SampleDesign, read_design
from pipeline.accuracy.sample_strata import open_strata
from pipeline.errors import ReferenceDataError
from pipeline.ground import SQUARE_METRES_PER_HECTARE

if TYPE_CHECKING:
    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme

# Areas of the same pixels, added up in another order, differ by less.
_SAME = 1e-3
# Units that the words name for each reason; the JSON has all of them.
LISTED = 10


@dataclass(frozen=True, eq=False)
class Assessment:
    """Figures of a map against reference data."""

    map_name: str  # File name of the map
    figures: Figures  # Accuracies and area shares
    scheme: ClassScheme  # The map's legend
    design: AssumedDesign  # The design that the figures assume, and its words
    units: ReferenceUnits | None  # The reference units; None for a raster
    area_ha: float  # Area that the figures speak of
    # Area in ha per class as the map counts it, within the strata where they cover a part of it
    mapped_ha: dict[str, float]
    # Unit of the map's coordinates ("metre", "degree", ...) and its square in ha, None where it has none
    unit: tuple[str, float | None]
    with_kappa: bool = False
    # Width of each interval over that without the confidence's help, where it helped
    width_over_plain: dict[str, float] | None = None

    def area(self, name: str) -> Estimate:
        """Area of a class in ha with its interval; the mapped area, labelled, where there is no probability sample."""
        share = self.figures.per_class[name].area_share
        if self.design.frame.is_probability:
            return share.scaled(self.area_ha)
        if self.design.frame.kind == "census":
            return replace(share.scaled(self.area_ha), note="area in the reference raster, where both have a class")
        return Estimate(self.mapped_ha[name], note=f"mapped area, not corrected for errors: {NOT_PROBABILITY}")

    def to_json(self) -> dict[str, object]:
        """JSON-ready figures; every one {estimate, se, ci95} and a note where a part is missing."""
        per_class = {}
        for name, item in self.figures.per_class.items():
            area = self.area(name)
            entry: dict[str, object] = {
                "users_accuracy": item.users_accuracy.to_json(),
                "producers_accuracy": item.producers_accuracy.to_json(),
                "f1": item.f1.to_json(),
                "area_ha": area.to_json(),
                "mapped_area_ha": self.mapped_ha[name],
            }
            unit, square_ha = self.unit
            if square_ha is not None:
                entry["area_map_unit"] = area.scaled(1 / square_ha).to_json() | {"unit": f"square {unit}"}
            per_class[name] = entry
        plain: dict[str, object] = {
            "map": self.map_name,
            "overall_accuracy": self.figures.overall_accuracy.to_json(),
            "per_class": per_class,
            "error_matrix": self.figures.error_matrix.to_json(),
            "sampling": self.sampling(),
        }
        if self.width_over_plain is not None:
            plain["assisted"] = {"by": "confidence", "width_over_plain": self.width_over_plain}
        if self.with_kappa:
            found = agreement(self.figures.error_matrix.proportions)
            plain["agreement_beyond_chance"] = vars(found) | {
                "note": "kappa is no measure of map accuracy (Pontius & Millones 2011); read the disagreements"
            }
        return plain

    def sampling(self) -> dict[str, object]:
        """Design, units per stratum, exclusions and their effect, and all of it in words."""
        frame = self.design.frame
        used, excluded = int(self.figures.error_matrix.counts.sum()), self.units.excluded if self.units else ()
        return {
            "design": frame.kind,
            "probability_sample": frame.is_probability,
            "words": self.words(),
            "units": used,
            "area_ha": self.area_ha,
            "strata": [
                {"name": name, "size": float(size), "units": int(n)}
                for name, size, n in zip(frame.names, frame.sizes, frame.counts, strict=True)
            ],
            "post_stratified": frame.post_stratified,
            "excluded": {
                "count": len(excluded),
                "by_reason": dict(Counter(item.reason for item in excluded)),
                "units": [vars(item) for item in excluded],
            },
            "notes": [*self.design.notes, *self.figures.notes],
        }  # fmt: skip

    def words(self) -> str:
        """Which design the figures assume, what was left out, and what follows: for the report, in sentences."""
        sentences = [self.design.words]
        if self.units is not None and self.units.kind == "polygons":
            sentences.append(POLYGON_RULE)
        excluded = self.units.excluded if self.units is not None else ()
        if excluded:
            counts = Counter(item.reason for item in excluded)
            ids = {reason: [item.id for item in excluded if item.reason == reason] for reason in counts}
            why = "; ".join(
                f"{n} {reason}: {', '.join(ids[reason][:LISTED])}{', ...' * (n > LISTED)}"
                for reason, n in counts.most_common()
            )
            total = len(excluded) + int(self.figures.error_matrix.counts.sum())
            sentences.append(
                f"{len(excluded)} of {total} reference units were left out ({why}); the figures hold for "
                "the whole only as far as these units are like the others."
            )
        sentences += [f"{note[0].upper()}{note[1:]}." for note in (*self.design.notes, *self.figures.notes)]
        return " ".join(sentences)


def assess_map(
    map_path: Path | str, settings: ReferenceSettings,
    *, scheme: ClassScheme | None = None, only: frozenset[str] | None = None,
) -> Assessment:  # fmt: skip
    """Accuracy and area of a class map from reference points, polygons or a raster.

    Args:
        map_path: The class map, uint8 codes.
        settings: The reference, and how its units were drawn.
        scheme: Legend, where the map does not carry one.
        only: Identifiers of the units to use; others are left out, and counted as without a class in the other map.

    Raises:
        ReferenceDataError: reference, strata or design that cannot be used or do not fit together.
        LegendError: reference classes that neither legend nor crosswalk knows.
        SceneError: the map cannot be read.
    """
    scheme = map_scheme(map_path, scheme)
    grid = read_grid(map_path)
    if is_raster(settings.reference):
        found = compare_with_raster([map_path], settings.plain_raster(), scheme=scheme, crosswalk=settings.table())
        return census_assessment(map_path, found, scheme=scheme, kappa=settings.kappa)
    if settings.field is None:
        raise ReferenceDataError(
            "no field given", path=settings.reference, fix="name the field that holds the reference class: --field"
        )
    units = read_reference(
        settings.reference, map_path=map_path, scheme=scheme, field=settings.field, crosswalk=settings.table()
    )
    if only is not None:
        common = np.array([name in only for name in units.id], dtype=np.bool_)
        units = units.keep(common, dict.fromkeys(range(len(units)), "without a class in the other map"))
    drawn = read_drawn(settings.design)
    if isinstance(drawn, SampleDesign):
        units, design = assume_drawn(units, drawn, scheme=scheme, map_path=map_path)
    elif settings.strata is not None:
        with open_strata(
            settings.strata, map_path=map_path, scheme=scheme, field=settings.strata_field, edges=settings.strata_edges
        ) as layer:
            units, design = assume_strata(units, layer, map_path=map_path, scheme=scheme)
    else:
        design = assume_plain(units, drawn, scheme=scheme, counted=class_areas(map_path))
    figures = estimate_accuracy(
        scheme.code_to_index[units.map_code], scheme.code_to_index[units.reference_code], names=scheme.names,
        frame=design.frame, unit_area=unit_area(grid, units.row, units.col),
    )  # fmt: skip
    helped: dict[str, float] | None = None
    if settings.assist is not None:
        figures, design, helped = _assisted(figures, design, units, map_path, settings.assist, scheme=scheme)
    mapped = _by_name(design.class_ha, scheme)
    name = Path(map_path).name
    return Assessment(name, figures, scheme, design, units, design.area_ha, mapped, _unit(grid), settings.kappa, helped)


def _assisted(
    figures: Figures, design: AssumedDesign, units: ReferenceUnits, map_path: Path | str, named: str,
    *, scheme: ClassScheme,
) -> tuple[Figures, AssumedDesign, dict[str, float]]:  # fmt: skip
    """Figures with the confidence as auxiliary, a note of what it gained, and the width of intervals over plain ones.

    Raises:
        ReferenceDataError: no probability sample, or one of a part of the map, over which the means are not known.
    """
    if not design.frame.is_probability:
        raise ReferenceDataError("assistance for what is no probability sample", fix="give the design of the sample")
    if not covers_map(design, map_path, scheme=scheme):
        raise ReferenceDataError("assistance for a sample of a part of the map", fix="leave --assist out")
    path = confidence_beside(map_path, named)
    auxiliary = centred_confidence(map_path, path, units)
    grid = read_grid(map_path)
    found, widths = assist(
        figures, scheme.code_to_index[units.map_code], scheme.code_to_index[units.reference_code], frame=design.frame,
        auxiliary=auxiliary, unit_area=unit_area(grid, units.row, units.col),
    )  # fmt: skip
    gain = "it would not make any interval narrower"
    if widths:
        most, overall = (100 * (1 - part) for part in (min(widths.values()), widths.get("overall accuracy", 1.0)))
        gain = f"intervals are up to {most:.0f} % narrower, that of overall accuracy {overall:.0f} %"
    note = f"the confidence of {path.name} is the auxiliary of a regression estimator: {gain}"
    return found, replace(design, notes=(*design.notes, note)), widths


def covers_map(design: AssumedDesign, map_path: Path | str, *, scheme: ClassScheme) -> bool:
    """Whether the area that a sample was drawn from is that of all classes of the map."""
    whole = float(class_areas(map_path)[1][list(scheme.codes)].sum())
    return abs(design.area_ha - whole) <= _SAME * whole


def read_drawn(design: str | None) -> SampleDesign | str | None:
    """How a sample was drawn: the design of a file, or the name of a simple one.

    Raises:
        ReferenceDataError: neither.
    """
    if design is None:
        return None
    if design.replace("_", " ") in {"simple random", "systematic"}:
        return design.replace("_", " ")
    if not Path(design).is_file():
        raise ReferenceDataError("sampling design", got=design, expected="'simple random', 'systematic' or a file")
    return read_design(design)


def census_assessment(
    map_path: Path | str, found: OnEveryPixel, *, scheme: ClassScheme, number: int = 0, kappa: bool = False
) -> Assessment:
    """The assessment that figures of all pixels make, of the map of that ``number`` among those compared."""
    mapped = _by_name(class_areas(map_path)[1], scheme)
    unit = _unit(read_grid(map_path))
    name = Path(map_path).name
    return Assessment(name, found.figures[number], scheme, found.design, None, found.area_ha, mapped, unit, kappa)


def _by_name(area: Sequence[float] | NDArray[np.float64], scheme: ClassScheme) -> dict[str, float]:
    return {item.name: float(area[item.code]) for item in scheme.classes}


def unit_area(grid: Grid, row: NDArray[np.int32], col: NDArray[np.int32]) -> NDArray[np.float64]:
    """Area of each unit, float64 [unit], in mean pixels; 1 on grids whose pixels are all alike.

    Pixels of a geographic grid shrink towards the poles, so each unit weighs with its own area.
    """
    low, high = grid.pixel_area_range_ha
    return np.ones(len(row)) if low == high else grid.areas_at_ha(row, col) * 2 / (low + high)


def _unit(grid: Grid) -> tuple[str, float | None]:
    if grid.crs.is_geographic:
        return "degree", None
    name, metres = grid.crs.linear_units_factor
    return name, metres**2 / SQUARE_METRES_PER_HECTARE
