"""Make a map: init, check, chips, train, run, demo; and search, which finds scenes for it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.console import Work, add_command, add_commands
from pipeline.cli.options import ConfigFile, Force, Overwrite, Set, out
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    add_command(app, init, settings={"scene": "pipeline.scenes.settings:SceneOptions"})
    add_commands(app, check, chips, train, run, demo, search)


def init(
    *,
    scene: Annotated[
        list[str] | None, typer.Option("--scene", help="A scene: file, folder, product or STAC item; repeatable.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Polygons: GeoPackage, Shapefile, GeoJSON, ...; or a raster of values."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option("--field", help="Attribute that holds the class or the measurement; of a raster, its name."),
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="Layer of a file that has several.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the labels' text, where it is not UTF-8.")] = None,
    chips: Annotated[
        Path | None, typer.Option("--chips", help="Instead: a folder of chips, one folder per class.")
    ] = None,
    output: Annotated[Path, out("Where to write the configuration.")] = Path("config.yaml"),
    complete: Annotated[
        str | None, typer.Option(metavar="scene | AREA", help="Every object is drawn, in the scenes or these polygons.")
    ] = None,
    objects: Annotated[
        list[str] | None, typer.Option(help="Class that is also mapped as objects, one polygon each; repeatable.")
    ] = None,
    kind: Annotated[
        Literal["class", "value", "forecast"] | None,
        typer.Option(
            help="Whether the field holds a class or a measurement, by default what its values look like; "
            "forecast: of the next steps, each --scene a dated series."
        ),
    ] = None,
    settings: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """Look at scenes and labels, or a dated series, and write a commented configuration that runs as it is.

    --set says what the files of each --scene do not: --bands blue,green,red, --scale 0.0001, --nodata 0 and so on are
    short for it.
    """
    from pipeline.scenes.settings import SceneOptions
    from pipeline.settings import section_of

    options = section_of("scene", SceneOptions, settings)
    of_labels = {"--labels": labels, "--field": field, "--layer": layer, "--encoding": encoding, "--complete": complete,
                 "--objects": objects}  # fmt: skip
    if kind == "forecast":
        refuse_with("--kind forecast", of_labels | {"--chips": chips, "--set": settings})
        return _init_forecast(scene or [], output=output, overwrite=overwrite)
    if chips is not None:
        from pipeline.workflow.chip_check import write_chip_config

        refuse_with("--chips", of_labels | {"--scene": scene, "--kind": kind})
        return lambda _: write_chip_config(chips, output=output, overwrite=overwrite, options=options)
    if not scene or labels is None:
        from pipeline.forecast.series import is_dated

        dated = labels is None and chips is None and any(is_dated(Path(path)) for path in scene or ())
        fix = "for a forecast of this dated series: --kind forecast" if dated else None
        raise ConfigError("landcover init", expected="--scene, --labels and --field, or --chips", fix=fix)
    from pipeline.workflow.init import write_config

    return lambda _: write_config(
        scene, labels=labels, field=field or "", layer=layer, encoding=encoding, output=output, overwrite=overwrite,
        options=options, complete=complete, objects=objects or (), kind=kind,
    )  # fmt: skip


def _init_forecast(series: Sequence[str], *, output: Path, overwrite: bool) -> Work:
    """The configuration of a forecast.

    Raises:
        ConfigError: no series.
    """
    if not series:
        raise ConfigError("--kind forecast", expected="--scene with a GeoTIFF of dated bands, or a folder of them")
    from pipeline.workflow.forecast import write_forecast_config

    return lambda _: write_forecast_config(series, output=output, overwrite=overwrite)


def refuse_with(what: str, given: Mapping[str, object]) -> None:
    """Refuse options that what is asked for does not take.

    Raises:
        ConfigError: one of them is given.
    """
    found = [name for name, value in given.items() if value]
    if found:
        raise ConfigError(f"{what} with {', '.join(found)}", fix="leave it out")


def of_chips(config: Path, settings: Sequence[str] | None) -> bool:
    """Whether a configuration is of whole chips; any other is checked now, before libraries load for seconds.

    Raises:
        ConfigError: it cannot be read, or holds what is not right.
    """
    from pipeline.config import is_chip_job, load_config

    if is_chip_job(config):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever loads it for good says what moved
        load_config(config, changes=settings or ())
    return False


def _of_forecast(config: Path) -> bool:
    from pipeline.config import is_forecast_job

    return is_forecast_job(config)


def stages(
    config: Path,
    last: str,
    settings: list[str] | None,
    *,
    force: bool,
    overwrite: bool,
    resume: bool = False,
    verify: bool = False,
) -> Work:  # fmt: skip
    """The stages of a job up to one of them."""
    from pipeline.workflow.stages import run_stages

    return lambda progress: run_stages(
        config, last=last, force=force, overwrite=overwrite, resume=resume, verify=verify, progress=progress,
        changes=settings or (),
    )  # fmt: skip


def check(config: ConfigFile, *, settings: Set = None) -> Work:
    """The dry run: CRS, overlap, bands, values, classes per split; and what time, memory and disk it will take."""
    if _of_forecast(config):
        from pipeline.workflow.forecast import check_series, forecast_settings

        return lambda _: check_series(forecast_settings([config], changes=settings or ()))
    whole_chips = of_chips(config, settings)
    from pipeline.workflow.check import check_job
    from pipeline.workflow.chip_check import check_chips

    if whole_chips:
        return lambda progress: check_chips(config, progress=progress, changes=settings or ())
    return lambda progress: check_job(config, progress=progress, changes=settings or ())


def chips(config: ConfigFile, *, settings: Set = None, force: Force = False, overwrite: Overwrite = False) -> Work:
    """Burn the labels, assign polygons to train, validation and test by blocks, and cut chips."""
    of_chips(config, settings)
    return stages(config, "chips", settings, force=force, overwrite=overwrite)


def train(
    config: ConfigFile,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    settings: Set = None,
    force: Force = False,
    overwrite: Overwrite = False,
) -> Work:
    """Train the network on the training blocks."""
    of_chips(config, settings)
    return stages(config, "train", settings, force=force, overwrite=overwrite, resume=resume)


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
    if _of_forecast(config):
        from pipeline.workflow.forecast import forecast_settings, run_forecast

        refuse_with("a configuration of a forecast", {"--verify": verify})
        from pipeline.forecast.settings import run_folder

        found, folder = forecast_settings([config], changes=settings or ()), run_folder(config)
        return lambda progress: run_forecast(found, output=folder, overwrite=overwrite or force, progress=progress)
    if of_chips(config, settings):
        from pipeline.workflow.chip_job import run_chips

        refuse_with("a configuration of chips", {"--verify": verify})
        return lambda progress: run_chips(
            config, overwrite=overwrite or force, progress=progress, changes=settings or ()
        )
    return stages(config, "report", settings, force=force, overwrite=overwrite, verify=verify)


def demo(
    *,
    output: Annotated[Path, out("Folder for the result.")] = Path("demo"),
    settings: Set = None,
    overwrite: Overwrite = False,
) -> Work:
    """Run the main job on the simulated sample data."""
    from pipeline.workflow.demo import run_demo

    return lambda progress: run_demo(output, overwrite=overwrite, progress=progress, changes=settings or ())


def search(
    api: Annotated[str, typer.Argument(metavar="URL", help="STAC API, or earth-search or planetary-computer.")],
    *,
    collection: Annotated[list[str], typer.Option("--collection", "-c", help="Collection; repeatable.")],
    area: Annotated[str, typer.Option("--area", help="west,south,east,north in degrees, or a polygon file.")],
    dates: Annotated[str, typer.Option("--dates", help="2024-05-01/2024-09-30.")],
    max_cloud: Annotated[float, typer.Option(min=0, max=100, help="Largest cloud cover in per cent.")] = 20.0,
    limit: Annotated[int, typer.Option(min=1, help="Most scenes to list.")] = 10,
    bands: Annotated[str | None, typer.Option(help="Comma-separated bands to download; default: all optical.")] = None,
    download: Annotated[
        Path | None, typer.Option("--download", help="Folder to download into; default: list only.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Who serves the items, where they do not tell.")] = None,
) -> Work:
    """Find scenes by area, dates and cloud cover; download only the bands and the window needed."""
    from pipeline.workflow.search import search_scenes

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
