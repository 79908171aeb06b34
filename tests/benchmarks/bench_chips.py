"""The chip classifier against a random forest on chip statistics, on chips that others cut and gave a class each.

``python -m tests.benchmarks chips`` takes one fold of each set; ``python -m tests.benchmarks.bench_chips`` all of them,
with the defaults of the settings, and prints a table. EuroSAT: the given test chips, and five stratified folds of all
chips; the two sets of Tokyo: five blocks of consecutive chips, which were cut row by row. The forest has 500 trees and
sees mean and deviation of each band.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from pipeline.experts.settings import FOREST_TREES
from pipeline.legend import scheme_for
from pipeline.scenes.settings import SceneOptions
from pipeline.training.chip_files import FolderChips, chips_from_folders
from pipeline.training.chip_folders import classify_chips, fit_chips
from pipeline.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("LANDCOVER_SHARED", ROOT.parent / "shared")) / "data"
FOLDS = 5
# The order of EuroSAT's files: band 8A last.
EUROSAT_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
TOKYO_CLASSES = ("water", "golf", "park", "buildings", "forest", "farm")
# Chips, labels, side in pixels, pixel size in metres, unit.
TOKYO = {
    "tokyo, 6 bands of 20 m": ("s2_20m_patches_A.tif", "s2_labels_A.tif", 8, 20.0),
    "tokyo, 4 bands of 10 m": ("Sentinel-2_B4328_10m_patches_A.jp2", "Sentinel-2_B4328_10m_labels_A.tif", 16, 10.0),
}
SETS = ("eurosat, given test chips", "eurosat, folds", *TOKYO)
Fold = tuple[FolderChips, FolderChips]


def folds_of(name: str) -> Iterator[Fold]:
    """Chips to learn from and chips to be tested on."""
    if name in TOKYO:
        chips = tokyo(name)
        edges = np.linspace(0, len(chips), FOLDS + 1).astype(int)
        for start, stop in itertools.pairwise(edges):
            test = np.isin(np.arange(len(chips)), np.arange(start, stop))
            yield chosen(chips, ~test), chosen(chips, test)
        return
    options = SceneOptions(bands=EUROSAT_BANDS, sensor="sentinel-2", scale=1e-4, offset=0.0)
    folder = SHARED / "eurosat_ms_1pct" / "data" / "Euro_MS_Test_red"
    train, test = (chips_from_folders(folder / part, options=options) for part in ("train", "test"))
    if name.endswith("test chips"):
        yield train, test
        return
    whole = replace(
        train,
        **{
            layer: np.concatenate([getattr(train, layer), getattr(test, layer)])
            for layer in ("values", "valid", "index")
        },
    )
    for learned, tested in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(whole.index, whole.index):
        yield chosen(whole, learned), chosen(whole, tested)


def tokyo(name: str) -> FolderChips:
    """One of the sets of Tokyo: chips one below the other, labels one below the other."""
    patches, labels, side, gsd_m = TOKYO[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neither has coordinates
        with rasterio.open(SHARED / "tokyo_chips" / patches) as file:
            stacked = file.read().astype(np.float32)
        with rasterio.open(SHARED / "tokyo_chips" / labels) as file:
            index = file.read(1).ravel().astype(np.uint8)
    values = stacked.reshape(len(stacked), len(index), side, side).transpose(1, 0, 2, 3)
    scheme, _ = scheme_for(list(TOKYO_CLASSES))
    order = [scheme.names.index(item) for item in TOKYO_CLASSES]
    return FolderChips(
        values=np.ascontiguousarray(values),
        valid=np.ones((len(index), side, side), dtype=np.bool_),
        index=np.array(order, dtype=np.uint8)[index],
        scheme=scheme,
        bands=tuple(f"band {number}" for number in range(1, len(stacked) + 1)),
        units=("DN",) * len(stacked),
        gsd_m=gsd_m,
        source=SHARED / "tokyo_chips" / patches,
    )


def chosen(chips: FolderChips, which: np.ndarray) -> FolderChips:
    return replace(chips, values=chips.values[which], valid=chips.valid[which], index=chips.index[which])


def forest_of(train: FolderChips, test: FolderChips) -> np.ndarray:
    """Class indices that the forest of means and deviations gives the test chips."""
    tables = [np.concatenate([c.values.mean((2, 3)), c.values.std((2, 3))], axis=1) for c in (train, test)]
    forest = RandomForestClassifier(FOREST_TREES, n_jobs=-1, random_state=0).fit(tables[0], train.index)
    return forest.predict(tables[1])


def network_of(train: FolderChips, test: FolderChips, *, seed: int) -> np.ndarray:
    """Class indices that the chip classifier gives them, with the defaults."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = fit_chips(train, settings=TrainingSettings(head="chip", seed=seed), folder=Path(folder)).bundle
    return bundle.scheme.code_to_index[classify_chips(bundle, test)]


def measure(name: str, *, folds: int = FOLDS, seed: int = 0) -> dict[str, float]:
    """Accuracy and macro-F1 pooled over the folds, and seconds of a fold, of both."""
    methods = {"forest": forest_of, "chip": functools.partial(network_of, seed=seed)}
    truth: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for train, test in itertools.islice(folds_of(name), folds):
        truth.append(test.index)
        for method, answer in methods.items():
            start = time.perf_counter()
            found[method].append(answer(train, test))
            seconds[method] += time.perf_counter() - start
    right = np.concatenate(truth)
    figures: dict[str, float] = {"folds": len(truth)}
    for method, parts in found.items():
        codes = np.concatenate(parts)
        figures[f"{method} accuracy"] = float((codes == right).mean())
        figures[f"{method} macro_f1"] = float(f1_score(right, codes, average="macro"))
        figures[f"{method} s_per_fold"] = seconds[method] / len(truth)
    return figures


def run() -> dict[str, float]:
    """One fold of each set that is there."""
    return {f"{name} {key}": value for name in SETS if SHARED.exists() for key, value in measure(name, folds=1).items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_chips", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sets", default=";".join(SETS), help=f"some of {'; '.join(SETS)}, by ';'")
    parser.add_argument("--folds", type=int, default=FOLDS, help="at most so many of each set")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| set | folds | forest | chip head | difference | seconds per fold |\n| --- | --- | --- | --- | --- | --- |")
    for name in asked.sets.split(";"):
        row = measure(name, folds=asked.folds, seed=asked.seed)
        scores = [f"{row[f'{m} accuracy']:.3f} / {row[f'{m} macro_f1']:.3f}" for m in ("forest", "chip")]
        apart = [f"{row[f'chip {key}'] - row[f'forest {key}']:+.3f}" for key in ("accuracy", "macro_f1")]
        line = f"| {name} | {row['folds']:.0f} | {' | '.join(scores)} | {' / '.join(apart)} |"
        print(f"{line} {row['chip s_per_fold']:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
