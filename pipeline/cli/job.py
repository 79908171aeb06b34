"""The main job: init, check, chips, train, predict, run, demo; and search, which finds scenes for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import ConfigFile, Force, Memory, Overwrite, Set
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_commands(app, init, check, chips, train, predict, run, demo, search)


def init(
    *,
    scene: Annotated[
        list[str] | None, typer.Option("--scene", help="A scene: file, folder, product or STAC item; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Polygons: GeoPackage, Shapefile, GeoJSON, ...")
    ] = None,
    field: Annotated[str | None, typer.Option("--field", help="Attribute that holds the class.")] = None,
    chips: Annotated[
        Path | None, typer.Option("--chips", help="Instead: a folder of chips, one folder per class.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of a file that has several.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the configuration.")] = Path(
        "config.yaml"
    ),
    bands: Annotated[str | None, typer.Option(help="Comma-separated names of the bands of each --scene.")] = None,
    scale: Annotated[float | None, typer.Option(help="value = DN x scale + offset of each --scene.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    nodata: Annotated[str | None, typer.Option(help="DN without observation, or none: every DN is one.")] = None,
    sensor: Annotated[str | None, typer.Option(help="sentinel-2, landsat-oli ...: says what B5 is.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the labels' text, where it is not UTF-8.")] = None,
    complete: Annotated[
        str | None,
        typer.Option(metavar="scene | AREA", help="Every object is drawn, in the scenes or these polygons."),
    ] = None,
    objects: Annotated[
        list[str] | None, typer.Option(help="Class that is also mapped as objects, one polygon each; repeatable.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Look at scenes and labels and write a commented configuration that runs as it is."""
    if chips is not None:
        from pipeline.workflow.chip_job import write_chip_config

        given = {"--scene": scene, "--labels": labels, "--field": field, "--layer": layer, "--encoding": encoding,
                 "--complete": complete, "--objects": objects}  # fmt: skip
        _refuse_with("--chips", given)
        names = bands.split(",") if bands else None
        return lambda _: write_chip_config(
            chips, output=output, overwrite=overwrite,
            options={"bands": names, "sensor": sensor, "scale": scale, "offset": offset, "nodata": nodata},
        )  # fmt: skip
    if not scene or labels is None or (field is None and not objects):
        raise ConfigError("landcover init", expected="--scene, --labels and --field, or --chips")
    from pipeline.scenes.settings import read_options
    from pipeline.workflow.init import write_config

    options = {"bands": bands.split(",") if bands else None, "scale": scale, "offset": offset, "nodata": nodata}
    return lambda _: write_config(
        scene, labels=labels, field=field or "", layer=layer, encoding=encoding, output=output, overwrite=overwrite,
        complete=complete, objects=objects or (), options=read_options(options | {"sensor": sensor}),
    )  # fmt: skip


def _refuse_with(what: str, given: Mapping[str, object]) -> None:
    """Refuse options that what is asked for does not take.

    Raises:
        ConfigError: one of them is given.
    """
    found = [name for name, value in given.items() if value]
    if found:
        raise ConfigError(f"{what} with {', '.join(found)}", fix="leave it out")


def check(config: ConfigFile, *, settings: Set = None) -> Work:
    """The dry run: CRS, overlap, bands, values, classes per split; and what time, memory and disk it will take."""
    from pipeline.workflow.check import check_job

    return lambda progress: check_job(config, progress=progress, changes=settings or ())


def chips(
    config: ConfigFile,
    *,
    settings: Set = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Burn the labels, assign polygons to train, validation and test by blocks, and cut chips."""
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config, last="chips", force=force, overwrite=overwrite, progress=progress, changes=settings or ()
    )


def train(
    config: ConfigFile,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    settings: Set = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Train the network on the training blocks."""
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config,
        last="train",
        force=force,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        changes=settings or (),
    )


def predict(
    config: Annotated[
        Path | None, typer.Argument(metavar="[config.yaml]", help="Configuration; or give --model.")
    ] = None,
    *,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model file: maps scenes without a configuration.")
    ] = None,
    scene: Annotated[list[str] | None, typer.Option("--scene", help="Scene to map with --model; repeatable.")] = None,
    scenes: Annotated[
        str | None, typer.Option("--scenes", help="Many: a text file of paths, a folder of scenes, or STAC items.")
    ] = None,
    chips: Annotated[
        Path | None,
        typer.Option("--chips", help="A folder of chips for --model; gives a table: file, class, confidence."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the maps of --model.")] = None,
    memory: Memory = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Map over Dask: local, local:4, or tcp://HOST:PORT of a scheduler (see docs/scale.md)."),
    ] = None,
    settings: Set = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Map whole scenes: those of a configuration, or any others with a trained model.

    --set takes every key of the configuration's map section (map.engine=openvino, map.aoi=area.gpkg, map.mosaic=latest,
    ...) and, with --model, what the scenes do not say: scene.bands=blue,green,red, scene.date=2024-06-01, scene.scale,
    scene.offset, scene.mirror, scene.layers, scene.resolution_m; --engine openvino, --bands blue,green,red and so on
    are short for it. Of several scenes, those that cannot be mapped are listed at the end, and the exit status is 3.
    """
    if chips is not None:
        from pipeline.workflow.chip_job import predict_chips

        if model is None:
            raise ConfigError("--chips without a model", fix="add --model")
        given = {"a configuration": config, "--scene": scene, "--scenes": scenes, "--memory": memory, "--dask": dask}
        _refuse_with("--chips", given | {"--set": settings, "--force": force})
        return lambda progress: predict_chips(model, chips, output=output, overwrite=overwrite, progress=progress)
    from pipeline.workflow.predict import ManyScenes, predict_maps

    changes = [*(settings or ()), *([f"map.memory={memory}"] if memory else ())]
    return lambda progress: predict_maps(
        config,
        model=model,
        scenes=scene or (),
        output=output,
        changes=changes,
        force=force,
        overwrite=overwrite,
        progress=progress,
        many=ManyScenes(scenes, dask),
    )


def run(
    config: ConfigFile,
    *,
    settings: Set = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the content of every product with what was recorded.")
    ] = False,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """All of it; a stage whose inputs have not changed is not done again."""
    from pipeline.workflow.chip_job import is_chip_job, run_chips

    if is_chip_job(config):
        _refuse_with("a configuration of chips", {"--verify": verify})
        return lambda progress: run_chips(
            config, overwrite=overwrite or force, progress=progress, changes=settings or ()
        )
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config,
        last="report",
        force=force,
        overwrite=overwrite,
        verify=verify,
        progress=progress,
        changes=settings or (),
    )


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")] = Path("demo"),
    overwrite: Overwrite = False,
) -> Work:
    """Run the main job on the simulated sample data."""
    from pipeline.workflow.demo import run_demo

    return lambda progress: run_demo(output, overwrite=overwrite, progress=progress)


def search(
    api: Annotated[str, typer.Argument(metavar="URL", help="STAC API, or earth-search or planetary-computer.")],
    *,
    collection: Annotated[list[str], typer.Option("--collection", "-c", help="Collection; repeatable.")],
    area: Annotated[str, typer.Option("--area", help="west,south,east,north in degrees, or a polygon file.")],
    dates: Annotated[str, typer.Option("--dates", help="2024-05-01/2024-09-30.")],
    max_cloud: Annotated[float, typer.Option(help="Largest cloud cover in per cent.")] = 20.0,
    limit: Annotated[int, typer.Option(help="Most scenes to list.")] = 10,
    bands: Annotated[str | None, typer.Option(help="Comma-separated bands to download; default: all optical.")] = None,
    download: Annotated[
        Path | None, typer.Option("--download", help="Folder to download into; default: list only.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Who serves the items, where they do not tell.")] = None,
) -> Work:
    """Find scenes by area, dates and cloud cover; download only the bands and the window needed."""
    from pipeline.workflow.searching import search_scenes

    return lambda progress: search_scenes(
        api,
        collections=collection,
        area=area,
        dates=dates,
        max_cloud=max_cloud,
        limit=limit,
        bands=tuple(bands.split(",")) if bands else None,
        download=download,
        progress=progress,
        mirror=mirror,
    )
