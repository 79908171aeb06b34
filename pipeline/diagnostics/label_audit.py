"""Which labels are doubtful and which would teach most: out-of-fold probabilities of forests for polygons and scenes.

Doubtful is a polygon that forests trained on others take for another class with more confidence than they have, on
average, in the polygons of that class (confident learning).

Source: Northcutt, Jiang & Chuang (2021), Confident learning: estimating uncertainty in dataset labels, Journal of
Artificial Intelligence Research 70, 1373-1411, sect. 3.1 (thresholds and the confident joint).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from pipeline.diagnostics.applicability import fit_applicability
from pipeline.diagnostics.scoring import by_sample
from pipeline.errors import LabelError
from pipeline.experts.forest import cores, pixel_features, window_features
from pipeline.experts.weights import turns
from pipeline.grid import Window
from pipeline.scenes.reader import Reader, open_reader
from pipeline.splits.split import Part, Split, TrainingScene

if TYPE_CHECKING:
    from pipeline.legend import ClassScheme

SIZES = (3, 5)
TREES = 150
# Pixels of a polygon that are looked at: more say the same again.
PER_POLYGON = 40
CELL_PX = 8
_CELLS = 8
WINDOW_PX = CELL_PX * _CELLS
# Every second pixel of a window is asked: neighbours are much alike.
_STEP = 2
# Of a cell's pixels; with fewer valid ones it is no place to draw a polygon.
_USABLE = 0.75


@dataclass(frozen=True, eq=False)
class AuditTable:
    """Labelled pixels of all scenes, at most PER_POLYGON of each polygon."""

    features: NDArray[np.float32]  # [pixel, feature]
    index: NDArray[np.uint8]  # Network index of the class, uint8 [pixel]
    polygon: NDArray[np.int32]  # [pixel]

    def forest(self, which: NDArray[np.bool_] | None = None, *, seed: int = 0) -> RandomForestClassifier:
        """A forest of some (default all) of the pixels, classes weighted alike."""
        chosen = slice(None) if which is None else which
        forest = RandomForestClassifier(TREES, class_weight="balanced", n_jobs=cores(), random_state=seed)
        return forest.fit(self.features[chosen], self.index[chosen])


def audit_table(scenes: Sequence[TrainingScene], scheme: ClassScheme, *, seed: int) -> AuditTable:
    """Bands and their means and deviations over 3 and 5 pixels, of valid labelled pixels.

    Raises:
        LabelError: no labelled pixel is valid.
    """
    rng = np.random.default_rng(seed)
    features, index, polygon = [], [], []
    for scene in scenes:
        order = rng.permutation(len(scene.pixels))
        kept = np.zeros(len(scene.pixels), dtype=np.bool_)
        kept[order[turns(scene.pixels.polygon[order]) < PER_POLYGON]] = True
        few = scene.pixels.select(kept)
        with open_reader(scene.source) as reader:
            values, position = pixel_features(reader, few, sizes=SIZES)
        features.append(values)
        index.append(scheme.code_to_index[few.code[position]])
        polygon.append(few.polygon[position])
    table = AuditTable(np.concatenate(features), np.concatenate(index), np.concatenate(polygon))
    if not len(table.index):
        raise LabelError("no valid labelled pixel to audit", fix="check nodata under the polygons")
    return table


@dataclass(frozen=True, eq=False)
class PolygonVotes:
    """Out-of-fold probabilities of polygons: from forests that were not trained on them."""

    polygon: NDArray[np.int32]  # [polygon]
    given: NDArray[np.uint8]  # Network index of its class, uint8 [polygon]
    probability: NDArray[np.float64]  # Mean over its pixels, float64 [polygon, class]
    agree: NDArray[np.float64]  # Share of its pixels that are taken for its class, float64 [polygon]
    fold: NDArray[np.int64]  # [polygon]


def out_of_fold(table: AuditTable, splits: Sequence[Split], *, classes: int, seed: int) -> PolygonVotes:
    """Probabilities of the TEST polygons of every split, by a forest of all polygons of its other parts."""
    ids, first, inverse = np.unique(table.polygon, return_index=True, return_inverse=True)
    votes = np.full((len(table.index), classes), np.nan)
    fold_of = np.full(len(ids), -1, dtype=np.int64)
    for number, split in enumerate(splits):
        tested = split.part[ids] == Part.TEST
        fold_of[tested] = number
        out = tested[inverse]
        if out.any() and not out.all():
            votes[out] = _votes(table.forest(~out, seed=seed), table.features[out], classes)
    known = ~np.isnan(votes).any(axis=1)
    of = inverse[known]
    asked = np.unique(of)
    right = votes[known].argmax(axis=1) == table.index[known]
    mean, agree = by_sample(of, votes[known]), by_sample(of, right.astype(np.float64))
    return PolygonVotes(ids[asked].astype(np.int32), table.index[first][asked], mean, agree, fold_of[asked])


def _votes(forest: RandomForestClassifier, features: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    """Probabilities float64 [item, class] of all classes, 0 for those that the forest was not trained on."""
    votes = np.zeros((len(features), classes))
    votes[:, forest.classes_.astype(np.intp)] = forest.predict_proba(features)
    return votes


def confident_suggestions(probability: NDArray[np.float64], given: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class that each item is confidently taken for, int64 [item]; -1 where that is its own or none.

    A class is confident where its probability reaches the mean probability of that class among the items labelled so.
    """
    classes = probability.shape[1]
    threshold = np.array([probability[given == c, c].mean() if (given == c).any() else np.inf for c in range(classes)])
    confident = np.where(probability >= threshold, probability, -1.0)
    best = confident.argmax(axis=1)
    other = (confident.max(axis=1) >= 0) & (best != given)
    return np.where(other, best, -1)


@dataclass(frozen=True, eq=False)
class CellTable:
    """Squares of CELL_PX pixels of the scenes, with a forest's probabilities and their mean features."""

    place: NDArray[np.int64]  # [cell, (number of the scene, row and column of the upper left pixel)]
    probability: NDArray[np.float64]  # [cell, class]
    entropy: NDArray[np.float64]  # Mean of the pixels' entropies, float64 [cell], 0..1
    features: NDArray[np.float32]  # [cell, feature]

    def __len__(self) -> int:
        """Cells."""
        return len(self.place)

    def window(self, cell: int) -> Window:
        """Where a cell is."""
        row, col = self.place[cell, 1:].tolist()
        return Window(row, col, CELL_PX, CELL_PX)


def look_over_scenes(
    scenes: Sequence[TrainingScene], forest: RandomForestClassifier, *, classes: int, windows: int, seed: int
) -> CellTable:
    """Cells of windows spread over the scenes, those with labels or with many invalid pixels left out.

    Of larger scenes ``windows`` windows are drawn at random, so that time does not grow with the scene.
    """
    rng = np.random.default_rng(seed)
    # Windows may reach beyond the scene, where nothing is valid.
    tiles = [
        (number, Window(tile.row, tile.col, WINDOW_PX, WINDOW_PX))
        for number, scene in enumerate(scenes)
        for tile in scene.source.grid.tiles(WINDOW_PX)
    ]
    chosen = [tiles[i] for i in sorted(rng.permutation(len(tiles))[:windows].tolist())]
    where: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    cell_of: list[NDArray[np.int64]] = []
    count = 0
    for number, scene in enumerate(scenes):
        with open_reader(scene.source) as reader:
            for window in (tile for at, tile in chosen if at == number):
                labelled = scene.pixels.dense(window)[1] > 0
                cells, features, own = _cells(reader, window, labelled)
                rows, cols = window.row + cells // _CELLS * CELL_PX, window.col + cells % _CELLS * CELL_PX
                where.append(np.stack([np.full(len(cells), number), rows, cols], axis=1))
                values.append(features)
                cell_of.append(own + count)
                count += len(cells)
    if not count:
        none = np.empty((0, 3), dtype=np.int64)
        return CellTable(none, np.empty((0, classes)), np.empty(0), np.empty((0, 0), dtype=np.float32))
    features, cell = np.concatenate(values), np.concatenate(cell_of)
    votes = _votes(forest, features, classes)
    means = partial(by_sample, cell)
    entropy = means(normal_entropy(votes))
    return CellTable(np.concatenate(where), means(votes), entropy, means(features).astype(np.float32))


def _cells(
    reader: Reader, window: Window, labelled: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Numbers of the usable cells of a window; features of some of their pixels, and which usable cell each is in."""
    margin = max(SIZES) // 2
    raster = reader.read(window.expand(margin))
    inner = slice(margin, margin + WINDOW_PX, _STEP)
    valid = raster.valid[inner, inner]
    side = CELL_PX // _STEP
    cell_of = np.add.outer(np.arange(len(valid)) // side * _CELLS, np.arange(len(valid)) // side)
    share = np.bincount(cell_of.ravel(), valid.ravel(), minlength=_CELLS**2) / side**2
    taken = labelled.reshape(_CELLS, CELL_PX, _CELLS, CELL_PX).any(axis=(1, 3)).ravel()
    usable = np.flatnonzero((share >= _USABLE) & ~taken)
    asked = valid & np.isin(cell_of, usable)
    features = window_features(raster, SIZES)[:, inner, inner][:, asked].T
    return usable, features, np.searchsorted(usable, cell_of[asked])


def normal_entropy(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy over the largest that so many classes can have, float64 [item], 0..1.

    >>> normal_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    p = np.clip(probability, 1e-12, 1.0)
    return np.asarray(np.clip(-(p * np.log(p)).sum(axis=1) / np.log(max(probability.shape[1], 2)), 0.0, 1.0)).round(9)


def novelty(table: AuditTable, votes: PolygonVotes, cells: CellTable, *, seed: int) -> NDArray[np.float64]:
    """Dissimilarity of cells to all that is labelled over the limit of the area of applicability, [cell], at most 1."""
    fold_of = dict(zip(votes.polygon.tolist(), votes.fold.tolist(), strict=True))
    folds = np.array([fold_of.get(int(polygon), -1) for polygon in table.polygon])
    kept = folds >= 0
    index = fit_applicability(table.features[kept], folds=folds[kept], seed=seed)
    found = index.dissimilarity(cells.features) / index.threshold
    return np.clip(np.nan_to_num(found.astype(np.float64), nan=0.0), 0.0, 1.0)


def spread_places(
    at: NDArray[np.int64], score: NDArray[np.float64], *, count: int, apart_px: Sequence[float]
) -> list[int]:
    """The places of the highest score, none nearer than ``apart_px`` (of each scene) to a better one.

    ``at`` int64 [place, (scene, row, col)] says where they are.
    """
    taken: list[int] = []
    for place in np.argsort(-score, kind="stable").tolist():
        if len(taken) == count:
            break
        beside = at[taken] if taken else at[:0]
        distance = np.abs(beside - at[place])[beside[:, 0] == at[place, 0], 1:].max(axis=1, initial=0)
        if not (distance < apart_px[int(at[place, 0])]).any():
            taken.append(place)
    return taken
