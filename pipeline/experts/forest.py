"""The random forest that users have: per pixel, or with neighbourhood means and deviations; same pixels, same folds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

from pipeline.errors import LabelError
from pipeline.experts.settings import FOREST_TREES
from pipeline.scenes.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.raster import Raster
    from pipeline.scenes.reader import Reader
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import TrainingScene

# Pixels that one tree learns from, at most; each tree draws its own, with replacement, so the forest still learns from
# all. Trees without a limit of depth grow with their pixels: 230,000 of a few hundred noisy polygons made a forest of
# 9 GB. On two folds of blocks of that scene, 150 trees: overall accuracy 0.450 and 0.559 without the limit, 0.469 and
# 0.570 with it, mean F1 0.430 and 0.421, 0.433 and 0.422, in a fifth of the nodes and of the time.
TREE_PIXELS = 25_000
NEIGHBOURHOODS = (3, 5, 9)
_TILE_PX = 512


@dataclass(frozen=True, eq=False)
class Forest:
    """A fitted random forest of pixels."""

    forest: RandomForestClassifier  # scikit-learn's
    scheme: ClassScheme  # Classes in index order
    # Sides in pixels of the windows whose mean and deviation are features too; () for bands alone
    sizes: tuple[int, ...] = ()

    def predict(self, reader: Reader, pixels: LabelledPixels) -> NDArray[np.uint8]:
        """Class codes uint8 [n] of ``pixels`` (their own codes are not looked at); 0 where the scene is not valid."""
        codes = np.zeros(len(pixels), dtype=np.uint8)
        values, position = pixel_features(reader, pixels, sizes=self.sizes)
        if len(position):
            codes[position] = self.scheme.index_to_code[self.forest.predict(values)]
        return codes

    def predict_scenes(self, scenes: Iterable[tuple[Source, LabelledPixels]]) -> NDArray[np.uint8]:
        """The same of pixels of several scenes, one after the other."""
        parts = [np.empty(0, dtype=np.uint8)]
        for source, pixels in scenes:
            with open_reader(source) as reader:
                parts.append(self.predict(reader, pixels))
        return np.concatenate(parts)

    def predict_window(self, reader: Reader, window: Window) -> NDArray[np.uint8]:
        """Class codes uint8 [row, col] of a window; 0 where not valid."""
        margin = max(self.sizes, default=1) // 2
        raster = reader.read(window.expand(margin))
        features = window_features(raster, self.sizes)
        inner = slice(margin, margin + window.height), slice(margin, margin + window.width)
        valid = raster.valid[inner]
        codes = np.zeros(window.shape, dtype=np.uint8)
        if valid.any():
            codes[valid] = self.scheme.index_to_code[self.forest.predict(features[:, *inner][:, valid].T)]
        return codes


def fit_forest(
    scenes: Sequence[TrainingScene],
    scheme: ClassScheme,
    *,
    polygons: NDArray[np.int32],
    sizes: tuple[int, ...] = (),
    trees: int = FOREST_TREES,
    seed: int = 0,
) -> Forest:
    """A random forest on the valid labelled pixels of ``polygons``.

    scikit-learn's defaults, but for the number of trees and at most ``TREE_PIXELS`` pixels for each of them.

    Raises:
        LabelError: none of the polygons has a valid pixel.
    """
    features, indices = [], []
    for scene in scenes:
        own = scene.pixels.select(np.isin(scene.pixels.polygon, polygons))
        with open_reader(scene.source) as reader:
            values, position = pixel_features(reader, own, sizes=sizes)
        features.append(values)
        indices.append(scheme.code_to_index[own.code[position]])
    y = np.concatenate(indices)
    if not len(y):
        raise LabelError("no valid labelled pixel for the random forest", fix="check nodata under the polygons")
    most = TREE_PIXELS if len(y) > TREE_PIXELS else None
    forest = RandomForestClassifier(trees, max_samples=most, n_jobs=cores(), random_state=seed)
    forest.fit(np.concatenate(features), y)
    return Forest(forest, scheme, sizes)


def pixel_features(
    reader: Reader, pixels: LabelledPixels, *, sizes: tuple[int, ...] = ()
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features float32 [k, feature] of the valid ones among ``pixels``, and their positions intp [k].

    Bands first, then for each size the mean and the deviation of each band over the valid pixels of the window.
    """
    margin = max(sizes, default=1) // 2
    parts, positions = [], []
    for tile in reader.grid.tiles(_TILE_PX):
        position = pixels.within(tile)
        if not len(position):
            continue
        raster = reader.read(tile.expand(margin))
        rows, cols = pixels.row[position] - tile.row + margin, pixels.col[position] - tile.col + margin
        usable = raster.valid[rows, cols]
        parts.append(window_features(raster, sizes)[:, rows[usable], cols[usable]].T)
        positions.append(position[usable])
    if not parts:
        return np.empty((0, len(reader.bands) * (1 + 2 * len(sizes))), dtype=np.float32), np.empty(0, dtype=np.intp)
    return np.concatenate(parts), np.concatenate(positions)


def window_features(raster: Raster, sizes: tuple[int, ...]) -> NDArray[np.float32]:
    """Bands, means and deviations, float32 [feature, row, col]; the margin of a window is right in its inner part."""
    layers = [raster.values]
    share = raster.valid.astype(np.float64)
    for size in sizes:
        count = np.maximum(uniform_filter(share, size, mode="constant"), 1e-9)
        wide = raster.values.astype(np.float64)
        mean = np.stack([uniform_filter(band, size, mode="constant") for band in wide]) / count
        square = np.stack([uniform_filter(band * band, size, mode="constant") for band in wide]) / count
        layers += [mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)]
    return np.concatenate(layers)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
