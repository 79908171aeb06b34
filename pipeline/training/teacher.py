"""The teacher: trees that look at a pixel and its surroundings, most of them grown on drawn polygons.

From tens of polygons trees learn more than a network does, and from hundreds less. So trees learn first; what they
think of the unlabelled scene is what the network learns from beside the labels (Hinton et al. 2015, Distilling the
knowledge in a neural network). With few polygons a forest of bands, extra trees of surroundings, and trees of polygons
(``pipeline.training.polygon_trees``) at three levels of surroundings have equal shares. With many, a logistic
regression joins them, and the shares are those of the mixture with the least log-loss on polygons held out, drawn
towards equal shares the more the fewer polygons there are. ``docs/learning.md`` has what was measured.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.legend import IGNORE_INDEX
from pipeline.model.surroundings import REACH_PX, surroundings
from pipeline.training.baseline import cores
from pipeline.training.loss import pixel_weights
from pipeline.training.polygon_trees import PolygonTrees, fit_polygon_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.training.dataset import ChipSet

Model: TypeAlias = RandomForestClassifier | ExtraTreesClassifier | PolygonTrees | Pipeline

# Chips carry this margin, so that every pixel of theirs has its whole surroundings.
MARGIN_PX = REACH_PX
INNER_FOLDS = 3
# With fewer polygons held-out figures say more about the polygons than about the experts: shares stay as they are.
ENOUGH_POLYGONS = 100
# Polygons' worth of belief in equal shares.
PRIOR_POLYGONS = 20.0
_FLOOR = 0.01
# The last digits of a logistic regression are not worth waiting for.
_ITERATIONS = 200
_PREDICT = 65_536


@dataclass(frozen=True)
class Expert:
    """One kind of classifier.

    Attributes:
        name: For the record.
        kind: Forest, extra trees, logistic regression or linear discriminant of pixels, or trees of polygons.
        levels: How many of the levels bands, 3, 5, 9 px, deviations it sees.
        needs: Polygons below which it has no share.
    """

    name: str
    kind: Literal["forest", "extra", "polygons", "logistic", "discriminant"]
    levels: int
    needs: int = 0


EXPERTS = (
    Expert("forest of bands", "forest", 1),
    Expert("extra trees of surroundings", "extra", 5),
    Expert("trees of polygons, bands", "polygons", 1),
    Expert("trees of polygons, means to 5 px", "polygons", 3),
    Expert("trees of polygons, surroundings", "polygons", 5),
    Expert("logistic regression of surroundings", "logistic", 5, needs=ENOUGH_POLYGONS),
)


@dataclass(frozen=True, eq=False)
class PixelTable:
    """Labelled pixels with features, each pixel once.

    Attributes:
        features: float32 [pixel, feature], levels one after the other.
        index: Network index of the class, uint8 [pixel].
        polygon: int32 [pixel].
        channels: Features per level.
    """

    features: NDArray[np.float32]
    index: NDArray[np.uint8]
    polygon: NDArray[np.int32]
    channels: int

    def rows(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> PixelTable:
        """Some of the pixels."""
        return PixelTable(self.features[which], self.index[which], self.polygon[which], self.channels)


@dataclass(frozen=True, eq=False)
class Teacher:
    """Fitted experts and their shares.

    Attributes:
        experts: What they are.
        models: The experts.
        shares: float64 [expert].
        classes: Number of classes.
        channels: Features per level.
        held_out: float32 [pixel, class]; what experts that had not seen a pixel's block thought of the pixels of the
            table, with these shares; 0 in all classes where nobody was asked.
    """

    experts: tuple[Expert, ...]
    models: tuple[Model, ...]
    shares: NDArray[np.float64]
    classes: int
    channels: int
    held_out: NDArray[np.float32]

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 [pixel, class] of features float32 [pixel, feature]."""
        total = np.zeros((len(features), self.classes), dtype=np.float32)
        for expert, model, share in zip(self.experts, self.models, self.shares, strict=True):
            if share > 0:
                total += np.float32(share) * _votes(model, _seen(features, expert, self.channels), self.classes)
        return total

    def names_and_shares(self) -> dict[str, float]:
        """For the record: each expert's share."""
        return {expert.name: round(float(share), 4) for expert, share in zip(self.experts, self.shares, strict=True)}


def pixel_table(chips: ChipSet, index: torch.Tensor, *, per_polygon: int, seed: int) -> PixelTable:
    """The labelled pixels of ``index`` uint8 [chip, row, col], at most ``per_polygon`` of each polygon."""
    rng = np.random.default_rng(seed)
    at, row, col = (part.numpy() for part in torch.nonzero(chips.core(index) != IGNORE_INDEX, as_tuple=True))
    keys = chips.core(chips.key).numpy()[at, row, col]
    _, once = np.unique(keys, return_index=True)
    once = rng.permutation(once)
    polygon = chips.core(chips.polygon).numpy()[at, row, col]
    once = np.sort(once[_rank(polygon[once]) < per_polygon])
    at, row, col = at[once], row[once], col[once]
    features = []
    for chip in np.unique(at):
        mine = at == chip
        layers = chips.core(surroundings(chips.x[chip : chip + 1]))[0]
        features.append(layers[:, row[mine], col[mine]].T.numpy())
    return PixelTable(
        np.concatenate(features), chips.core(index).numpy()[at, row, col], polygon[once], chips.x.shape[1]
    )


def _rank(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    from pipeline.training.dataset import turns

    return turns(labels)


def fit_teacher(
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    known: Sequence[Expert] = EXPERTS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Teacher:
    """Experts on all pixels; shares, and what can be known of their confidence, from folds of groups of polygons.

    Args:
        table: The labelled pixels.
        classes: Number of classes.
        group_of: Group of each polygon id (its block), int32 [id]; -1 where the polygon is its own group.
        trees: Trees of each expert.
        seed: Of folds and trees.
        known: The experts to choose from.
        progress: Called with "experts", how many are fitted, and how many in all, those of inner folds included.
    """
    polygons = len(np.unique(table.polygon))
    experts = tuple(expert for expert in known if polygons >= expert.needs)
    total, done = len(experts) * (1 + INNER_FOLDS), itertools.count(1)

    def fitted() -> None:
        if progress is not None:
            progress("experts", min(next(done), total), total)

    votes = _held_out_votes(
        experts, table, classes=classes, group_of=group_of, trees=max(trees // 2, 10), seed=seed, fitted=fitted
    )
    shares = np.full(len(experts), 1.0 / len(experts))
    if polygons >= ENOUGH_POLYGONS:
        shares = _shares(table, votes, strength=PRIOR_POLYGONS / polygons)
    models = []
    for expert in experts:
        models.append(_fit(expert, table, trees=trees, seed=seed))
        fitted()
    held_out = np.tensordot(shares.astype(np.float32), votes, axes=1)
    return Teacher(experts, tuple(models), shares, classes, table.channels, held_out)


@dataclass(frozen=True, eq=False)
class Opinions:
    """What the teacher thinks of pixels spread over all chips.

    Attributes:
        features: float32 [pixel, feature].
        target: Probabilities, float32 [pixel, class].
        asked: Where the pixels lie, bool [chip, row, col] without margin; pixels in this order.
    """

    features: torch.Tensor
    target: torch.Tensor
    asked: torch.Tensor

    def dense(self) -> torch.Tensor:
        """Probabilities float16 [chip, class, row, col], 0 where not asked."""
        chips, rows, cols = self.asked.shape
        out = torch.zeros((chips, rows, cols, self.target.shape[1]), dtype=torch.float16)
        out[self.asked] = self.target.half()
        return out.permute(0, 3, 1, 2)


def ask(teacher: Teacher, chips: ChipSet, *, pixels: int, seed: int) -> Opinions:
    """What the teacher thinks of about ``pixels`` valid pixels, spread evenly over all chips."""
    generator = torch.Generator().manual_seed(seed)
    valid = chips.core(chips.valid)
    chance = min(pixels / max(int(valid.sum()), 1), 1.0)
    asked = valid & (torch.rand(valid.shape, generator=generator) < chance)
    rows = [chips.core(surroundings(chips.x[i : i + 1]))[0][:, asked[i]].T for i in range(len(chips))]
    features = torch.cat(rows)
    parts = [teacher.predict(features[i : i + _PREDICT].numpy()) for i in range(0, len(features), _PREDICT)]
    target = np.concatenate(parts) if parts else np.zeros((0, teacher.classes), dtype=np.float32)
    return Opinions(features, torch.from_numpy(target), asked)


def _fit(expert: Expert, table: PixelTable, *, trees: int, seed: int) -> Model:
    features = _seen(table.features, expert, table.channels)
    if expert.kind == "polygons":
        return fit_polygon_trees(features, table.index, table.polygon, trees=trees, seed=seed)
    classes = int(table.index.max()) + 1
    weight = pixel_weights(table.index, table.polygon, classes=classes, size_power=0.5, class_power=0.5)
    if expert.kind == "logistic" and len(np.unique(table.index)) > 1:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(features, table.index, logisticregression__sample_weight=weight)
    if expert.kind == "discriminant" and len(np.unique(table.index)) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with one member has no spread of its own
            return make_pipeline(StandardScaler(), shrunk_discriminant()).fit(features, table.index)
    # Leaves of two pixels: one pixel alone is too often on a polygon's edge.
    forest = (
        ExtraTreesClassifier(trees, min_samples_leaf=2, n_jobs=cores(), random_state=seed)
        if expert.kind == "extra"
        else RandomForestClassifier(trees, n_jobs=cores(), random_state=seed)
    )
    return forest.fit(features, table.index, sample_weight=weight)


def shrunk_discriminant() -> LinearDiscriminantAnalysis:
    """A linear discriminant whose covariance is drawn towards the diagonal as far as the data ask for it.

    Source: Ledoit & Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices, Journal of
    Multivariate Analysis 88, 365-411.
    """
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def _seen(features: NDArray[np.float32], expert: Expert, channels: int) -> NDArray[np.float32]:
    """The levels that an expert sees, float32 [pixel, feature]."""
    return np.ascontiguousarray(features[:, : expert.levels * channels])


def _votes(model: Model, features: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Shares of votes, float32 [pixel, class]."""
    votes = np.zeros((len(features), classes), dtype=np.float32)
    votes[:, model.classes_.astype(np.intp)] = model.predict_proba(features)
    return votes


def _held_out_votes(
    experts: Sequence[Expert],
    table: PixelTable,
    *,
    classes: int,
    group_of: NDArray[np.int32],
    trees: int,
    seed: int,
    fitted: Callable[[], None],
) -> NDArray[np.float32]:
    """Votes float32 [expert, pixel, class] of experts that learned from the other folds."""
    fold = inner_folds(table, group_of=group_of, folds=INNER_FOLDS, seed=seed)
    votes = np.zeros((len(experts), len(table.index), classes), dtype=np.float32)
    for held in range(INNER_FOLDS):
        out = fold == held
        if not out.any() or out.all():
            continue
        part = table.rows(~out)
        for number, expert in enumerate(experts):
            model = _fit(expert, part, trees=trees, seed=seed)
            votes[number, out] = _votes(model, _seen(table.features[out], expert, table.channels), classes)
            fitted()
    return votes


def _shares(table: PixelTable, votes: NDArray[np.float32], *, strength: float) -> NDArray[np.float64]:
    weight = pixel_weights(table.index, table.polygon, classes=votes.shape[2], size_power=0.5, class_power=0.5)
    mine = votes[:, np.arange(len(table.index)), table.index].astype(np.float64)
    return best_shares(mine, weight, strength=strength)


def best_shares(mine: NDArray[np.float64], weight: NDArray[np.float64], *, strength: float) -> NDArray[np.float64]:
    """Shares of the mixture with the least log-loss, float64 [expert].

    Args:
        mine: Probability that each expert gives the true class, float64 [expert, pixel].
        weight: Weight of each pixel.
        strength: Weight of the divergence from equal shares beside the mean log-loss.
    """
    weight = weight / weight.sum()
    likelihood = _FLOOR + (1 - _FLOOR) * mine

    def cost(z: NDArray[np.float64]) -> float:
        share = np.exp(z - z.max())
        share /= share.sum()
        return float(-(weight @ np.log(share @ likelihood)) - strength * np.log(share + 1e-12).mean())

    found = minimize(cost, np.zeros(len(mine)), method="Nelder-Mead", options={"maxiter": 200})
    share = np.exp(found.x - found.x.max())
    return np.asarray(share / share.sum())


def inner_folds(table: PixelTable, *, group_of: NDArray[np.int32], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each pixel int64 [pixel]: whole groups, classes dealt as evenly as groups allow."""
    rng = np.random.default_rng(seed)
    ids, first = np.unique(table.polygon, return_index=True)
    group = np.where(group_of[ids] >= 0, group_of[ids], len(group_of) + ids)
    code = table.index[first].astype(np.int64)
    fold_of = _deal(group, code, folds=folds, rng=rng)
    missing = [c for c in np.unique(code) if len(np.unique(fold_of[code == c])) < min(2, int((code == c).sum()))]
    if missing:  # a class in one fold only would be unknown where it is tested: deal polygons instead of groups
        fold_of = _deal(ids.astype(np.int64), code, folds=folds, rng=rng)
    return np.asarray(fold_of[np.searchsorted(ids, table.polygon)])


def _deal(
    group: NDArray[np.int64], code: NDArray[np.int64], *, folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fold of each polygon: groups, largest first, to the fold that has least of their classes."""
    names, of = np.unique(group, return_inverse=True)
    counts = np.zeros((len(names), int(code.max()) + 1))
    np.add.at(counts, (of, code), 1.0)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    have = np.zeros((folds, share.shape[1]))
    fold = np.zeros(len(names), dtype=np.int64)
    for number in sorted(rng.permutation(len(names)), key=lambda n: -share[n].sum()):
        fold[number] = int(np.argmin((have * share[number]).sum(axis=1) + 1e-3 * have.sum(axis=1)))
        have[fold[number]] += share[number]
    return fold[of]
