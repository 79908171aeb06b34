"""Teachers of values: forests with quantiles, boosting, ridge and partial least squares, interpolation; baselines.

Each is fitted to a :class:`ValueTable`; ``regressor_mixture`` mixes them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.experts.interpolation import COLUMNS, Field

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Kind: TypeAlias = Literal[
    "forest",
    "boosting",
    "ridge",
    "pls",
    "linear",
    "shape",
    "shape_pls",
    "quarters",
    "process",
    "encoder",
    "distance",
    "kriging",
    "drift",
    "local",
    "mean",
    "band",
    "plain",
]
TEACHERS: tuple[Kind, ...] = ("forest", "boosting", "ridge", "pls", "linear")
# Of spectra: from so many bands on, what a spectrum is like tells apart what its brightness hides.
SPECTRAL: tuple[Kind, ...] = ("shape", "shape_pls", "quarters", "process")
MANY_BANDS = 20
# Those that interpolate samples; of use where samples are stations, and where the place may be learned.
SPATIAL: tuple[Kind, ...] = ("distance", "kriging", "drift", "local")
BASELINES: tuple[Kind, ...] = ("mean", "band", "plain")
NAMES: dict[str, str] = {
    "forest": "quantile forest",
    "boosting": "gradient boosting",
    "ridge": "ridge regression of surroundings",
    "pls": "partial least squares",
    "linear": "ridge regression of bands",
    "shape": "ridge regression of shapes",
    "shape_pls": "partial least squares of shapes",
    "quarters": "ridge regression of shapes of quarters",
    "process": "Gaussian process of bands",
    "encoder": "ridge regression of a pretrained encoder and surroundings",
    "distance": "inverse distance",
    "kriging": "kriging",
    "drift": "regression kriging",
    "local": "forest with interpolated values",
    "mean": "mean",
    "band": "linear on the best band",
    "plain": "forest (bands)",
}
# Components of partial least squares, at most a fifth of the samples.
_COMPONENTS = 10
_LEAF = 3
# Of the Gaussian process: samples, whose cube it takes, and principal components of the bands.
_PROCESS_SAMPLES, _AXES = 500, 15


@dataclass(frozen=True, eq=False)
class Places:
    """Where values are asked for.

    Attributes:
        features: float32 [n, feature], standardised.
        xy: In metres, float64 [n, 2].
        day: Number of the day, int64 [n]; of undated samples always 0.
        columns: Features of a pretrained encoder, float32 [n, column]; None where there is none.
    """

    features: NDArray[np.float32]
    xy: NDArray[np.float64]
    day: NDArray[np.int64]
    columns: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Number of places."""
        return len(self.features)

    def at(self, which: NDArray[Any]) -> Places:
        """Some of them."""
        columns = None if self.columns is None else self.columns[which]
        return Places(self.features[which], self.xy[which], self.day[which], columns)

    @property
    def beside_columns(self) -> NDArray[np.float32]:
        """Features and columns, float32 [n, feature + column]."""
        return self.features if self.columns is None else np.c_[self.features, self.columns]


@dataclass(frozen=True, eq=False)
class ValueTable:
    """Samples that teachers learn from.

    Attributes:
        places: Where they lie, with their features.
        target: Standardised transformed value, float64 [n].
        group: What is held out together, int64 [n].
        weight: Of each sample; the pixels of a polygon share one, float64 [n].
        plain: How many of the first features are bands, which partial least squares and the baselines see.
        scale: Mean and deviation that undo the standardising of the bands, float64 [plain] each.
    """

    places: Places
    target: NDArray[np.float64]
    group: NDArray[np.int64]
    weight: NDArray[np.float64]
    plain: int
    scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.target)

    def rows(self, which: NDArray[Any]) -> ValueTable:
        """Some of the samples."""
        return ValueTable(
            self.places.at(which), self.target[which], self.group[which], self.weight[which], self.plain, self.scale
        )


def fit_teacher(kind: Kind, table: ValueTable, *, trees: int, seed: int) -> Any:
    """One teacher or baseline."""
    return _FITS[kind](table, trees, seed)


def predict_teacher(kind: Kind, model: Any, places: Places) -> NDArray[np.float64]:
    """Standardised values float64 [m] of a teacher or baseline from :func:`fit_teacher`."""
    return np.asarray(_VALUES.get(kind, _of_features)(model, places), dtype=np.float64).ravel()


def _fit_forest(table: ValueTable, trees: int, seed: int) -> Any:
    from quantile_forest import RandomForestQuantileRegressor

    forest = RandomForestQuantileRegressor(
        trees, min_samples_leaf=_LEAF, max_features=1 / 3, random_state=seed, n_jobs=1
    )
    return forest.fit(table.places.features, table.target, sample_weight=table.weight)


def _fit_boosting(table: ValueTable, _: int, seed: int) -> Any:
    x, y = table.places.features, table.target
    boosting = HistGradientBoostingRegressor(
        max_iter=150,
        learning_rate=0.06,
        max_leaf_nodes=15,
        min_samples_leaf=min(10, max(len(y) // 10, 2)),
        max_features=min(1.0, 64 / x.shape[1]),
        l2_regularization=1.0,
        random_state=seed,
    )
    return boosting.fit(x, y, sample_weight=table.weight)


def _ridge(x: NDArray[np.floating], table: ValueTable) -> Any:
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
    return ridge.fit(x.astype(np.float64), table.target, ridgecv__sample_weight=table.weight)


def _fit_ridge(table: ValueTable, *_: int) -> Any:
    return _ridge(table.places.features, table)


def _fit_encoder(table: ValueTable, *_: int) -> Any:
    return _ridge(table.places.beside_columns, table)


def linear_value(ridge: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight float64 [..., feature] and bias [...] with which a ridge regression gives values of features as they come.

    ``...`` is nothing of one value, else as many as there are.
    """
    scaler, last = ridge[0], ridge[-1]
    weight = last.coef_ / scaler.scale_
    return weight, np.asarray(last.intercept_ - weight @ scaler.mean_)


def _fit_pls(table: ValueTable, *_: int) -> Any:
    parts = max(1, min(_COMPONENTS, len(table) // 5, table.plain))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of components that explain nothing
        model = make_pipeline(StandardScaler(), PLSRegression(parts))
        return table.plain, model.fit(table.places.features[:, : table.plain], table.target)


def _fit_linear(table: ValueTable, *_: int) -> Any:
    return table.plain, _ridge(table.places.features[:, : table.plain], table)


def _fit_shape(table: ValueTable, *_: int) -> Any:
    about = table.plain, table.scale
    return *about, _ridge(shapes(table.places, *about), table)


def _fit_shape_pls(table: ValueTable, *_: int) -> Any:
    parts = max(1, min(_COMPONENTS - 2, len(table) // 5, table.plain))
    model = make_pipeline(StandardScaler(), PLSRegression(parts))
    about = table.plain, table.scale
    return *about, model.fit(shapes(table.places, *about), table.target)


def _fit_quarters(table: ValueTable, *_: int) -> Any:
    about = table.plain, table.scale
    return *about, _ridge(shapes(table.places, *about, parts=4), table)


def _fit_process(table: ValueTable, _: int, seed: int) -> Any:
    rows = np.random.default_rng(seed).permutation(len(table))[:_PROCESS_SAMPLES]
    smooth = ConstantKernel(1.0) * RBF(20.0, (1.0, 1e3))
    line = ConstantKernel(1e-3, (1e-7, 10.0)) * DotProduct(1.0)
    process = GaussianProcessRegressor(smooth + line + WhiteKernel(0.1), normalize_y=True, random_state=seed)
    model = make_pipeline(StandardScaler(), PCA(min(_AXES, table.plain, len(rows) - 1), random_state=seed), process)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return table.plain, model.fit(table.places.features[rows, : table.plain], table.target[rows])


def shapes(
    places: Places, plain: int, scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None, *, parts: int = 1
) -> NDArray[np.float64]:
    """Bands in their own units, and each spectrum less its mean over its deviation, float64 [n, 2 * plain].

    The latter in so many ``parts`` of the spectrum, each by itself.

    Source: Barnes, Dhanoa & Lister (1989), Standard normal variate transformation and de-trending of near-infrared
    diffuse reflectance spectra, Applied Spectroscopy 43, 772-777; of parts: Bi et al. (2016), A local pre-processing
    method for near-infrared spectra, Analytica Chimica Acta 909, 30-40.
    """
    bands = places.features[:, :plain].astype(np.float64)
    if scale is not None:
        bands = bands * scale[1] + scale[0]
    pieces = np.array_split(bands, parts, axis=1)
    alike = [(p - p.mean(1, keepdims=True)) / np.maximum(p.std(1, keepdims=True), 1e-6) for p in pieces]
    return np.concatenate([bands, *alike], axis=1)


def _fit_plain(table: ValueTable, trees: int, seed: int) -> Any:
    forest = RandomForestRegressor(trees, max_features=1 / 3, random_state=seed, n_jobs=1)
    x = table.places.features[:, : table.plain]
    return table.plain, forest.fit(x, table.target, sample_weight=table.weight)


def _fit_local(table: ValueTable, trees: int, seed: int) -> Any:
    field = _field(table, table.target, seed=seed)
    forest = RandomForestRegressor(trees, min_samples_leaf=_LEAF, max_features=1 / 3, random_state=seed, n_jobs=1)
    x = np.c_[table.places.features, field.held_out()]
    return field, forest.fit(x, table.target, sample_weight=table.weight)


def _fit_field(table: ValueTable, _: int, seed: int) -> Any:
    return _field(table, table.target, seed=seed)


def _fit_drift(table: ValueTable, _: int, seed: int) -> Any:
    ridge = _fit_ridge(table)
    return ridge, _field(table, table.target - _of_features(ridge, table.places), seed=seed)


def _fit_band(table: ValueTable, *_: int) -> Any:
    return _best_band(table.places.features[:, : table.plain], table.target)


def _fit_mean(table: ValueTable, *_: int) -> Any:
    return float(np.average(table.target, weights=table.weight))


def _of_features(model: Any, places: Places) -> NDArray[np.float64]:
    return np.asarray(model.predict(places.features), dtype=np.float64).ravel()


def _of_field(model: Field, places: Places, name: str) -> NDArray[np.float64]:
    return np.asarray(model.columns(places.xy, places.day)[:, COLUMNS.index(name)])


def _of_plain(model: tuple[int, Any], places: Places) -> NDArray[np.float64]:
    return np.asarray(model[1].predict(places.features[:, : model[0]])).ravel()


def _of_shape(model: Any, places: Places, *, parts: int = 1) -> NDArray[np.float64]:
    plain, scale, fitted = model
    return np.asarray(fitted.predict(shapes(places, plain, scale, parts=parts))).ravel()


def _of_local(model: tuple[Field, Any], places: Places) -> NDArray[np.float64]:
    field, forest = model
    return np.asarray(forest.predict(np.c_[places.features, field.columns(places.xy, places.day)]))


def _field(table: ValueTable, value: NDArray[np.float64], *, seed: int) -> Field:
    return Field.fit(table.places.xy, table.places.day, value, table.group, seed=seed)


def _best_band(x: NDArray[np.float32], y: NDArray[np.float64]) -> tuple[int, float, float]:
    """Number, slope and intercept of the band with the highest correlation."""
    spread = x.std(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.nan_to_num(((x - x.mean(0)) * (y - y.mean())[:, None]).mean(0) / (spread * y.std()))
    best = int(np.abs(r).argmax())
    slope, intercept = np.polyfit(x[:, best], y, 1) if spread[best] > 0 else (0.0, y.mean())
    return best, float(slope), float(intercept)


_FITS: dict[Kind, Callable[[ValueTable, int, int], Any]] = {
    "forest": _fit_forest,
    "boosting": _fit_boosting,
    "ridge": _fit_ridge,
    "pls": _fit_pls,
    "linear": _fit_linear,
    "shape": _fit_shape,
    "shape_pls": _fit_shape_pls,
    "quarters": _fit_quarters,
    "process": _fit_process,
    "encoder": _fit_encoder,
    "distance": _fit_field,
    "kriging": _fit_field,
    "drift": _fit_drift,
    "local": _fit_local,
    "mean": _fit_mean,
    "band": _fit_band,
    "plain": _fit_plain,
}
# Of the others: what they make of the features.
_VALUES: dict[Kind, Callable[[Any, Places], NDArray[np.float64]]] = {
    "forest": lambda model, places: np.asarray(model.predict(places.features, quantiles="mean")),
    "pls": _of_plain,
    "linear": _of_plain,
    "process": _of_plain,
    "encoder": lambda model, places: model.predict(places.beside_columns),
    "shape": _of_shape,
    "shape_pls": _of_shape,
    "quarters": lambda model, places: _of_shape(model, places, parts=4),
    "plain": _of_plain,
    "distance": lambda model, places: _of_field(model, places, NAMES["distance"]),
    "kriging": lambda model, places: _of_field(model, places, NAMES["kriging"]),
    "drift": lambda model, places: _of_features(model[0], places) + _of_field(model[1], places, NAMES["kriging"]),
    "local": _of_local,
    "mean": lambda model, places: np.full(len(places), model),
    "band": lambda model, places: model[1] * places.features[:, model[0]] + model[2],
}
