"""What a model was given to see, kept in its file, so that scenes it has never seen are made ready in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from pipeline.errors import ConfigError, ModelError, SceneError, SceneWarning
from pipeline.model.checks import check_source
from pipeline.scenes.clouds import warn_of_clouds, with_clouds
from pipeline.scenes.derived import plain_scenes
from pipeline.scenes.fill import REFUSED_SHARE, find_fill
from pipeline.scenes.geotiff import is_virtual
from pipeline.scenes.joining import CLOUDS, join_scenes, open_as
from pipeline.scenes.settings import InputSettings, SceneOptions, SceneRequest

if TYPE_CHECKING:
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Scene, Source

NOON = time(12)
RECIPE = "inputs_section"
"""Key of the model's provenance."""
OBJECTS = "objects"
"""Key of the model's provenance: which classes are mapped as objects, and how."""
STORED = "stored_values"
"""Key of the model's provenance: band -> (scale, offset) from the numbers in the first training scene's files."""
NODATA_SAID = "nodata_said"
"""Key of the model's provenance: the DN without observation that the configuration gave all training scenes."""


def stored_values(source: Source) -> dict[str, list[float]]:
    """Scale and offset of each band of files, by name; bands that are computed (indices) are not in it."""
    known: dict[str, list[float]] = {}
    for scene in plain_scenes(source):
        known |= {band.band: [float(band.scale), float(band.offset)] for band in scene.bands}
    # The bands of a stack have a date after their name.
    named = {name: name if name in known else name.rpartition("_")[0] for name in source.band_names}
    return {name: known[own] for name, own in named.items() if own in known}


def recipe_of(inputs: InputSettings, sources: Sequence[Source]) -> dict[str, Any]:
    """The section of the configuration with the bands that were read written out, JSON-ready."""
    return inputs.model_dump(mode="json") | {"bands": list(plain_scenes(sources[0])[0].band_names)}


def sources_for(
    bundle: ModelBundle, paths: Sequence[str], *, folder: Path, words: SceneRequest | None = None
) -> tuple[Source, ...]:
    """Scenes as a model wants them: on its resolution, with its masks, joined in time, with its indices and layers.

    Scenes of a model of stacks or composites become one source; those of other models one each. A mask of clouds, where
    the model was trained with one of the network's, goes into ``folder``; ``words`` is what the user says of them.

    Raises:
        ConfigError: dates or layers of another number than the scenes or the model have.
        ModelError: the scenes cannot be made into what the model was trained on.
        SceneError: a scene cannot be opened, or looks like fill over more than a hundredth.
    """
    words = words or SceneRequest()
    inputs = _with_layers(_recipe(bundle), words.layers)
    if words.resolution_m is not None:
        inputs = inputs.model_copy(update={"resolution_m": words.resolution_m})
    said = bundle.provenance.get(NODATA_SAID)
    plain = [_without_fill(scene, said=said) for scene in _open(paths, inputs, words)]
    trained = {item.sensor for item in bundle.sources}
    warn_of_clouds(plain, clouds=inputs.clouds, mask=inputs.mask, sensors=trained, fix="mask them afterwards")
    opened = [with_clouds(scene, inputs.clouds, folder=folder / CLOUDS) for scene in plain]
    _check_dates(bundle, inputs, opened)
    for scene in opened:
        missing = [name for name in inputs.bands or () if name not in scene.band_names]
        if missing:
            what, got = f"scene lacks band {', '.join(missing)} of the model", ", ".join(scene.band_names)
            fix = "use a product that has them, name the bands with --bands, or take a model trained on those there"
            raise ModelError(what, path=scene.path, got=got, expected=", ".join(inputs.bands or ()), fix=fix)
    return tuple(check_source(bundle, source) for source in join_scenes([("", scene) for scene in opened], inputs))


def nodata_said(options: Sequence[SceneOptions]) -> float | None:
    """The DN without observation that a configuration gives to all its scenes; None where it does not."""
    said = {one.nodata for one in options}
    only = said.pop() if len(said) == 1 else None
    return only if isinstance(only, float) else None


def _without_fill(scene: Scene, *, said: float | None) -> Scene:
    """The scene with the training scenes' value without observation, where neither its files nor the user say one.

    Raises:
        SceneError: much of it looks like fill all the same.
    """
    fill = find_fill(scene)
    if said is not None and not any(b.nodata is not None or b.nodata_stated or b.use_dataset_mask for b in scene.bands):
        text = f"{scene.path}: its files say no nodata: {said:g} is taken for it, as in the training scenes"
        warnings.warn(f"{text}; give --nodata where it is another value or none", SceneWarning, stacklevel=4)
        scene = replace(scene, bands=tuple(replace(band, nodata=said) for band in scene.bands))
        # What is left beside the value that was said.
        fill = find_fill(scene) if fill is None or fill.value == np.float32(said) else fill
    if fill is None:
        return scene
    other = "none" if fill.tagged is None else f"{fill.tagged:g}"
    fix = f"give --nodata {fill.value:g}, or --nodata {other} where these are observations"
    if fill.share > REFUSED_SHARE:
        what = "looks like fill that no tag declares"
        raise SceneError(what, path=scene.path, got=fill.text, expected="observations", fix=fix)
    warnings.warn(f"{scene.path}: looks like fill, and is mapped: {fill.text}; {fix}", SceneWarning, stacklevel=4)
    return scene


def _open(paths: Sequence[str], inputs: InputSettings, words: SceneRequest) -> list[Scene]:
    """The scenes of the paths with the dates that the user gave them."""
    words.check_number(paths)
    moments = [parse_moment(text) for text in words.date]
    read = partial(open_as, inputs=inputs)
    if len(paths) == 1 and len(moments) > 1:
        bands = (inputs.bands or ("band",))[:1]
        return list(read(paths[0], options=words.model_copy(update={"bands": bands, "dates": tuple(moments)})))
    if not moments:
        return [scene for path in paths for scene in read(path, options=words)]
    pairs = zip(paths, moments, strict=True)
    dated = [(path, words.model_copy(update={"acquired_utc": moment})) for path, moment in pairs]
    return [scene for path, options in dated for scene in read(path, options=options)]


def parse_moment(text: str) -> datetime:
    """A day, taken as noon UTC as optical satellites pass in the daytime, or a time with its zone.

    >>> parse_moment("2024-06-01").isoformat(), parse_moment("2024-06-01T10:20:00Z").isoformat()
    ('2024-06-01T12:00:00+00:00', '2024-06-01T10:20:00+00:00')

    Raises:
        ConfigError: neither.
    """
    expected = "2024-06-01 or 2024-06-01T10:20:00Z"
    try:
        moment = datetime.fromisoformat(text)
        whole_day = date.fromisoformat(text) if len(text) <= len("2024-06-01") else None
    except ValueError as err:
        raise ConfigError("option --date", got=text, expected=expected) from err
    if whole_day is not None:
        return datetime.combine(whole_day, NOON, UTC)
    if moment.tzinfo is None:
        raise ConfigError("option --date: a time without its zone", got=text, expected=expected)
    return moment


def _recipe(bundle: ModelBundle) -> InputSettings:
    """The section; a model that was fitted without a configuration has its bands."""
    kept = bundle.provenance.get(RECIPE, {"bands": bundle.bands})
    try:
        return InputSettings.model_validate(kept)
    except ValidationError as err:
        what = "the model was made by another version and cannot be given scenes without a configuration"
        got, fix = err.errors()[0]["msg"], "map with the configuration it was trained with"
        raise ModelError(what, got=got, fix=fix) from err


def _with_layers(inputs: InputSettings, paths: Sequence[str]) -> InputSettings:
    """The inputs with their further rasters where the user says that they are now.

    Raises:
        ConfigError: another number of them than the model needs.
        ModelError: one is not there.
    """
    wanted = ", ".join(f"{layer.kind} {PurePath(layer.path).name}" for layer in inputs.layers)
    if paths:
        if len(paths) != len(inputs.layers):
            expected = f"{len(inputs.layers)}, in this order: {wanted}" if wanted else "none: the model has no layers"
            raise ConfigError("option --layer", got=len(paths), expected=expected)
        layers = [layer.model_copy(update={"path": path}) for layer, path in zip(inputs.layers, paths, strict=True)]
        inputs = inputs.model_copy(update={"layers": tuple(layers)})
    for layer in inputs.layers:
        if not is_virtual(layer.path) and not Path(layer.path).exists():
            what = f"the model needs a further raster ({layer.kind}) that is not there"
            fix = f"say where it is now with --layer, one for each in this order: {wanted}"
            raise ModelError(what, path=layer.path, fix=fix)
    return inputs


def _check_dates(bundle: ModelBundle, inputs: InputSettings, scenes: Sequence[Scene]) -> None:
    """Refuse scenes of another number or of other days than the bands of a model of stacked dates are called after."""
    if inputs.time != "stack" or inputs.stack.regular is not None:
        return
    start = f"{(inputs.bands or ('',))[0]}_"
    known = [name.removeprefix(start) for name in bundle.bands if name.startswith(start)]
    if inputs.stack.naming == "order" and len(scenes) != len(known):
        expected = f"{len(known)}, one --scene per date"
        raise ModelError("number of scenes for a model of stacked dates", got=len(scenes), expected=expected)
    days = sorted(scene.acquired_utc.date().isoformat() for scene in scenes if scene.acquired_utc is not None)
    if inputs.stack.naming == "date" and len(days) == len(scenes) and days != known:
        what = "scenes of other days than the model's, whose bands are called after their dates"
        fix = "train with inputs.stack naming: order, or with regular days, to map other days and years"
        raise ModelError(what, got=", ".join(days), expected=", ".join(known), fix=fix)
