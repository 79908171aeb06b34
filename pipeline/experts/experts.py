"""Experts: the kinds of classifier in a mixture, the table of labelled pixels they learn from, and fitting one.

Which of them have a share depends on the number of polygons (``experts_for``); ``docs/learning.md`` has what was
measured.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.experts.settings import ENOUGH_POLYGONS
from pipeline.experts.trees import PolygonTrees, RotatedTrees, fit_polygon_trees, fit_rotated_trees
from pipeline.experts.weights import pixel_weights, turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sklearn.base import ClassifierMixin


Model: TypeAlias = PolygonTrees | RotatedTrees | Pipeline | DummyClassifier
Kind: TypeAlias = Literal["polygons", "rotated", "logistic", "discriminant", "kernel"]
# Kinds that are linear discriminants in the end: the more features, the surer of themselves, so they are softened.
DISCRIMINANTS = frozenset({"discriminant", "kernel"})

# Score of a class without a labelled pixel: a probability of 1e-13 beside a score of 0.
UNSEEN = -30.0
# More iterations change the last digits only.
_ITERATIONS = 200
# Of the kernel: pixels that the others are compared with, and the weight of the diagonal in the covariance within
# classes; 1000 pixels and kernels twice as wide differ by less than 0.003 (docs/learning.md).
_LANDMARKS, _DIAGONAL = 500, 1e-3
# Pixels that the kernel is fitted to at most, and the bytes of a pixel's likenesses.
KERNEL_PIXELS, LIKENESS_BYTES = 60_000, 8 * _LANDMARKS


@dataclass(frozen=True)
class Expert:
    """One kind of classifier."""

    name: str  # For the record
    kind: Kind  # Trees of polygons, extra trees along rotated axes, logistic regression, linear or kernel discriminant
    levels: int  # How many of the levels bands, 3, 5, 9 px, deviations it sees
    needs: int = 0  # Polygons below which it has no share
    until: int | None = None  # Polygons from which on it has none; None for no such number
    part: float = 1.0  # Its share beside the others where shares are not learned
    # It sees the features of a pretrained encoder too, and is admitted by held-out polygons alone
    encoder: bool = False


# With few polygons half of the mixture are trees of polygons, half trees along rotated axes; with many a kernel
# discriminant stands beside the former (docs/learning.md has what was measured). The first is always fitted.
EXPERTS = (
    Expert("kernel discriminant of surroundings", "kernel", 5, needs=ENOUGH_POLYGONS),
    Expert("trees of polygons, bands", "polygons", 1, part=1.0),
    Expert("trees of polygons, means to 5 px", "polygons", 3, part=2.0),
    Expert("trees of polygons, surroundings", "polygons", 5, part=2.0),
    Expert("rotated trees, bands", "rotated", 1, until=ENOUGH_POLYGONS, part=1.0),
    Expert("rotated trees, means to 5 px", "rotated", 3, until=ENOUGH_POLYGONS, part=4.0),
    # With fewer polygons held-out figures cannot tell whether it helps, and with 28 it learned the place (learning.md).
    Expert("pretrained encoder and surroundings", "discriminant", 5, needs=ENOUGH_POLYGONS, encoder=True),
)
ENCODER_EXPERT = EXPERTS[-1]


def experts_for(
    known: Sequence[Expert], *, polygons: int, encoder: bool = False, levels: int = 5
) -> tuple[Expert, ...]:
    """Those of ``known`` that may have a share where so many polygons are learned from; ``encoder``: there is one.

    Where there is one level (embeddings), experts of one kind that see several would be one and the same.
    """
    if levels == 1:
        first = {(item.kind, item.encoder): item for item in reversed(known)}
        known = [item for item in known if item.levels == 1 or first[item.kind, item.encoder] is item]
        known = [item if item.encoder else replace(item, levels=1) for item in known]
    return tuple(
        item
        for item in known
        if item.needs <= polygons and (item.until is None or polygons < item.until) and (encoder or not item.encoder)
    )


@dataclass(frozen=True, eq=False)
class PixelTable:
    """Labelled pixels with features, each pixel once."""

    features: NDArray[np.float32]  # [pixel, feature] levels one after the other, then features of a pretrained encoder
    index: NDArray[np.uint8]  # Network index of the class, uint8 [pixel]
    polygon: NDArray[np.int32]  # [pixel]
    channels: int  # Features per level
    encoder: int = 0  # Features of a pretrained encoder

    @property
    def levels(self) -> int:
        """Levels of features: bands, means, deviations; or the bands alone."""
        return int((self.features.shape[1] - self.encoder) // self.channels)

    def rows(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> PixelTable:
        """Some of the pixels."""
        return PixelTable(self.features[which], self.index[which], self.polygon[which], self.channels, self.encoder)


def fit_expert(expert: Expert, table: PixelTable, *, trees: int, seed: int) -> Model:
    """One expert, fitted to the pixels of a table; ``trees`` is ignored by experts without trees."""
    if expert.kind == "kernel":
        table = _drawn(table, pixels=KERNEL_PIXELS, seed=seed)
    features = seen(table.features, expert, table.channels)
    if expert.kind == "polygons":
        return fit_polygon_trees(features, table.index, table.polygon, trees=trees, seed=seed)
    classes = int(table.index.max()) + 1
    weight = pixel_weights(table.index, table.polygon, classes=classes)
    if expert.kind == "rotated":
        return fit_rotated_trees(features, table.index, table.polygon, weight=weight, trees=trees, seed=seed)
    if expert.kind == "logistic" and len(np.unique(table.index)) > 1:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(features, table.index, logisticregression__sample_weight=weight)
    if expert.kind in DISCRIMINANTS and 1 < len(np.unique(table.index)) < len(table.index):
        kernel = expert.kind == "kernel"
        steps = [kernel_features(features, seed=seed), kernel_discriminant()] if kernel else [shrunk_discriminant()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with one member has no spread of its own
            return make_pipeline(StandardScaler(), *steps).fit(features, table.index)
    # Of one class, or one pixel of each, there is nothing to tell.
    return DummyClassifier().fit(features, table.index)


def _drawn(table: PixelTable, *, pixels: int, seed: int) -> PixelTable:
    """The table, or about ``pixels`` of it, as many of every polygon where it has them, one at least."""
    if len(table.index) <= pixels:
        return table
    order = np.random.default_rng(seed).permutation(len(table.index))
    most = max(pixels // len(np.unique(table.polygon)), 1)
    return table.rows(np.sort(order[turns(table.polygon[order]) < most]))


def shrunk_discriminant() -> LinearDiscriminantAnalysis:
    """A linear discriminant whose covariance is drawn towards the diagonal as far as the data ask for it.

    Source: Ledoit & Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88, 365-411.
    """
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def kernel_features(features: NDArray[Any], *, seed: int) -> Nystroem:
    """Likeness of standardised features float64 [pixel, feature] to some of the pixels, exp(-d^2 / (2 features)).

    A discriminant of them is smooth where trees are steps, and far from all labelled pixels it tends to what is
    frequent where a linear one goes on.

    Source: Williams & Seeger (2001), Using the Nystroem method to speed up kernel machines, NIPS 13, 682-688; Mika et
    al. (1999), Fisher discriminant analysis with kernels, IEEE Neural Networks for Signal Processing IX, 41-48.
    """
    pixels, count = features.shape
    return Nystroem(gamma=0.5 / count, n_components=min(_LANDMARKS, pixels), random_state=seed)


def kernel_discriminant() -> LinearDiscriminantAnalysis:
    """A linear discriminant of likenesses, whose covariance has a fixed small part of the diagonal."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_DIAGONAL)


def soften_discriminant(model: Model | LinearDiscriminantAnalysis, temperature: float) -> None:
    """Divide a discriminant's scores by ``temperature``, in place; of one class alone there are no scores."""
    last = model[-1] if isinstance(model, Pipeline) else model
    if isinstance(last, LinearDiscriminantAnalysis):
        last.coef_, last.intercept_ = last.coef_ / temperature, last.intercept_ / temperature


def linear_scores(model: ClassifierMixin, *, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight float64 [class, feature] and bias [class] with which a discriminant scores features as they come.

    Classes that it does not know are never the most probable; a common constant, which no probability shows, is left
    out, so that scores are small. Of one class alone no feature has a weight.
    """
    scaler, last = cast("tuple[Any, Any]", (model[0], model[-1]) if isinstance(model, Pipeline) else (None, model))
    known = np.asarray(last.classes_, dtype=np.intp)
    weight = np.zeros((classes, last.n_features_in_ if scaler is None else scaler.n_features_in_))
    bias = np.full(classes, UNSEEN)
    bias[known] = 0.0
    if isinstance(last, LinearDiscriminantAnalysis):
        # Of two classes scikit-learn gives one row: the score of the second less that of the first.
        rows = np.array([[-0.5], [0.5]]) if len(known) == len(last.coef_) + 1 else np.eye(len(known))
        weight[known], bias[known] = rows @ last.coef_, rows @ last.intercept_
        if scaler is not None:
            weight /= scaler.scale_
            bias[known] -= weight[known] @ scaler.mean_
        weight[known] -= weight[known].mean(axis=0)
        bias[known] -= bias[known].mean()
    return weight, bias


def seen(features: NDArray[np.float32], expert: Expert, channels: int) -> NDArray[Any]:
    """The levels that an expert sees, and the encoder's features where it does, [pixel, feature].

    Float32; float64 for a kernel, whose matrix is near singular where a scene has one to three bands: in float32 up to
    a quarter of the pixels changed class with the rounding.
    """
    found = features if expert.encoder else features[:, : expert.levels * channels]
    return np.ascontiguousarray(found, dtype=np.float64 if expert.kind == "kernel" else np.float32)


def probabilities_of(model: Model, features: NDArray[Any], *, classes: int) -> NDArray[np.float32]:
    """Probabilities float32 [pixel, class]; 0 for classes that the model does not know."""
    found = np.zeros((len(features), classes), dtype=np.float32)
    found[:, model.classes_.astype(np.intp)] = model.predict_proba(features)
    return found
