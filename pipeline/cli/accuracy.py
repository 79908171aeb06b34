"""Accuracy that can be published: design, assess, compare, change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Force, Json, Overwrite, Quiet, Seed

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
    for name, function in (
        ("design", design), ("assess", assess), ("compare", compare), ("change", change), ("crosswalk", crosswalk)
    ):  # fmt: skip
        app.command(name)(function)


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
) -> ReferenceSettings:
    from pipeline.accuracy.assess_map import ReferenceSettings

    return ReferenceSettings(
        reference=reference, field=field, strata=strata, strata_field=strata_field, strata_edges=_edges(strata_edges),
        design=design_file, crosswalk=crosswalk, kappa=kappa,
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
    starts: Annotated[int, typer.Option(help="Random starts of a systematic sample; one has no variance.")] = 10,
    cluster_px: Annotated[int, typer.Option(help="Side of a cluster in pixels.")] = 9,
    per_cluster: Annotated[int, typer.Option(help="Pixels drawn in each cluster of a two-stage sample.")] = 10,
    minimum_distance_m: Annotated[float, typer.Option(help="Smallest distance between sample units in metres.")] = 0.0,
    show_map_class: Annotated[bool, typer.Option("--show-map-class", help="Not blind: keep the map class.")] = False,
    legend: Legend = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Draw a probability sample from a map, to be interpreted in QGIS."""
    from pipeline.accuracy.sample_draw import DesignSettings
    from pipeline.workflow.assess import told_legend
    from pipeline.workflow.design import draw_design

    settings = DesignSettings(
        kind=kind, allocation=allocation, size=size, target_se=target_se, expected=expected or (), strata=strata,
        strata_field=strata_field, strata_edges=_edges(strata_edges), change_from=change_from, starts=starts,
        cluster_px=cluster_px, per_cluster=per_cluster, minimum_distance_m=minimum_distance_m, seed=seed,
    )  # fmt: skip
    return Console(quiet, as_json).perform(
        lambda progress: draw_design(
            maps,
            settings,
            output=output,
            scheme=told_legend(legend),
            blind=not show_map_class,
            overwrite=overwrite,
            progress=progress,
        )
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
    kappa: Annotated[
        bool, typer.Option("--kappa", help="Also kappa, with quantity and allocation disagreement.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the figures as JSON.")] = None,
    force: Force = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Accuracy and area figures: of a job's test blocks, or of a map against reference data."""
    console = Console(quiet, as_json)
    if target.suffix.lower() in {".yaml", ".yml"}:
        from pipeline.workflow.stages import run_stages

        return console.perform(
            lambda progress: run_stages(target, last="assess", force=force, overwrite=overwrite, progress=progress)
        )
    if reference is None:
        raise typer.BadParameter("a map is assessed against --reference FILE (with --field F for points and polygons)")
    from pipeline.workflow.assess import assess_against_reference, told_legend

    settings = _settings(
        reference, field, strata=strata, strata_field=strata_field, strata_edges=strata_edges,
        design_file=design_file, crosswalk=crosswalk, kappa=kappa,
    )  # fmt: skip
    return console.perform(
        lambda _: assess_against_reference(
            target, settings, scheme=told_legend(legend), output=output, overwrite=overwrite
        )
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
    legend: Legend = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Two maps on one reference: McNemar's test and the interval of the difference; on a raster every pixel."""
    from pipeline.workflow.assess import compare_two, told_legend

    settings = _settings(
        reference, field, strata=strata, strata_field=strata_field, strata_edges=strata_edges,
        design_file=design_file, crosswalk=crosswalk,
    )  # fmt: skip
    return Console(quiet, as_json).perform(
        lambda _: compare_two(first, second, settings, scheme=told_legend(legend), second_crosswalk=second_crosswalk)
    )


def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier map.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later map, with the same legend.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="From-to map to write.")] = Path("change.tif"),
    legend: Legend = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """From-to map and transition table of two maps with one legend."""
    from pipeline.workflow.assess import change_between, told_legend

    return Console(quiet, as_json).perform(
        lambda _: change_between(before, after, output=output, scheme=told_legend(legend), overwrite=overwrite)
    )


def crosswalk(
    table: Annotated[str, typer.Argument(help="esa_worldcover, dynamic_world, corine, corine_level2 or nlcd.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write and to edit.")] = Path("crosswalk.csv"),
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Your map: targets that are none of its classes are left to fill in.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Write the table from a public legend to the classes of a map, to be edited."""
    from pipeline.workflow.assess import write_crosswalk

    return Console(quiet, as_json).perform(
        lambda _: write_crosswalk(table, output=output, map_path=map_file, overwrite=overwrite)
    )
