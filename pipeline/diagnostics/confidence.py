"""Confidence that means what it says: reliability, calibration error, and the temperature that goes into a model file.

What is divided by the temperature are the scores from which the map's probabilities come: the logits of a single
network, and the logarithm of the averaged probabilities of several. A model that has not learned from its validation
polygons is asked about them. For one that has (``training.refit``) its teachers stand in, fitted again without one
third of the blocks at a time. Their confidence is that of the network of single pixels, which learns to say what they
say; networks that are averaged with it are as often right, but seldom as sure. So the temperature of the average is the
one that makes it, over the whole scene, as sure as the network of pixels is once its own is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax

from pipeline.diagnostics.class_sets import SetLimits, coverage_by_block
from pipeline.errors import ModelError
from pipeline.experts.shares import HELD_FOLDS
from pipeline.labels.rasterise import LabelledPixels
from pipeline.splits.split import Part, Split, TrainingScene

if TYPE_CHECKING:
    from pipeline.experts.mixture import OutOfFold
    from pipeline.grid import Grid
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

DEFAULT_BINS = 15  # Guo et al. (2017), sect. 4.1
TEMPERATURES = (0.05, 20.0)
# Temperatures of networks lie between a half and two more often than not.
PRIOR_LOG_T = 0.5
# With fewer polygons held out their spread, and with it what they show, is not known.
FEWEST_POLYGONS = 10
_STEPS = 41
_EPS = 1e-12
KEY = "calibration"
# Forests give classes without a vote the probability 0, networks never do.
_FLOOR = 0.01
# Squares of all scenes together, their side, and pixels in each, on which networks are compared.
_SQUARES, _SQUARE_PX, _PLACES = 8, 256, 400


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability diagram in equal bins of confidence."""

    edges: NDArray[np.float64]  # [bin + 1] limits of the bins, 0..1
    count: NDArray[np.int64]  # [bin] pixels
    confidence: NDArray[np.float64]  # [bin] mean confidence, NaN in empty bins
    accuracy: NDArray[np.float64]  # [bin] share of right pixels, NaN in empty bins
    ece: float  # Expected calibration error: mean |accuracy - confidence|, weighted by pixels

    def to_json(self) -> dict[str, object]:
        """JSON-ready; None in empty bins."""
        plain = {
            name: [None if np.isnan(value) else float(value) for value in getattr(self, name)]
            for name in ("confidence", "accuracy")
        }
        return {"edges": self.edges.tolist(), "count": self.count.tolist(), **plain, "ece": self.ece}


def reliability(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = DEFAULT_BINS
) -> Reliability:
    """How often pixels of each confidence are right.

    ``confidence`` float [pixel] 0..1 is the probability of the mapped class, ``correct`` bool [pixel].

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, ICML, eqs. 2-3.
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=confidence, minlength=bins) / count
        right = np.bincount(index, weights=correct, minlength=bins) / count
    gap = np.nansum(np.abs(right - mean) * count) / count.sum()
    return Reliability(edges, count.astype(np.int64), mean, right, float(gap))


def fit_temperature(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, polygon: NDArray[np.integer] | None = None
) -> float:
    """Temperature scaling: the one T that gives held-out labels the highest likelihood; the map stays the same.

    ``logits`` float [pixel, class] are scores on validation blocks, never on training pixels. Pixels of one ``polygon``
    are right or wrong together, so polygons count once each, and T goes from 1 as far as they show (:func:`shown`).

    Source: Guo et al. (2017), sect. 4.2.
    """
    scores = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(labels))
    return _temperature(lambda factor: -log_softmax(scores * factor, axis=1)[rows, labels], polygon)


def fit_confidence(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, polygon: NDArray[np.integer] | None = None
) -> float:
    """The T that makes the confidence of the likeliest class most credible, whatever the scores of the other classes.

    For scores of a stand-in, such as votes of forests, whose small shares are not those of the network: the likelihood
    of all classes would be ruled by them. What counts is "right with this confidence, or not" (a binary likelihood).
    """
    scores = np.asarray(logits, dtype=np.float64)
    right = scores.argmax(axis=1) == labels

    def cost(factor: float) -> NDArray[np.float64]:
        sure = np.clip(softmax(scores * factor, axis=1).max(axis=1), _EPS, 1 - _EPS)
        return np.asarray(-np.where(right, np.log(sure), np.log1p(-sure)))

    return _temperature(cost, polygon)


def _temperature(cost: Callable[[float], NDArray[np.float64]], polygon: NDArray[np.integer] | None) -> float:
    """The temperature with the least mean cost; ``cost`` gives that of each pixel at a factor 1/T."""
    if polygon is None:
        log_t = _least(lambda log_t: float(cost(float(np.exp(-log_t))).mean()))
    else:
        ids, of = np.unique(polygon, return_inverse=True)
        pixels = np.bincount(of)
        log_t = 0.0
        if len(ids) >= FEWEST_POLYGONS:
            log_t = temperature_shown(lambda log_t: np.bincount(of, weights=cost(float(np.exp(-log_t)))) / pixels)
    return float(np.exp(log_t))


def temperature_shown(cost: Callable[[float], NDArray[np.float64]]) -> float:
    """The log T with the least mean cost, drawn to 0 by one standard error of its own.

    With the mean cost nearly a parabola around its least, log T is one standard error away (over polygons, whose costs
    differ) where the mean has grown by half the standard error of its growth. 0 where that interval holds 0.

    log T has a normal prior with mean 0 and deviation PRIOR_LOG_T, a polygon counting as one observation: where nearly
    all pixels held out are right the least cost lies at T = 0 otherwise.
    ``cost`` gives that of each polygon, a negative log-likelihood float64 [polygon], at a log T.

    Source: our own, after the rule of one standard error of Breiman et al. (1984), Classification and Regression Trees,
    sect. 3.4.3: of what the data cannot tell apart, the simplest.
    """

    def total(log_t: float) -> NDArray[np.float64]:
        found = cost(log_t)
        return found + 0.5 * (log_t / PRIOR_LOG_T) ** 2 / len(found)

    best = _least(lambda log_t: float(total(log_t).mean()))
    least = total(best)
    for log_t in np.linspace(0.0, best, _STEPS):
        worse = total(float(log_t)) - least
        if 2 * worse.mean() <= worse.std(ddof=1) / np.sqrt(len(worse)):
            return float(log_t)
    return best


def _least(cost: Callable[[float], float]) -> float:
    return float(minimize_scalar(cost, bounds=np.log(TEMPERATURES), method="bounded").x)


def calibrate(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split,
    *, learned_validation: bool, held_out: OutOfFold | None = None, seed: int = 0,
) -> ModelBundle:  # fmt: skip
    """The model with the temperature that suits polygons it has not seen, and what that changed in its provenance.

    Where it cannot be fitted the model keeps its temperature, and ``provenance["calibration"]`` is "none: why". A model
    that was calibrated while it was trained stays as it is. ``learned_validation`` says that the model has learned from
    the validation polygons too; ``held_out``, what its teachers gave pixels not seen, then takes their place.
    """
    if bundle.temperature != 1.0 or KEY in bundle.provenance:
        return bundle
    if not learned_validation:
        logits, index, polygon = _scores_at(bundle, _validation(scenes, split))
        return _calibrated(bundle, logits, index, polygon, "temperature scaling on validation polygons")
    if held_out is None:
        return _noted(bundle, "none: the model learned from the validation polygons too (training.refit)")
    if bundle.members[0].spec.encoder != "none":
        return _noted(bundle, "none: the teachers' scores stand in for a network of pixels, and the model has none")
    scores, index = _scores_of(held_out), held_out.index.astype(np.intp)
    method = "temperature scaling on polygons held out in turn, by spatial block (training.refit: the teachers' scores)"
    found = _calibrated(bundle, scores, index, held_out.polygon, method, fit=fit_confidence)
    if found.temperature == 1.0 or len(bundle.members) == 1:
        return found
    temperature = _as_sure(bundle, scenes, found.temperature, seed=seed)
    note = {**found.provenance[KEY], "pixel_network_temperature": found.temperature, "temperature": temperature}
    return replace(_noted(bundle, note), temperature=temperature)


def calibrate_chips(bundle: ModelBundle, held_out: OutOfFold | None) -> ModelBundle:
    """A model of whole chips with the temperature that suits chips which its experts had not seen.

    A network that classifies alone from a pretrained encoder has that of its discriminant in its scores already.
    """
    if held_out is None:
        return _noted(bundle, "none: no chips were held out (training.experts)")
    if bundle.members[0].spec.encoder != "none":
        return _noted(bundle, "within the discriminant of the pretrained encoder, on chips held out in turn")
    method = "temperature scaling on chips held out in turn, by block where they know their place (the experts' scores)"
    scores, index = _scores_of(held_out), held_out.index.astype(np.intp)
    return _calibrated(bundle, scores, index, held_out.polygon, method, fit=fit_confidence)


def held_out_probabilities(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split,
    *, learned_validation: bool, held_out: OutOfFold | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.int32]] | None:  # fmt: skip
    """Calibrated probabilities float64 [pixel, class], class index and polygon [pixel] of pixels not learned from.

    Of a calibrated model; None where it has learned from all of its pixels and nothing stands in for it.
    """
    note = bundle.provenance.get(KEY)
    if not learned_validation:
        logits, index, polygon = _scores_at(bundle, _validation(scenes, split))
        return softmax(logits.astype(np.float64), axis=1), index, polygon
    if held_out is None or bundle.members[0].spec.encoder != "none":
        return None
    own = note.get("pixel_network_temperature", bundle.temperature) if isinstance(note, dict) else 1.0
    return softmax(_scores_of(held_out) / own, axis=1), held_out.index.astype(np.intp), held_out.polygon


def _scores_of(held_out: OutOfFold) -> NDArray[np.float64]:
    """Scores float64 [pixel, class] of the teachers; classes without a vote are not ruled out."""
    shares = held_out.probabilities.astype(np.float64)
    return np.asarray(np.log((1 - _FLOOR) * shares / shares.sum(axis=1, keepdims=True) + _FLOOR / shares.shape[1]))


def held_out_reliability(
    bundle: ModelBundle, tested: Sequence[tuple[Source, LabelledPixels]], *, block_of: NDArray[np.int32]
) -> dict[str, Any] | None:
    """How sure the model is of test pixels and how often right, without and with its temperature; JSON-ready.

    With it how often their label is in the class set of 90 %, by block; ``block_of`` is that of each polygon.

    Returns:
        None where no test pixel is valid.
    """
    logits, index, polygon = _scores_at(bundle, tested)
    if not len(index):
        return None
    scores = logits.astype(np.float64)
    correct = scores.argmax(axis=1) == index
    before, after = (
        reliability(np.minimum(softmax(scores * factor, axis=1).max(axis=1), 1.0), correct)
        for factor in (bundle.temperature, 1.0)
    )
    try:
        limits, shares = SetLimits.of(bundle.extra), softmax(scores, axis=1)
        sets: object = coverage_by_block(limits, shares, index, block=blocks_of_pixels(polygon, block_of))
    except ModelError as err:
        sets = f"none: {err}"
    return {
        "temperature": bundle.temperature,
        "pixels": len(correct),
        "ece_before": before.ece,
        "ece_after": after.ece,
        "before": before.to_json(),
        "after": after.to_json(),
        "fitted_on": bundle.provenance.get(KEY, "none: the model was trained elsewhere"),
        "class_sets": sets,
    }


def blocks_of_pixels(polygon: NDArray[np.int32], block_of: NDArray[np.int32]) -> NDArray[np.int32]:
    """Block int32 [pixel] of pixels of polygons; without blocks (-1), polygons take their place."""
    return np.where(block_of[polygon] >= 0, block_of[polygon], -polygon - 1)


def _calibrated(
    bundle: ModelBundle, logits: NDArray[np.floating], index: NDArray[np.intp], polygon: NDArray[np.int32],
    method: str,
    *, fit: Callable[..., float] = fit_temperature,
) -> ModelBundle:  # fmt: skip
    """The model with the temperature of some scores [pixel, class], or the reason why it has none."""
    if not len(index):
        late = HELD_FOLDS in bundle.provenance.get("cut_short", ())
        why = "training.time_limit_s ended before polygons were held out" if late else "no valid pixel was held out"
        return _noted(bundle, f"none: {why}")
    if (logits.argmax(axis=1) == index).all():
        # The likelihood then only grows as the temperature falls: the pixels set no limit to it.
        return _noted(bundle, "none: every pixel held out is right, which any temperature explains")
    polygons = len(np.unique(polygon))
    temperature = fit(logits, index, polygon=polygon)
    note = {
        "method": method,
        "pixels": len(index),
        "polygons": polygons,
        "temperature": temperature,
        "ece_before": _ece(logits, index),
        "ece_after": _ece(logits / temperature, index),
    }
    return replace(_noted(bundle, note), temperature=temperature)


def _noted(bundle: ModelBundle, what: str | dict[str, Any]) -> ModelBundle:
    return replace(bundle, provenance={**bundle.provenance, KEY: what})


def _scores_at(
    bundle: ModelBundle, places: Iterable[tuple[Source, LabelledPixels]]
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.int32]]:
    """Scores float32 [pixel, class], class index [pixel] and polygon [pixel] of the valid ones of labelled pixels."""
    from pipeline.inference.probe import pixel_logits

    logits = [np.empty((0, len(bundle.scheme)), np.float32)]
    index, polygon = [np.empty(0, np.intp)], [np.empty(0, np.int32)]
    for source, pixels in places:
        found, position = pixel_logits(bundle, source, pixels)
        logits.append(found)
        index.append(bundle.scheme.code_to_index[pixels.code[position]].astype(np.intp))
        polygon.append(pixels.polygon[position])
    return np.concatenate(logits), np.concatenate(index), np.concatenate(polygon)


def _validation(scenes: Sequence[TrainingScene], split: Split) -> Iterator[tuple[Source, LabelledPixels]]:
    return ((scene.source, split.pixels(scene.pixels, Part.VALIDATION)) for scene in scenes)


def _as_sure(bundle: ModelBundle, scenes: Sequence[TrainingScene], temperature: float, *, seed: int) -> float:
    """The temperature at which all members are together as sure as the first alone is at ``temperature``."""
    from pipeline.inference.probe import pixel_logits

    alone = replace(bundle, members=bundle.members[:1], shares=(1.0,))
    rng = np.random.default_rng(seed)
    first, whole = [], []
    chosen = rng.permutation(len(scenes))[:_SQUARES]
    for number in chosen.tolist():
        scene = scenes[number]
        places = _somewhere(scene.source.grid, squares=max(_SQUARES // len(chosen), 1), rng=rng)
        first.append(pixel_logits(alone, scene.source, places)[0])
        whole.append(pixel_logits(bundle, scene.source, places)[0])
    target = _confidence(np.concatenate(first), temperature)
    logits = np.concatenate(whole)
    low, high = np.log(TEMPERATURES)

    def gap(log_t: float) -> float:
        return _confidence(logits, float(np.exp(log_t))) - target

    if gap(low) * gap(high) >= 0:  # no temperature does it: a scene without a single doubt, say
        return temperature
    return float(np.exp(brentq(gap, low, high, xtol=1e-4)))


def _confidence(logits: NDArray[np.floating], temperature: float) -> float:
    return float(softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1).mean())


def _somewhere(grid: Grid, *, squares: int, rng: np.random.Generator) -> LabelledPixels:
    """Pixels in some squares of a grid, labelled or not; networks are run on whole squares, so not everywhere."""
    tiles = list(grid.tiles(_SQUARE_PX))
    chosen = [tiles[int(number)] for number in np.sort(rng.permutation(len(tiles))[:squares])]
    row = np.concatenate([rng.integers(tile.row, tile.row_stop, _PLACES) for tile in chosen])
    col = np.concatenate([rng.integers(tile.col, tile.col_stop, _PLACES) for tile in chosen])
    order = np.lexsort((col, row))
    nothing = np.zeros(len(row), dtype=np.uint8)
    return LabelledPixels(
        row[order].astype(np.int32), col[order].astype(np.int32), nothing, nothing.astype(np.int32), nothing, grid
    )


def _ece(logits: NDArray[np.floating], index: NDArray[np.intp]) -> float:
    shares = softmax(logits.astype(np.float64), axis=1)
    return reliability(np.minimum(shares.max(axis=1), 1.0), shares.argmax(axis=1) == index).ece
