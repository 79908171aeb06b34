"""Accuracy that can be published: design, assess, compare, change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console
from pipeline.cli.options import Force, Json, Overwrite, Quiet, Seed

MapFile = Annotated[Path, typer.Argument(metavar="MAP", help="Class map written by landcover, or any class raster.")]
Reference = Annotated[Path, typer.Option("--reference", help="Reference points, polygons or raster.")]
Crosswalk = Annotated[Path | None, typer.Option(help="CSV: class in the reference -> class in the map.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for name, function in (("design", design), ("assess", assess), ("compare", compare), ("change", change)):
        app.command(name)(function)


def design(
    maps: Annotated[list[Path], typer.Argument(metavar="MAP...", help="Class map to draw the sample from.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoPackage to interpret in QGIS.")] = Path(
        "sample.gpkg"
    ),
    kind: Annotated[
        str, typer.Option(help="simple_random, systematic, stratified, cluster or two_stage.")
    ] = "stratified",
    allocation: Annotated[str, typer.Option(help="equal, proportional, neyman or olofsson.")] = "olofsson",
    size: Annotated[int | None, typer.Option("-n", "--size", help="Sample size; default from --target-se.")] = None,
    target_se: Annotated[float, typer.Option(help="Standard error of overall accuracy aimed at.")] = 0.01,
    expected: Annotated[
        list[str] | None, typer.Option(help="Expected user's accuracy of a class, as name=0.9; repeatable.")
    ] = None,
    strata: Annotated[Path | None, typer.Option(help="Raster or polygons whose classes are the strata.")] = None,
    strata_field: Annotated[str | None, typer.Option(help="Attribute of the strata polygons.")] = None,
    cluster_px: Annotated[int, typer.Option(help="Side of a cluster in pixels.")] = 9,
    per_cluster: Annotated[int, typer.Option(help="Pixels drawn in each cluster of a two-stage sample.")] = 10,
    minimum_distance_m: Annotated[float, typer.Option(help="Smallest distance between sample units in metres.")] = 0.0,
    show_map_class: Annotated[bool, typer.Option("--show-map-class", help="Not blind: keep the map class.")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Draw a probability sample from a map, to be interpreted in QGIS."""
    from pipeline.workflow.assessing import DesignRequest, draw_design

    request = DesignRequest(
        kind=kind,
        allocation=allocation,
        size=size,
        target_se=target_se,
        expected=tuple(expected or ()),
        strata=strata,
        strata_field=strata_field,
        cluster_px=cluster_px,
        per_cluster=per_cluster,
        minimum_distance_m=minimum_distance_m,
        blind=not show_map_class,
        seed=seed,
    )
    return Console(quiet, as_json).perform(
        lambda progress: draw_design(maps, output=output, request=request, overwrite=overwrite, progress=progress)
    )


def assess(
    target: Annotated[Path, typer.Argument(metavar="config.yaml | MAP", help="Configuration, or a class map.")],
    *,
    reference: Annotated[Path | None, typer.Option(help="Reference points, polygons or raster (with MAP).")] = None,
    field: Annotated[str | None, typer.Option(help="Attribute that holds the reference class.")] = None,
    strata: Annotated[str | None, typer.Option(help="'map', or a raster or polygon file.")] = None,
    strata_field: Annotated[str | None, typer.Option(help="Attribute of the strata polygons.")] = None,
    design_file: Annotated[
        Path | None, typer.Option("--design", help="Design file written by landcover design.")
    ] = None,
    crosswalk: Crosswalk = None,
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
    from pipeline.workflow import assessing
    from pipeline.workflow.stages import run_stages

    console = Console(quiet, as_json)
    if target.suffix.lower() in {".yaml", ".yml"}:
        return console.perform(
            lambda progress: run_stages(target, last="assess", force=force, overwrite=overwrite, progress=progress)
        )
    if reference is None:
        raise typer.BadParameter("a map is assessed against --reference FILE (with --field F for points and polygons)")
    return console.perform(
        lambda _: assessing.assess_against_reference(
            target,
            reference=reference,
            field=field,
            strata=strata,
            strata_field=strata_field,
            design=design_file,
            crosswalk=crosswalk,
            kappa=kappa,
            output=output,
            overwrite=overwrite,
        )
    )


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="One map.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other map.")],
    *,
    reference: Reference,
    field: Annotated[str | None, typer.Option(help="Attribute that holds the reference class.")] = None,
    crosswalk: Crosswalk = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Two maps on one reference: McNemar's test and the interval of the difference."""
    from pipeline.workflow.assessing import compare_two

    return Console(quiet, as_json).perform(
        lambda _: compare_two(first, second, reference=reference, field=field, crosswalk=crosswalk)
    )


def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier map.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later map, with the same legend.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="From-to map to write.")] = Path("change.tif"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """From-to map and transition table of two maps with one legend."""
    from pipeline.workflow.assessing import change_between

    return Console(quiet, as_json).perform(lambda _: change_between(before, after, output=output, overwrite=overwrite))
