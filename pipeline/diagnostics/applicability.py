"""Area of applicability: which pixels look, to the network, like what it learned from.

Features of some training pixels go into the model file. Source: Meyer & Pebesma (2021), Methods in Ecology and
Evolution 12, 1620-1633; what is adapted: predictors are the network's features, each member weighted by its share in
the map; the distance is taken in their principal components, with the length of what these leave out as one more
coordinate, so that features unlike any in training count although no component points their way. It never exceeds the
distance in all features.

Cost: about 1.4 times the time of the map itself, on a CPU with a network of pixels and a ResNet-18 U-Net
(``tests/benchmarks/bench_applicability.py``: layer_over_map); memory is that of one tile of 256 pixels square with its
halo, however large the scene (memory_ratio 1.00 for four times the pixels).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from pipeline.diagnostics.confidence import blocks_of_pixels
from pipeline.diagnostics.features import spread
from pipeline.errors import ModelError, ModelWarning, ReferenceDataError
from pipeline.legend import NODATA
from pipeline.maps.geotiff import write_percent
from pipeline.maps.style import DISSIMILARITY, PERCENT_NODATA

if TYPE_CHECKING:
    import torch

    from pipeline.grid import Window
    from pipeline.inference.rows import RowStore
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import Split, TrainingScene

MAX_PAIRS, _PARTS = 2_000_000, 40
# Points whose products with all samples stay in a core's cache.
BLOCK = 512
# Meyer & Pebesma (2021), sect. 2.4: outliers of the training DI lie beyond the upper whisker of a box plot.
WHISKER = 1.5
TRAINING_PIXELS = 2000
# Components; with the length of the rest, a sample is 16 numbers.
COMPONENTS = 15
# The layer: per cent of the threshold, so 100 is the last value inside; larger indices than 2.5 thresholds are 250.
INSIDE, CAP = 100, 250
# Of the mapped pixels: where more lie outside, it is said.
SAID_SHARE = 0.1
_PREFIX = "applicability_"


@dataclass(frozen=True, eq=False)
class Applicability:
    """What the dissimilarity index needs; store it with the model."""

    mean: NDArray[np.float64]  # [feature] of the training data
    scale: NDArray[np.float64]  # [feature] weight over standard deviation; 0 for constant features
    training: NDArray[np.float32]  # [sample, feature] scaled training features
    mean_distance: float  # Mean distance between training samples, which makes the index a ratio
    threshold: float  # Largest training index that is no outlier; pixels above it are outside

    def dissimilarity(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Dissimilarity index float32 [pixel] of features [pixel, feature]; 0 is a training sample, NaN not finite."""
        index = np.full(len(features), np.nan, dtype=np.float32)
        usable = np.isfinite(features).all(axis=1)
        scaled = ((features[usable] - self.mean) * self.scale).astype(np.float32)
        index[usable] = _nearest(scaled, self.training) / self.mean_distance
        return index

    def inside(self, features: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether pixels lie in the area of applicability, bool [pixel]; not finite features do not."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.dissimilarity(features) <= self.threshold)


def fit_applicability(
    features: NDArray[np.floating],
    *, folds: NDArray[np.integer], weights: NDArray[np.floating] | None = None, seed: int = 0,
) -> Applicability:  # fmt: skip
    """Learn the index and its threshold from training features, float [sample, feature].

    ``folds`` int [sample] are blocks or cross-validation folds: the training index of a sample is the distance to the
    nearest of another fold, as neighbours in one polygon say nothing about new places. ``weights`` float [feature] are
    the importance of features, None weights all alike; ``seed`` is for the pairs of the mean distance, if too many.

    Raises:
        ReferenceDataError: one fold only, or features that do not vary.
    """
    values = np.asarray(features, dtype=np.float64)
    if len(np.unique(folds)) < 2:  # noqa: PLR2004
        raise ReferenceDataError("folds of the training features", got="one", expected="two or more")
    spread = values.std(axis=0)
    if not spread.any():
        raise ReferenceDataError("training features that do not vary")
    weight = np.ones(values.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    scale = np.divide(weight, spread, out=np.zeros_like(spread), where=spread > 0)
    mean = values.mean(axis=0)
    scaled = ((values - mean) * scale).astype(np.float32)
    average = _mean_distance(scaled, np.random.default_rng(seed))
    index = np.empty(len(scaled))
    for fold in np.unique(folds):
        held = folds == fold
        index[held] = NearestNeighbors(n_neighbors=1).fit(scaled[~held]).kneighbors(scaled[held])[0][:, 0] / average
    return Applicability(mean, scale, scaled, average, upper_whisker(index))


def _nearest(points: NDArray[np.float32], training: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distance float32 [point] to the nearest of the training samples.

    Found by matrix products in blocks that stay in the cache: with some 2,000 samples of 16 features, four times as
    quick as scikit-learn's brute force and twice as quick as a k-d tree. The distance itself is taken from the
    differences, as products lose digits where it is small.
    """
    products, squares = np.ascontiguousarray(-2.0 * training.T), np.square(training).sum(axis=1)
    found = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK]
        nearest = (part @ products + squares).argmin(axis=1)
        found[start : start + BLOCK] = np.linalg.norm(part - training[nearest], axis=1)
    return found


def upper_whisker(index: NDArray[np.float64]) -> float:
    """The largest value that is no outlier of a box plot: at most the upper quartile + 1.5 times the quartile range.

    >>> upper_whisker(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    4.0
    """
    low, high = np.quantile(index, [0.25, 0.75])
    return float(index[index <= high + WHISKER * (high - low)].max())


def _mean_distance(scaled: NDArray[np.float32], rng: np.random.Generator) -> float:
    n = len(scaled)
    if n * (n - 1) // 2 <= MAX_PAIRS:
        from scipy.spatial.distance import pdist

        return float(pdist(scaled).mean())
    first, second = rng.integers(0, n, MAX_PAIRS), rng.integers(0, n - 1, MAX_PAIRS)
    second += second >= first
    parts = zip(np.array_split(first, _PARTS), np.array_split(second, _PARTS), strict=True)
    return sum(float(np.linalg.norm(scaled[a] - scaled[b], axis=1).sum()) for a, b in parts) / MAX_PAIRS


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """From features to the few coordinates in which distances are taken."""

    center: NDArray[np.float32]  # [feature] mean of the training pixels
    scale: NDArray[np.float32]  # [feature] weight over standard deviation, 0 for features that do not vary
    axes: NDArray[np.float32]  # [component, feature] principal components of the scaled features

    @classmethod
    def fit(cls, features: NDArray[np.float32], *, weights: NDArray[np.float64]) -> Self:
        """Learn it from training features float32 [pixel, feature] with weights float64 [feature]."""
        spread_of = features.std(axis=0, dtype=np.float64)
        scale = np.divide(weights, spread_of, out=np.zeros_like(spread_of), where=spread_of > 0)
        center = features.mean(axis=0, dtype=np.float64)
        _, _, axes = np.linalg.svd((features - center) * scale, full_matrices=False)
        return cls(center.astype(np.float32), scale.astype(np.float32), axes[:COMPONENTS].astype(np.float32))

    def project(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates float32 [pixel, component + 1] of features [pixel, feature]; the last is what is left out."""
        scaled = (features - self.center) * self.scale
        inside = scaled @ self.axes.T
        rest = np.square(scaled).sum(axis=1) - np.square(inside).sum(axis=1)
        return np.column_stack([inside, np.sqrt(np.maximum(rest, 0.0))])


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """How far features are from those of the training pixels; travels in the model file."""

    space: FeatureSpace  # Features to coordinates
    index: Applicability  # The dissimilarity index of coordinates, and its threshold

    def percent(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Dissimilarity in per cent of the threshold, uint8 [pixel], of features [pixel, feature].

        0..100 is inside the area of applicability, 101..250 outside (250: two and a half thresholds or more); 255 where
        features are not finite. Rounded up, so that 100 holds exactly where the index is at most the threshold.
        """
        found = self.index.dissimilarity(self.space.project(features)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            percent = np.ceil(INSIDE * found / self.index.threshold)
        return np.where(np.isfinite(percent), np.minimum(percent, CAP), PERCENT_NODATA).astype(np.uint8)

    def tensors(self) -> dict[str, torch.Tensor]:
        """For ``ModelBundle.extra``."""
        import torch

        space, index = self.space, self.index
        numbers = np.array([index.mean_distance, index.threshold])
        arrays = (space.center, space.scale, space.axes, index.mean, index.scale, index.training, numbers)
        named = zip(_NAMES, arrays, strict=True)
        return {_PREFIX + name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in named}

    @classmethod
    def of(cls, extra: Mapping[str, torch.Tensor]) -> Self:
        """From ``ModelBundle.extra``.

        Raises:
            ModelError: the model was trained without it.
        """
        try:
            found = {name: extra[_PREFIX + name].numpy() for name in _NAMES}
        except KeyError as err:
            raise ModelError(
                "model has no training features, which the area of applicability needs",
                fix="train it again with labels in two spatial blocks or more, or map without --applicability",
            ) from err
        mean_distance, threshold = found["numbers"].tolist()
        index = Applicability(found["mean"], found["factor"], found["training"], mean_distance, threshold)
        return cls(FeatureSpace(found["center"], found["scale"], found["axes"]), index)


_NAMES = ("center", "scale", "axes", "mean", "factor", "training", "numbers")


def learn_distance(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split, *, polygons: NDArray[np.int32], seed: int
) -> FeatureDistance | None:
    """What a trained model needs to tell its area of applicability; None where its labels lie in one block.

    The blocks of the split are the folds between which training pixels are compared.
    """
    from pipeline.inference.probe import feature_weights, network_features

    values, folds = [], []
    for scene in scenes:
        own = spread(scene.pixels.select(polygons.tolist()), TRAINING_PIXELS // len(scenes), seed=seed)
        found, position = network_features(bundle, scene.source, own)
        values.append(found)
        polygon = own.polygon[position]
        folds.append(blocks_of_pixels(polygon, split.block_of))
    features, fold = np.concatenate(values), np.concatenate(folds)
    if len(np.unique(fold)) < 2:  # noqa: PLR2004 - nothing to compare with
        return None
    space = FeatureSpace.fit(features, weights=feature_weights(bundle))
    coordinates = space.project(features)
    # Weights equal to the spread undo the index's own standardisation: coordinates are in one unit already.
    weights = coordinates.std(axis=0, dtype=np.float64)
    if not weights.any():
        return None
    index = fit_applicability(coordinates, folds=fold, weights=weights, seed=seed)
    return FeatureDistance(space, index) if index.threshold > 0 else None


def write_applicability(
    path: Path, bundle: ModelBundle, source: Source,
    *, codes: RowStore, work: Path, tags: Mapping[str, object], overwrite: bool,
    progress: Callable[[str, int, int], None],
) -> Path:  # fmt: skip
    """Write the dissimilarity of every mapped pixel of a scene: per cent of the threshold, uint8, nodata 255.

    ``work`` is a folder for a file as large as the scene, removed at the end.

    A ModelWarning says where much of the map lies outside.

    Raises:
        ModelError: the model was trained without them.
        OutputError: the file exists, or cannot be written.
    """
    from pipeline.inference.probe import feature_tiles
    from pipeline.inference.rows import RowStore

    distance = FeatureDistance.of(bundle.extra)
    beside = work / "aoa.u8"
    done, total = 0, source.grid.height * source.grid.width
    outside = seen = 0

    def mapped(window: Window) -> bool:
        return bool((codes.read(window) != NODATA).any())

    with RowStore.create(beside, shape=source.grid.shape, fill=PERCENT_NODATA) as store:
        for tile, features, valid in feature_tiles(bundle, source, wanted=mapped):
            keep = valid & (codes.read(tile) != NODATA)
            found = np.full(tile.shape, PERCENT_NODATA, dtype=np.uint8)
            found[keep] = distance.percent(features[:, keep].T)
            outside, seen = outside + int((found[keep] > INSIDE).sum()), seen + int(keep.sum())
            store.write(tile, found)
            done += found.size
            progress(f"applicability {source.id}", done, total)
        rule = {"unit": "% of the threshold", "inside": f"0..{INSIDE}", "threshold": distance.index.threshold}
        tags = {**tags, "LANDCOVER_APPLICABILITY": rule}
        write_percent(path, store, grid=source.grid, layer=DISSIMILARITY, tags=tags, overwrite=overwrite)
    beside.unlink(missing_ok=True)
    if outside > SAID_SHARE * seen:
        text = f"{source.path}: {outside / seen:.0%} of the mapped pixels are like nothing that the model learned from"
        warnings.warn(
            f"{text} (applicability above {INSIDE}): map and figures say little there; draw labels there", ModelWarning,
            stacklevel=2,
        )  # fmt: skip
    return path
