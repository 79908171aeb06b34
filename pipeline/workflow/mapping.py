"""``landcover predict``: the scenes of a configuration, or any scenes and a model, to maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, PipelineError
from pipeline.files import prepare_folder
from pipeline.model.bundle import load_bundle
from pipeline.scale.cluster import SceneTask, open_client
from pipeline.scale.listing import list_scenes
from pipeline.scale.scenes import Done, SceneWork, map_over_dask
from pipeline.workflow.map_one import MapOrder, finished_map, map_scene, predict_settings
from pipeline.workflow.map_record import WORK
from pipeline.workflow.mapped import MapFiles, mapping_outcome, write_mosaic
from pipeline.workflow.outcome import Outcome, Progress, no_progress
from pipeline.workflow.recipe import RECIPE, SceneRequest, sources_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pipeline.config import MapSection
    from pipeline.inference.journal import Key
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source


@dataclass(frozen=True)
class MapRequest:
    """What the command line asks for beyond the configuration; None and False leave the configuration's word."""

    aoi: Path | None = None
    mask: Path | None = None
    memory: str | None = None
    engine: str | None = None
    dtype: str | None = None
    tta: bool = False
    probabilities: bool = False
    applicability: bool = False
    polygons: bool = False
    mosaic: str | None = None
    mosaic_crs: str | None = None
    mosaic_pixel: float | None = None
    seam_figure: bool = False

    def apply(self, section: MapSection) -> MapSection:
        """The configuration's section with what was asked for."""
        asked = {
            "aoi": str(self.aoi.resolve()) if self.aoi else None,
            "mask": str(self.mask.resolve()) if self.mask else None,
            "memory": self.memory,
            "engine": self.engine,
            "dtype": self.dtype,
            "tta": self.tta or None,
            "probabilities": self.probabilities or None,
            "applicability": self.applicability or None,
            "polygons": self.polygons or None,
            "mosaic": self.mosaic,
            "mosaic_crs": self.mosaic_crs,
            "mosaic_pixel": self.mosaic_pixel,
        }
        return type(section).model_validate(
            section.model_dump() | {key: value for key, value in asked.items() if value is not None}
        )


@dataclass(frozen=True)
class ManyScenes:
    """Scenes beyond those that are named one by one, and who maps them.

    Attributes:
        listed: A text file of paths, a folder of scenes, or STAC items.
        dask: None for this process alone, "local" for worker processes, or the address of a scheduler.
        workers: Worker processes for "local".
    """

    listed: str | None = None
    dask: str | None = None
    workers: int | None = None


def predict_maps(
    config: Path | None,
    *,
    model: Path | None,
    scenes: Sequence[str],
    output: Path | None,
    request: MapRequest,
    force: bool,
    overwrite: bool,
    progress: Progress,
    many: ManyScenes | None = None,
    words: SceneRequest | None = None,
) -> Outcome:
    """Map the scenes of a configuration, or any scenes with a model; ``words`` are said of the latter.

    Raises:
        ConfigError: neither or both are given.
        PipelineError: the only scene cannot be mapped; of several, those that cannot be are listed in the outcome.
    """
    many, words = many or ManyScenes(), words or SceneRequest()
    named = bool(scenes) or many.listed is not None
    alone = model is not None or named or output is not None or many.dask is not None or words != SceneRequest()
    if (config is None) != alone or (alone and (model is None or not named or output is None)):
        raise ConfigError("what to map", expected="either a configuration, or --model, --scene or --scenes, and -o")
    if config is not None:
        from pipeline.workflow.stages import run_stages

        return run_stages(
            config, last="predict", force=force, overwrite=overwrite, progress=progress,
            change_map=request.apply, seam_figure=request.seam_figure,
        )  # fmt: skip
    from pipeline.config import MapSection

    if model is None or output is None:
        raise ConfigError("what to map", expected="--model and -o")
    if many.workers is not None and many.dask is None:
        raise ConfigError("--workers", got=many.workers, fix="add --dask local")
    bundle, existed = load_bundle(model), output.exists()
    order = MapOrder(
        prepare_folder(output), request.apply(MapSection.model_validate({})), overwrite, request.seam_figure, force
    )
    paths = list(scenes)
    if many.listed is not None:
        paths += list_scenes(many.listed, items=order.folder / WORK / "items")
    words.check_number(paths)
    if many.listed is None and many.dask is None and len(paths) == 1:
        try:
            sources = sources_for(bundle, paths, words=words)
            if len(sources) == 1:
                return mapping_outcome([map_scene(bundle, sources[0], order, progress=progress)], mosaic=None)
        except PipelineError:
            if not existed:
                _remove_empty(output)
            raise
    done = map_all(model.resolve(), bundle, paths, order, many=many, words=words, progress=progress)
    failed = [
        item.error if item.error.startswith(f"{item.name}: ") else f"{item.name}: {item.error}"
        for item in done
        if item.error
    ]
    good = [item.result for item in done if item.result is not None]
    mosaic = write_mosaic(
        [files for files, _ in good], [source for _, source in good], folder=order.folder, section=order.section,
        overwrite=overwrite,
    )  # fmt: skip
    return mapping_outcome([files for files, _ in good], mosaic=mosaic, failed=failed)


def _remove_empty(folder: Path) -> None:
    """Of a scene that was refused nothing stays, not even the folder that was to hold its maps."""
    for path in (*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder):
        if not any(path.iterdir()):
            path.rmdir()


Result = tuple[MapFiles, "Source"]


def map_all(
    model: Path,
    bundle: ModelBundle,
    paths: Sequence[str],
    order: MapOrder,
    *,
    many: ManyScenes,
    words: SceneRequest,
    progress: Progress,
) -> list[Done[Result]]:
    """Map scenes one after another, or over Dask; one that fails does not stop the others.

    Returns:
        What became of each, in the order they were given.
    """
    found: list[Done[Result]] = []
    places: dict[str, int] = {}
    works = _works(model, bundle, paths, order, words=words, places=places, progress=progress)
    if many.dask is None:
        for work in works:
            found.append(work if isinstance(work, Done) else _here(bundle, work, order, progress))
            progress("scenes", len(found), len(paths))
    else:

        def report(done: Done[Result]) -> None:
            found.append(done)
            progress("scenes", len(found), len(paths))

        with open_client(many.dask, workers=many.workers) as client:
            map_over_dask(works, bundle=bundle, client=client, report=report)
    return sorted(found, key=lambda item: places[item.name])


def _works(
    model: Path,
    bundle: ModelBundle,
    paths: Sequence[str],
    order: MapOrder,
    *,
    words: SceneRequest,
    places: dict[str, int],
    progress: Progress,
) -> Iterator[SceneWork[Result] | Done[Result]]:
    """Scenes as they are opened, when they are wanted; those that are broken or finished as what became of them."""
    settings = predict_settings(order.section)
    for source in _open_all(bundle, paths, words):
        name = source.name if isinstance(source, Done) else source.id
        again, place = name in places, len(places)
        places.setdefault(name if not again else f"{name} (again)", place)
        if isinstance(source, Done):
            yield source
            continue
        if again:
            yield Done(f"{name} (again)", error="scene id used twice; rename one, or map it into another folder")
            continue
        try:
            known = finished_map(bundle, source, order)
        except PipelineError as err:
            yield Done(name, error=str(err))
            continue
        if known is not None:
            yield Done(name, (known, source))
            continue
        yield SceneWork(
            name, SceneTask(model, source, settings), order.work(source),
            finish=partial(_finish, model=model, source=source, order=order),
            progress=partial(progress, f"mapping {name}"),
        )  # fmt: skip


def _open_all(bundle: ModelBundle, paths: Sequence[str], words: SceneRequest) -> Iterator[Source | Done[Result]]:
    """One source per path, or one of all where the model wants its dates joined."""
    kept = bundle.provenance.get(RECIPE)
    if isinstance(kept, dict) and kept.get("time", "separate") != "separate":
        yield from sources_for(bundle, paths, words=words)
        return
    for position, path in enumerate(paths):
        try:
            yield from sources_for(bundle, [path], words=words.of_one(position))
        except PipelineError as err:
            yield Done(path, error=str(err))


def _here(bundle: ModelBundle, work: SceneWork[Result], order: MapOrder, progress: Progress) -> Done[Result]:
    source = work.task.source
    try:
        return Done(work.name, (map_scene(bundle, source, order, progress=progress), source))
    except PipelineError as err:
        return Done(work.name, error=str(err))


def _finish(key: Key, *, model: Path, source: Source, order: MapOrder) -> Result:
    """Write the maps of a scene whose rows are all mapped, on whatever machine this is."""
    return map_scene(load_bundle(model), source, order, progress=no_progress, key=key), source
