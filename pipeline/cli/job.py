"""The main job: init, check, chips, train, predict, run, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Console, Work, add_commands
from pipeline.cli.options import ConfigFile, Force, Json, Memory, Overwrite, Quiet
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_commands(app, init, check, chips, train)
    app.command("predict")(predict)
    add_commands(app, run, demo)


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
    bands: Annotated[str | None, typer.Option(help="Of --chips: names of the bands, comma-separated.")] = None,
    sensor: Annotated[str | None, typer.Option(help="Of --chips: sentinel-2, landsat-oli ...")] = None,
    level: Annotated[str, typer.Option(help="Of --chips: L1C, L2A or L2SP, where the files do not say.")] = "",
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of a file that has several.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the configuration.")] = Path(
        "config.yaml"
    ),
    overwrite: Overwrite = False,
) -> Work:
    """Look at scenes and labels and write a commented configuration that runs as it is."""
    if chips is not None:
        from pipeline.workflow.chip_job import write_chip_config

        names = bands.split(",") if bands else None
        return lambda _: write_chip_config(
            chips, output=output, overwrite=overwrite, bands=names, sensor=sensor, level=level
        )
    if not scene or labels is None or field is None:
        raise ConfigError("landcover init", expected="--scene, --labels and --field, or --chips")
    from pipeline.workflow.init import write_config

    return lambda _: write_config(scene, labels=labels, field=field, layer=layer, output=output, overwrite=overwrite)


def check(config: ConfigFile) -> Work:
    """The dry run: CRS, overlap, bands, values, classes per split; and what time, memory and disk it will take."""
    from pipeline.workflow.check import check_job

    return lambda progress: check_job(config, progress=progress)


def chips(
    config: ConfigFile,
    *,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Burn the labels, assign polygons to train, validation and test by blocks, and cut chips."""
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(config, last="chips", force=force, overwrite=overwrite, progress=progress)


def train(
    config: ConfigFile,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Train the network on the training blocks."""
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config, last="train", force=force, overwrite=overwrite, resume=resume, progress=progress
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
    date: Annotated[
        list[str] | None,
        typer.Option("--date", help="Day of a --scene that does not say it (2024-06-01): one each, in their order."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Where a further raster of the model (DEM, Sentinel-1) is now; in its order."),
    ] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size in metres to read each --scene at.")] = None,
    bands: Annotated[str | None, typer.Option(help="Comma-separated names of the bands of each --scene.")] = None,
    scale: Annotated[float | None, typer.Option(help="value = DN x scale + offset of each --scene.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    mirror: Annotated[str | None, typer.Option(help="Who serves the STAC items, where they do not tell.")] = None,
    dask: Annotated[
        str | None, typer.Option(help="Map over Dask: local, or tcp://HOST:PORT of a scheduler (see docs/scale.md).")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes of --dask local.")] = None,
    aoi: Annotated[Path | None, typer.Option(help="Map only what these polygons cover.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Leave out what these polygons cover.")] = None,
    memory: Memory = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch, onnx, openvino ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or int8.")] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over flips: slower, a little better.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write a band per class.")] = False,
    applicability: Annotated[
        bool, typer.Option("--applicability", help="Also write how unlike the training data each pixel is.")
    ] = False,
    polygons: Annotated[bool, typer.Option("--polygons", help="Also write the map as polygons.")] = False,
    mosaic: Annotated[str | None, typer.Option(help="Join the maps: confidence, latest or first.")] = None,
    mosaic_crs: Annotated[
        str | None, typer.Option(help="CRS of the mosaic, such as EPSG:3035; needed across UTM zones.")
    ] = None,
    mosaic_pixel: Annotated[float | None, typer.Option(help="Its pixel size, in units of its CRS.")] = None,
    seam_figure: Annotated[
        bool, typer.Option("--seam-figure", help="Measure disagreement along tile borders.")
    ] = False,
    force: Force = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Map whole scenes: those of a configuration, or any others with a trained model.

    Of several scenes, those that cannot be mapped are listed at the end, and the exit status is 3.
    """
    if chips is not None:
        from pipeline.workflow.chip_job import predict_chips

        if model is None:
            raise ConfigError("--chips without a model", fix="add --model")
        return Console(quiet, as_json).perform(
            lambda progress: predict_chips(model, chips, output=output, overwrite=overwrite, progress=progress)
        )
    from pipeline.scenes.settings import read_options
    from pipeline.workflow.mapping import ManyScenes, MapRequest, predict_maps
    from pipeline.workflow.recipe import SceneRequest

    names = tuple(bands.split(",")) if bands else None
    words = SceneRequest(
        dates=tuple(date or ()),
        layers=tuple(layer or ()),
        resolution_m=resolution,
        options=read_options({"bands": names, "scale": scale, "offset": offset, "mirror": mirror}),
    )
    request = MapRequest(
        aoi=aoi,
        mask=mask,
        memory=memory,
        engine=engine,
        dtype=dtype,
        tta=tta,
        probabilities=probabilities,
        applicability=applicability,
        polygons=polygons,
        mosaic=mosaic,
        mosaic_crs=mosaic_crs,
        mosaic_pixel=mosaic_pixel,
        seam_figure=seam_figure,
    )
    return Console(quiet, as_json).perform(
        lambda progress: predict_maps(
            config,
            model=model,
            scenes=scene or (),
            output=output,
            request=request,
            force=force,
            overwrite=overwrite,
            progress=progress,
            many=ManyScenes(scenes, dask, workers),
            words=words,
        )
    )


def run(
    config: ConfigFile,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the content of every product with what was recorded.")
    ] = False,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """All of it; a stage whose inputs have not changed is not done again."""
    from pipeline.workflow.chip_job import is_chip_job, run_chips

    if is_chip_job(config):
        return lambda progress: run_chips(config, overwrite=overwrite or force, progress=progress)
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config, last="report", force=force, overwrite=overwrite, verify=verify, progress=progress
    )


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the result.")] = Path("demo"),
    overwrite: Overwrite = False,
) -> Work:
    """Run the main job on the simulated sample data."""
    from pipeline.workflow.demo import run_demo

    return lambda progress: run_demo(output, overwrite=overwrite, progress=progress)
