"""What a user can set about a sample of a map, and about the reference data that a map is assessed against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.errors import ConfigError, ReferenceDataError
from pipeline.settings import Settings

SQUARES = frozenset({"cluster", "two_stage"})
KINDS = ("simple_random", "systematic", "stratified", "cluster", "two_stage")
ALLOCATIONS = ("equal", "proportional", "neyman", "olofsson")
# Key of the expected accuracy of classes that are not named.
OTHERS = ""
# Ten starts leave 9 degrees of freedom: Student's t is 2.26 instead of 1.96, and each grid is still a grid.
STARTS = 10
# What analysts expect of a map before they have looked at it; Olofsson et al. (2014), sect. 5.1, use 0.6 to 0.95.
EXPECTED_USERS = 0.8

# Evidence of e^3 = 20 : 1 makes a change from year to year; tests/benchmarks/bench_series.py.
CHANGE_COST = 3.0
MAP_ACCURACY = 0.8
# A difference of two maps below it is none to care about; the error that a zone may have.
MARGIN, MAX_ERROR = 0.01, 0.05


def _ascending(edges: tuple[float, ...]) -> tuple[float, ...]:
    if list(edges) != sorted(set(edges)):
        raise ValueError("ascending numbers, as in 50,80")
    return edges


Edges = Annotated[tuple[float, ...], AfterValidator(_ascending)]


class DesignSettings(Settings):
    """A sample to draw; ``landcover design --help`` has the same words."""

    kind: str = Field("stratified", description="simple_random, systematic, stratified, cluster or two_stage.")
    allocation: str | None = Field(
        None, description="equal, proportional (the default of squares), neyman or olofsson (of pixels)."
    )
    size: int | None = Field(None, ge=1, description="Pixels, or squares. Default: from target_se (not of squares).")
    target_se: float = Field(0.01, gt=0, lt=1, description="Standard error of overall accuracy aimed at, 0..1.")
    expected: dict[str, float] = Field(
        default_factory=dict, description="Expected user's accuracy by class, 0..1; of all others under ''."
    )
    strata: str | None = Field(None, description="'map' (the default of pixels), or a raster or polygon file.")
    strata_field: str | None = Field(None, description="Attribute of the strata polygons.")
    strata_edges: Edges = Field((), description="Limits that cut a strata raster into strata, ascending.")
    change_from: Path | None = Field(None, description="Earlier map: the strata are the changes from it to the map.")
    compare_with: Path | None = Field(None, description="Second map: units are drawn where it differs from the map.")
    starts: int = Field(STARTS, ge=1, description="Random starts of a systematic sample; one has no variance.")
    cluster_px: int = Field(9, ge=1, description="Side of a square in pixels.")
    per_cluster: int = Field(10, ge=1, description="Pixels drawn in each square of a two-stage sample.")
    seed: int = Field(0, ge=0, description="The same seed gives the same sample.")

    @model_validator(mode="before")
    @classmethod
    def _went(cls, data: dict[str, object]) -> dict[str, object]:
        if "minimum_distance_m" in data:
            fix = "spread units with --kind systematic, whose inclusion probabilities are known"
            raise ConfigError("key 'design.minimum_distance_m' went", fix=fix)
        return data

    @field_validator("expected", mode="before")
    @classmethod
    def _pairs(cls, told: object) -> object:
        """``name=0.9`` for a class, ``0.8`` for all others."""
        if isinstance(told, dict):
            return told
        pairs: dict[str, float] = {}
        for text in told if isinstance(told, (list, tuple)) else [told]:
            name, _, value = str(text).rpartition("=")
            try:
                pairs[name] = float(value)
            except ValueError as err:
                raise ConfigError("option --expected", got=text, expected="name=0.9, or 0.9 for all") from err
        return pairs

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse kinds and allocations that do not exist, and options that the kind has no use for."""
        if self.kind not in KINDS:
            raise ConfigError("option --kind", got=self.kind, expected=", ".join(KINDS))
        if self.allocation not in {None, *ALLOCATIONS}:
            raise ConfigError("option --allocation", got=self.allocation, expected=", ".join(ALLOCATIONS))
        if self.kind in SQUARES and self.size is None:
            raise ConfigError(f"sample of kind {self.kind}", expected="the number of its squares, with --size")
        strata = self.strata is not None or self.change_from is not None
        if self.kind in {"simple_random", "systematic"} and strata:
            raise ConfigError(
                f"strata for a sample of kind {self.kind}, which is drawn from the whole map",
                fix="use --kind stratified, cluster or two_stage",
            )
        if self.allocation is not None and not (strata or self.kind == "stratified"):
            raise ConfigError(f"an allocation for a sample of kind {self.kind} without strata", fix="add --strata")
        if self.strata is not None and self.change_from is not None:
            raise ConfigError("both --strata and --change-from", fix="give one of them")
        if self.compare_with is not None and (self.kind != "stratified" or strata or self.allocation is not None):
            raise ConfigError(
                "a sample to compare two maps with a kind, strata or an allocation of its own",
                fix="leave --kind, --strata, --change-from and --allocation out: it lies where the maps differ",
            )
        if self.kind in {"simple_random", "systematic"} and self.size is None and set(self.expected) - {OTHERS}:
            raise ConfigError(
                f"expected accuracies per class for a sample of kind {self.kind}", fix="give one: --expected 0.85"
            )
        return self

    @property
    def expected_users(self) -> dict[str, float] | float:
        """Expected user's accuracy of all strata, or by name."""
        return self.expected.get(OTHERS, EXPECTED_USERS) if set(self.expected) <= {OTHERS} else self.expected


class ReferenceSettings(Settings):
    """Reference data and how they were drawn; ``landcover assess --help`` has the same words.

    Without design and strata, units are taken for what they most often are: no probability sample.
    """

    reference: Path = Field(description="Reference points, polygons or raster; vectors in any format, or CSV.")
    field: str | None = Field(None, description="Attribute that holds the reference class.")
    strata: str | None = Field(
        None, description="Strata that the sample was drawn from: 'map', or a raster or polygon file."
    )
    strata_field: str | None = Field(None, description="Attribute of the strata polygons.")
    strata_edges: Edges = Field(
        (), description="Limits that cut a strata raster such as confidence into strata, ascending."
    )
    design: str | None = Field(
        None, description="Design file of landcover design; or 'simple random', 'systematic' if drawn so."
    )
    crosswalk: str | dict[str, str] | None = Field(
        None, description="CSV, or the name of a table that comes along: class in the reference -> in the map."
    )
    assist: str | None = Field(
        None, description="'confidence' (beside the map), or a raster of it: narrower intervals."
    )
    kappa: bool = Field(default=False, description="Also kappa, with quantity and allocation disagreement.")

    def table(self) -> dict[str, str] | None:
        """The crosswalk, read where it is a file.

        Raises:
            LegendError: no such file, or other columns.
        """
        from pipeline.accuracy.crosswalk import read_crosswalk

        return read_crosswalk(self.crosswalk) if isinstance(self.crosswalk, str) else self.crosswalk

    def plain_raster(self) -> Path:
        """The reference raster; designs belong to samples, and a raster is none.

        Raises:
            ReferenceDataError: a design, strata or an auxiliary are given.
        """
        if self.design is not None or self.strata is not None or self.assist is not None:
            raise ReferenceDataError(
                "a reference raster has no sampling design",
                path=self.reference,
                fix="leave design, strata and assist out",
            )
        return self.reference


class SeriesSettings(Settings):
    """How annual maps are made consistent."""

    years: tuple[Annotated[int, Field(ge=1, le=9999)], ...] = Field(
        (), description="Years of the maps: 2018,2019; default: from their names."
    )
    costs: Path | None = Field(
        None, description="CSV from,to,cost: classes or *, a number or 'never' for what is illogical."
    )
    change_cost: float = Field(CHANGE_COST, gt=0, description="Cost of all other changes: c needs evidence of e^c : 1.")
    accuracy: float = Field(MAP_ACCURACY, gt=0, lt=1, description="Accuracy of maps without confidence beside them.")


class SequentialSettings(Settings):
    """When ``compare --sequential`` stops."""

    margin: float = Field(MARGIN, gt=0, lt=1, description="With --sequential: difference that is none to care about.")


class ZoneSettings(Settings):
    """What a zone promises."""

    max_error: float = Field(MAX_ERROR, gt=0, lt=1, description="Largest share of the zone that may be wrong.")


class MatchSettings(Settings):
    """How mapped objects are matched with footprints."""

    area: Path | None = Field(None, description="Polygons within which the footprints are complete.")
    iou: float = Field(0.5, ge=0.01, le=1.0, description="Share of area from which on two outlines are one object.")
    block_m: float | None = Field(None, ge=1.0, description="Side of the blocks that are resampled for intervals, m.")
    incomplete: bool = Field(default=False, description="Footprints are some of many, so only recall is given.")
