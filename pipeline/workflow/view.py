"""``landcover view``: what the user points at -> maps with their scenes -> a server that shows them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config import is_forecast_job, load_config
from pipeline.errors import ConfigError, InputError, PipelineError, SceneWarning, counted
from pipeline.forecast.settings import FACTS, run_folder
from pipeline.process import need_package
from pipeline.runs import RESOLVED
from pipeline.scenes.opening import open_scene
from pipeline.view.answers import Answers, Basemap, ViewedMap, open_viewed
from pipeline.view.server import ViewServer
from pipeline.workflow.inputs import open_sources
from pipeline.workflow.outcome import Outcome

if TYPE_CHECKING:
    from pipeline.scenes.scene import Source

_SUFFIX, _VALUES = "_lc", "_value"
_PLACES = ("{z}", "{x}", "{y}")


def open_viewer(
    paths: Sequence[Path], *, scenes: Sequence[str] = (), port: int = 0, basemap: str | None = None,
    credit: str | None = None,
) -> tuple[ViewServer, Outcome]:  # fmt: skip
    """A server that listens and has still to be run, and the outcome.

    ``paths`` are run folders, folders of maps or forecasts, configurations of runs, or maps; ``scenes`` those of
    maps that do not know theirs, one for all of them or one per map. ``basemap`` has {z}, {x} and {y}; without
    ``credit`` its host is named.

    Raises:
        ConfigError: options that do not fit, or rio-tiler is not installed.
        InputError: there are no maps, or one cannot be read.
        OutputError: the port is taken.
    """
    need_package("rio_tiler", what="the viewer needs rio-tiler", extra="view")
    background = check_basemap(basemap, credit)
    maps = gather_maps(paths, scenes=scenes)
    title = ", ".join(dict.fromkeys(_title(path) for path in paths))
    server = ViewServer(Answers(maps, title=title, basemap=background), port=port)
    outcome = Outcome(
        summary=f"{counted(len(maps), 'map')} at {server.url}",
        hint="only this machine can open this address, and only while this command runs; Ctrl-C ends it",
        data={"url": server.url, "port": server.port, "maps": [item.name for item in maps]},
    )
    return server, outcome


def gather_maps(paths: Sequence[Path], *, scenes: Sequence[str] = ()) -> tuple[ViewedMap, ...]:
    """The maps that the paths stand for, each with its scene where that is known.

    Raises:
        ConfigError: as many scenes as make no sense.
        InputError: there are no maps, or one cannot be read.
    """
    files = [(path, file) for path in paths for file in _map_files(path)]
    if len(scenes) > 1 and len(scenes) != len(files):
        raise ConfigError(
            "option --scene", got=f"{len(scenes)} scenes", expected=f"one, or one for each of {len(files)} maps"
        )
    given = [open_scene(scene) for scene in scenes]
    names = _names(files)
    known: dict[Path, dict[str, Source]] = {}
    found = []
    for number, ((_, file), name) in enumerate(zip(files, names, strict=True)):
        run = _run_of(file)
        if run not in known:
            known[run] = {} if given else run_scenes(run)
        scene = given[number % len(given)] if given else known[run].get(_stem(file))
        # Steps of a forecast are shown in the same colours.
        alike = [other for _, other in files if other.parent == file.parent] if _is_forecast(file.parent) else []
        found.append(open_viewed(file, name=name, scene=scene, alike=alike))
    return tuple(found)


def run_scenes(run: Path) -> dict[str, Source]:
    """The scenes of a run by name; none, with a warning, where its configuration or they are gone."""
    if not (run / RESOLVED).exists():
        return {}
    try:
        return {source.id: source for source in open_sources(load_config(run / RESOLVED), make=False)}
    except PipelineError as err:
        warnings.warn(f"the scenes of {run} are not shown: {err}", SceneWarning, stacklevel=2)
        return {}


def check_basemap(url: str | None, credit: str | None) -> Basemap | None:
    """The background the user asked for; None for none.

    Raises:
        ConfigError: no address of tiles.
    """
    if url is None:
        return None
    parts = urlsplit(url)
    # What stands in the policy of the page must be a plain host: a space or a semicolon would add rules to it.
    plain = parts.netloc and not set(parts.netloc) & set(" ;,'\"{}@\\")
    if parts.scheme not in {"http", "https"} or not plain or not all(place in url for place in _PLACES):
        raise ConfigError(
            "option --basemap", got=url, expected="an http or https address of tiles with {z}, {x} and {y}"
        )
    return Basemap(url, credit or parts.netloc)


def _map_files(path: Path) -> list[Path]:
    """The maps that a path stands for; of a map of values its classes, which lie beside it."""
    if path.suffix.lower() in {".yaml", ".yml"}:
        path = run_folder(path) if is_forecast_job(path) else Path(load_config(path).output)
    if not path.is_dir():
        classes = path.with_name(f"{path.stem.removesuffix(_VALUES)}{_SUFFIX}.tif")
        return [classes if path.stem.endswith(_VALUES) and classes.exists() else path]
    for folder in (path / "maps", path):
        if found := sorted(folder.glob(f"*{_SUFFIX}.tif")):
            return found
    if _is_forecast(path) and (steps := sorted(path.glob("*.tif"))):
        return steps
    expected = f"maps/*_lc.tif, or a {FACTS}"
    raise InputError("no maps in the folder", path=path, expected=expected, fix="map first: landcover run")


def _is_forecast(folder: Path) -> bool:
    return (folder / FACTS).is_file()


def _stem(file: Path) -> str:
    return file.stem.removesuffix(_SUFFIX)


def _run_of(file: Path) -> Path:
    """The run folder that a map would lie in."""
    folder = file.resolve().parent
    return folder.parent if folder.name == "maps" else folder


def _names(files: Sequence[tuple[Path, Path]]) -> list[str]:
    """The shortest names that tell the maps apart: their scenes', their runs', or both."""
    scenes = [_stem(file) for _, file in files]
    runs = [_title(_run_of(file)) for _, file in files]
    both = [f"{run}: {scene}" for run, scene in zip(runs, scenes, strict=True)]
    for names in (scenes, runs, both):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {name}" for number, name in enumerate(both, start=1)]


def _title(path: Path) -> str:
    """What the page is called: the run's name, or the file's."""
    if path.is_dir() and (path / RESOLVED).exists():
        try:
            return load_config(path / RESOLVED).name
        except PipelineError:
            return path.resolve().name
    return path.resolve().name if path.is_dir() else path.stem.removesuffix(_SUFFIX)
