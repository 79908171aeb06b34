"""Cross-validation: crossval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import Work, add_commands
from pipeline.cli.options import ConfigFile, Overwrite
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    add_commands(app, crossval)


def crossval(
    config: ConfigFile,
    *,
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    leave_one_block_out: Annotated[
        bool, typer.Option("--leave-one-block-out", help="A fold per spatial block.")
    ] = False,
    leave_one_scene_out: Annotated[bool, typer.Option("--leave-one-scene-out", help="A fold per scene.")] = False,
    by: Annotated[
        str,
        typer.Option(help="blocks (with a buffer), polygons or both; of values: blocks, or the attribute of groups."),
    ] = "blocks",
    methods: Annotated[
        str, typer.Option(help="Comma-separated: forest, forest_neighbourhood, network.")
    ] = "forest,forest_neighbourhood,network",
    seeds: Annotated[str, typer.Option(help="Seeds of the folds, comma-separated; each draws them anew.")] = "0",
    only_folds: Annotated[
        str, typer.Option(help="Numbers of the folds to do now, comma-separated; the others later.")
    ] = "",
    random_folds: Annotated[
        int, typer.Option(help="Folds of random pixels, to see how much a leaky split flatters; 0 for none.")
    ] = 1,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Instead: the score against the number of polygons learned from.")
    ] = False,
    shares: Annotated[
        str, typer.Option(help="Of the learning curve: per cent of the training polygons, comma-separated.")
    ] = "25,50,75,100",
    leave_out_single: Annotated[
        bool, typer.Option("--leave-out-single", help="Go on without classes of one polygon.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Do folds again that are done.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the figures here.")] = None,
    overwrite: Overwrite = False,
) -> Work:
    """Cross-validate the network and the random forest on the same folds; goes on where it was interrupted."""
    from pipeline.workflow.crossval import CrossvalRequest, cross_validate_job
    from pipeline.workflow.learning_curve import draw_learning_curve

    if leave_one_block_out and leave_one_scene_out:
        raise ConfigError("--leave-one-block-out together with --leave-one-scene-out", fix="give one of them")
    request = CrossvalRequest(
        folds=folds,
        leave_out="block" if leave_one_block_out else "scene" if leave_one_scene_out else "",
        by=by,
        methods=words(methods),
        seeds=numbers(seeds, option="--seeds"),
        only_folds=numbers(only_folds, option="--only-folds"),
        random_folds=random_folds,
        leave_out_single=leave_out_single,
        force=force,
        overwrite=overwrite,
    )
    if learning_curve:
        wanted = numbers(shares, option="--shares")
        return lambda progress: draw_learning_curve(
            config, request=request, shares=wanted, output=output, progress=progress
        )
    return lambda progress: cross_validate_job(config, request=request, output=output, progress=progress)


def words(text: str) -> tuple[str, ...]:
    """Comma-separated words."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str, *, option: str) -> tuple[int, ...]:
    """Comma-separated numbers of 0 or more.

    Raises:
        ConfigError: something else.
    """
    if not all(word.isdecimal() for word in words(text)):
        raise ConfigError(f"option {option}", got=text, expected="numbers, such as 1,2,3")
    return tuple(int(word) for word in words(text))
