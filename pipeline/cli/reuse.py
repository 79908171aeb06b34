"""Use it again: predict, model show, export, pretrain, objects; weights that encoders start from; forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_command, add_commands
from pipeline.cli.make import refuse_with
from pipeline.cli.options import ConfigFile, Force, Overwrite, Seed, Set, out
from pipeline.errors import ConfigError

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Configuration whose bands are matched.")]
SceneOption = Annotated[str | None, typer.Option("--scene", help="Scene whose bands are matched.")]
EncoderOption = Annotated[str, typer.Option(help="Encoder that imagenet is meant for.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_command(
        app, predict,
        settings={"map": "pipeline.inference.settings:MapSettings", "scene": "pipeline.scenes.settings:SceneRequest"},
    )  # fmt: skip
    model = typer.Typer(help="What a model file knows of itself.", no_args_is_help=True, rich_markup_mode=None)
    add_command(model, show_model, name="show")
    app.add_typer(model, name="model")
    add_commands(app, export, objects)
    add_command(app, pretrain, settings={"pretrain": "pipeline.training.settings:PretrainSettings"})
    add_command(app, forecast, settings={"forecast": "pipeline.forecast.settings:ForecastSettings"})
    weights = typer.Typer(help="Pretrained encoder weights.", no_args_is_help=True, rich_markup_mode=None)
    add_command(weights, list_weights, name="list")
    add_command(weights, show_weights, name="show")
    add_command(weights, get_weights, name="get")
    app.add_typer(weights, name="weights")


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
        typer.Option("--chips", help="A folder of chips for --model; gives a table: file, class, confidence (-o)."),
    ] = None,
    output: Annotated[
        Path | None, out("Folder for the maps of --model; with --chips for chips.csv, or a file that ends in .csv.")
    ] = None,
    memory: Annotated[str | None, typer.Option()] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Map over Dask: local, local:4, or tcp://HOST:PORT of a scheduler (see docs/scale.md)."),
    ] = None,
    settings: Set = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Map whole scenes: those of a configuration, or any others with a trained model; the next steps of a series.

    --set takes every key of the configuration's map section and, with --model, what the scenes do not say. Of several
    scenes, those that cannot be mapped are listed at the end, and the exit status is 3. With the model of a forecast
    each --scene is a channel of the series, or a folder of it, that has grown.
    """
    from pipeline.model.describe import is_forecast_model

    if model is not None and is_forecast_model(model):
        from pipeline.workflow.forecast import predict_series

        beside = {"a configuration": config, "--scenes": scenes, "--chips": chips, "--memory": memory, "--dask": dask}
        refuse_with("the model of a forecast", beside | {"--force": force})
        return lambda progress: predict_series(
            model, scene or (), output=output, changes=settings or (), overwrite=overwrite, progress=progress
        )
    if chips is not None:
        from pipeline.workflow.chip_job import predict_chips

        if model is None:
            raise ConfigError("--chips without a model", fix="add --model")
        given = {"a configuration": config, "--scene": scene, "--scenes": scenes, "--memory": memory, "--dask": dask}
        refuse_with("--chips", given | {"--set": settings, "--force": force})
        return lambda progress: predict_chips(model, chips, output=output, overwrite=overwrite, progress=progress)
    from pipeline.workflow.predict import predict_maps

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
        listed=scenes,
        dask=dask,
    )


def show_model(model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")]) -> Work:
    """Print what a model knows of itself: bands, classes, scaling, training, figures."""
    from pipeline.workflow import models

    return lambda _: models.show_model(model)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    *,
    form: Annotated[str, typer.Option("--format", help="onnx or torch.")] = "onnx",
    output: Annotated[Path | None, out("File to write.")] = None,
    tile_px: Annotated[int, typer.Option(min=1, help="Side of the fixed input tile in pixels.")] = 512,
    scale: Annotated[
        float | None,
        typer.Option(
            help="value = number x scale + offset of the rasters it will be fed. Default: as the files of the training "
            "scenes store them; 1 for values as they are."
        ),
    ] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Write a model for other programs: ONNX (QGIS plugin Deepness) or torch.export."""
    from pipeline.workflow.models import export_model

    return lambda _: export_model(
        model, form=form, output=output, tile_px=tile_px, scale=scale, offset=offset, overwrite=overwrite
    )


def pretrain(
    config: ConfigFile,
    *,
    encoder: Annotated[str | None, typer.Option(help="Another encoder than the configuration's.")] = None,
    steps: Annotated[int | None, typer.Option()] = None,
    time_limit_s: Annotated[float | None, typer.Option()] = None,
    seed: Seed = 0,
    settings: Set = None,
    output: Annotated[Path | None, out("Weights file (.safetensors); default in the run folder.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Let an encoder learn from the scenes themselves, without labels: it fills in bands that are taken away."""
    from pipeline.settings import section_of
    from pipeline.training.settings import PretrainSettings
    from pipeline.workflow.models import pretrain_job

    given = {"steps": steps, "time_limit_s": time_limit_s, "seed": seed}
    found = section_of("pretrain", PretrainSettings, settings, given)
    return lambda progress: pretrain_job(
        config, settings=found, encoder=encoder, output=output, overwrite=overwrite, progress=progress
    )


def forecast(
    series: Annotated[
        list[Path],
        typer.Argument(
            metavar="SERIES...",
            help="GeoTIFFs with a date in each band, or folders of dated GeoTIFFs, one a channel; or a YAML.",
        ),
    ],
    *,
    settings: Set = None,
    output: Annotated[Path, out("Folder for the result.")] = Path("forecast"),
    overwrite: Overwrite = False,
) -> Work:
    """Forecast the next steps of a series of rasters, tested on its last steps beside simple rules."""
    from pipeline.workflow.forecast import forecast_series, forecast_settings

    found = forecast_settings(series, changes=settings or ())
    return lambda progress: forecast_series(found, output=output, overwrite=overwrite, progress=progress)


def list_weights(
    *,
    encoder: Annotated[str | None, typer.Option(help="Only those of resnet18, resnet50 ...")] = None,
    sensor: Annotated[str | None, typer.Option(help="Only those of sentinel-2, landsat-oli ...")] = None,
    config: ConfigOption = None,
    scene: SceneOption = None,
) -> Work:
    """List weights with bands, licence and whether they are here, and the order of the search; needs no network."""
    from pipeline.workflow import models

    return lambda _: models.list_weights(encoder=encoder, sensor=sensor, config=config, scene=scene)


def show_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in the list, imagenet, or a weights file.")],
    *,
    encoder: EncoderOption = "resnet18",
    config: ConfigOption = None,
    scene: SceneOption = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download them now, as weights get does.")] = False,
) -> Work:
    """Show what one set of weights expects, and from which of its bands each band of a scene would start."""
    from pipeline.workflow import models

    return lambda progress: models.show_weights(
        name, encoder=encoder, config=config, scene=scene, fetch=fetch, progress=progress
    )


def get_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in the list, or imagenet.")],
    *,
    encoder: EncoderOption = "resnet18",
) -> Work:
    """Download one set of weights, check it by its hash, and show its licence; nothing else ever downloads any."""
    from pipeline.workflow import models

    return lambda progress: models.get_weights(name, encoder=encoder, progress=progress)


def objects(
    source: Annotated[Path, typer.Argument(metavar="MAP | POLYGONS", help="Class map, mask, or raw polygons.")],
    *,
    output: Annotated[Path, out("GeoPackage to write.")] = Path("objects.gpkg"),
    class_name: Annotated[
        list[str] | None, typer.Option("--class", help="Class of objects, by name or code; repeatable.")
    ] = None,
    min_area: Annotated[float | None, typer.Option(min=0, help="Smallest object in m2; default nine pixels.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="How far outlines may be moved, in m; default 1.5 pixels.")
    ] = None,
    right_angles: Annotated[bool, typer.Option(help="Give outlines right angles where these fit.")] = True,
    separate: Annotated[bool, typer.Option(help="Separate objects that touch.")] = True,
    confidence: Annotated[Path | None, typer.Option(help="Confidence of the map in per cent.")] = None,
    legend: Annotated[
        str | None, typer.Option(help="Legend of a map that carries none: JSON, or a public one.")
    ] = None,
    overwrite: Overwrite = False,
) -> Work:
    """One polygon per object of a class map or mask: separated, with few corners and right angles."""
    from pipeline.maps.settings import ObjectSettings
    from pipeline.settings import checked
    from pipeline.workflow.accuracy import told_legend
    from pipeline.workflow.objects import objects_of

    settings = checked(
        ObjectSettings,
        {
            "classes": tuple(class_name or ()),
            "min_area_m2": min_area,
            "tolerance_m": tolerance,
            "right_angles": right_angles,
            "separate": separate,
        },
    )
    return lambda _: objects_of(
        source, settings, output=output, confidence=confidence, scheme=told_legend(legend), overwrite=overwrite
    )
