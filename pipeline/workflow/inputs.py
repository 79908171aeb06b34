"""Configuration -> domain values: sources, legend, labels. Nothing is read of the pixels here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import ConfigError
from pipeline.labels.footprints import with_ground
from pipeline.labels.rasterise import LabelledPixels, burn, erode_edges
from pipeline.labels.rasters import is_class_raster, read_map_labels
from pipeline.labels.source import LISTED, Labels, buffer_polygons, group_classes, read_labels
from pipeline.legend import ClassScheme, LandClass
from pipeline.scenes.clouds import warn_of_clouds, with_clouds
from pipeline.scenes.joining import CLOUDS, join_scenes, open_as, unlike
from pipeline.scenes.stack import dated

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.scenes.scene import Scene, Source
    from pipeline.scenes.settings import SceneItem

_Rule = TypeVar("_Rule", bool, int, float)
# Of labels.level: the classes as they are listed.
LISTED_LEVEL = 2


def legend_of(config: Config) -> ClassScheme:
    """The legend that is learned and mapped: the classes listed, or at level 1 their groups."""
    listed = listed_classes(config)
    return listed if config.labels.level == LISTED_LEVEL else groups_of(listed, config.labels.groups)[0]


def groups_of(listed: ClassScheme, names: Mapping[str, str]) -> tuple[ClassScheme, dict[int, int]]:
    """The groups of classes, each with code and colour of its first class, and code of class -> code of group."""
    first: dict[str, LandClass] = {}
    for item in listed.classes:
        name = names.get(item.name, item.name)
        first.setdefault(name, LandClass(item.code, name, item.color))
    codes = {item.code: first[names.get(item.name, item.name)].code for item in listed.classes}
    return ClassScheme(tuple(first.values())), codes


def listed_classes(config: Config) -> ClassScheme:
    """The classes of a configuration as they are listed (level 2).

    Raises:
        ConfigError: the name of a class is the code of another, so that a value in a file could mean either.
    """
    scheme = ClassScheme(tuple(LandClass(item.code, item.name, item.color.lower()) for item in config.classes))
    for item in scheme.classes:
        name = item.name.strip()
        if name in map(str, scheme.codes) and name != str(item.code):
            other = scheme.by_code(int(name))
            raise ConfigError(
                f"key 'classes': class {item.code} is called {name!r}, the code of class {other.name!r}",
                expected=f"code {name} for it, or another name",
                fix="classes that are numbers in the labels can be named with labels.aliases",
            )
    return scheme


def _known(names: Iterable[str], scheme: ClassScheme, *, key: str) -> None:
    strange = [name for name in names if name not in scheme.names]
    if strange:
        raise ConfigError(f"key {key!r}", got=", ".join(strange), expected="some of " + ", ".join(scheme.names))


def _by_class(config: Config, key: str, own: Mapping[str, _Rule], other: _Rule) -> dict[int, _Rule]:
    """A rule for the polygons of each class listed, by its code: its own, else that of all others.

    Raises:
        ConfigError: a rule for a class that is not listed.
    """
    scheme = listed_classes(config)
    _known(own, scheme, key=f"labels.{key}")
    return {item.code: own.get(item.name, other) for item in scheme.classes}


def open_sources(config: Config, *, days: Sequence[date] = (), make: bool = True) -> tuple[Source, ...]:
    """The scenes of a configuration as the network sees them: bands chosen, dates joined, indices and layers added.

    With ``days`` every scene once for each of them, with the layers of that day. Masks of clouds that a network makes
    are written into the run folder; without ``make`` only those there are used.

    Raises:
        SceneError: a scene that cannot be opened, or bands that differ between scenes.
    """
    opened = [(item, scene) for item in config.scenes for scene in open_dates(item, config)]
    names = unlike([scene.id for _, scene in opened], paths=["" if item.id else item.path for item, _ in opened])
    folder, clouds = Path(config.output) / CLOUDS, config.inputs.clouds
    fix = "set inputs.clouds: network finds them, none says that there are none"
    warn_of_clouds([scene for _, scene in opened], clouds=clouds, mask=config.inputs.mask, fix=fix)
    scenes = [
        with_clouds(replace(scene, id=name), clouds, folder=folder, make=make)
        for (_, scene), name in zip(opened, names, strict=True)
    ]
    if days:
        return join_scenes([("", scene) for scene in dated(scenes, days)], config.inputs)
    return join_scenes(
        [(item.group or "", scene) for (item, _), scene in zip(opened, scenes, strict=True)], config.inputs
    )


def open_dates(item: SceneItem, config: Config) -> tuple[Scene, ...]:
    """The scenes of one item: one, those of a STAC collection, or one per band of a file whose bands are dates.

    Raises:
        SceneError: a scene that cannot be opened.
    """
    scenes = open_as(item.path, config.inputs, options=item)
    if item.id is None:
        return scenes
    if len(scenes) == 1:
        return (replace(scenes[0], id=item.id),)
    names = [day.date().isoformat() if item.dates and (day := scene.acquired_utc) else scene.id for scene in scenes]
    return tuple(replace(scene, id=f"{item.id}_{name}") for scene, name in zip(scenes, names, strict=True))


def open_labels(config: Config, sources: Callable[[], Sequence[Source]]) -> Labels:
    """The labels of a configuration, in its legend: polygons, points, or pieces of an existing map.

    Scenes are opened only where labels are pieces of a map, so that one that cannot be does not hide what is wrong with
    polygons.

    Raises:
        ConfigError: rules for classes that there are none of, or a vector file without a field.
        LabelError: labels that cannot be read.
    """
    section, listed = config.labels, listed_classes(config)
    buffer_m = _by_class(config, "class_buffer_m", section.class_buffer_m, section.buffer_m)
    _burning_rules(config)  # what is wrong with them is said before anything is read
    if is_class_raster(section.path):
        if section.also:
            raise ConfigError("labels.also beside a class raster", path=section.path, fix="name a vector file as path")
        extents = [(source.grid.bounds, source.grid.crs.to_wkt()) for source in sources()]
        labels = read_map_labels(
            section.path, scheme=listed, extents=extents, piece_px=section.piece_px, pieces=section.pieces,
            aliases=section.aliases,
        )  # fmt: skip
    else:
        labels = read_labels(
            Path(section.path), field=section.field, only=_only_class(config), scheme=listed, layer=section.layer,
            encoding=section.encoding, aliases=section.aliases,
            points=section.point_radius_m is not None or section.point_window_px is not None,
            point_radius_m=section.point_radius_m or 0.0, also=section.also,
        )  # fmt: skip
    labels = buffer_polygons(labels, buffer_m)
    if section.complete:
        area = section.complete if isinstance(section.complete, str) else None
        grids = [source.grid for source in sources()]
        labels = with_ground(labels, grids, background=section.background, area=area)
    if section.level == LISTED_LEVEL:
        return labels
    _known(section.groups, listed, key="labels.groups")
    return group_classes(labels, *groups_of(listed, section.groups))


def _only_class(config: Config) -> str:
    """The class of every polygon where no field holds it: the only one with objects; "" where a field does.

    Raises:
        ConfigError: no field, and no class or several that are objects.
    """
    marked = [item.name for item in config.classes if item.objects]
    if config.labels.field:
        return ""
    if len(marked) != 1:
        raise ConfigError("key 'labels.field' is missing", fix="name the attribute that holds the class")
    return marked[0]


def _burning_rules(config: Config) -> tuple[dict[int, bool], dict[int, int]]:
    section = config.labels
    return (
        _by_class(config, "class_all_touched", section.class_all_touched, section.all_touched),
        _by_class(config, "class_erode_px", section.class_erode_px, section.erode_px),
    )


def burn_labels(labels: Labels, sources: Sequence[Source], config: Config) -> tuple[LabelledPixels, ...]:
    """The labelled pixels of every scene, by the rules of each class."""
    frame, (all_touched, erode) = labels.frame, _burning_rules(config)
    listed = dict(zip(frame["poly_id"].tolist(), frame[LISTED if LISTED in frame else "code"].tolist(), strict=True))
    touched = [polygon for polygon, code in listed.items() if all_touched[code]]
    erode_px = {polygon: erode[code] for polygon, code in listed.items()}
    window_px = config.labels.point_window_px or 1
    burned = (burn(labels, source.grid, all_touched=touched, point_window_px=window_px) for source in sources)
    return tuple(erode_edges(pixels, erode_px) for pixels in burned)
