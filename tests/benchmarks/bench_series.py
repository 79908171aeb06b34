"""Consistent annual maps against year-by-year maps: false changes at equal true ones, on series whose truth is known.

Truth: patches of four classes over eight years, 1.5 % of the area changes a year, mostly for good. Maps: calibrated
confidence, errors in patches that are drawn anew each year (or, in part, are the same every year). Year by year, a
change is called where two maps differ, or where both are at least so sure; the series model has its cost of a change.
``python -m tests.benchmarks.bench_series FIGURE.png`` draws the curves.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.accuracy.assess_estimators import ratios
from pipeline.accuracy.assess_frame import Frame
from pipeline.accuracy.series import most_likely
from pipeline.accuracy.settings import CHANGE_COST
from pipeline.accuracy.totals import slope_weights

SIDE, YEARS, CLASSES = 200, 8, 4
COSTS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
THRESHOLDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def simulate(seed: int, *, accuracy: float, shared: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [year, pixel], probabilities of the maps [year, class, pixel], and the maps [year, pixel].

    ``shared`` is the share of the variance of the errors that is the same in every year.
    """
    rng = np.random.default_rng(seed)

    def smooth(sigma: float) -> np.ndarray:
        field = gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma)
        return field / field.std()

    truth = np.empty((YEARS, SIDE, SIDE), dtype=np.intp)
    truth[0] = np.stack([smooth(6) for _ in range(CLASSES)]).argmax(axis=0)
    for year in range(1, YEARS):
        changes = smooth(4) > np.sqrt(2) * 1.535  # 1.5 % of the area
        truth[year] = np.where(changes, (truth[year - 1] + rng.integers(1, CLASSES)) % CLASSES, truth[year - 1])
    always = [smooth(1.5) for _ in range(CLASSES)]
    # Scores whose softmax is calibrated: the log-likelihood ratio of normal noise around the true class.
    strength = {0.7: 1.52, 0.8: 1.9, 0.9: 2.46}[accuracy]
    noise = np.stack(
        [
            [np.sqrt(shared) * always[k] + np.sqrt(1 - shared) * smooth(1.5) for k in range(CLASSES)]
            for _ in range(YEARS)
        ]
    )
    scores = strength * (noise + strength * (truth[:, None] == np.arange(CLASSES)[:, None, None]))
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).reshape(YEARS, CLASSES, -1)
    return truth.reshape(YEARS, -1), p.astype(np.float32), p.argmax(axis=1)


def called(before: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of the true changes that are called with the right classes, and false changes per pixel and year."""
    true = truth[1:] != truth[:-1]
    change = before[1:] != before[:-1]
    right = true & (before[1:] == truth[1:]) & (before[:-1] == truth[:-1])
    return float((right & change).sum() / true.sum()), float((change & ~true).mean())


def _sure_changes(maps: np.ndarray, p: np.ndarray, threshold: float) -> np.ndarray:
    """Maps in which a class is kept until both years are at least so sure of a change."""
    sure = p.max(axis=1) >= threshold
    kept = maps.copy()
    for year in range(1, len(maps)):
        kept[year] = np.where(sure[year] & sure[year - 1], maps[year], kept[year - 1])
    return kept


def curves(*, accuracy: float, shared: float, seeds: int = 5) -> dict[str, list[tuple[float, float, float]]]:
    """(setting, true changes found, false changes per pixel and year) of both ways, means over simulations."""
    found: dict[str, list[tuple[float, float, float]]] = {"year by year": [], "series": []}
    runs = [simulate(seed, accuracy=accuracy, shared=shared) for seed in range(seeds)]
    for threshold in THRESHOLDS:
        pairs = [called(_sure_changes(maps, p, threshold), truth) for truth, p, maps in runs]
        found["year by year"].append((threshold, *np.mean(pairs, axis=0).tolist()))
    for cost in COSTS:
        step = np.full((CLASSES, CLASSES), np.exp(-cost))
        np.fill_diagonal(step, 1.0)
        steps = [step / step.sum(axis=1, keepdims=True)] * (YEARS - 1)
        pairs = [called(most_likely(-np.log(np.clip(p, 0.003, 0.99)), steps)[0], truth) for truth, p, _ in runs]
        found["series"].append((cost, *np.mean(pairs, axis=0).tolist()))
    return found


def panel_coverage(*, samples: int = 2000, units: int = 500) -> dict[str, float]:
    """Share of 95 % intervals that hold the true trend and the true share of the last year: lowest and highest class.

    Panels are drawn at random within the classes of the first map; the trend is that of eight years.
    """
    truth, _, maps = simulate(0, accuracy=0.9, shared=0.0)
    rng, slopes = np.random.default_rng(1), slope_weights(range(YEARS))
    inside = [np.flatnonzero(maps[0] == k) for k in range(CLASSES)]
    sizes, drawn = np.array([len(part) for part in inside], dtype=float), units // CLASSES
    is_class = truth[:, None] == np.arange(CLASSES)[:, None]
    target = {"trend": np.einsum("t,tkp->k", slopes, is_class) / truth.shape[1], "area": is_class[-1].mean(axis=1)}
    held = {name: np.zeros(CLASSES) for name in target}
    for _ in range(samples):
        pixels = np.concatenate([rng.choice(part, drawn, replace=False) for part in inside])
        frame = Frame(
            "stratified", np.repeat(np.arange(CLASSES), drawn), sizes, tuple("abcd"), strata_are_map_classes=True
        )
        here = is_class[:, :, pixels].astype(float)
        bottom = np.ones((len(pixels), CLASSES))
        for name, top in (("trend", np.einsum("t,tkp->pk", slopes, here)), ("area", here[-1].T)):
            bounds = (-1.0, 1.0) if name == "trend" else (0.0, 1.0)
            found = ratios(np.ascontiguousarray(top), bottom, frame=frame, bounds=bounds)
            held[name] += [
                item.ci95 is not None and item.ci95[0] <= value <= item.ci95[1]
                for item, value in zip(found, target[name], strict=True)
            ]
    return {
        f"panel_{name}_coverage_{end}": float(pick(value) / samples)
        for name, value in held.items()
        for end, pick in (("lowest", np.min), ("highest", np.max))
    }


def run() -> dict[str, float]:
    """False changes of the maps over those of the series, at the default cost, and the true changes that each finds."""
    results = panel_coverage(samples=500)
    for accuracy in (0.8, 0.9):
        found = curves(accuracy=accuracy, shared=0.0, seeds=2)
        plain = found["year by year"][0]
        own = next(row for row in found["series"] if row[0] == CHANGE_COST)
        results |= {
            f"series_false_changes_ratio_{accuracy:g}": plain[2] / max(own[2], 1e-9),
            f"series_true_changes_{accuracy:g}": own[1],
            f"maps_true_changes_{accuracy:g}": plain[1],
        }
    return results


def _draw(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    cases = ((0.8, 0.0), (0.9, 0.0), (0.9, 0.5))
    for axis, (accuracy, shared) in zip(figure.subplots(1, 3, sharey=True), cases, strict=True):
        found = curves(accuracy=accuracy, shared=shared)
        for (name, rows), color in zip(found.items(), ("#d55e00", "#0072b2"), strict=True):
            print(accuracy, shared, name, [tuple(round(value, 4) for value in row) for row in rows])
            false, true = [100 * row[2] for row in rows], [100 * row[1] for row in rows]
            axis.plot(false, true, "o-", color=color, label=name, ms=4)
            for row, x, y in zip(rows, false, true, strict=True):
                if row[0] in {0.0, 0.7, CHANGE_COST, 8.0}:
                    text = "as they are" if row[0] == 0.0 else f"{row[0]:g}"
                    axis.annotate(
                        text,
                        (x, y),
                        xytext=(-6, 4) if name == "series" else (-8, -4),
                        textcoords="offset points",
                        fontsize=7,
                        ha="right",
                    )
        more = ", half the errors alike" if shared else ""
        axis.set_title(f"maps {accuracy:.0%} right{more}", fontsize=9)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("false changes (% of the area a year)", fontsize=8)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    figure.axes[0].set_ylabel("true changes found (%)", fontsize=8)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    print(panel_coverage())
    _draw(Path(sys.argv[1]))
