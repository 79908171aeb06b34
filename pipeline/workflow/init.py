"""``landcover init``: look at scenes and labels, write a commented configuration that runs as it is."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.bands import centre_um
from pipeline.config import SCHEMA_VERSION, Config, load_config
from pipeline.errors import ConfigError, LabelError, LabelWarning, OutputError, SceneWarning, counted
from pipeline.files import check_target, relative_path, write_text
from pipeline.inference.settings import memory_for
from pipeline.labels.checks import check_overlap
from pipeline.labels.footprints import check_pixel_size, is_vector, with_ground
from pipeline.labels.geometries import is_point
from pipeline.labels.rasterise import LabelledPixels, burn
from pipeline.labels.settings import LabelSettings, split_source
from pipeline.labels.source import Labels, read_labels
from pipeline.labels.values import burn_values, holds_several, is_continuous, is_raster, read_values
from pipeline.labels.vectors import class_values, fields_of
from pipeline.legend import MAX_CLASSES, MIN_CLASSES, changed_codes, scheme_for
from pipeline.model.spec import SURROUNDINGS_REACH_PX
from pipeline.quantity import propose, unit_of
from pipeline.raster import open_raster
from pipeline.scenes.describe import is_embedding
from pipeline.scenes.fill import find_fill
from pipeline.scenes.indices import FEW_BANDS, TEXTURES_PX, texture_names
from pipeline.scenes.joining import default_bands, said_of, unlike
from pipeline.scenes.opening import open_scene
from pipeline.scenes.settings import AS_FOUND, SceneOptions
from pipeline.scenes.survey import empty_bands, fill_fix, said_of_empty
from pipeline.settings import INSIDE_FILE, Off, commented_yaml
from pipeline.splits.search import count_small, default_block_m
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from pipeline.grid import Grid
    from pipeline.scenes.scene import Scene

# A chip of 64 pixels sees 640 m of Sentinel-2 around a label; smaller scenes get chips of a quarter of their side so
# that blocks and buffers leave something to learn from.
CHIP_PX = 64
SMALLEST_CHIP_PX = 16
# How --complete calls all of the scenes, and the class of the ground around complete footprints.
WHOLE_SCENE = "scene"
BACKGROUND = str(LabelSettings.model_fields["background"].default)
# What a point labels, as in configs/points.yaml.
POINT_WINDOW_PX = 3
# Chips of a continuous target carry soft targets alone, which smaller ones spread better.
VALUE_CHIP_PX = 32
# Attributes that are taken for what groups samples, and for their date, where they are there.
GROUPS = ("station", "station_id", "plot", "plot_id", "site", "stand", "tile", "cluster")
DATES = ("date", "day", "datetime", "measured")
# Names of bands in a line.
_HINTED = 4
_NAME_THEM = (
    "{0}bands with common names (blue, green, red, nir ...), or {0}sensor where they are its keys (B5, SR_B5), gives "
    "colours, indices, pretrained weights, and models for other scenes"
)
_SCALE_THEM = (
    "{0}scale (0.0001 where they are ten thousandths of reflectance) and {0}offset (-0.1 for Sentinel-2 of baseline "
    "04.00 or later) make them reflectance"
)
# What a file's own tags usually say; shown for the first scene, and for chips, as comments.
WHERE_TAGS_ARE_MISSING = {"scale": Off(0.0001), "offset": Off(0.0), "nodata": Off(0)}


@dataclass(frozen=True)
class _Given:
    """Scenes and labels as they were named, and what was found on opening the scenes."""

    paths: Sequence[str]  # Of the scenes
    scenes: Sequence[Scene]  # Without bands that are nodata everywhere
    stated: Sequence[dict[str, Any]]  # Further keys of each scene
    labels: Path
    field: str
    layer: str | None
    encoding: str | None
    output: Path  # The configuration
    empty: tuple[str, ...]  # Lines on bands that are nodata everywhere


def write_config(
    scenes: Sequence[str], *, labels: Path, field: str, layer: str | None, output: Path, overwrite: bool,
    options: SceneOptions = AS_FOUND, encoding: str | None = None, complete: str | None = None,
    objects: Sequence[str] = (), kind: Literal["class", "value"] | None = None,
) -> Outcome:  # fmt: skip
    """Write a configuration for scenes and labels, and say what was found.

    With ``complete`` ("scene", or polygons within which every object is drawn) the ground outside all polygons is a
    class too; ``objects`` names the classes that are mapped as objects, of complete footprints of one class that one.
    ``kind`` says what the field holds; without it, its values do. Of a raster of values the field is what it measures
    and is not looked up: by default the file's name.

    Raises:
        ConfigError: objects of a measurement, or labels that are a raster of classes.
        OutputError: ``output`` exists and is not to be overwritten.
        SceneError, LabelError: scenes or labels that cannot be read.
    """
    if output.exists() and not overwrite:
        raise OutputError("configuration exists", path=output, fix="add --overwrite, or choose another with -o")
    named, of_path = split_source(str(labels))
    labels, layer = Path(named), layer or of_path
    check_target(output, overwrite=True, inputs=(labels, *scenes, *(() if complete is None else (complete,))))
    if complete and BACKGROUND in objects:
        fix = "call the objects something else"
        raise ConfigError(f"{BACKGROUND!r} is the ground around complete objects", got="it among --objects", fix=fix)
    opened, empty = _with_values(_open(scenes, options))
    given = _Given(scenes, opened, _stated(opened, options), labels, field, layer, encoding, output, empty)
    raster = is_raster(labels)
    if kind == "value" and (objects or complete or not (field or raster)):
        raise ConfigError("--kind value", expected="--field with the measurement, without --objects and --complete")
    measured = (
        (field or raster)
        and kind is None
        and not objects
        and is_continuous(labels, field=field, layer=layer, encoding=encoding)
    )
    if kind == "value" or measured:
        return _write_value_config(replace(given, field=field or labels.stem))
    if raster:
        fix = "say --kind value if it holds measurements; of a map of classes, copy configs/existing_map.yaml"
        expected = "polygons, points, or a raster of floating point numbers"
        raise ConfigError("init reads no classes from a raster", path=labels, expected=expected, fix=fix)
    return _write_class_config(given, complete=complete, objects=tuple(objects))


def _write_class_config(given: _Given, *, complete: str | None, objects: tuple[str, ...]) -> Outcome:
    """The configuration of a map of classes."""
    labels, field, layer, output = given.labels, given.field, given.layer, given.output
    only = _only_class(field, objects, labels=labels, layer=layer)
    found_in_field = partial(find_classes, labels, field=field, layer=layer, encoding=given.encoding)
    names = [only] if only else found_in_field(alone=bool(complete))
    objects = objects or (tuple(names) if complete and len(names) == 1 else ())
    scheme, source = scheme_for([*names, BACKGROUND] if complete and BACKGROUND not in names else names)
    marked = {scheme.by_name(name).code for name in objects}
    if changed := changed_codes(scheme):
        pairs = ", ".join(f"{name} becomes {code}" for name, code in changed.items())
        text = f"{labels}: codes of a map are 1 to 254, 0 is no data and 255 unlabelled: {pairs}"
        warnings.warn(text, LabelWarning, stacklevel=2)
    found = read_labels(
        labels, field=field, only=only, scheme=scheme, layer=layer, encoding=given.encoding, points=True
    )
    grids = [scene.grid for scene in given.scenes]
    check_overlap(found, grids)
    check_pixel_size(found, grids, marked)
    if complete:
        area = None if complete == WHOLE_SCENE else complete
        found = with_ground(found, grids, background=BACKGROUND, area=area)
    window_px = _point_window_px(found)
    burned = [burn(found, grid, point_window_px=window_px or 1) for grid in grids]
    if small := count_small(burned):
        text = f"{labels}: {small} of {len(found)} polygons hold no pixel centre and teach nothing; "
        warnings.warn(f"{text}labels.all_touched: true labels the pixels they touch", LabelWarning, stacklevel=2)
    chip_px = choose_chip_px(grids)
    # Windows of textures are proposed for objects in images of few bands.
    textures = TEXTURES_PX if marked and len(default_bands(given.scenes)[0]) < FEW_BANDS else ()
    # Blocks are half a chip apart, and what textures reach beyond it.
    reach_px = chip_px / 2 + max(textures, default=0) // 2
    buffer_m = round(reach_px * max(grids[0].pixel_size_m), 1)
    labelled = [pixels for pixels in burned if len(pixels)] or burned
    block_m = round(default_block_m(labelled, buffer_m=buffer_m if textures else 0.0), 1)
    data = _settings(given, chip_px=chip_px, block_m=block_m, buffer_m=buffer_m, textures=textures)
    data["classes"] = [item | ({"objects": True} if item["code"] in marked else {}) for item in scheme.to_json()]
    data["map"]["probabilities"] = Config.model_fields["map"].get_default(call_default_factory=True).probabilities
    if complete:
        data["labels"]["complete"] = complete == WHOLE_SCENE or seen_from(complete, output.parent)
    if window_px:
        data["labels"]["point_window_px"] = window_px
    note = "Paths are relative to this file. Every key is described in docs/config.md."
    _write(given, data, what="a land-cover map", note=note)
    polygons = found.polygons_per_class()
    return Outcome(
        summary=f"{output}: {counted(len(grids), 'scene')}, {counted(len(scheme), 'class')}"
        + (f" with the colours of {source}" if source else " in a colour-blind-safe palette"),
        written=(output,),
        hint=_next(output),
        tables=(_scene_table(given.scenes), _class_table(polygons, burned)),
        data={"classes": polygons, "legend": source, "bands": list(given.scenes[0].band_names), "block_m": block_m},
    )


def _only_class(field: str, objects: Sequence[str], *, labels: Path, layer: str | None) -> str:
    """The class of every polygon where no field is given: the one of objects; "" where a field is.

    Raises:
        ConfigError: neither a field nor one class of objects.
    """
    if not field and len(objects) != 1:
        have = ", ".join(fields_of(labels, layer=layer)) or "no attribute" if is_vector(labels) else "none"
        expected = "--field, or --objects with the class of all polygons"
        raise ConfigError("landcover init", got=f"no --field; {labels.name} has {have}", expected=expected)
    return "" if field else objects[0]


def _write_value_config(given: _Given) -> Outcome:
    """The configuration of a continuous target: unit, range and transform as its distribution proposes them."""
    field, output, grids = given.field, given.output, [scene.grid for scene in given.scenes]
    beside = () if is_raster(given.labels) else fields_of(given.labels, layer=given.layer)
    named = {
        key: next((name for name in beside if name.casefold() in words and name != field), None)
        for key, words in {"group": GROUPS, "date": DATES}.items()
    }
    value: dict[str, Any] = {key: name for key, name in named.items() if name}
    plain = LabelSettings.model_validate({
        "kind": "value", "path": str(given.labels), "field": field, "layer": given.layer, "encoding": given.encoding,
        "value": value,
    })  # fmt: skip
    samples = read_values(plain)[0]
    if not holds_several(samples.frame["group"].tolist()):
        value.pop("group", None)
    quantity = propose(samples.frame["value"].to_numpy(), name=field)
    about = {"unit": unit_of(field), "range": [quantity.low, quantity.high], "transform": quantity.transform}
    value = about | value
    check_overlap(samples, grids)
    burned = [burn_values(samples, grid) for grid in grids]
    block_m = round(default_block_m([pixels for pixels in burned if len(pixels)] or burned), 1)
    buffer_m = round(SURROUNDINGS_REACH_PX * max(grids[0].pixel_size_m), 1)
    data = _settings(given, chip_px=min(choose_chip_px(grids), VALUE_CHIP_PX), block_m=block_m, buffer_m=buffer_m)
    data["labels"] |= {"kind": "value", "value": value}
    note = "Unit, range and transform were proposed from the distribution of the samples: look at them."
    _write(given, data, what=f"a map of {field}", note=note)
    values = samples.frame["value"]
    rows = tuple((name, f"{values.quantile(level):.4g}") for name, level in
                 (("least", 0.0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95), ("most", 1.0)))  # fmt: skip
    return Outcome(
        summary=f"{output}: {counted(len(grids), 'scene')}, {len(samples)} samples of {quantity.name}"
        f" (transform {quantity.transform})",
        written=(output,), hint=_next(output),
        tables=(_scene_table(given.scenes), Table(f"values of {field}", ("", "value"), rows)),
        data={"kind": "value", "value": value, "samples": len(samples), "block_m": block_m},
    )  # fmt: skip


def _write(given: _Given, data: dict[str, Any], *, what: str, note: str) -> None:
    """Write the configuration with its comments, and see that it can be read."""
    head = (
        f"Configuration of {what}, written by landcover init. It runs as it is:",
        f"  landcover check {given.output.name}",
        f"  landcover run {given.output.name}",
        note,
        *given.empty,
        *_left_out(given.scenes),
    )
    write_text(given.output, commented_yaml(data, head=head, model=Config))
    load_config(given.output)


def _next(output: Path) -> str:
    return f"next: landcover check {shlex.quote(str(output))}, then landcover run {shlex.quote(str(output))}"


def find_classes(
    labels: Path, *, field: str, layer: str | None, encoding: str | None = None, alone: bool = False
) -> list[str]:
    """Names of the classes in a field, the most frequent first, or numbers by size.

    Names that differ only in case and blanks are one class, called as most of its features are; a warning says so.

    Raises:
        LabelError: one class, or too many, or see :func:`pipeline.labels.vectors.class_values`.
    """
    spellings: dict[tuple[str, ...], list[str]] = {}
    for name in class_values(labels, field=field, layer=layer, encoding=encoding):
        # One letter may be written in two ways: as itself, or with its accent behind it.
        plain = unicodedata.normalize("NFKC", name).casefold().replace("\u2010", "-").replace("\u2013", "-")
        spellings.setdefault(tuple(plain.split()), []).append(name)
    several = [f"{', '.join(rest)} as {first}" for first, *rest in spellings.values() if rest]
    if several:
        text = f"{labels}: names that differ only in case or blanks are one class: {'; '.join(several)}"
        warnings.warn(text, LabelWarning, stacklevel=3)
    names = [name for name, *_ in spellings.values()]
    if len(names) < (1 if alone else MIN_CLASSES):
        raise LabelError(
            f"field {field!r} holds fewer than two classes",
            path=labels,
            got=", ".join(names) or "none",
            fix="draw polygons of what is not this class too, say --complete scene (or AREA) where every one is drawn, "
            "or name the field with the class",
        )
    if len(names) > MAX_CLASSES:
        raise LabelError(
            f"field {field!r} has too many different values to be a class", path=labels,
            got=f"{len(names)}, such as {', '.join(names[:3])}", expected=f"at most {MAX_CLASSES}",
            fix="name the field with the class, or say --kind value if it measures something",
        )  # fmt: skip
    return sorted(names, key=int) if all(re.fullmatch(r"-?[0-9]+", name) for name in names) else names


def _open(paths: Sequence[str], options: SceneOptions) -> list[Scene]:
    """The scenes under names that differ, as files of one name in two folders do not."""
    opened = [open_scene(path, options=options) for path in paths]
    names = unlike([scene.id for scene in opened], paths=paths)
    return [replace(scene, id=name) for scene, name in zip(opened, names, strict=True)]


def _with_values(opened: Sequence[Scene]) -> tuple[list[Scene], tuple[str, ...]]:
    """The scenes without bands that are nodata everywhere in one, and a line on these, with a warning; () for none."""
    empty = {scene.path: names for scene in opened if (names := empty_bands(scene))}
    gone = dict.fromkeys(chain.from_iterable(empty.values()))
    for path, names in empty.items():
        warnings.warn(f"{path}: {said_of_empty(names)}; left out of inputs.bands", SceneWarning, stacklevel=3)
    kept = [scene.select([name for name in scene.band_names if name not in gone]) for scene in opened]
    return kept, (f"Not used: {said_of_empty(list(gone))}.",) if gone else ()


def _stated(opened: Sequence[Scene], options: SceneOptions) -> list[dict[str, Any]]:
    """Keys of each scene: what the user stated, and the nodata that looks like fill, with a warning."""
    given = options.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    found = []
    for scene in opened:
        fill = find_fill(scene)
        if fill is not None:
            written = "written as its nodata: set nodata: none if these are observations"
            what = written if fill.tagged is None else fill_fix(fill)
            warnings.warn(f"{scene.path}: looks like fill: {fill.text}; {what}", SceneWarning, stacklevel=3)
        found.append(given if fill is None or fill.tagged is not None else given | {"nodata": fill.value})
    return found


def _left_out(opened: Sequence[Scene]) -> tuple[str, ...]:
    """A line of the configuration on bands that are left out, with a warning; () where all are used."""
    left = default_bands(opened)[1]
    if not left:
        return ()
    warnings.warn(f"{opened[0].path}: {said_of(left)}", SceneWarning, stacklevel=3)
    return (f"Not used: {said_of(left)}.",)


def _point_window_px(labels: Labels) -> int | None:
    """POINT_WINDOW_PX where there are points among the labels, with a warning; else None."""
    points = int(is_point(labels.frame.geometry.to_numpy()).sum())
    if not points:
        return None
    side = POINT_WINDOW_PX
    warnings.warn(
        f"{labels.path}: {points} of {len(labels)} labels are points; each labels {side} x {side} pixels around it "
        "(labels.point_window_px; 1 is its own pixel only)",
        LabelWarning,
        stacklevel=3,
    )
    return side


def choose_chip_px(grids: Sequence[Grid]) -> int:
    """CHIP_PX, or a quarter of the smallest scene's shorter side (a multiple of 8) where that is less."""
    shortest = min(min(grid.shape) for grid in grids)
    return max(SMALLEST_CHIP_PX, min(CHIP_PX, shortest // 4 // 8 * 8))


def _settings(
    given: _Given, *, chip_px: int, block_m: float, buffer_m: float, textures: Sequence[int] = ()
) -> dict[str, Any]:
    """The keys worth showing: what was found, and what users are most likely to change; docs/config.md has them all."""
    bands, folder = list(default_bands(given.scenes)[0]), given.output.parent
    name = "landcover" if given.output.stem == "config" else given.output.stem
    items = [
        {"path": seen_from(path, folder), "id": scene.id} | ({} if number else WHERE_TAGS_ARE_MISSING) | stated
        for number, (path, scene, stated) in enumerate(zip(given.paths, given.scenes, given.stated, strict=True))
    ]
    labels = {"path": seen_from(str(given.labels), folder)}
    optional = {"field": given.field, "layer": given.layer, "encoding": given.encoding}
    return {
        "version": SCHEMA_VERSION,
        "name": name,
        "output": f"{name}-run",
        "scenes": items,
        "inputs": {"bands": bands, "indices": [], "mask": Off(["nodata", "cloud", "shadow"])}
        | ({"textures": list(textures)} if textures else {})
        | ({"time": "separate"} if len(items) > 1 else {}),
        "labels": labels | {key: value for key, value in optional.items() if value},
        "split": {"block_m": block_m, "buffer_m": buffer_m},
        "chips": {"size_px": chip_px},
        "map": {
            "memory": memory_for(len(bands) + len(texture_names(textures))),
            "polygons": Config.model_fields["map"].get_default(call_default_factory=True).polygons,
        },
    }


def seen_from(path: str, folder: Path) -> str:
    """A path as seen from the configuration's folder; URLs and GDAL's virtual paths as they are."""
    if path.startswith(("/vsi", "http://", "https://")) or INSIDE_FILE.fullmatch(path):
        return path
    file, start = Path(path).resolve(), folder.resolve()
    # Another drive has no relative path; one that shares the root alone would break when either is moved.
    common = Path(os.path.commonpath([file, start])) if file.drive == start.drive else None
    return file.as_posix() if common is None or common == Path(common.anchor) else relative_path(file, start)


def _scene_table(opened: Sequence[Scene]) -> Table:
    rows = tuple(
        (
            scene.id,
            f"{scene.grid.height} x {scene.grid.width}",
            scene.grid.pixel_text,
            scene.grid.crs.to_string(),
            f"{len(scene.bands)}",
            scene.sensor or "?",
        )
        for scene in opened
    )
    return Table("scenes", ("name", "rows x columns", "pixel", "CRS", "bands", "sensor"), rows, hints_of(opened))


def hints_of(opened: Sequence[Scene], *, keys: str = "--") -> tuple[str, ...]:
    """What to say where files do not: names of bands, and what their values are; bytes are pictures.

    ``keys`` comes before the name of what says it: an option, or the key of a section of a configuration.
    """
    bands = [band for scene in opened for band in scene.bands if not is_embedding(band.unit)]
    strange = list(dict.fromkeys(band.band for band in bands if centre_um(band.band) is None))
    if strange:
        shown = ", ".join(strange[:_HINTED]) + (" ..." if len(strange) > _HINTED else "")
        return (f"what {shown} measure is not known: {_NAME_THEM.format(keys)}",)
    if not bands or any(band.unit != "DN" for band in bands):
        return ()
    with open_raster(bands[0].path, trust=True) as dataset:
        if dataset.dtypes[0] in {"uint8", "int8"}:
            return ()
    return (f"values are counts as stored: {_SCALE_THEM.format(keys)}",)


def _class_table(polygons: dict[str, int], burned: Sequence[LabelledPixels]) -> Table:
    total = sum(len(pixels) for pixels in burned)
    rows = tuple((name, f"{count}") for name, count in polygons.items())
    return Table(f"classes ({total} labelled pixels)", ("class", "polygons"), rows)
