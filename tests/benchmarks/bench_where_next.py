"""Where to look next: the share of true errors in the first 5 % of the area, against confidence alone and chance.

Of each set a forest maps the surroundings of the test polygons of five folds of blocks, extra trees are the other
opinion, and the dissimilarity is that of band values; errors are those of labelled pixels. The sample data's reference
is known on every pixel. ``python -m tests.benchmarks.bench_where_next gray_s2 holden_le7`` prints the table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from scipy.spatial import cKDTree
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from pipeline.accuracy.sample_pixels import square_sums
from pipeline.diagnostics.where_next import MapSquares, likely_wrong, look_at_map
from pipeline.legend import NODATA
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.style import CONFIDENCE, DISSIMILARITY, ENTROPY
from tests.benchmarks.bench_learning import ROOT
from tests.benchmarks.bench_segments import SETS, TREES, read_folds
from tests.fakes.pixels import ArrayPixels

SHARE = 0.05


def squares_of(name: str, folder: Path, *, cell_px: int, seed: int = 0) -> tuple[MapSquares, np.ndarray, np.ndarray]:
    """MapSquares of a set, and their pixels that are wrong and that are known, int [square]."""
    data = read_folds(name, seed=seed)
    grid, raster, scheme, bands = data.source.grid, data.raster, data.job.scheme, data.raster.values
    layers = {key: np.full(grid.shape, 255, dtype=np.uint8) for key in ("conf", "entropy", "aoa")}
    codes, other, truth = (np.zeros(grid.shape, dtype=np.uint8) for _ in range(3))
    for known, test in data.parts:
        # Of the sample data all is mapped, by the first fold alone, as all of its truth is known.
        near = raster.valid if name == "sample_data" else data.around(test)
        x, train = bands[:, near].T, data.values(known)
        spread = np.where(train.std(axis=0) > 0, train.std(axis=0), 1)
        forest = RandomForestClassifier(TREES, random_state=seed, class_weight="balanced").fit(train, data.index[known])
        trees = ExtraTreesClassifier(TREES, random_state=seed, class_weight="balanced").fit(train, data.index[known])
        p = forest.predict_proba(x)
        codes[near] = scheme.index_to_code[forest.classes_[p.argmax(axis=1)]]
        other[near] = scheme.index_to_code[trees.predict(x)]
        layers["conf"][near] = np.rint(100 * p.max(axis=1))
        plain = np.clip(p, 1e-9, 1)
        layers["entropy"][near] = np.rint(100 * -(plain * np.log(plain)).sum(axis=1) / np.log(p.shape[1]))
        few = (train / spread)[:: max(len(train) // 1000, 1)]
        tree = cKDTree(few)
        own = tree.query(few, k=2)[0][:, 1]
        layers["aoa"][near] = np.minimum(100 * tree.query(x / spread)[0] / np.quantile(own, 0.99), 250)
        truth[data.pixels.row[test], data.pixels.col[test]] = data.pixels.code[test]
        if name == "sample_data":
            break
    if name == "sample_data":
        with rasterio.open(ROOT / "sample_data" / "reference.tif") as dataset:
            truth = dataset.read(1)
    write_class_map(folder / "s_lc.tif", ArrayPixels(codes), grid=grid, scheme=scheme)
    write_class_map(folder / "other_lc.tif", ArrayPixels(other), grid=grid, scheme=scheme)
    for key, layer in (("conf", CONFIDENCE), ("entropy", ENTROPY), ("aoa", DISSIMILARITY)):
        write_percent(folder / f"s_{key}.tif", ArrayPixels(layers[key]), grid=grid, layer=layer)
    found = look_at_map(folder / "s_lc.tif", others=[folder / "other_lc.tif"], cell_px=cell_px)
    seen = (codes != NODATA) & np.isin(truth, scheme.codes)
    at = found.row // cell_px * -(-grid.width // cell_px) + found.col // cell_px
    return found, square_sums(seen & (codes != truth), cell_px).ravel()[at], square_sums(seen, cell_px).ravel()[at]


def in_first(score: np.ndarray, wrong: np.ndarray, known: np.ndarray, *, share: float = SHARE) -> float:
    """Share of the wrong pixels in the squares of the highest score that hold ``share`` of the known pixels."""
    order = np.argsort(-score, kind="stable")
    area = np.concatenate([[0], np.cumsum(known[order])])
    errors = np.concatenate([[0], np.cumsum(wrong[order])])
    return float(np.interp(share * area[-1], area, errors) / errors[-1])


def compare(name: str, *, cell_px: int = 4) -> dict[str, float]:
    """Share of errors in the first 5 % of the area by the order of the squares."""
    with tempfile.TemporaryDirectory() as folder:
        squares, wrong, known = squares_of(name, Path(folder), cell_px=cell_px)
    orders = dict(squares.signals) | {"area": squares.area_ha, "all together": likely_wrong(squares)}
    best = in_first(wrong / np.maximum(known, 1), wrong, known)
    found = {key: in_first(np.where(known > 0, score, -1), wrong, known) for key, score in orders.items()}
    return {"error": float(wrong.sum() / known.sum()), "chance": SHARE, **found, "best order": best}


def run() -> dict[str, float]:
    """The sample data, in squares of 8 pixels."""
    found = compare("sample_data", cell_px=8)
    return {
        f"errors_in_first_5_percent_{key.replace(' ', '_')}": value for key, value in found.items() if key != "error"
    }


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SETS:
        print(chosen, {key: round(value, 3) for key, value in compare(chosen).items()}, flush=True)
