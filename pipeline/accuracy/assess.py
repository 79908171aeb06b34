"""Assess a map: from files to figures that say which design they assume."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.confusion import agreement
from pipeline.accuracy.crosswalk import read_crosswalk
from pipeline.accuracy.design import SampleDesign, read_design
from pipeline.accuracy.estimates import NOT_PROBABILITY, Estimate, Figures, estimate_accuracy
from pipeline.accuracy.framing import Framing, frame_by_design, frame_by_strata, frame_plain
from pipeline.accuracy.pixels import class_areas, is_raster, map_scheme, read_grid
from pipeline.accuracy.reference import ReferenceUnits, read_reference
from pipeline.accuracy.wall_to_wall import compare_with_raster
from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.accuracy.reference import Excluded
    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme

HECTARE_M2 = 10_000.0
# Units that the words name for each reason; the JSON has all of them.
LISTED = 10
_NONE_EXCLUDED: dict[str, object] = {"count": 0, "by_reason": {}, "units": []}


@dataclass(frozen=True, eq=False)
class Assessment:
    """Figures of a map against reference data.

    Attributes:
        map_name: File name of the map.
        figures: Accuracies and area shares.
        scheme: The map's legend.
        framing: The design that the figures assume, and its words.
        units: The reference units; None for a raster.
        area_ha: Area that the figures speak of.
        mapped_ha: Area in ha per class as the map counts it, within the strata where they cover a part of it.
        unit: Unit of the map's coordinates ("metre", "degree", ...) and its square in ha, None where it has none.
    """

    map_name: str
    figures: Figures
    scheme: ClassScheme
    framing: Framing
    units: ReferenceUnits | None
    area_ha: float
    mapped_ha: dict[str, float]
    unit: tuple[str, float | None]
    with_kappa: bool = False

    def area(self, name: str) -> Estimate:
        """Area of a class in ha with its interval; the mapped area, labelled, where there is no probability sample."""
        share = self.figures.per_class[name].area_share
        if self.framing.frame.is_probability:
            return share.scaled(self.area_ha)
        if self.framing.frame.kind == "census":
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
        if self.with_kappa:
            found = agreement(self.figures.error_matrix.proportions)
            plain["agreement_beyond_chance"] = vars(found) | {
                "note": "kappa is no measure of map accuracy (Pontius & Millones 2011); read the disagreements"
            }
        return plain

    def sampling(self) -> dict[str, object]:
        """Design, units per stratum, exclusions and their effect, and all of it in words."""
        frame = self.framing.frame
        used = int(self.figures.error_matrix.counts.sum())
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
            "excluded": self.units.exclusion_report() if self.units is not None else dict(_NONE_EXCLUDED),
            "notes": [*self.framing.notes, *self.figures.notes],
        }  # fmt: skip

    def words(self) -> str:
        """Which design the figures assume, what was left out, and what follows: for the report, in sentences."""
        sentences = [self.framing.words]
        excluded = self.units.excluded if self.units is not None else ()
        if excluded:
            counts = Counter(item.reason for item in excluded)
            why = "; ".join(f"{n} {reason}: {_first(excluded, reason)}" for reason, n in counts.most_common())
            total = len(excluded) + int(self.figures.error_matrix.counts.sum())
            sentences.append(
                f"{len(excluded)} of {total} reference units were left out ({why}); the figures hold for "
                "the whole only as far as these units are like the others."
            )
        sentences += [f"{note[0].upper()}{note[1:]}." for note in (*self.framing.notes, *self.figures.notes)]
        return " ".join(sentences)


def _first(excluded: Sequence[Excluded], reason: str) -> str:
    """Identifiers of the first units left out for a reason."""
    ids = [item.id for item in excluded if item.reason == reason]
    return ", ".join(ids[:LISTED]) + (", ..." if len(ids) > LISTED else "")


def assess_map(
    map_path: Path | str,
    *,
    reference: Path | str,
    field: str | None = None,
    strata: Path | str | None = None,
    strata_field: str | None = None,
    strata_edges: Sequence[float] = (),
    design: Path | str | SampleDesign | None = None,
    crosswalk: Path | str | Mapping[str, str] | None = None,
    scheme: ClassScheme | None = None,
    kappa: bool = False,
    only: frozenset[str] | None = None,
) -> Assessment:
    """Accuracy and area of a class map from reference points, polygons or a raster.

    Args:
        map_path: The class map, uint8 codes.
        reference: Vector file or CSV with a class per unit, or a raster of classes on any grid.
        field: Attribute that holds the class (vectors only).
        strata: ``map`` where the units were drawn at random within each map class; a raster or polygons where they
            were drawn within those; None otherwise.
        strata_field: Field of polygon strata.
        strata_edges: Limits that cut a continuous strata raster (confidence).
        design: Design file of ``landcover design``; or the words ``simple random`` or ``systematic`` for units that
            were drawn so elsewhere. Without design and strata, the units are taken for what they most often are:
            no probability sample.
        crosswalk: Table (or its file) from reference classes to map classes.
        scheme: Legend, where the map does not carry one.
        kappa: Also give kappa, with quantity and allocation disagreement beside it.
        only: Identifiers of the units to use; others are left out, and counted as without a class in the other map.

    Raises:
        ReferenceDataError: reference, strata or design that cannot be used or do not fit together.
        LegendError: reference classes that neither legend nor crosswalk knows.
        SceneError: the map cannot be read.
    """
    scheme = map_scheme(map_path, scheme)
    table = read_crosswalk(crosswalk) if isinstance(crosswalk, (str, Path)) else crosswalk
    if is_raster(reference):
        refuse_design(reference, strata=strata, design=design)
        figures, framing, area_ha = compare_with_raster(map_path, reference, scheme=scheme, crosswalk=table)
        return census_assessment(map_path, figures, framing=framing, area_ha=area_ha, scheme=scheme, kappa=kappa)
    if field is None:
        raise ReferenceDataError(
            "no field given", path=reference, fix="name the field that holds the reference class: --field"
        )
    units = read_reference(reference, map_path=map_path, scheme=scheme, field=field, crosswalk=table)
    if only is not None:
        common = np.array([name in only for name in units.id], dtype=np.bool_)
        units = units.keep(common, dict.fromkeys(range(len(units)), "without a class in the other map"))
    drawn = design if isinstance(design, SampleDesign) else _design(design)
    if isinstance(drawn, SampleDesign):
        units, framing = frame_by_design(units, drawn, scheme=scheme, map_path=map_path)
    elif strata is not None:
        units, framing = frame_by_strata(
            units, strata, strata_field=strata_field, edges=strata_edges, map_path=map_path, scheme=scheme
        )
    else:
        framing = frame_plain(units, drawn, scheme=scheme, counted=class_areas(map_path))
    figures = estimate_accuracy(
        scheme.code_to_index[units.map_code],
        scheme.code_to_index[units.reference_code],
        names=scheme.names,
        frame=framing.frame,
        unit_area=unit_area(read_grid(map_path), units.row, units.col),
    )
    return Assessment(
        Path(map_path).name, figures, scheme, framing, units, framing.area_ha,
        _by_name(dict(enumerate(framing.class_ha)), scheme), _unit(read_grid(map_path)), kappa,
    )  # fmt: skip


def _design(design: Path | str | None) -> SampleDesign | str | None:
    if design is None:
        return None
    if str(design).replace("_", " ") in {"simple random", "systematic"}:
        return str(design).replace("_", " ")
    if not Path(design).is_file():
        raise ReferenceDataError("sampling design", got=design, expected="'simple random', 'systematic' or a file")
    return read_design(design)


def refuse_design(reference: Path | str, *, strata: object, design: object) -> None:
    """Designs belong to samples; a reference raster is none.

    Raises:
        ReferenceDataError: a design or strata are given.
    """
    if design is not None or strata is not None:
        raise ReferenceDataError(
            "a reference raster has no sampling design", path=reference, fix="leave design and strata out"
        )


def census_assessment(
    map_path: Path | str,
    figures: Figures,
    *,
    framing: Framing,
    area_ha: float,
    scheme: ClassScheme,
    kappa: bool = False,
) -> Assessment:
    """The assessment that figures of all pixels make."""
    mapped = _by_name(dict(enumerate(class_areas(map_path)[1])), scheme)
    unit = _unit(read_grid(map_path))
    return Assessment(Path(map_path).name, figures, scheme, framing, None, area_ha, mapped, unit, kappa)


def _by_name(area: Mapping[int, float], scheme: ClassScheme) -> dict[str, float]:
    return {item.name: float(area.get(item.code, 0.0)) for item in scheme.classes}


def unit_area(grid: Grid, row: NDArray[np.int32], col: NDArray[np.int32]) -> NDArray[np.float64] | None:
    """Area of each unit, float64 [unit], in mean pixels; None on grids whose pixels are all alike.

    Pixels of a geographic grid shrink towards the poles, so each unit weighs with its own area.
    """
    low, high = grid.pixel_area_range_ha
    return None if low == high else grid.areas_at_ha(row, col) * 2 / (low + high)


def _unit(grid: Grid) -> tuple[str, float | None]:
    if grid.crs.is_geographic:
        return "degree", None
    name, metres = grid.crs.linear_units_factor
    return name, metres**2 / HECTARE_M2
