"""``landcover design``, ``assess MAP``, ``compare``, ``change``: accuracy and areas from reference data."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from pipeline.accuracy.assess import assess_map
from pipeline.accuracy.change import change_map
from pipeline.accuracy.compare import compare_maps
from pipeline.accuracy.crosswalk import read_crosswalk
from pipeline.accuracy.design_files import write_design
from pipeline.accuracy.sampling import draw_clusters, draw_simple, draw_stratified
from pipeline.accuracy.strata import open_strata
from pipeline.errors import ConfigError, OutputError
from pipeline.maps.legends import read_scheme
from pipeline.runs import write_json
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.accuracy.assess import Assessment
    from pipeline.accuracy.design import SampleDesign
    from pipeline.accuracy.estimates import Estimate
    from pipeline.accuracy.strata import StrataLayer
    from pipeline.workflow.outcome import Progress

KINDS = ("simple_random", "systematic", "stratified", "cluster", "two_stage")
ALLOCATIONS = ("equal", "proportional", "neyman", "olofsson")
# What analysts expect of a map before they have looked at it; Olofsson et al. (2014), sect. 5.1, use 0.6 to 0.95.
EXPECTED_USERS = 0.8


@dataclass(frozen=True)
class DesignRequest:
    """What the command line asks of a sample; see ``landcover design --help``."""

    kind: str
    allocation: str
    size: int | None
    target_se: float
    expected: tuple[str, ...]
    strata: Path | None
    strata_field: str | None
    cluster_px: int
    per_cluster: int
    minimum_distance_m: float
    blind: bool
    seed: int

    def __post_init__(self) -> None:
        """Refuse kinds and allocations that do not exist."""
        if self.kind not in KINDS:
            raise ConfigError("option --kind", got=self.kind, expected=", ".join(KINDS))
        if self.allocation not in ALLOCATIONS:
            raise ConfigError("option --allocation", got=self.allocation, expected=", ".join(ALLOCATIONS))
        if self.kind != "stratified" and self.size is None:
            raise ConfigError(f"sample of kind {self.kind}", expected="its size, with --size")

    def expected_users(self) -> dict[str, float] | float:
        """Expected user's accuracy per class, or one for all."""
        pairs = {}
        for text in self.expected:
            name, _, value = text.rpartition("=")
            try:
                pairs[name] = float(value)
            except ValueError as err:
                raise ConfigError("option --expected", got=text, expected="name=0.9") from err
        return pairs or EXPECTED_USERS


def draw_design(
    maps: Sequence[Path], *, output: Path, request: DesignRequest, overwrite: bool, progress: Progress
) -> Outcome:
    """Draw a sample from each map and write what is needed to interpret it.

    Several maps get a sample each, in files called after them.
    """
    tables, written, data = [], [], []
    for number, path in enumerate(maps):
        progress("drawing", number, len(maps))
        target = output if len(maps) == 1 else output.with_name(f"{output.stem}_{path.stem}{output.suffix}")
        drawn = _draw(path, request)
        files = write_design(target, drawn, blind=request.blind, overwrite=overwrite)
        written += [files.geopackage, files.design, files.acatama, files.collect_earth]
        rows = tuple((item.name, f"{item.area_ha:,.1f}", f"{item.drawn}") for item in drawn.strata)
        tables.append(
            Table(f"{path.name}: {drawn.kind}, allocation {drawn.allocation}", ("stratum", "ha", "units"), rows)
        )
        data.append({"map": str(path), "units": len(drawn.row), "strata": [vars(item) for item in drawn.strata]})
    return Outcome(
        summary=f"{sum(int(str(item['units'])) for item in data)} units drawn",
        written=tuple(written),
        tables=tuple(tables),
        hint="interpret the reference field in QGIS, then: landcover assess MAP --reference FILE --design DESIGN.json",
        data={"designs": data},
    )


def _draw(path: Path, request: DesignRequest) -> SampleDesign:
    if request.kind == "stratified":
        with ExitStack() as stack:
            strata: StrataLayer | None = None
            if request.strata is not None:
                scheme = read_scheme(path)
                strata = open_strata(request.strata, map_path=path, scheme=scheme, field=request.strata_field)
                stack.callback(strata.close)
            return draw_stratified(
                path,
                size=request.size,
                strata=strata,
                allocation=cast('Literal["equal", "proportional", "neyman", "olofsson"]', request.allocation),
                expected_users=request.expected_users(),
                target_se=None if request.size else request.target_se,
                min_distance_m=request.minimum_distance_m,
                seed=request.seed,
            )
    size = request.size or 0
    if request.kind in {"cluster", "two_stage"}:
        return draw_clusters(
            path,
            clusters=size,
            cluster_px=request.cluster_px,
            per_cluster=request.per_cluster if request.kind == "two_stage" else None,
            seed=request.seed,
        )
    return draw_simple(
        path,
        size=size,
        systematic=request.kind == "systematic",
        min_distance_m=request.minimum_distance_m,
        seed=request.seed,
    )


def assess_against_reference(
    path: Path,
    *,
    reference: Path,
    field: str | None,
    strata: str | None,
    strata_field: str | None,
    design: Path | None,
    crosswalk: Path | None,
    kappa: bool,
    output: Path | None,
    overwrite: bool,
) -> Outcome:
    """Accuracy and areas of a map from reference points, polygons or a raster.

    Raises:
        OutputError: ``output`` exists and is not to be overwritten.
    """
    if output is not None and output.exists() and not overwrite:
        raise OutputError("the file exists", path=output, fix="add --overwrite")
    found = assess_map(
        path,
        reference=reference,
        field=field,
        strata=strata,
        strata_field=strata_field,
        design=design,
        crosswalk=read_crosswalk(crosswalk) if crosswalk else None,
        kappa=kappa,
    )
    data = found.to_json()
    written = (write_json(output, data),) if output else ()
    overall = found.figures.overall_accuracy
    return Outcome(
        summary=f"{path.name}: overall accuracy {percent(overall)}",
        tables=(_class_table(found), _matrix_table(found)),
        hint=found.words(),
        written=written,
        data=data,
    )


def percent(item: Estimate) -> str:
    """An estimate as "87.4 % +- 1.9 %", the half-width of its 95 % interval; without what cannot be known."""
    if item.estimate is None:
        return "-"
    text = f"{100 * item.estimate:.1f} %"
    return text if item.ci95 is None else f"{text} +- {50 * (item.ci95[1] - item.ci95[0]):.1f} %"


def _hectares(item: Estimate) -> str:
    if item.estimate is None:
        return "-"
    text = f"{item.estimate:,.1f}"
    return text if item.ci95 is None else f"{text} +- {(item.ci95[1] - item.ci95[0]) / 2:,.1f}"


def _class_table(found: Assessment) -> Table:
    rows = tuple(
        (
            name,
            percent(item.users_accuracy),
            percent(item.producers_accuracy),
            percent(item.f1),
            _hectares(found.area(name)),
        )
        for name, item in found.figures.per_class.items()
    )
    label = "" if found.framing.frame.is_probability else " - not a probability sample"
    return Table(f"accuracy and area{label}", ("class", "user's", "producer's", "F1", "ha"), rows)


def _matrix_table(found: Assessment) -> Table:
    matrix = found.figures.error_matrix
    rows = tuple(
        (name, *(str(int(value)) for value in counts)) for name, counts in zip(matrix.names, matrix.counts, strict=True)
    )
    return Table("error matrix: map in rows, reference in columns", ("", *matrix.names), rows)


def compare_two(first: Path, second: Path, *, reference: Path, field: str | None, crosswalk: Path | None) -> Outcome:
    """Two maps on one reference: McNemar's test and the paired interval of the difference."""
    if field is None:
        raise ConfigError("comparison of two maps", expected="--field, the attribute of the reference class")
    found = compare_maps(
        first, second, reference=reference, field=field, crosswalk=read_crosswalk(crosswalk) if crosswalk else None
    )
    rows = tuple(
        (path.name, percent(item.figures.overall_accuracy))
        for path, item in ((first, found.first), (second, found.second))
    )
    test = found.mcnemar
    return Outcome(
        summary=f"difference of overall accuracy (first minus second): {percent(found.difference)}",
        tables=(Table("overall accuracy", ("map", ""), rows),),
        hint=f"McNemar: {test.only_first} units right only in the first, {test.only_second} only in the second, "
        f"p = {test.p_value:.3g} ({'exact' if test.exact else 'chi-squared'})",
        data=found.to_json(),
    )


def change_between(before: Path, after: Path, *, output: Path, overwrite: bool) -> Outcome:
    """From-to map and transition table of two maps with one legend."""
    found = change_map(before, after, output=output, overwrite=overwrite)
    names = found.scheme.names
    rows = tuple(
        (name, *(f"{value:,.1f}" for value in areas)) for name, areas in zip(names, found.area_ha, strict=True)
    )
    data = found.to_json()
    return Outcome(
        summary=f"change from {before.name} to {after.name}",
        tables=(Table("ha, from (rows) to (columns)", ("", *names), rows),),
        written=(output,),
        hint=str(data["note"]),
        data=data,
    )
