"""``landcover assess MAP``, ``compare``, ``change``: accuracy and areas from reference data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.accuracy.assess import assess_map
from pipeline.accuracy.change import change_map
from pipeline.accuracy.compare import compare_maps
from pipeline.accuracy.estimates import NOT_PROBABILITY
from pipeline.errors import OutputError
from pipeline.files import write_json
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.accuracy.assess import Assessment
    from pipeline.accuracy.estimates import Estimate
    from pipeline.legend import ClassScheme


@dataclass(frozen=True)
class ReferenceRequest:
    """Reference data and how they were drawn, as the command line has them; see ``landcover assess --help``."""

    reference: Path
    field: str | None
    strata: str | None = None
    strata_field: str | None = None
    strata_edges: tuple[float, ...] = ()
    design: str | None = None
    crosswalk: str | None = None
    scheme: ClassScheme | None = None


def assess_against_reference(
    path: Path, request: ReferenceRequest, *, kappa: bool, output: Path | None, overwrite: bool
) -> Outcome:
    """Accuracy and areas of a map from reference points, polygons or a raster.

    Raises:
        OutputError: ``output`` exists and is not to be overwritten.
    """
    if output is not None and output.exists() and not overwrite:
        raise OutputError("the file exists", path=output, fix="add --overwrite")
    found = assess_map(path, kappa=kappa, **vars(request))
    data = found.to_json()
    written = (write_json(output, data),) if output else ()
    label = "" if found.framing.frame.is_probability else f" ({_label(found)})"
    tables = (_class_table(found), _matrix_table(found, shares=False), _matrix_table(found, shares=True))
    return Outcome(
        summary=f"{path.name}: overall accuracy {percent(found.figures.overall_accuracy)}{label}",
        tables=(*tables, *_kappa_table(found, data)),
        hint=found.words(),
        written=written,
        data=data,
    )


def _label(found: Assessment) -> str:
    return "agreement on all pixels" if found.framing.frame.kind == "census" else NOT_PROBABILITY


def _kappa_table(found: Assessment, data: dict[str, object]) -> tuple[Table, ...]:
    if not found.with_kappa:
        return ()
    beyond = data["agreement_beyond_chance"]
    names = ("kappa", "quantity_disagreement", "allocation_disagreement")
    values = tuple("-" if beyond[name] is None else f"{beyond[name]:.3f}" for name in names)  # type: ignore[index]
    heads = tuple(name.replace("_", " ") for name in names)
    return (Table("kappa is no measure of map accuracy; read the disagreements", heads, (values,)),)


def percent(item: Estimate) -> str:
    """An estimate as "87.4 % +- 1.9 %", the half-width of its 95 % interval; without what cannot be known.

    An interval that ends at 0 or 1 has no half-width: "100.0 % (88.4 to 100.0)".
    """
    if item.estimate is None:
        return "-"
    text = f"{100 * item.estimate:.1f} %"
    if item.ci95 is None:
        return text
    below, above = (100 * abs(item.estimate - end) for end in item.ci95)
    if abs(below - above) > 0.05:  # noqa: PLR2004 - they would be printed as different numbers
        return f"{text} ({100 * item.ci95[0]:.1f} to {100 * item.ci95[1]:.1f})"
    return f"{text} +- {above:.1f} %"


def _hectares(item: Estimate) -> str:
    if item.estimate is None:
        return "-"
    text = f"{item.estimate:,.1f}"
    if item.ci95 is None:
        return text
    below, above = item.estimate - item.ci95[0], item.ci95[1] - item.estimate
    if abs(below - above) > 0.05:  # noqa: PLR2004 - they would be printed as different numbers
        return f"{text} ({item.ci95[0]:,.1f} to {item.ci95[1]:,.1f})"
    return f"{text} +- {above:,.1f}"


def _class_table(found: Assessment) -> Table:
    rows = tuple(
        (
            name,
            percent(item.users_accuracy),
            percent(item.producers_accuracy),
            percent(item.f1),
            _hectares(found.area(name)),
            f"{found.mapped_ha[name]:,.1f}",
        )
        for name, item in found.figures.per_class.items()
    )
    label = "" if found.framing.frame.is_probability else f" - {_label(found)}"
    return Table(f"accuracy and area{label}", ("class", "user's", "producer's", "F1", "ha", "mapped ha"), rows)


def _matrix_table(found: Assessment, *, shares: bool) -> Table:
    matrix = found.figures.error_matrix
    cells = matrix.proportions if shares else matrix.counts
    rows = tuple(
        (name, *(f"{100 * value:.2f}" if shares else str(int(value)) for value in row))
        for name, row in zip(matrix.names, cells, strict=True)
    )
    frame = found.framing.frame
    what = "% of the area" if frame.is_probability or frame.kind == "census" else "% of the units"
    title = f"error matrix in {what}" if shares else "error matrix: map in rows, reference in columns"
    return Table(title, ("", *matrix.names), rows)


def compare_two(first: Path, second: Path, request: ReferenceRequest, *, second_crosswalk: str | None) -> Outcome:
    """Two maps on one reference: McNemar's test and the paired interval of the difference."""
    found = compare_maps(first, second, second_crosswalk=second_crosswalk, **vars(request))
    rows = tuple(
        (path.name, percent(item.figures.overall_accuracy))
        for path, item in ((first, found.first), (second, found.second))
    )
    label = "" if found.first.framing.frame.is_probability else f" ({_label(found.first)})"
    return Outcome(
        summary=f"difference of overall accuracy (first minus second): {percent(found.difference)}{label}",
        tables=(Table(f"overall accuracy{label}", ("map", ""), rows),),
        hint=found.words(),
        data=found.to_json(),
    )


def change_between(
    before: Path, after: Path, *, output: Path, scheme: ClassScheme | None = None, overwrite: bool
) -> Outcome:
    """From-to map and transition table of two maps with one legend."""
    found = change_map(before, after, output=output, scheme=scheme, overwrite=overwrite)
    names = found.scheme.names
    rows = tuple(
        (name, *(f"{value:,.1f}" for value in areas)) for name, areas in zip(names, found.area_ha, strict=True)
    )
    data = found.to_json()
    left_out = f"{found.left_out_ha:,.1f} ha have no class in one of the maps and are left out\n"
    return Outcome(
        summary=f"change from {before.name} to {after.name}",
        tables=(Table("ha, from (rows) to (columns)", ("", *names), rows),),
        written=(output,),
        hint=f"{left_out if found.left_out_ha else ''}{data['note']}: landcover design {output}",
        data=data,
    )
