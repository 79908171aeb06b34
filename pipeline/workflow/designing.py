"""``landcover design``: a probability sample of a map, in files to interpret."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from pipeline.accuracy.clusters import draw_clusters
from pipeline.accuracy.design_files import check_design_target, write_design
from pipeline.accuracy.pixels import map_scheme
from pipeline.accuracy.sampling import draw_simple, draw_stratified, draw_systematic
from pipeline.accuracy.strata import ChangeStrata, open_strata
from pipeline.errors import ConfigError
from pipeline.maps.legends import check_same_legend
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.accuracy.design import SampleDesign
    from pipeline.accuracy.strata import StrataLayer
    from pipeline.legend import ClassScheme
    from pipeline.workflow.outcome import Progress

SQUARES = frozenset({"cluster", "two_stage"})
KINDS = ("simple_random", "systematic", "stratified", "cluster", "two_stage")
ALLOCATIONS = ("equal", "proportional", "neyman", "olofsson")
# What analysts expect of a map before they have looked at it; Olofsson et al. (2014), sect. 5.1, use 0.6 to 0.95.
EXPECTED_USERS = 0.8


@dataclass(frozen=True)
class DesignRequest:
    """What the command line asks of a sample; see ``landcover design --help``."""

    kind: str
    allocation: str | None
    size: int | None
    target_se: float
    expected: tuple[str, ...]
    strata: str | None
    strata_field: str | None
    strata_edges: tuple[float, ...]
    change_from: Path | None
    starts: int
    cluster_px: int
    per_cluster: int
    minimum_distance_m: float
    blind: bool
    seed: int
    scheme: ClassScheme | None = None

    def __post_init__(self) -> None:
        """Refuse kinds and allocations that do not exist, and options that the kind has no use for."""
        if self.kind not in KINDS:
            raise ConfigError("option --kind", got=self.kind, expected=", ".join(KINDS))
        if self.allocation not in {None, *ALLOCATIONS}:
            raise ConfigError("option --allocation", got=self.allocation, expected=", ".join(ALLOCATIONS))
        if self.kind in SQUARES and self.size is None:
            raise ConfigError(f"sample of kind {self.kind}", expected="the number of its squares, with --size")
        if self.kind in {"simple_random", "systematic"} and (self.strata is not None or self.change_from is not None):
            raise ConfigError(
                f"strata for a sample of kind {self.kind}, which is drawn from the whole map",
                fix="use --kind stratified, cluster or two_stage",
            )
        if self.allocation is not None and not self.has_strata:
            raise ConfigError(f"an allocation for a sample of kind {self.kind} without strata", fix="add --strata")
        if self.strata is not None and self.change_from is not None:
            raise ConfigError("both --strata and --change-from", fix="give one of them")
        if self.minimum_distance_m > 0 and self.kind not in {"stratified", "simple_random"}:
            raise ConfigError(
                f"a minimum distance for a sample of kind {self.kind}", fix="use --kind stratified or simple_random"
            )

    @property
    def has_strata(self) -> bool:
        """Whether units or squares are drawn by strata; pixels of a stratified sample have them anyway."""
        return self.kind == "stratified" or self.strata is not None or self.change_from is not None

    def expected_users(self) -> dict[str, float] | float:
        """Expected user's accuracy per class, or one for all; a number without a name stands for all others.

        Raises:
            ConfigError: something else than ``name=0.9`` or ``0.9``.
        """
        pairs: dict[str, float] = {}
        for text in self.expected:
            name, _, value = text.rpartition("=")
            try:
                pairs[name] = float(value)
            except ValueError as err:
                raise ConfigError("option --expected", got=text, expected="name=0.9, or 0.9 for all") from err
        return pairs.get("", EXPECTED_USERS) if set(pairs) <= {""} else pairs


def draw_design(
    maps: Sequence[Path], *, output: Path, request: DesignRequest, overwrite: bool, progress: Progress
) -> Outcome:
    """Draw a sample from each map and write what is needed to interpret it.

    Several maps get a sample each, in files called after them.
    """
    tables, written, data = [], [], []
    several = len(maps) > 1
    targets = [output.with_name(f"{output.stem}_{path.stem}{output.suffix}") if several else output for path in maps]
    for target in targets:  # before any of them is drawn
        check_design_target(target, overwrite=overwrite)
    for number, (path, target) in enumerate(zip(maps, targets, strict=True)):
        progress("drawing", number, len(maps))
        drawn = _draw(path, request)
        files = write_design(target, drawn, blind=request.blind, overwrite=overwrite)
        written += [files.geopackage, files.design, files.acatama, files.collect_earth]
        rows = tuple((item.name, f"{item.area_ha:,.1f}", f"{item.drawn}") for item in drawn.strata)
        tables.append(
            Table(f"{path.name}: {drawn.kind}, allocation: {drawn.allocation}", ("stratum", "ha", "units"), rows)
        )
        data.append({
            "map": str(path), "kind": drawn.kind, "allocation": drawn.allocation, "seed": drawn.seed,
            "units": len(drawn), "strata": [vars(item) for item in drawn.strata], "notes": list(drawn.notes),
        })  # fmt: skip
    return Outcome(
        summary=f"{sum(int(str(item['units'])) for item in data)} units drawn",
        written=tuple(written),
        tables=tuple(tables),
        hint="interpret the reference field in QGIS, then: landcover assess MAP --reference FILE --field reference "
        "--design DESIGN.json",
        data={"designs": data},
    )


def _draw(path: Path, request: DesignRequest) -> SampleDesign:
    expected, scheme = request.expected_users(), request.scheme
    if request.kind == "stratified" or request.kind in SQUARES:
        with ExitStack() as stack:
            strata = _strata(path, request)
            if strata is not None:
                stack.callback(strata.close)
            return _draw_in_strata(path, request, strata)
    if not isinstance(expected, float) and request.size is None:
        raise ConfigError(
            f"expected accuracies per class for a sample of kind {request.kind}", fix="give one: --expected 0.85"
        )
    overall = expected if isinstance(expected, float) else None
    if request.kind == "systematic":
        return draw_systematic(
            path,
            size=request.size,
            target_se=request.target_se,
            expected=overall,
            starts=request.starts,
            seed=request.seed,
            scheme=scheme,
        )
    return draw_simple(
        path,
        size=request.size,
        target_se=request.target_se,
        expected=overall,
        min_distance_m=request.minimum_distance_m,
        seed=request.seed,
        scheme=scheme,
    )


def _draw_in_strata(path: Path, request: DesignRequest, strata: StrataLayer | None) -> SampleDesign:
    rule = request.allocation or ("proportional" if request.kind in SQUARES else "olofsson")
    allocation = cast('Literal["equal", "proportional", "neyman", "olofsson"]', rule)
    if request.kind in SQUARES:
        return draw_clusters(
            path,
            clusters=request.size or 0,
            cluster_px=request.cluster_px,
            per_cluster=request.per_cluster if request.kind == "two_stage" else None,
            strata=strata,
            allocation=allocation,
            expected_users=request.expected_users(),
            seed=request.seed,
            scheme=request.scheme,
        )
    return draw_stratified(
        path,
        size=request.size,
        strata=strata,
        allocation=allocation,
        expected_users=request.expected_users(),
        target_se=None if request.size else request.target_se,
        min_distance_m=request.minimum_distance_m,
        seed=request.seed,
        scheme=request.scheme,
    )


def _strata(path: Path, request: DesignRequest) -> StrataLayer | None:
    """The layer of strata; None where none is named: the map's classes, or, for squares, the whole map."""
    scheme = map_scheme(path, request.scheme)
    if request.change_from is not None:
        if request.scheme is None:
            check_same_legend([path, request.change_from])
        return ChangeStrata(request.change_from, path, scheme=scheme, on_later=True)
    if request.strata is None:
        return None
    return open_strata(
        request.strata, map_path=path, scheme=scheme, field=request.strata_field, edges=request.strata_edges
    )
