"""Does a scene fit a model? Bands, product level, resolution, and the values themselves, before hours of mapping."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError, ModelWarning, factor_text, shortened
from pipeline.model.pretrained import SceneBands
from pipeline.raster import sample_windows
from pipeline.scenes.derived import plain_scenes
from pipeline.scenes.opening import LEVELS
from pipeline.scenes.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

SAMPLE_SIDE, SAMPLE_PX = 4, 48
# Beyond this ratio of pixel sizes the same field has another texture and the network's context another meaning.
RESOLUTION_RATIO = 1.5
# Reflectance against DN is a factor of 10 000, 8-bit against reflectance 255 or more; a scene of only water or only
# snow differs from the mixed training pixels by less than 10 in the median band. 50 lies between.
SCALE_RATIO = 50.0
# Copies in bytes are 12 to 40 times smaller than counts, tenths of a unit 10 times, by one factor in all bands: beyond
# this ratio a scene is on another scale too, where most of its values are none that the training scenes have and its
# bands agree in the ratio to ALIKE (a copy in bytes to 1.07). Open sea beside land is as dark, but by 3 in blue and by
# 50 and more in the infrared; low sun and haze darken or brighten by less than 6.
SUSPECT_RATIO, ALIKE, SEVERAL = 6.0, 2.0, 3
# Share of a band's pixels outside the training range, widened by half of it on each side, that is worth a warning;
# where half of all pixels in half of the bands lie outside, the model has never seen such a surface.
WARN_SHARE = 0.1
REFUSE_SHARE = 0.5
# Of the bands, how many agree in a ratio of scales: what is cut off at 255 or rounded to 0 agrees less.
OF_BANDS = 0.75
# What bands are called that have no name.
_POSITION = re.compile(r"band\d+")
# Bins of a histogram, which is kept as the edges between equal shares of the pixels of whole scenes.
BINS = 20
# Distance between two distributions (0 the same, 1 apart) beyond which half of the bands tell of a shift. Measured:
# opposite quarters of three real scenes differ by 0.13 to 0.41 in the median band; reflectance with an offset of 0.1
# left in by 0.83, two dates of one place by 0.75, all values times 1.5 by 0.55.
FAR = 0.5
SHOWN = 3

Histograms = tuple[tuple[float, ...], ...]
"""Per band BINS + 1 ascending edges of bins of equal shares."""


def check_source(bundle: ModelBundle, source: Source) -> Source:
    """The source with the model's bands in the model's order, if it fits.

    Warns of another sensor, and of values that are spread unlike those of the training scenes.

    Raises:
        ModelError: a band is missing, level, unit or pixel size are others, or the values are on another scale.
    """
    missing = [name for name in bundle.bands if name not in source.band_names]
    if missing:
        raise ModelError(
            f"scene lacks band {shortened(missing)} of the model", path=source.path, got=shortened(source.band_names),
            expected=shortened(bundle.bands), fix="name the scene's bands or use a model trained on these bands",
        )  # fmt: skip
    _check_level(bundle, source)
    _check_resolution(bundle, source)
    chosen = source.select(bundle.bands)
    _check_units(bundle, chosen)
    pixels = sample_values(chosen)
    check_value_range(bundle, pixels, path=source.path)
    known = source.id in {item.scene for item in bundle.sources}
    # Bands made of others, such as textures, have names of their own.
    own = {name for scene in plain_scenes(source) for name in scene.band_names} or set(bundle.bands)
    if not known and all(_POSITION.fullmatch(name) for name in own.intersection(bundle.bands)):
        files = [number for number, name in enumerate(bundle.bands) if name in own] or range(len(bundle.bands))
        check_positions(bundle, pixels, files=files, path=source.path)
    return chosen


def check_positions(bundle: ModelBundle, pixels: NDArray[np.float32], *, files: Sequence[int], path: str) -> None:
    """Say that bands without names are matched by position, and refuse pixels float32 [pixel, band] in another order.

    ``files`` are the numbers of the model's bands that are the file's own; textures and layers have names.

    Raises:
        ModelError: the bands in another order are spread like the training data, but not as they are.
    """
    count = len(files)
    text = f"{path}: bands have no names and are matched by position: 1 to {count}, as in the training scenes"
    if count == 1:
        text = f"{path}: the one band has no name and is taken for that of the training scenes"
    warnings.warn(text, ModelWarning, stacklevel=4)
    if not len(pixels) or not bundle.histograms or count < 2:  # noqa: PLR2004 - an order of one
        return
    from scipy.optimize import linear_sum_assignment

    names, known = [bundle.bands[i] for i in files], [bundle.histograms[i] for i in files]
    apart = np.stack(
        [[shift.distance for shift in shifts(known, np.repeat(pixels[:, [i]], count, 1), bands=names)] for i in files]
    )
    order = linear_sum_assignment(apart)[1]
    own, best = float(np.trace(apart)) / count, float(apart[np.arange(count), order].mean())
    if own >= FAR and best <= own / 2:
        raise ModelError(
            "bands matched by position are not those of the model",
            path=path,
            got=", ".join(f"position {i + 1} looks like the model's {j + 1}" for i, j in enumerate(order) if i != j),
            expected="the order of the training scenes",
            fix="name the bands of both (--bands, or scenes.bands), or give the scene in that order",
        )


def _check_level(bundle: ModelBundle, source: Source) -> None:
    # L2A, L2SP and L2SR are one: what is compared is where reflectance is measured, at the surface or above the air.
    known = {LEVELS.get(item.level, item.level): item.level for item in bundle.sources if item.level}
    if known and source.level and LEVELS.get(source.level, source.level) not in known:
        raise ModelError(
            "scene is of another product level than the model was trained on", path=source.path,
            got=_level_text(source.level), expected=" or ".join(_level_text(level) for level in sorted(known.values())),
            fix="use the same product level or train on this one",
        )  # fmt: skip
    sensors = {item.sensor for item in bundle.sources if item.sensor}
    if sensors and source.sensor and source.sensor not in sensors:
        what = f"{source.path}: scene of {source.sensor}, but the model was trained on {' and '.join(sorted(sensors))}"
        warnings.warn(f"{what}; bands are matched by name", ModelWarning, stacklevel=4)


def _level_text(level: str) -> str:
    return f"{level} ({LEVELS[level]})" if level in LEVELS else level


def _check_units(bundle: ModelBundle, source: Source) -> None:
    """Refuse values of another unit; counts ("DN") may be anything, so that their values alone decide."""
    for name, unit, expected in zip(bundle.bands, source.units, bundle.units, strict=True):
        if unit != expected and "DN" not in {unit, expected} and unit and expected:
            raise ModelError(
                f"band {name} is in another unit than the model was trained on", path=source.path, got=unit,
                expected=expected, fix="use a product in that unit or train on this one",
            )  # fmt: skip


def _check_resolution(bundle: ModelBundle, source: Source) -> None:
    size_x, size_y = source.grid.pixel_size_m
    ratio = float(np.sqrt(size_x * size_y)) / bundle.gsd_m
    if 1 / RESOLUTION_RATIO <= ratio <= RESOLUTION_RATIO:
        return
    size = f"{np.sqrt(size_x * size_y):.3g} m"
    if source.id in {item.scene for item in bundle.sources}:
        what = f"{source.path}: pixels of {size}, but of the model's scenes the first has {bundle.gsd_m:.3g} m"
        warnings.warn(f"{what}; expect worse borders and textures", ModelWarning, stacklevel=4)
        return
    raise ModelError(
        "scene has pixels of another size than the model was trained on", path=source.path, got=size,
        expected=f"{bundle.gsd_m:.3g} m",
        fix=f"read it at that size (--resolution {bundle.gsd_m:.3g}, or inputs.resolution_m) or train on this one",
    )  # fmt: skip


def sample_values(source: Source) -> NDArray[np.float32]:
    """Valid pixels of up to 16 small windows spread over a scene, float32 [pixel, band]; perhaps none."""
    parts = []
    with open_reader(source) as reader:
        for window in sample_windows(source.grid, per_side=SAMPLE_SIDE, side_px=SAMPLE_PX):
            raster = reader.read(window)
            parts.append(raster.values[:, raster.valid].T)
    return np.concatenate(parts)


def scene_bands(source: Source) -> SceneBands:
    """What decides which encoders fit a scene, its values by :func:`sample_values`."""
    pixels = sample_values(source)
    statistics = (pixels.mean(axis=0).tolist(), pixels.std(axis=0).tolist()) if len(pixels) else None
    return SceneBands(source.band_names, source.sensor, source.level, source.units, statistics)


def check_value_range(bundle: ModelBundle, pixels: NDArray[np.float32], *, path: str) -> None:
    """Refuse pixels, float32 [pixel, band], that are on another scale than the training data; warn near the edge.

    Raises:
        ModelError: values some ten to ten thousand times too large or small, or outside the training range.
    """
    if not len(pixels):
        warnings.warn(f"{path}: no valid pixel in the windows sampled; values not checked", ModelWarning, stacklevel=4)
        return
    mean, std = np.array(bundle.preprocess.mean), np.array(bundle.preprocess.std)
    found = np.abs(np.median(pixels, axis=0)) + pixels.std(axis=0)
    ratios = found / (np.abs(mean) + std)
    ratio = float(np.median(ratios))
    odd = not 1 / SUSPECT_RATIO <= ratio <= SUSPECT_RATIO and _unseen(bundle, pixels)
    odd = odd and len(ratios) >= SEVERAL and bool((np.abs(np.log(ratios / ratio)) <= np.log(ALIKE)).mean() > OF_BANDS)
    if odd or not 1 / SCALE_RATIO <= ratio <= SCALE_RATIO:
        raise ModelError(
            f"values are {factor_text(max(ratio, 1e-12))} than those the model was trained on",
            path=path,
            got=_range_text(pixels, bundle),
            expected=_expected_text(bundle),
            fix="set scale and offset of the scene so that both have the same unit: --scale and --offset, or "
            "scenes[].scale and scenes[].offset",
        )
    _check_range(bundle, pixels, path=path)
    if bundle.histograms and (text := shift_text(shifts(bundle.histograms, pixels, bands=bundle.bands))):
        what = "check scale and offset, and whether season and place are those of the training scenes"
        warnings.warn(f"{path}: {text}; {what}", ModelWarning, stacklevel=4)


def _unseen(bundle: ModelBundle, pixels: NDArray[np.float32]) -> bool:
    """Whether most values of most bands are smaller or larger than any of the training polygons and scenes."""
    low, high = np.array(bundle.value_range).T
    if bundle.histograms:
        edges = np.array(bundle.histograms)
        low, high = np.minimum(low, edges[:, 0]), np.maximum(high, edges[:, -1])
    outside = ((pixels < low) | (pixels > high)).mean(axis=0)
    return bool(np.mean(outside > REFUSE_SHARE) >= REFUSE_SHARE)


def _check_range(bundle: ModelBundle, pixels: NDArray[np.float32], *, path: str) -> None:
    low, high = np.array(bundle.value_range).T
    margin = np.maximum((high - low) / 2, 1e-6)
    outside = ((pixels < low - margin) | (pixels > high + margin)).mean(axis=0)
    if np.mean(outside > REFUSE_SHARE) >= REFUSE_SHARE:
        worst = int(np.argmax(outside))
        raise ModelError(
            f"{outside[worst]:.0%} of the values of band {bundle.bands[worst]} lie outside the training range",
            path=path, got=_range_text(pixels, bundle), expected=_expected_text(bundle),
            fix="check the scale, the offset and the order of the bands",
        )  # fmt: skip
    odd = [f"{bundle.bands[i]} ({outside[i]:.0%})" for i in np.flatnonzero(outside > WARN_SHARE)]
    if odd:
        what = f"{path}: values outside the model's training range in band {', '.join(odd)}"
        warnings.warn(f"{what}; the map is less certain there", ModelWarning, stacklevel=5)


def _range_text(pixels: NDArray[np.float32], bundle: ModelBundle) -> str:
    low, high = np.percentile(pixels, (2, 98), axis=0)
    return ", ".join(f"{name} {a:.4g}..{b:.4g}" for name, a, b in zip(bundle.bands[:3], low[:3], high[:3], strict=True))


def _expected_text(bundle: ModelBundle) -> str:
    pairs = zip(bundle.bands[:3], bundle.value_range[:3], strict=True)
    return ", ".join(f"{name} {low:.4g}..{high:.4g}" for name, (low, high) in pairs)


def histograms_of(samples: Sequence[NDArray[np.float32]]) -> Histograms:
    """The histogram of each band over samples float32 [pixel, band] of several scenes; () where there is no pixel."""
    pixels = np.concatenate(samples)
    if not len(pixels):
        return ()
    edges = np.quantile(pixels.astype(np.float64), np.linspace(0, 1, BINS + 1), axis=0)
    return tuple(tuple(float(edge) for edge in band) for band in edges.T)


@dataclass(frozen=True)
class Shift:
    """How far a band is from its histogram: medians of both, and the distance 0..1."""

    band: str
    median: float
    expected: float
    distance: float


def shifts(
    histograms: Sequence[tuple[float, ...]], pixels: NDArray[np.float32], *, bands: Sequence[str]
) -> list[Shift]:
    """The distance of every band of pixels float32 [pixel, band] from its histogram.

    It is the largest difference between the two cumulative distributions at the histogram's edges.
    Source: Kolmogorov-Smirnov statistic, two samples; Press et al. (2007), Numerical Recipes, 3rd ed., section 14.3.3.
    """
    found = []
    for name, edges, values in zip(bands, histograms, pixels.T, strict=True):
        ordered = np.sort(values.astype(np.float64))
        # Of equal values (counts, saturated or filled pixels) half lie on either side of an edge, in both.
        below = (_mean_rank(ordered, np.asarray(edges))) / len(ordered)
        stored = _mean_rank(np.asarray(edges), np.asarray(edges), steps=True) / BINS
        distance = float(np.abs(below - stored).max())
        found.append(Shift(name, float(np.median(values)), edges[BINS // 2], distance))
    return found


def _mean_rank(ordered: NDArray[np.float64], at: NDArray[np.float64], *, steps: bool = False) -> NDArray[np.float64]:
    left, right = np.searchsorted(ordered, at, "left"), np.searchsorted(ordered, at, "right")
    # Edge number k has k bins below it, one of equal edges k on average; a value has what lies below and half of it.
    return np.asarray((left + right - 1) / 2 if steps else (left + right) / 2, dtype=np.float64)


def shift_text(found: Sequence[Shift]) -> str:
    """The bands that moved most, with figures; "" where fewer than half of the bands are far from their histograms."""
    far = [shift for shift in found if shift.distance >= FAR]
    if 2 * len(far) < len(found) or not far:
        return ""
    worst = sorted(far, key=lambda shift: -shift.distance)[:SHOWN]
    figures = "; ".join(
        f"{shift.band} median {_figure(shift.median)} against {_figure(shift.expected)} (distance {shift.distance:.2f})"
        for shift in worst
    )
    return f"{len(far)} of {len(found)} bands are distributed unlike those of the training scenes: {figures}"


def _figure(value: float) -> str:
    """Three digits, and all before the point: 0.201, 12.3, 1,020."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
