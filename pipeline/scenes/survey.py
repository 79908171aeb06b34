"""What sampled windows of a scene say: how much of it can be used, which values its bands hold, what was decided."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bands import listed
from pipeline.errors import SceneError, SceneWarning
from pipeline.raster import sample_windows
from pipeline.scenes.derived import plain_scenes
from pipeline.scenes.fill import Fill, find_fill
from pipeline.scenes.ledger import source_ledger
from pipeline.scenes.reader import SceneReader, open_reader

if TYPE_CHECKING:
    from pipeline.grid import Grid, Window
    from pipeline.scenes.scene import Scene, Source

# A provenance of more characters is told by its file alone, and a file's name of more by its last word.
LONG_PROVENANCE, LONG_STEM = 80, 20
# Verdicts of the dark-pixel test, the worst first.
VERDICTS = ("left in", "applied twice", "plausible", "not tested")
# Pixels of a window that are kept for percentiles: nine windows give some ten thousand, whatever the number of bands.
PER_WINDOW = 4_000
LOW, HIGH = 2.0, 98.0
MOSTLY_UNUSABLE = 0.5
CAUSES_SHOWN = 6
# A band of so few different values in so many pixels, beside bands of more, holds codes.
FEW_VALUES, MANY_PIXELS = 8, 1_000
CODES_FIX = "leave it out of inputs.bands, or name it if it is a mask (scenes.bands: [..., Fmask])"
# Side of the windows in which a band that seems empty is read whole.
EMPTY_TILE_PX = 1024
# Masks that take less of a scene than this are in its ledger alone.
SAID_SHARE = 0.05


@dataclass(frozen=True)
class BandRange:
    """Valid values of one band in the windows looked at; the shares in per cent are those of LOW and HIGH."""

    band: str
    unit: str
    invalid_share: float
    smallest: float
    low: float
    high: float
    largest: float


@dataclass(frozen=True)
class SceneFacts:
    """What was found out about one scene."""

    source: Source  # The scene as the network sees it
    invalid_share: float  # Share of the sampled pixels that cannot be used
    bands: tuple[BandRange, ...]  # Value ranges, in the order of the bands; empty where no pixel is valid
    ledger: dict[str, object]  # What was decided, with what was measured


def fill_fix(fill: Fill) -> str:
    """What to do about fill that no tag declares, or that a tag calls otherwise."""
    if fill.tagged is None:
        return "set scenes.nodata to that value, or to none where these are observations"
    again = f"set scenes.nodata to {fill.value:g}, or to {fill.tagged:g} where these are observations"
    return f"{again}; where both are fill, write the file with one (gdalwarp -srcnodata -dstnodata)"


def fills_of(source: Source) -> list[tuple[Scene, Fill]]:
    """The scenes of files in a source with undeclared fill."""
    return [(scene, fill) for scene in plain_scenes(source) if (fill := find_fill(scene)) is not None]


def warn_of_plane(grid: Grid, *, path: str) -> None:
    """SceneWarning where lengths and areas in the plane of the CRS are not those on the ground."""
    if grid.keeps_metres or grid.crs.is_geographic:
        return
    plane = " x ".join(dict.fromkeys(f"{size:.4g}" for size in grid.plane_size_m))
    text = f"{grid.crs.to_string()[:24]} keeps no lengths here: pixels of {plane} m are {grid.pixel_text} on the ground"
    _warn(f"{path}: {text}; areas and distances are taken on the ground")


def look_at_scene(source: Source) -> SceneFacts:
    """Sample a scene; warns where much of it cannot be used or the dark-pixel test finds an offset.

    Raises:
        SceneError: a file cannot be read, or no pixel of a scene that was read whole is valid.
    """
    warn_of_plane(source.grid, path=source.path)
    for scene, fill in fills_of(source):
        _warn(f"{scene.path}: looks like fill: {fill.text}; {fill_fix(fill)}")
    windows = sample_windows(source.grid)
    values, usable = _sample(source, windows)
    ledger = source_ledger(source)
    invalid = 1.0 - usable
    if not values.shape[1]:
        _refuse_empty(source, ledger, whole=windows == (source.grid.window,))
    elif invalid > MOSTLY_UNUSABLE:
        _warn(f"{source.path}: {invalid:.0%} of the pixels looked at have no data or are masked{_causes(ledger)}")
    else:
        warn_of_masks(source, ledger)
    warn_of_codes(source, values)
    no_data: Any = ledger.get("no_data_share", {})
    ranges = []
    for name, unit, seen in zip(source.band_names, source.units, values if values.shape[1] else (), strict=False):
        low, high = np.percentile(seen, (LOW, HIGH))
        share = float(no_data.get(name, invalid))
        ranges.append(BandRange(name, unit, share, float(seen.min()), float(low), float(high), float(seen.max())))
    return SceneFacts(source, round(invalid, 4), tuple(ranges), ledger)


def warn_of_codes(source: Source, values: NDArray[np.float32]) -> None:
    """SceneWarning of bands that look like a mask, classes or nothing, by values float32 [band, pixel] looked at."""
    if values.shape[1] < MANY_PIXELS:
        return
    measured = {name for scene in plain_scenes(source) for name in scene.band_names}
    found = {name: np.unique(values[number]) for number, name in enumerate(source.band_names)}
    few = {name: own for name, own in found.items() if len(own) <= FEW_VALUES}
    if len(few) == len(found):
        return
    for name, own in few.items():
        if name in measured or name.rpartition("_")[0] in measured:  # bands of a stack bear a date
            said = ", ".join(f"{value:g}" for value in own)
            what = f"is {said} everywhere" if len(own) == 1 else f"has {len(own)} values ({said})"
            _warn(f"{source.path}: band {name} {what} where it was looked at: no measurement? {CODES_FIX}")


def warn_of_masks(source: Source, ledger: Mapping[str, Any]) -> None:
    """SceneWarning of what quality layers take out of a scene, or of one of its dates, where it is SAID_SHARE of it."""
    single = [ledger] if "masked_share" in ledger else list(dict(ledger.get("dates_measured", {})).values())
    if any(share >= SAID_SHARE for measured in single for share in measured["masked_share"].values()):
        text = "neither learned from nor mapped; inputs.mask says what is masked"
        _warn(f"{source.path}: masked, of the pixels looked at{_causes(ledger)}: {text}")


def _causes(ledger: Mapping[str, Any]) -> str:
    """Which quality layers take how much, of one scene or of the dates of several; "" where none does."""
    single = {"": ledger} if "masked_share" in ledger else dict(ledger.get("dates_measured", {}))
    texts = [
        f"{f'{name} ' if name else ''}{layer.partition(':')[0]} {share:.0%}"
        for name, measured in single.items()
        for layer, share in measured["masked_share"].items()
        if share > 0
    ]
    return f" ({', '.join(texts[:CAUSES_SHOWN])})" if texts else ""


def _sample(source: Source, windows: Sequence[Window]) -> tuple[NDArray[np.float32], float]:
    """Valid values float32 [band, pixel] of some pixels, and the share of all that are valid."""
    parts, valid, total = [], 0, 0
    with open_reader(source) as reader:
        for window in windows:
            raster = reader.read(window)
            inside = raster.values[:, raster.valid]
            parts.append(inside[:, :: max(inside.shape[1] // PER_WINDOW, 1)])
            if inside.shape[1]:
                parts.append(np.stack([inside.min(axis=1), inside.max(axis=1)], axis=1))
            valid += int(raster.valid.sum())
            total += raster.valid.size
    return np.concatenate(parts, axis=1), valid / total


def usable_px(source: Source) -> float:
    """About how many pixels have data and are not masked."""
    return _sample(source, sample_windows(source.grid))[1] * source.grid.height * source.grid.width


def empty_bands(scene: Scene) -> tuple[str, ...]:
    """Bands without a value anywhere, so that no pixel has all bands; () where this is so of every band.

    Raises:
        SceneError: a file cannot be read.
    """
    left = list(scene.bands)
    with SceneReader(scene.grid, scene.bands) as reader:
        # Windows spread over the scene tell nearly always; the rest is read for bands that seem empty.
        for window in (*sample_windows(scene.grid), *scene.grid.tiles(EMPTY_TILE_PX)):
            left = [band for band in left if not reader.sharing([band]).read(window).valid.any()]
            if not left:
                break
    return tuple(band.band for band in left) if len(left) < len(scene.bands) else ()


def said_of_empty(names: Sequence[str]) -> str:
    """What is said of bands without a value.

    >>> said_of_empty(["b2", "b7"])
    'bands b2, b7 are nodata everywhere'
    """
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'} nodata everywhere"


def refuse_empty_bands(source: Source, *, what: str) -> None:
    """Refuse a source of one scene with bands that have no value anywhere.

    Raises:
        SceneError: names them.
    """
    scenes = plain_scenes(source)
    names = empty_bands(scenes[0]) if len(scenes) == 1 else ()
    if names:
        raise SceneError(what, path=source.path, got=said_of_empty(names), fix="leave them out of inputs.bands")


def _refuse_empty(source: Source, ledger: Mapping[str, Any], *, whole: bool) -> None:
    refuse_empty_bands(source, what="no pixel of the scene can be used")
    if whole:
        got, fix = f"nodata, NaN or masked everywhere{_causes(ledger)}", "check nodata and masks of the scene"
        raise SceneError("no pixel of the scene can be used", path=source.path, got=got, fix=fix)
    _warn(f"{source.path}: no valid pixel in the windows looked at{_causes(ledger)}; values not checked")


def _warn(text: str) -> None:
    warnings.warn(text, SceneWarning, stacklevel=3)


def offset_state(item: SceneFacts) -> str:
    """The verdict of the dark-pixel test; of several dates the worst, and on how many of them."""
    verdicts = [item.ledger.get("offset_check")]
    dates = item.ledger.get("dates_measured")
    if isinstance(dates, dict):
        verdicts = [measured["offset_check"] for measured in dates.values()]
    states = [str(verdict["state"]) for verdict in verdicts if isinstance(verdict, dict)]
    worst = next((state for state in VERDICTS if state in states), "not tested")
    return worst if len(states) < 2 else f"{worst} ({states.count(worst)} of {len(states)})"  # noqa: PLR2004 - several


def decisions(item: SceneFacts) -> tuple[str, str, str]:
    """What was decided of a scene, in words: product, scaling, masks."""
    dates: Any = item.ledger.get("scenes")
    parts: list[dict[str, Any]] = dates if isinstance(dates, list) and dates else [item.ledger]
    product = dict.fromkeys(
        " ".join(" ".join(str(part.get(key) or "") for key in ("sensor", "level", "baseline")).split())
        for part in parts
    )
    scaling = _scalings([band for part in parts for band in part["bands"] if "scale" in band])
    masks = dict.fromkeys(str(mask["name"]) for part in parts for mask in part.get("masks", ()))
    return ", ".join(filter(None, product)) or "unknown", "; ".join(scaling) or "-", ", ".join(masks) or "none"


def _scalings(bands: Sequence[Mapping[str, Any]]) -> list[str]:
    """A text for each scale and offset: how many bands have it, unless all do, and where it was found."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for band in bands:
        groups.setdefault((f"{band['scale']:g}", f"{band['offset']:g}"), []).append(band)
    every = {band["band"] for band in bands}
    return [
        f"{_which([band['band'] for band in own], every)}x {scale} + {offset} ({_found_in(own)})"
        for (scale, offset), own in groups.items()
    ]


def _which(names: Sequence[str], every: set[str]) -> str:
    """Whose scale it is, with a space; "" for all bands, a number for several."""
    own = list(dict.fromkeys(names))
    if len(own) == len(every):
        return ""
    return f"{own[0]} " if len(own) == 1 else f"{len(own)} bands "


def _found_in(bands: Sequence[Mapping[str, Any]]) -> str:
    """Where a scaling was found: the words for it if they are few and the same for all bands, else the files."""
    texts = dict.fromkeys(str(band["provenance"]) for band in bands)
    if len(texts) == 1 and len(text := next(iter(texts))) <= LONG_PROVENANCE:
        return text
    return ", ".join(dict.fromkeys(_file_of(text) for text in texts))


def _file_of(provenance: str) -> str:
    """The file a provenance begins with, without suffix; words as they are."""
    name = provenance.partition(":")[0]
    stem = name if " " in name else PurePosixPath(name).stem
    return stem.rpartition("_")[2] if len(stem) > LONG_STEM and " " not in stem else stem
