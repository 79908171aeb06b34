"""Judge a map: look at it and at its labels, and at accuracy that can be published."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Console, Work, add_command, add_commands
from pipeline.cli.make import refuse_with, stages
from pipeline.cli.options import ConfigFile, Force, Json, Overwrite, Quiet, Seed, Set, SetOfJob, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.view.server import ViewServer
    from pipeline.workflow.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("view")(view)
    add_command(app, crossval, settings={"crossval": "pipeline.splits.settings:CrossvalSettings"})
    labels = typer.Typer(help="What the training labels are worth.", no_args_is_help=True, rich_markup_mode=None)
    add_commands(labels, audit)
    add_command(labels, next_places, name="next")
    app.add_typer(labels, name="labels")
    add_command(app, design, settings={"design": "pipeline.accuracy.settings:DesignSettings"})
    add_command(app, assess, settings={**_REFERENCE, "match": "pipeline.accuracy.settings:MatchSettings"})
    for command, kind in ((compare, "Sequential"), (zone, "Zone"), (series, "Series")):
        own = {command.__name__: f"pipeline.accuracy.settings:{kind}Settings"}
        add_command(app, command, settings={**_REFERENCE, **own})
    add_commands(app, zonal, change, crosswalk)


def view(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|MAP...", help="Run folders or class maps.")],
    *,
    scene: Annotated[
        list[str] | None, typer.Option("--scene", help="Scene of maps that do not know theirs; repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    basemap: Annotated[
        str | None, typer.Option(help="Address of background tiles with {z}, {x}, {y}; default: none, no network.")
    ] = None,
    credit: Annotated[str | None, typer.Option(help="Who is named for the background.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Look at scene, map and confidence in a browser: swipe, values at a click, lengths and areas. Ctrl-C ends it."""
    from pipeline.workflow.view import open_viewer

    opened: list[ViewServer] = []

    def start(_: object) -> Outcome:
        server, outcome = open_viewer(paths, scenes=scene or (), port=port, basemap=basemap, credit=credit)
        opened.append(server)
        return outcome

    status = Console(quiet, as_json).perform(start)
    sys.stdout.flush()  # whoever reads the address through a pipe wants it now
    for server in opened:
        if not no_browser:
            _open_browser(server.url)
        try:
            server.serve()
        except KeyboardInterrupt:  # the way it is meant to end
            return status
        finally:
            server.close()
    return status


def _open_browser(url: str) -> None:
    """Open the page where there is a screen; without one, Python would start a browser in the terminal."""
    import webbrowser

    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)


def crossval(
    config: ConfigFile,
    *,
    folds: Annotated[int | None, typer.Option()] = None,
    by: Annotated[str | None, typer.Option()] = None,
    leave_one_block_out: Annotated[
        bool, typer.Option("--leave-one-block-out", help="A fold per spatial block: --by block.")
    ] = False,
    leave_one_scene_out: Annotated[
        bool, typer.Option("--leave-one-scene-out", help="A fold per scene: --by scene.")
    ] = False,
    methods: Annotated[str | None, typer.Option()] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Instead: the score against the number of polygons learned from.")
    ] = False,
    settings: SetOfJob = None,
    force: Annotated[bool, typer.Option("--force", help="Do folds again that are done.")] = False,
    output: Annotated[Path | None, out("Also write the figures here.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Cross-validate the network and the random forest on the same folds; goes on where it was interrupted."""
    from pipeline.settings import section_of
    from pipeline.splits.settings import CrossvalSettings
    from pipeline.workflow.crossval import cross_validate_job, draw_learning_curve

    asked = {
        "--leave-one-block-out": leave_one_block_out,
        "--leave-one-scene-out": leave_one_scene_out,
        f"--by {by}": by,
    }
    if len(several := [name for name, value in asked.items() if value]) > 1:
        raise ConfigError(" together with ".join(several), fix="give one of them")
    kind = "block" if leave_one_block_out else "scene" if leave_one_scene_out else by
    own = [text for text in settings or () if text.strip().startswith("crossval.")]
    found = section_of("crossval", CrossvalSettings, own, {"folds": folds, "by": kind, "methods": methods})
    changes = [text for text in settings or () if text not in own]
    work = draw_learning_curve if learning_curve else cross_validate_job
    return lambda progress: work(
        config, found, output=output, force=force, overwrite=overwrite, progress=progress, changes=changes
    )


def audit(
    config: ConfigFile,
    *,
    count: Annotated[int, typer.Option(min=0, help="How many places to label next.")] = 30,
    seed: Seed = 0,
    output: Annotated[Path | None, out("GeoPackage; default in the run folder.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Find doubtful polygons and the places whose labels would teach most, as a GeoPackage for QGIS."""
    from pipeline.workflow.labels_audit import audit_labels

    return lambda progress: audit_labels(
        config, count=count, seed=seed, output=output, overwrite=overwrite, progress=progress
    )


def next_places(
    config: ConfigFile,
    *,
    count: Annotated[int, typer.Option(min=1, help="How many places.")] = 30,
    output: Annotated[Path | None, out("GeoPackage; default beside the configuration.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Find the places of the finished map whose labels teach most, as a layer to digitise in QGIS."""
    from pipeline.workflow.labels_audit import next_labels

    return lambda progress: next_labels(config, count=count, output=output, overwrite=overwrite, progress=progress)


MapPath = Annotated[Path, typer.Argument(metavar="MAP", help="Class map written by landcover, or any class raster.")]
Reference = Annotated[Path, typer.Option("--reference", help="Reference points, polygons or raster.")]
Crosswalk = Annotated[str | None, typer.Option()]
Field = Annotated[str | None, typer.Option()]
Legend = Annotated[
    str | None,
    typer.Option(help='Legend of a map that carries none: JSON of code, name, color; or "ESA WorldCover" ...'),
]
DesignFile = Annotated[str | None, typer.Option("--design")]
_REFERENCE = {"reference": "pipeline.accuracy.settings:ReferenceSettings"}


def _against(reference: Path, settings: list[str] | None, **given: object) -> ReferenceSettings:
    """What a map is assessed against, from options and ``--set reference.KEY=VALUE``."""
    from pipeline.accuracy.settings import ReferenceSettings
    from pipeline.settings import section_of

    return section_of("reference", ReferenceSettings, settings, {"reference": reference} | given)


def _of(section: str, settings: list[str] | None) -> tuple[list[str], list[str]]:
    """What ``--set`` says of one section, and the rest."""
    mine = [text for text in settings or () if text.startswith(f"{section}.")]
    return mine, [text for text in settings or () if text not in mine]


def design(
    maps: Annotated[list[Path], typer.Argument(metavar="MAP...", help="Class map to draw the sample from.")],
    *,
    output: Annotated[Path, out("GeoPackage to interpret in QGIS.")] = Path("sample.gpkg"),
    kind: Annotated[str | None, typer.Option()] = None,
    size: Annotated[int | None, typer.Option("-n", "--size")] = None,
    strata: Annotated[str | None, typer.Option()] = None,
    purpose: Annotated[
        str | None, typer.Option("--for", help="compare: draw where two maps A B differ, for compare --sequential.")
    ] = None,
    show_map_class: Annotated[bool, typer.Option("--show-map-class", help="Not blind: keep the map class.")] = False,
    legend: Legend = None,
    seed: Seed = 0,
    settings: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """Draw a probability sample from a map, to be interpreted in QGIS."""
    from pipeline.accuracy.settings import DesignSettings
    from pipeline.settings import section_of
    from pipeline.workflow.accuracy import draw_design, told_legend

    if purpose not in {None, "compare"} or (purpose == "compare" and len(maps) != 2):  # noqa: PLR2004 - a pair
        raise typer.BadParameter(f"--for {purpose}: expected 'compare', and the two maps to compare")
    other = maps[1] if purpose == "compare" else None
    given = {"kind": kind, "size": size, "strata": strata, "seed": seed, "compare_with": other}
    found = section_of("design", DesignSettings, settings, given)
    return lambda progress: draw_design(
        maps[:1] if other else maps, found, output=output, scheme=told_legend(legend), blind=not show_map_class,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip


def assess(
    target: Annotated[
        Path, typer.Argument(metavar="config.yaml | MAP | OBJECTS", help="Configuration, class map, or objects.")
    ],
    *,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="Of MAP: reference points, polygons or raster; of a forecast's step: the series, repeatable."
        ),
    ] = None,
    field: Field = None,
    design_file: DesignFile = None,
    crosswalk: Crosswalk = None,
    legend: Legend = None,
    assist: Annotated[str | None, typer.Option()] = None,
    settings: Set = None,
    output: Annotated[Path | None, out("Also write the figures as JSON.")] = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Accuracy: of a job's test blocks, of a map against reference data, of objects, or of a step of a forecast."""
    if target.suffix.lower() in {".yaml", ".yml"}:
        return stages(target, "assess", settings, force=force, overwrite=overwrite)
    if not reference:
        raise typer.BadParameter("a map is assessed against --reference FILE (with --field F for points and polygons)")
    from pipeline.labels.footprints import is_vector

    if is_vector(target):
        from pipeline.accuracy.settings import MatchSettings
        from pipeline.settings import section_of
        from pipeline.workflow.objects import assess_objects

        if field or design_file or crosswalk or assist or legend:
            raise typer.BadParameter("objects have no --field, --design, --crosswalk, --legend or --assist")
        match = section_of("match", MatchSettings, settings)
        _refuse_second(reference)
        return lambda _: assess_objects(target, reference[0], match, output=output, overwrite=overwrite)
    from pipeline.workflow.accuracy import assess_against_reference, told_legend

    found = _against(reference[0], settings, field=field, design=design_file, crosswalk=crosswalk, assist=assist)
    from pipeline.workflow.forecast_assess import assess_step, is_step

    if is_step(target):
        asked = sorted(found.model_fields_set - {"reference"})
        given = {f"--{name.replace('_', '-')}": True for name in asked}
        refuse_with("a step of a forecast, which is assessed at all its cells,", given | {"--legend": legend})
        return lambda _: assess_step(target, reference, output=output, overwrite=overwrite)
    _refuse_second(reference)
    return lambda _: assess_against_reference(
        target, found, scheme=told_legend(legend), output=output, overwrite=overwrite
    )


def _refuse_second(references: list[Path]) -> None:
    if len(references) > 1:
        raise typer.BadParameter("--reference is given more than once: several are of a step of a forecast")


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="One map.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other map.")],
    *,
    reference: Reference,
    field: Field = None,
    design_file: DesignFile = None,
    crosswalk: Crosswalk = None,
    second_crosswalk: Annotated[
        str | None, typer.Option(help="CSV, or esa_worldcover, dynamic_world, corine, nlcd: class in B -> class in A.")
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Units of design --for compare so far: better, no difference, go on.")
    ] = False,
    legend: Legend = None,
    settings: Set = None,
) -> Work:
    """Two maps on one reference: McNemar's test and the interval of the difference; on a raster every pixel."""
    from pipeline.accuracy.settings import SequentialSettings
    from pipeline.settings import section_of
    from pipeline.workflow.accuracy import compare_so_far, compare_two, told_legend

    own, rest = _of("compare", settings)
    found = _against(reference, rest, field=field, design=design_file, crosswalk=crosswalk)
    stop = section_of("compare", SequentialSettings, own)
    if sequential:
        return lambda _: compare_so_far(first, second, found, margin=stop.margin, scheme=told_legend(legend))
    if own:
        raise typer.BadParameter("--margin is for --sequential: add it, or leave --margin out")
    return lambda _: compare_two(first, second, found, scheme=told_legend(legend), second_crosswalk=second_crosswalk)


def zone(
    map_file: MapPath,
    *,
    reference: Reference,
    field: Annotated[str, typer.Option()],
    design_file: Annotated[str, typer.Option("--design", help="Design file, or 'simple random'.")],
    output: Annotated[Path, out("Mask to write: 1 in the zone, 0 outside.")] = Path("zone.tif"),
    confidence: Annotated[Path | None, typer.Option(help="Confidence in %; default: beside the map.")] = None,
    applicability: Annotated[
        Path | None, typer.Option(help="Area of applicability; only its inside may be in.")
    ] = None,
    settings: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """The largest part of a map whose error is at most 5 %, with 95 % confidence, as a mask and a sentence."""
    from pipeline.accuracy.settings import ZoneSettings
    from pipeline.settings import section_of
    from pipeline.workflow.accuracy import zone_of

    own, rest = _of("zone", settings)
    found, promise = _against(reference, rest, field=field, design=design_file), section_of("zone", ZoneSettings, own)
    return lambda _: zone_of(
        map_file, found, output=output, confidence=confidence, applicability=applicability, max_error=promise.max_error,
        overwrite=overwrite,
    )  # fmt: skip


def zonal(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="Map of values or classes.")],
    polygons: Annotated[Path, typer.Argument(metavar="POLYGONS", help="Polygons: GeoPackage, Shapefile, GeoJSON ...")],
    *,
    layer: Annotated[str | None, typer.Option(help="Layer of a file that has several.")] = None,
    kind: Annotated[
        str | None,
        typer.Option("--as", help="classes or values; default: classes for bytes, or with a palette or class names."),
    ] = None,
    output: Annotated[Path, out("GeoPackage or CSV to write.")] = Path("zonal.gpkg"),
    overwrite: Overwrite = False,
) -> Work:
    """Statistics of a map per polygon: of values mean, median and bounds, of classes their shares."""
    from pipeline.workflow.accuracy import zonal_of

    return lambda _: zonal_of(map_file, polygons, layer=layer, output=output, overwrite=overwrite, kind=kind)


def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The earlier map.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The later map, with the same legend.")],
    *,
    output: Annotated[Path, out("From-to map to write.")] = Path("change.tif"),
    legend: Legend = None,
    overwrite: Overwrite = False,
) -> Work:
    """From-to map and transition table of two maps with one legend."""
    from pipeline.workflow.accuracy import change_between, told_legend

    return lambda _: change_between(before, after, output=output, scheme=told_legend(legend), overwrite=overwrite)


def series(
    maps: Annotated[list[Path], typer.Argument(metavar="MAP...", help="Class maps of one legend and grid, by year.")],
    *,
    output: Annotated[Path, out("Folder of the consistent maps.")] = Path("series"),
    reference: Annotated[Path | None, typer.Option(help="Panel: points interpreted for every year.")] = None,
    field: Annotated[str | None, typer.Option(help="Attribute of the class of a year: class_{year}.")] = None,
    design_file: DesignFile = None,
    settings: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """Consistent annual maps, illogical changes, and areas per year with their trend from one panel."""
    from pipeline.accuracy.settings import SeriesSettings
    from pipeline.settings import section_of
    from pipeline.workflow.series import map_series

    own, rest = _of("series", settings)
    if reference is None and (field or design_file or rest):
        raise typer.BadParameter("--field, --design and --set reference.KEY say how to read a panel: add --reference")
    panel = _against(reference, rest, field=field, design=design_file) if reference is not None else None
    found = section_of("series", SeriesSettings, own)
    return lambda progress: map_series(maps, found, folder=output, panel=panel, overwrite=overwrite, progress=progress)


def crosswalk(
    table: Annotated[str, typer.Argument(help="esa_worldcover, dynamic_world, corine, corine_level2 or nlcd.")],
    *,
    output: Annotated[Path, out("CSV to write and to edit.")] = Path("crosswalk.csv"),
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Your map: targets that are none of its classes are left to fill in.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Write the table from a public legend to the classes of a map, to be edited."""
    from pipeline.workflow.accuracy import write_crosswalk

    return lambda _: write_crosswalk(table, output=output, map_path=map_file, overwrite=overwrite)
