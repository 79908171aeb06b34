"""Accuracy that can be published: design, assess, compare, change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import Force, Overwrite, Seed

if TYPE_CHECKING:
    from pipeline.accuracy.assess_map import ReferenceSettings

MapFile = Annotated[Path, typer.Argument(metavar="MAP", help="Class map written by landcover, or any class raster.")]
Reference = Annotated[Path, typer.Option("--reference", help="Reference points, polygons or raster.")]
Crosswalk = Annotated[
    str | None, typer.Option(help="CSV, or the name of a table that comes along: class in the reference -> in the map.")
]
Legend = Annotated[
    str | None,
    typer.Option(help='Legend of a map that carries none: JSON of code, name, color; or "ESA WorldCover" ...'),
]
Strata = Annotated[
    str | None, typer.Option(help="Strata that the sample was drawn from: 'map', or a raster or polygon file.")
]
StrataField = Annotated[str | None, typer.Option(help="Attribute of the strata polygons.")]
StrataEdges = Annotated[
    str | None, typer.Option(help="Limits that cut a strata raster such as confidence into strata: 50,80")
]
Design = Annotated[
    str | None,
    typer.Option("--design", help="Design file of landcover design; or 'simple random', 'systematic' if drawn so."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_commands(app, design, assess, compare, zone, change, crosswalk)


def _edges(text: str | None) -> tuple[float, ...]:
    try:
        edges = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as err:
        raise typer.BadParameter(f"--strata-edges {text}: expected ascending numbers, as in 50,80") from err
    if list(edges) != sorted(set(edges)):
        raise typer.BadParameter(f"--strata-edges {text}: expected ascending numbers, as in 50,80")
    return edges


def _settings(
    reference: Path,
    field: str | None,
    *,
    strata: str | None,
    strata_field: str | None,
    strata_edges: str | None,
    design_file: str | None,
    crosswalk: str | None,
    kappa: bool = False,
    assist: str | None = None,
) -> ReferenceSettings:
    from pipeline.accuracy.assess_map import ReferenceSettings

    return ReferenceSettings(
        reference=reference, field=field, strata=strata, strata_field=strata_field, strata_edges=_edges(strata_edges),
        design=design_file, crosswalk=crosswalk, kappa=kappa, assist=assist,
    )  # fmt: skip


def design(
    maps: Annotated[list[Path], typer.Argument(metavar="MAP...", help="Class map to draw the sample from.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to interpret in QGIS.")] = Path(
        "sample.gpkg"
    ),
    kind: Annotated[
        str, typer.Option(help="simple_random, systematic, stratified, cluster or two_stage.")
    ] = "stratified",
    allocation: Annotated[
        str | None,
        typer.Option(help="equal, proportional (the default of squares), neyman or olofsson (of pixels)."),
    ] = None,
    size: Annotated[
        int | None, typer.Option("-n", "--size", help="Pixels, or squares; default from --target-se.")
    ] = None,
    target_se: Annotated[float, typer.Option(help="Standard error of overall accuracy aimed at.")] = 0.01,
    expected: Annotated[
        list[str] | None,
        typer.Option(help="Expected user's accuracy of a class as name=0.9, of all others as 0.8; repeatable."),
    ] = None,
    strata: Annotated[
        str | None, typer.Option(help="Strata: 'map' (the default), or a raster or polygon file.")
    ] = None,
    strata_field: StrataField = None,
    strata_edges: StrataEdges = None,
    change_from: Annotated[
        Path | None, typer.Option(help="Earlier map: the strata are the changes from it to MAP.")
    ] = None,
    purpose: Annotated[
        str | None, typer.Option("--for", help="compare: draw where two maps A B differ, for compare --sequential.")
    ] = None,
    starts: Annotated[int, typer.Option(help="Random starts of a systematic sample; one has no variance.")] = 10,
    cluster_px: Annotated[int, typer.Option(help="Side of a cluster in pixels.")] = 9,
    per_cluster: Annotated[int, typer.Option(help="Pixels drawn in each cluster of a two-stage sample.")] = 10,
    minimum_distance_m: Annotated[float, typer.Option(help="Smallest distance between sample units in metres.")] = 0.0,
    show_map_class: Annotated[bool, typer.Option("--show-map-class", help="Not blind: keep the map class.")] = False,
    legend: Legend = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> Work:
    """Draw a probability sample from a map, to be interpreted in QGIS."""
    from pipeline.accuracy.sample_draw import DesignSettings
    from pipeline.workflow.assess import told_legend
    from pipeline.workflow.design import draw_design

    if purpose not in {None, "compare"} or (purpose == "compare" and len(maps) != 2):  # noqa: PLR2004 - a pair
        raise typer.BadParameter(f"--for {purpose}: expected 'compare', and the two maps to compare")
    other = maps[1] if purpose == "compare" else None
    settings = DesignSettings(
        compare_with=other,
        kind=kind, allocation=allocation, size=size, target_se=target_se, expected=expected or (), strata=strata,
        strata_field=strata_field, strata_edges=_edges(strata_edges), change_from=change_from, starts=starts,
        cluster_px=cluster_px, per_cluster=per_cluster, minimum_distance_m=minimum_distance_m, seed=seed,
    )  # fmt: skip
    return lambda progress: draw_design(
        maps[:1] if other else maps,
        settings,
        output=output,
        scheme=told_legend(legend),
        blind=not show_map_class,
        overwrite=overwrite,
        progress=progress,
    )


def assess(
    target: Annotated[Path, typer.Argument(metavar="config.yaml | MAP", help="Configuration, or a class map.")],
    *,
    reference: Annotated[Path | None, typer.Option(help="Reference points, polygons or raster (with MAP).")] = None,
    field: Annotated[str | None, typer.Option(help="Attribute that holds the reference class.")] = None,
    strata: Strata = None,
    strata_field: StrataField = None,
    strata_edges: StrataEdges = None,
    design_file: Design = None,
    crosswalk: Crosswalk = None,
    legend: Legend = None,
    assist: Annotated[
        str | None, typer.Option(help="'confidence' (beside the map), or a raster of it: narrower intervals.")
    ] = None,
    kappa: Annotated[
        bool, typer.Option("--kappa", help="Also kappa, with quantity and allocation disagreement.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the figures as JSON.")] = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Accuracy and area figures: of a job's test blocks, or of a map against reference data."""
    if target.suffix.lower() in {".yaml", ".yml"}:
        from pipeline.workflow.stages import run_stages

        return lambda progress: run_stages(target, last="assess", force=force, overwrite=overwrite, progress=progress)
    if reference is None:
        raise typer.BadParameter("a map is assessed against --reference FILE (with --field F for points and polygons)")
    from pipeline.workflow.assess import assess_against_reference, told_legend

    settings = _settings(
        reference, field, strata=strata, strata_field=strata_field, strata_edges=strata_edges,
        design_file=design_file, crosswalk=crosswalk, kappa=kappa, assist=assist,
    )  # fmt: skip
    return lambda _: assess_against_reference(
        target, settings, scheme=told_legend(legend), output=output, overwrite=overwrite
    )


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="One map.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other map.")],
    *,
    reference: Reference,
    field: Annotated[str | None, typer.Option(help="Attribute that holds the reference class.")] = None,
    strata: Strata = None,
    strata_field: StrataField = None,
    strata_edges: StrataEdges = None,
    design_file: Design = None,
    crosswalk: Crosswalk = None,
    second_crosswalk: Annotated[
        str | None,
        typer.Option(help="CSV, or esa_worldcover, dynamic_world, corine, nlcd: class in B -> class in A."),
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Units of design --for compare so far: better, no difference, go on.")
    ] = False,
    margin: Annotated[float, typer.Option(help="With --sequential: difference that is none to care about.")] = 0.01,
    legend: Legend = None,
) -> Work:
    """Two maps on one reference: McNemar's test and the interval of the difference; on a raster every pixel."""
    from pipeline.workflow.assess import compare_so_far, compare_two, told_legend

    settings = _settings(
        reference, field, strata=strata, strata_field=strata_field, strata_edges=strata_edges,
        design_file=design_file, crosswalk=crosswalk,
    )  # fmt: skip
    if sequential:
        return lambda _: compare_so_far(first, second, settings, margin=margin, scheme=told_legend(legend))
    return lambda _: compare_two(first, second, settings, scheme=told_legend(legend), second_crosswalk=second_crosswalk)


def zone(
    map_file: MapFile,
    *,
    reference: Reference,
    field: Annotated[str, typer.Option(help="Attribute that holds the reference class.")],
    design_file: Annotated[str, typer.Option("--design", help="Design file, or 'simple random'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Mask to write: 1 in the zone, 0 outside.")] = Path(
        "zone.tif"
    ),
    confidence: Annotated[Path | None, typer.Option(help="Confidence in %; default: beside the map.")] = None,
    applicability: Annotated[
        Path | None, typer.Option(help="Area of applicability; only its inside may be in.")
    ] = None,
    max_error: Annotated[float, typer.Option(help="Largest share of the zone that may be wrong.")] = 0.05,
    overwrite: Overwrite = False,
) -> Work:
    """The largest part of a map whose error is at most 5 %, with 95 % confidence, as a mask and a sentence."""
    from pipeline.workflow.assess import zone_of

    settings = _settings(
        reference, field, strata=None, strata_field=None, strata_edges=None, design_file=design_file, crosswalk=None
    )
    return lambda _: zone_of(
        map_file,
        settings,
        output=output,
        confidence=confidence,
        applicability=applicability,
        max_error=max_error,
        overwrite=overwrite,
    )


def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier map.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later map, with the same legend.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="From-to map to write.")] = Path("change.tif"),
    legend: Legend = None,
    overwrite: Overwrite = False,
) -> Work:
    """From-to map and transition table of two maps with one legend."""
    from pipeline.workflow.assess import change_between, told_legend

    return lambda _: change_between(before, after, output=output, scheme=told_legend(legend), overwrite=overwrite)


def crosswalk(
    table: Annotated[str, typer.Argument(help="esa_worldcover, dynamic_world, corine, corine_level2 or nlcd.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write and to edit.")] = Path("crosswalk.csv"),
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Your map: targets that are none of its classes are left to fill in.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Write the table from a public legend to the classes of a map, to be edited."""
    from pipeline.workflow.assess import write_crosswalk

    return lambda _: write_crosswalk(table, output=output, map_path=map_file, overwrite=overwrite)
