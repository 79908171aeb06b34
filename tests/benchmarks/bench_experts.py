"""Every expert and the mixture against the random forest, without a network: some minutes for sets of few polygons.

``python -m tests.benchmarks.bench_experts`` takes folds, training pixels and test pixels as ``landcover crossval``
does, but reads each scene once and whole, and standardises it once with all labelled pixels. It prints macro-F1 minus
the forest's, pooled over the folds of a partition, and their mean:

    python -m tests.benchmarks.bench_experts --sets gray_s2,fieldrs_ndvi --seeds 0,1,2 --kinds blocks,polygons

``python -m tests.benchmarks experts`` (``run``) takes one partition of the smallest set.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from pipeline.diagnostics.fold_figures import figures
from pipeline.experts.experts import PixelTable, probabilities_of, seen
from pipeline.experts.forest import cores
from pipeline.experts.mixture import RARER, Mixture, fit_mixture
from pipeline.experts.settings import FOREST_TREES
from pipeline.experts.weights import turns
from pipeline.grid import Window
from pipeline.model.surroundings import surroundings
from pipeline.scenes.reader import open_reader
from pipeline.splits.folds import FoldPlan, scenes_for_folds
from pipeline.splits.split import Part
from pipeline.training.settings import TrainingSettings, learned_polygons
from pipeline.training.training_set import PER_POLYGON
from pipeline.workflow.job import Job
from tests.benchmarks.bench_learning import SETS, make_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.splits.split import Split

FEW = ("fieldrs_ndvi", "rstoolbox_sen2", "gray_s2", "holden_le7")
MIXTURE = "mixture"
Votes = dict[str, "NDArray[np.float32]"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """All valid labelled pixels of a set, and its folds by kind and seed."""

    table: PixelTable
    bands: NDArray[np.float32]
    classes: int
    folds: dict[tuple[str, int], list[Split]]


def read_set(name: str, *, kinds: list[str], seeds: list[int]) -> Labelled:
    """A set of one scene, read whole."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job.load(make_config(name, Path(folder), changes={}))
        (scene,) = scenes_for_folds(job.training_scenes, job.scheme, leave_out_single=True)
        grid, pixels = scene.source.grid, scene.pixels
        with open_reader(scene.source) as reader:
            raster = reader.read(Window(0, 0, grid.height, grid.width))
        folds = {
            (kind, seed): FoldPlan(kind, 5, job.block_m, job.buffer_m).draw([pixels], reach_px=job.reach_px, seed=seed)
            for kind in kinds
            for seed in seeds
        }
    usable = raster.valid[pixels.row, pixels.col]
    row, col = pixels.row[usable], pixels.col[usable]
    bands = raster.values[:, row, col]
    mean, std = bands.mean(axis=1)[:, None, None], bands.std(axis=1)[:, None, None]
    x = np.where(raster.valid, (raster.values - mean) / np.where(std > 0, std, 1), 0).astype(np.float32)
    features = surroundings(torch.from_numpy(x)[None])[0].numpy()[:, row, col].T
    index = job.scheme.code_to_index[pixels.code[usable]]
    table = PixelTable(np.ascontiguousarray(features), index, pixels.polygon[usable], len(bands))
    return Labelled(table, np.ascontiguousarray(bands.T), len(job.scheme), folds)


def votes_on_fold(data: Labelled, split: Split, *, seed: int) -> tuple[NDArray[np.intp], Votes]:
    """Test pixels of a fold, and what the forest, each expert and the mixture say of them."""
    polygon, index = data.table.polygon, data.table.index
    known = np.flatnonzero(np.isin(polygon, learned_polygons(split, TrainingSettings())))
    test = np.flatnonzero(split.part[polygon] == int(Part.TEST))
    forest = RandomForestClassifier(FOREST_TREES, n_jobs=cores(), random_state=seed).fit(
        data.bands[known], index[known]
    )
    votes: Votes = {"forest": probabilities_of(forest, data.bands[test], classes=data.classes)}
    settings = TrainingSettings()
    drawn = np.random.default_rng(settings.seed).permutation(known)
    drawn = np.sort(drawn[turns(polygon[drawn]) < PER_POLYGON])
    mixture = fit_mixture(
        data.table.rows(drawn),
        classes=data.classes,
        group_of=split.block_of,
        trees=settings.experts.trees,
        seed=settings.seed,
        rarer=RARER,
    )
    features = data.table.features[test]
    votes |= dict(_each(mixture, features))
    votes[MIXTURE] = mixture.predict(features)
    return test, votes


def _each(mixture: Mixture, features: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for expert, model in zip(mixture.experts, mixture.models, strict=True):
        yield expert.name, probabilities_of(model, seen(features, expert, mixture.channels), classes=mixture.classes)


def compare(data: Labelled, kind: str, seed: int, *, forest_seed: int = 0) -> dict[str, float]:
    """Macro-F1, pooled over the folds of one partition: the forest's, and how much more the others have."""
    tested, said = [], []
    for split in data.folds[kind, seed]:
        test, votes = votes_on_fold(data, split, seed=forest_seed)
        tested.append(test)
        said.append(votes)
    truth = data.table.index[np.concatenate(tested)]
    score: dict[str, Any] = {
        name: figures(truth, np.concatenate([votes[name].argmax(axis=1) for votes in said]).astype(np.uint8))[
            "macro_f1"
        ]
        for name in said[0]
    }
    return {name: value - (name != "forest") * score["forest"] for name, value in score.items()}


def run() -> dict[str, float]:
    """One partition of blocks of the smallest set that is there."""
    name = next((name for name in ("holden_le7", "sample_data") if SETS[name][0].exists()), "sample_data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compare(read_set(name, kinds=["blocks"], seeds=[0]), "blocks", 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_experts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sets", default=",".join(FEW), help=f"some of {', '.join(SETS)}")
    parser.add_argument("--kinds", default="blocks,polygons", help="blocks, polygons")
    parser.add_argument("--seeds", default="0,1,2", help="each draws the folds anew")
    parser.add_argument("--forest-seed", type=int, default=0)
    asked = parser.parse_args()
    kinds, seeds = asked.kinds.split(","), [int(seed) for seed in asked.seeds.split(",")]
    warnings.simplefilter("ignore")
    for name in asked.sets.split(","):
        data = read_set(name, kinds=kinds, seeds=seeds)
        for kind in kinds:
            rows = [compare(data, kind, seed, forest_seed=asked.forest_seed) for seed in seeds]
            for method in rows[0]:
                values = [row[method] for row in rows]
                each = " ".join(f"{value:+.3f}" for value in values)
                print(f"{name:16s}{kind:10s}{method:42s}{np.mean(values):+.3f}  ({each})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
