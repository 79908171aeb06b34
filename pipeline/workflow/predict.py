"""``landcover predict``: the scenes of a configuration, or any scenes and a model, to maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from pipeline.errors import ConfigError, PipelineError, counted
from pipeline.files import prepare_folder
from pipeline.inference.settings import MapSettings
from pipeline.inference.sources import OBJECTS, RECIPE, sources_for
from pipeline.maps.settings import ObjectSettings
from pipeline.model.bundle import ModelBundle, load_bundle
from pipeline.scale.cluster import SceneTask, open_client
from pipeline.scale.scenes import Done, SceneWork, map_over_dask
from pipeline.scenes.opening import list_scenes
from pipeline.scenes.settings import SceneRequest
from pipeline.settings import Settings, changed, checked
from pipeline.workflow.outcome import Outcome, Progress, Table, no_progress
from pipeline.workflow.scene_maps import WORK, MapFiles, MapOrder, finished_map, map_scene, write_mosaic_map

if TYPE_CHECKING:
    from pipeline.inference.rows import Key
    from pipeline.scenes.scene import Source

# Exit status where some scenes of several could not be mapped.
SOME_FAILED = 3
SCENES_SHOWN = 6


class PredictSettings(Settings):
    """What ``landcover predict`` takes with ``--set`` where a model is given."""

    map: MapSettings = Field(default_factory=lambda: MapSettings.model_validate({}))
    scene: SceneRequest = Field(default_factory=SceneRequest)


def predict_maps(
    config: Path | None,
    *, model: Path | None = None, scenes: Sequence[str] = (), output: Path | None = None, changes: Sequence[str] = (),
    force: bool = False, overwrite: bool = False, progress: Progress = no_progress, listed: str | None = None,
    dask: str | None = None,
) -> Outcome:  # fmt: skip
    """Map the scenes of a configuration, or any scenes with a model.

    ``config`` or ``model`` is given; ``changes`` are settings of the one, or of :class:`PredictSettings`. ``listed``
    are further scenes: a text file of paths, a folder of scenes, or STAC items. ``dask`` says who maps several, see
    :func:`pipeline.scale.cluster.open_client`; None for this process alone.

    Raises:
        ConfigError: neither or both are given; an unknown setting, or a value that does not fit.
        PipelineError: the only scene cannot be mapped; of several, those that cannot be are listed in the outcome.
    """
    named = bool(scenes) or listed is not None
    alone = model is not None or named or output is not None or dask is not None
    if (config is None) != alone or (alone and (model is None or not named or output is None)):
        raise ConfigError("what to map", expected="either a configuration, or --model, --scene or --scenes, and -o")
    if config is not None:
        from pipeline.workflow.stages import run_stages

        return run_stages(config, last="predict", force=force, overwrite=overwrite, progress=progress, changes=changes)
    if model is None or output is None:
        raise ConfigError("what to map", expected="--model and -o")
    settings = checked(PredictSettings, changed({}, changes))
    words = settings.scene
    bundle, existed = load_bundle(model), output.exists()
    mapping, values = with_objects(settings.map, bundle), bundle.quantity is not None
    if values and mapping.of_classes:
        what = f"map.{mapping.of_classes[0]} of a continuous target"
        raise ConfigError(what, path=model, expected="a model of classes", fix="leave it out: the map has bounds")
    order = MapOrder(prepare_folder(output), mapping, overwrite, force, values=values)
    paths = list(scenes)
    if listed is not None:
        paths += list_scenes(listed, items=order.folder / WORK / "items")
    words.check_number(paths)
    if listed is None and dask is None and len(paths) == 1:
        try:
            sources = sources_for(bundle, paths, folder=order.folder, words=words)
            if len(sources) == 1:
                return mapping_outcome([map_scene(bundle, sources[0], order, progress=progress)], mosaic=None)
        except PipelineError:
            if not existed:
                _remove_empty(output)
            raise
    done = map_all(model.resolve(), bundle, paths, order, dask=dask, words=words, progress=progress)
    errors = [(f"{item.name}: ", item.error) for item in done if item.error]
    failed = [error if error.startswith(name) else name + error for name, error in errors]
    good = [item.result for item in done if item.result is not None]
    mosaic = write_mosaic_map([files for files, _ in good], [source for _, source in good], order)
    return mapping_outcome([files for files, _ in good], mosaic=mosaic, failed=failed)


def _remove_empty(folder: Path) -> None:
    """Of a scene that was refused nothing stays, not even the folder that was to hold its maps."""
    for path in (*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder):
        if not any(path.iterdir()):
            path.rmdir()


Mapped = tuple[MapFiles, "Source"]


def map_all(
    model: Path, bundle: ModelBundle, paths: Sequence[str], order: MapOrder,
    *, dask: str | None, words: SceneRequest, progress: Progress,
) -> list[Done[Mapped]]:  # fmt: skip
    """Map scenes one after another, or over Dask; one that fails does not stop the others.

    Returns:
        What became of each, in the order they were given.
    """
    found: list[Done[Mapped]] = []
    places: dict[str, int] = {}

    def works() -> Iterator[SceneWork[Mapped] | Done[Mapped]]:
        """Scenes as they are opened, when they are wanted; broken or finished ones as what became of them."""
        for source in _open_all(bundle, paths, words, folder=order.folder):
            name = source.name if isinstance(source, Done) else source.id
            again, place = name in places, len(places)
            places.setdefault(f"{name} (again)" if again else name, place)
            if isinstance(source, Done):
                yield source
            elif again:
                yield Done(f"{name} (again)", error="scene id used twice; rename one, or map it into another folder")
            else:
                yield _work_of(model, bundle, source, order, progress)

    def report(done: Done[Mapped]) -> None:
        found.append(done)
        progress("scenes", len(found), len(paths))

    if dask is None:
        for work in works():
            report(work if isinstance(work, Done) else _here(bundle, work, order, progress))
    else:
        with open_client(dask) as client:
            map_over_dask(works(), bundle=bundle, client=client, report=report)
    return sorted(found, key=lambda item: places[item.name])


def _work_of(
    model: Path, bundle: ModelBundle, source: Source, order: MapOrder, progress: Progress
) -> SceneWork[Mapped] | Done[Mapped]:
    try:
        known = finished_map(bundle, source, order)
    except PipelineError as err:
        return Done(source.id, error=str(err))
    if known is not None:
        return Done(source.id, (known, source))
    return SceneWork(
        source.id, SceneTask(model, source, order.settings), order.work(source),
        finish=partial(_finish, model=model, source=source, order=order),
        progress=partial(progress, f"mapping {source.id}"),
    )  # fmt: skip


def with_objects(settings: MapSettings, bundle: ModelBundle) -> MapSettings:
    """Settings with the model's own of objects, where nothing else is said; its classes where none are named."""
    kept = bundle.provenance.get(OBJECTS)
    if not isinstance(kept, dict) or settings.objects.classes:
        return settings
    said = settings.objects.model_dump(exclude_defaults=True)
    return settings.model_copy(update={"objects": ObjectSettings.model_validate(kept | said)})


def _open_all(
    bundle: ModelBundle, paths: Sequence[str], words: SceneRequest, *, folder: Path
) -> Iterator[Source | Done[Mapped]]:
    """One source per path, or one of all where the model wants its dates joined."""
    kept = bundle.provenance.get(RECIPE)
    if isinstance(kept, dict) and kept.get("time", "separate") != "separate":
        yield from sources_for(bundle, paths, folder=folder, words=words)
        return
    stems = Counter(Path(path).stem for path in dict.fromkeys(paths))
    for position, path in enumerate(paths):
        try:
            for source in sources_for(bundle, [path], folder=folder, words=words.of_one(position)):
                alike = source.id == Path(path).stem and stems[source.id] > 1
                # Files of one name in two folders are two scenes.
                yield replace(cast("Any", source), id=f"{Path(path).parent.name}_{source.id}") if alike else source
        except (PipelineError, PermissionError) as err:
            yield Done(path, error=str(err))


def _here(bundle: ModelBundle, work: SceneWork[Mapped], order: MapOrder, progress: Progress) -> Done[Mapped]:
    source = work.task.source
    try:
        return Done(work.name, (map_scene(bundle, source, order, progress=progress), source))
    except PipelineError as err:
        return Done(work.name, error=str(err))


def _finish(key: Key, *, model: Path, source: Source, order: MapOrder) -> Mapped:
    """Write the maps of a scene whose rows are all mapped, on whatever machine this is."""
    return map_scene(load_bundle(model), source, order, progress=no_progress, key=key), source


def mapping_outcome(maps: Sequence[MapFiles], *, mosaic: Path | None, failed: Sequence[str] = ()) -> Outcome:
    """The summary of ``predict``: areas, rate, what was decided, what was written; scenes that failed at the end."""
    names = maps[0].counts.scheme.names if maps else ()
    areas = [(name, *(f"{item.counts.area_ha[i]:,.1f}" for item in maps)) for i, name in enumerate(names)]
    areas.append(("of the scene", *(f"{item.counts.mapped_share:.1%}" for item in maps)))
    rates = tuple(
        (
            item.name,
            *(f"{item.figures[key]:.2f}" for key in ("mpx", "mpx_per_s")),
            item.plan["engine"],
            item.plan["dtype"],
        )
        for item in maps
        if not item.unchanged
    )
    qgis = ("open the _lc.tif in QGIS: names and colours come with it",)
    tables = [Table("mapping", ("scene", "Mpx", "Mpx/s", "engine", "type"), rates)] if rates else []
    # A column per scene is for some; of many scenes the areas are in the JSON and in the maps.
    if 0 < len(maps) <= SCENES_SHOWN:
        tables.insert(0, Table("mapped area (ha)", ("class", *(item.name for item in maps)), tuple(areas)))
    return Outcome(
        summary=_summary(mapped=len(rates), unchanged=len(maps) - len(rates), failed=len(failed)),
        written=(*(path for item in maps for path in item.files), *([mosaic] if mosaic else [])),
        hint="\n".join([*qgis[: len(maps)], *(item.sets for item in maps[:SCENES_SHOWN] if item.sets)]),
        tables=tuple(tables),
        failed=tuple(failed),
        status=SOME_FAILED,
        data={
            "maps": [
                {
                    "scene": item.name,
                    "files": [str(path) for path in item.files],
                    "figures": item.figures,
                    "area_ha": dict(zip(names, item.counts.area_ha, strict=True)),
                    "mapped_share": item.counts.mapped_share,
                    "plan": item.plan,
                }
                for item in maps
            ]
        },
    )


def _summary(*, mapped: int, unchanged: int, failed: int) -> str:
    """How many scenes of each kind, without those that there are none of."""
    counts = (f"{counted(mapped, 'scene')} mapped", mapped), (f"{counted(unchanged, 'scene')} unchanged", unchanged)
    texts = [text for text, count in counts if count] or [counts[0][0]]
    return ", ".join([*texts, *([f"{failed} failed"] if failed else [])])
