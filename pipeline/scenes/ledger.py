"""The account of a scene: what was decided, where it was read, what is masked, whether the values are plausible."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.bands import centre_um
from pipeline.documents import read_json
from pipeline.errors import InputError, SceneError, SceneWarning
from pipeline.raster import sample_windows
from pipeline.scenes.derived import plain_scenes
from pipeline.scenes.layers import FIX, WHOLE, WithLayers
from pipeline.scenes.reader import SceneReader
from pipeline.scenes.sources import REFLECTANCE, BandSource, QualitySource

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.scenes.scene import Scene, Source

LEDGER_FILE = "ledger.json"
MEASURED = ("pixels_sampled", "invalid_share", "masked_share", "no_data_share", "darkest_reflectance", "offset_check")
# Dark-pixel test. The offset of Sentinel-2 since baseline 04.00 is 1000 DN, 0.1 of reflectance (Source: ESA, processing
# baseline 04.00). Left in, no pixel of any band is darker than 0.1, and where the scene has water, shadow or dense
# vegetation the darkest pixels of most bands crowd just above it. Bright ground alone does not do that: deserts and
# snow have no dark pixels either, but theirs differ between red (0.2) and SWIR (0.4) by more than the crowd's width.
# Applied twice, the same pixels lie near -0.1, where correct surface reflectance has hardly one below -0.02.
# Only bands from red on are judged: at the top of the atmosphere Rayleigh scattering alone lifts blue above 0.1
# (0.119 in a real L1C scene whose red starts at 0.061).
# Width of the crowd: in a real L2A scene with the offset left in, the darkest half per cent of twelve bands ends
# between 0.104 and 0.121.
OFFSET = 0.1
FLOOR_PERCENTILE = 0.5
CROWD_WIDTH = 0.03
TOLERANCE = 0.005
TWICE_BELOW = -0.05
MIN_BANDS = 2
JUDGED_FROM_UM = 0.63
MIN_PIXELS = 100


@dataclass(frozen=True)
class Measured:
    """What sampled windows of a scene hold."""

    pixels: int  # Number of pixels looked at, per band
    invalid_share: float  # Share of them that cannot be used, for any reason
    masked: Mapping[str, float]  # Share that each quality layer takes out, by its name and reasons
    no_data: Mapping[str, float]  # Share without an observation, by band
    # Value below which FLOOR_PERCENTILE per cent of the valid pixels of a reflectance band lie, by band
    floors: Mapping[str, float]


@dataclass(frozen=True)
class OffsetVerdict:
    """Outcome of the dark-pixel test."""

    # "plausible"; "left in" (an offset of 0.1 was not taken off); "applied twice"; "not tested" (no
    # reflectance, or too few bands or pixels)
    state: Literal["plausible", "left in", "applied twice", "not tested"]
    reason: str  # Why, with figures


def measure(scene: Scene) -> Measured:
    """Look at the pixels of some windows of ``scene``.

    Raises:
        SceneError: a file cannot be read.
    """
    anything = replace(scene.bands[0], nodata=None, valid_max=None)
    parts: list[tuple[BandSource, tuple[QualitySource, ...]]] = [(anything, (layer,)) for layer in scene.quality]
    parts += [(source, ()) for source in scene.bands]
    looked_at = _pixels(scene, parts)
    usable = np.logical_and.reduce([seen for _, seen in looked_at])
    masked = {
        f"{layer.name}: {', '.join(layer.reasons)}": _share(~kept)
        for layer, (_, kept) in zip(scene.quality, looked_at, strict=False)
    }
    by_band = dict(zip([source.band for source in scene.bands], looked_at[len(scene.quality) :], strict=True))
    no_data = {band: _share(~seen) for band, (_, seen) in by_band.items()}
    observed = usable & ~_alike([values for values, _ in by_band.values()])
    reflectance = [source.band for source in scene.bands if source.unit == REFLECTANCE]
    floors = {
        band: float(np.percentile(by_band[band][0][observed], FLOOR_PERCENTILE))
        for band in reflectance
        if int(observed.sum()) >= MIN_PIXELS
    }
    return Measured(usable.size, _share(~usable), masked, no_data, floors)


def _pixels(
    scene: Scene, parts: Sequence[tuple[BandSource, tuple[QualitySource, ...]]]
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Per part, a band with its masks: values float32 [pixel] of the sampled windows, and which are valid.

    Window by window and through the same files: blocks that hold several bands are decoded once.
    """
    with SceneReader(scene.grid, scene.bands) as reader:
        readers = [reader.sharing([band], quality=masks) for band, masks in parts]
        rasters = [[one.read(window) for one in readers] for window in sample_windows(scene.grid)]
    return [
        (
            np.concatenate([raster.values[0].ravel() for raster in of_part]),
            np.concatenate([raster.valid.ravel() for raster in of_part]),
        )
        for of_part in zip(*rasters, strict=True)
    ]


def _alike(bands: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Where all of several bands have one value, as measurements never have: fill, for which no offset is to blame."""
    alike = np.logical_and.reduce([values == bands[0] for values in bands])
    return np.asarray(alike if len(bands) > 1 else np.zeros_like(alike), dtype=np.bool_)


def _share(chosen: NDArray[np.bool_]) -> float:
    return round(float(chosen.mean()), 4)


def check_offset(scene: Scene, *, measured: Measured | None = None) -> OffsetVerdict:
    """Whether the darkest pixels say that an offset was left in or applied twice; warns if so.

    ``measured`` is what :func:`measure` gave, to read the scene only once.

    Raises:
        SceneError: a file cannot be read.
    """
    if not any(source.unit == REFLECTANCE for source in scene.bands):
        return OffsetVerdict("not tested", "no band is in reflectance")
    floors = (measured or measure(scene)).floors
    if floors and max(floors.values()) > 1:
        name = max(floors, key=floors.__getitem__)
        what = (
            f"{scene.path}: values are no reflectance, which is at most about 1: all but {FLOOR_PERCENTILE} % of {name}"
        )
        advice = "set scenes.scale (--scale: 0.0001 for counts of ten thousandths, 0.01 for per cent)"
        warnings.warn(f"{what} lie above {floors[name]:.3g}; {advice}", SceneWarning, stacklevel=2)
        return OffsetVerdict("not tested", "values are no reflectance")
    verdict = judge_floors(floors)
    if verdict.state in {"left in", "applied twice"}:
        advice = {
            "left in": "set scene.offset to -0.1 if the product is Sentinel-2 of baseline 04.00 or later",
            "applied twice": "set scene.offset to 0 if whoever made the files took it off already",
        }[verdict.state]
        what = f"{scene.path}: offset looks {verdict.state}: {verdict.reason}; {advice}"
        warnings.warn(what, SceneWarning, stacklevel=2)
    return verdict


def judge_floors(floors: Mapping[str, float]) -> OffsetVerdict:
    """The dark-pixel test on the darkest values by band."""
    floors = {name: value for name, value in floors.items() if (centre_um(name) or 0.0) >= JUDGED_FROM_UM}
    if len(floors) < MIN_BANDS:
        return OffsetVerdict("not tested", f"{len(floors)} bands from red on with pixels, {MIN_BANDS} needed")
    lowest, band = min((value, name) for name, value in floors.items())
    figures = f"the darkest {FLOOR_PERCENTILE} % of {band} lie below {lowest:.3f}"
    if lowest < TWICE_BELOW:
        return OffsetVerdict("applied twice", f"{figures}, reflectance that does not exist")
    crowd = [name for name, value in floors.items() if value <= OFFSET + CROWD_WIDTH]
    if lowest >= OFFSET - TOLERANCE and 2 * len(crowd) > len(floors):
        reason = (
            f"no band is darker than {lowest:.3f}, and {len(crowd)} of {len(floors)} bands start just above {OFFSET}"
        )
        return OffsetVerdict("left in", reason)
    return OffsetVerdict("plausible", figures)


def scene_ledger(scene: Scene) -> dict[str, object]:
    """The scene's ledger with what was measured and the verdict of the dark-pixel test, JSON-ready.

    Raises:
        SceneError: a file cannot be read.
    """
    measured = measure(scene)
    verdict = check_offset(scene, measured=measured)
    return scene.ledger() | {
        "pixels_sampled": measured.pixels,
        "invalid_share": measured.invalid_share,
        "masked_share": dict(measured.masked),
        "no_data_share": dict(measured.no_data),
        "darkest_reflectance": {band: round(value, 4) for band, value in measured.floors.items()},
        "offset_check": {"state": verdict.state, "reason": verdict.reason},
    }


def _layers_of(source: Source) -> WithLayers | None:
    """The source that joins layers, among what a source is made of; None where there is none."""
    inner: Source | None = source
    while inner is not None and not isinstance(inner, WithLayers):
        inner = next(iter(getattr(inner, "inputs", ())), None)
    return inner


def measure_layers(source: Source) -> dict[str, float]:
    """Share of a scene's usable pixels, in some windows, that each of its layers has no value for; warns of gaps.

    Returns:
        The layer's name -> share 0..1; empty without layers, or where the scene itself has no usable pixel there.

    Raises:
        SceneError: a file cannot be read, or a layer has no value at all on a scene that was looked at whole.
    """
    joined = _layers_of(source)
    if joined is None:
        return {}
    windows = sample_windows(joined.grid)
    own = np.concatenate(list(_valid(joined.inputs[0], windows)))
    if not own.any():
        return {}
    shares: dict[str, float] = {}
    for layer in joined.used:
        alone = joined.only(layer)
        seen = np.concatenate(list(_valid(alone, windows)))
        shares[layer.scene.id] = round(float(1 - seen[own].mean()), 4)
        _judge(layer.scene, joined, shares[layer.scene.id], whole=windows == (joined.grid.window,))
    return shares


def _judge(layer: Scene, scene: Source, lost: float, *, whole: bool) -> None:
    if lost >= 1 and whole:
        what, got = f"layer has no value on scene {scene.id}", "nodata at every usable pixel of the scene"
        raise SceneError(what, path=layer.path, got=got, fix=FIX)
    if lost > 1 - WHOLE:
        where = "pixels" if whole else "pixels looked at"
        text = f"{layer.path}: layer has no value for {lost:.0%} of the usable {where} of scene {scene.id}"
        warnings.warn(text, SceneWarning, stacklevel=4)


def _valid(source: Source, windows: tuple[Window, ...]) -> Iterator[NDArray[np.bool_]]:
    with source.open() as reader:
        for window in windows:
            yield reader.read(window).valid.ravel()


def source_ledger(source: Source) -> dict[str, object]:
    """The ledger of a source with what samples of its pixels say, JSON-ready; warns where an offset looks wrong.

    For a scene, or one with indices or layers, the figures are its own; for stacks and composites they are those of
    every date, by its id, under ``dates_measured``. Where layers are joined, ``layers_without_data`` has the share of
    the scene's usable pixels that each of them takes out, by its name.

    Raises:
        SceneError: a file cannot be read, or a layer has no value on the scene.
    """
    found = {scene.id: scene_ledger(scene) for scene in plain_scenes(source)}
    measured = {name: {key: ledger[key] for key in MEASURED} for name, ledger in found.items()}
    lost = measure_layers(source)
    layers: dict[str, object] = {"layers_without_data": lost} if lost else {}
    if len(measured) == 1:
        return source.ledger() | next(iter(measured.values())) | layers
    return source.ledger() | {"dates_measured": measured} | layers


def kept_ledger(source: Source, *, folder: Path) -> dict[str, object]:
    """What ``ledger.json`` of a run folder says about a source, or a ledger measured now where it says nothing.

    Raises:
        SceneError: a file cannot be read.
    """
    try:
        scenes = read_json(folder / LEDGER_FILE)["scenes"]
        kept: dict[str, object] = next(item for item in scenes if item["scene"] == source.id)
    except (InputError, KeyError, TypeError, StopIteration):
        return source_ledger(source)
    return kept
