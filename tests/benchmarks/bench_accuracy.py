"""Do 95 % intervals cover what they promise, and how fast are assessment and wall-to-wall comparison of large maps?

Coverage: 2,000 samples of each design from a map and truth known on every pixel; classes are spatially correlated, and
so are the errors, so that clusters matter. One systematic grid has no unbiased variance: its intervals, those of
a post-stratified simple random sample, cover more than they promise, which is the safe side; ten grids have one.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

from pipeline.accuracy.assess_assisted import assist
from pipeline.accuracy.assess_estimators import estimate_accuracy
from pipeline.accuracy.assess_frame import Clusters, Frame
from pipeline.accuracy.assess_map import assess_map
from pipeline.accuracy.assess_rasters import compare_with_raster, cross_maps
from pipeline.accuracy.settings import ReferenceSettings
from pipeline.legend import ClassScheme, LandClass

NAMES = ("a", "b", "c")
SIDE, SAMPLES, BLOCK = 600, 2000, 6
MAP_SIDE = 10_980
SCHEME = ClassScheme(tuple(LandClass(i + 1, name, "#0072b2") for i, name in enumerate(NAMES)))


def population(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(map, truth) class indices [row, col] with patches and patchy errors."""
    rng = np.random.default_rng(seed)
    scores = np.stack([gaussian_filter(rng.standard_normal((SIDE, SIDE)), 4) for _ in NAMES])
    truth = (scores / scores.std() + np.array([0.5, 0.0, -0.3])[:, None, None]).argmax(axis=0)
    error = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 1.5)
    wrong = error > np.quantile(error, 0.8)
    return np.where(wrong, rng.integers(0, 3, (SIDE, SIDE)), truth), truth


def _true_values(mapped: np.ndarray, truth: np.ndarray) -> list[float]:
    hit = [(mapped == k) & (truth == k) for k in range(3)]
    users = [hit[k].sum() / (mapped == k).sum() for k in range(3)]
    producers = [hit[k].sum() / (truth == k).sum() for k in range(3)]
    f1 = [2 * hit[k].sum() / ((mapped == k).sum() + (truth == k).sum()) for k in range(3)]
    return [(mapped == truth).mean(), *users, *producers, *f1, *[(truth == k).mean() for k in range(3)]]


def _designs(mapped: np.ndarray, rng: np.random.Generator, *, squares: int = 300) -> dict[str, object]:
    """For each design a function that draws one sample: (flat pixels, frame)."""
    flat = mapped.ravel()
    inside = [np.flatnonzero(flat == k) for k in range(3)]
    halves = [
        np.arange(flat.size).reshape(SIDE, SIDE)[:, :200].ravel(),
        np.arange(flat.size).reshape(SIDE, SIDE)[:, 200:].ravel(),
    ]
    sizes = np.array([len(part) for part in inside], dtype=float)
    across = SIDE // BLOCK
    blocks = np.arange(flat.size).reshape(across, BLOCK, across, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)

    def stratified(groups, counts, *, own):
        chosen = [rng.choice(group, n, replace=False) for group, n in zip(groups, counts, strict=True)]
        stratum = np.repeat(np.arange(len(groups)), counts)
        size = np.array([len(group) for group in groups], dtype=float)
        names = NAMES if own else ("west", "east")
        return np.concatenate(chosen), Frame("stratified", stratum, size, names, strata_are_map_classes=own)

    def simple(*, post):
        pixels = rng.choice(flat.size, 1000, replace=False)
        if post:
            return pixels, Frame(
                "simple random", flat[pixels], sizes, NAMES, strata_are_map_classes=True, post_stratified=True
            )
        return pixels, Frame("simple random", np.zeros(1000, dtype=int), np.array([float(flat.size)]), ("all",))

    def systematic(starts):
        step = int(np.sqrt(flat.size * starts / 1000))
        grid = np.arange(flat.size).reshape(SIDE, SIDE)
        parts = [
            grid[first // step :: step, first % step :: step].ravel()
            for first in rng.choice(step * step, starts, replace=False)
        ]
        lengths = [len(part) for part in parts]
        units = Clusters(np.repeat(np.arange(starts), lengths), np.array(lengths, dtype=float), step * step)
        pixels = np.concatenate(parts)
        if starts == 1:  # what the tool does with a single grid
            return pixels, Frame(
                "systematic", flat[pixels], sizes, NAMES, strata_are_map_classes=True, post_stratified=True
            )
        zeros, size = np.zeros(sum(lengths), dtype=int), np.array([float(flat.size)])
        return pixels, Frame("systematic", zeros, size, ("all",), clusters=units)

    def clusters(drawn, taken):
        chosen = rng.choice(len(blocks), drawn, replace=False)
        pixels = blocks[chosen]
        if taken < BLOCK * BLOCK:
            pixels = np.take_along_axis(pixels, rng.random(pixels.shape).argsort(axis=1)[:, :taken], axis=1)
        units = Clusters(np.repeat(np.arange(drawn), taken), np.full(drawn, float(BLOCK * BLOCK)), len(blocks))
        kind = "one-stage cluster" if taken == BLOCK * BLOCK else "two-stage cluster"
        zeros = np.zeros(drawn * taken, dtype=int)
        return pixels.ravel(), Frame(kind, zeros, np.array([float(flat.size)]), ("all",), clusters=units)

    by_class = np.stack([(flat[blocks] == k).sum(axis=1) for k in range(3)]).argmax(axis=0)
    alike = [np.flatnonzero(by_class == k) for k in range(3)]

    def clusters_in_strata(drawn, taken):
        chosen = np.concatenate([rng.choice(group, drawn, replace=False) for group in alike])
        pixels = blocks[chosen]
        if taken < BLOCK * BLOCK:
            pixels = np.take_along_axis(pixels, rng.random(pixels.shape).argsort(axis=1)[:, :taken], axis=1)
        stratum = np.repeat(np.arange(3), drawn)
        units = Clusters(
            np.repeat(np.arange(3 * drawn), taken), np.full(3 * drawn, float(BLOCK * BLOCK)),
            tuple(len(group) for group in alike), stratum,
        )  # fmt: skip
        kind = "one-stage cluster" if taken == BLOCK * BLOCK else "two-stage cluster"
        size = np.array([len(group) * BLOCK * BLOCK for group in alike], dtype=float)
        return pixels.ravel(), Frame(kind, np.repeat(stratum, taken), size, NAMES, clusters=units)

    return {
        "stratified by map class": lambda: stratified(inside, [340, 330, 330], own=True),
        "stratified, other strata": lambda: stratified(halves, [500, 500], own=False),
        "simple random": lambda: simple(post=False),
        "simple random, post-stratified": lambda: simple(post=True),
        "systematic, ten starts": lambda: systematic(10),
        "systematic, one start": lambda: systematic(1),
        "one-stage cluster": lambda: clusters(squares, BLOCK * BLOCK),
        "two-stage cluster": lambda: clusters(squares, 6),
        "one-stage cluster in strata": lambda: clusters_in_strata(squares // 3, BLOCK * BLOCK),
        "two-stage cluster in strata": lambda: clusters_in_strata(squares // 3, 6),
    }


def coverage() -> dict[str, float]:
    """Share of 95 % intervals that hold the true value, per design: mean and extremes over the 13 figures."""
    mapped, truth = population()
    target = np.array(_true_values(mapped, truth))
    results: dict[str, float] = {}
    for name, draw in _designs(mapped, np.random.default_rng(1)).items():
        held = np.zeros(len(target))
        for _ in range(SAMPLES):
            pixels, frame = draw()
            found = estimate_accuracy(mapped.ravel()[pixels], truth.ravel()[pixels], names=NAMES, frame=frame)
            figures = [found.overall_accuracy]
            for kind in ("users_accuracy", "producers_accuracy", "f1", "area_share"):
                figures += [getattr(found.per_class[k], kind) for k in NAMES]
            held += [f.ci95[0] <= value <= f.ci95[1] for f, value in zip(figures, target, strict=True)]
        share = held / SAMPLES
        results[f"coverage {name} mean"] = float(share.mean())
        results[f"coverage {name} min"] = float(share.min())
        results[f"coverage {name} max"] = float(share.max())
    return results


def assisted(samples: int = SAMPLES, *, designs: tuple[str, ...] = (), squares: int = 300) -> dict[str, float]:
    """The same with a confidence that ranks right above wrong pixels (AUC 0.85), and with one that is worth nothing.

    ``designs`` are those to draw, all by default; cluster samples have ``squares``. A figure without an interval (a
    class that the sample does not hold) counts as held.
    """
    mapped, truth = population()
    rng = np.random.default_rng(2)
    target = np.array(_true_values(mapped, truth))
    right = (mapped == truth).ravel()
    results: dict[str, float] = {}
    for what, signal in (("confidence", 1.5), ("noise", 0.0)):
        sure = 1 / (1 + np.exp(-(rng.standard_normal(right.size) + signal * right)))
        for k in range(3):
            sure[mapped.ravel() == k] -= sure[mapped.ravel() == k].mean()
        for name, draw in _designs(mapped, np.random.default_rng(1), squares=squares).items():
            if designs and name not in designs:
                continue
            held, wide, widest = np.zeros(len(target)), [], 0.0
            for _ in range(samples):
                pixels, frame = draw()
                one, two = mapped.ravel()[pixels], truth.ravel()[pixels]
                plain = estimate_accuracy(one, two, names=NAMES, frame=frame)
                found, gain = assist(plain, one, two, frame=frame, auxiliary=sure[pixels])
                figures = [found.overall_accuracy]
                for kind in ("users_accuracy", "producers_accuracy", "f1", "area_share"):
                    figures += [getattr(found.per_class[k], kind) for k in NAMES]
                held += [
                    f.ci95 is None or f.ci95[0] <= value <= f.ci95[1] for f, value in zip(figures, target, strict=True)
                ]
                wide.append(np.mean([*gain.values(), *[1.0] * (len(target) - len(gain))]))
                widest = max(widest, *gain.values(), 0.0)
            share = held / samples
            results[f"assisted by {what}, {name}: coverage min"] = float(share.min())
            results[f"assisted by {what}, {name}: coverage max"] = float(share.max())
            results[f"assisted by {what}, {name}: width over plain, mean"] = float(np.mean(wide))
            results[f"assisted by {what}, {name}: width over plain, largest"] = float(widest)
    return results


def _large_map(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    cells = rng.integers(1, 4, (-(-MAP_SIDE // 20), -(-MAP_SIDE // 20)), dtype=np.uint8)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 0, "height": MAP_SIDE, "width": MAP_SIDE,
        "crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5.8e6), "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.kron(cells, np.ones((20, 20), dtype=np.uint8))[:MAP_SIDE, :MAP_SIDE], 1)
    return path


def speed() -> dict[str, float]:
    """Seconds for 10,000 points against a 10980 x 10980 map and for two such maps compared pixel by pixel."""
    with tempfile.TemporaryDirectory() as folder:
        # Maps are made by a process of their own, so that the memory measured here is that of the assessment.
        import subprocess
        import sys

        for number in (1, 2):
            code = "import sys; from pathlib import Path; from tests.benchmarks.bench_accuracy import _large_map as m;"
            subprocess.run(
                [sys.executable, "-c", f"{code} m(Path(sys.argv[1]), {number})", f"{folder}/{number}.tif"], check=True
            )
        first, second = Path(folder, "1.tif"), Path(folder, "2.tif")
        rng = np.random.default_rng(0)
        rows, cols = rng.integers(0, MAP_SIDE, 10_000), rng.integers(0, MAP_SIDE, 10_000)
        table = np.column_stack([5e5 + cols * 10 + 5, 5.8e6 - rows * 10 - 5, rng.integers(1, 4, 10_000)])
        np.savetxt(f"{folder}/p.csv", table, delimiter=",", header="x,y,cover", comments="", fmt="%d")
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        assess_map(first, ReferenceSettings(reference=f"{folder}/p.csv", field="cover", strata="map"), scheme=SCHEME)
        points_s = time.perf_counter() - start
        start = time.perf_counter()
        cross_maps(first, second)
        maps_s = time.perf_counter() - start
        start = time.perf_counter()
        compare_with_raster([first, second], first, scheme=SCHEME)
        three_s = time.perf_counter() - start
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "assess 10000 points s": points_s,
        "compare two maps s": maps_s,
        "compare two maps on a raster s": three_s,
        "peak MB": peak_mb,
        "peak MB before": before_mb,
    }


def run() -> dict[str, float]:
    """Speed first, in a process that has done nothing else, then coverage."""
    return speed() | coverage() | assisted()


if __name__ == "__main__":
    for key, value in run().items():
        print(f"{key:48} {value:10.3f}")
